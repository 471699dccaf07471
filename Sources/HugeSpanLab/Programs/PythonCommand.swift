// A Python program's command line with the front end put in: `python3 -u script.py x` becomes `python3 -u DIRECTORY
// script.py x`, where the directory is our package, which runs the rest as the interpreter would.
//
// Not by PYTHONPATH and `-m hugespan`: that variable is ignored under -I and -E, and would be handed on to every program that
// this one starts. The interpreter is asked what it is before anything is run; whether it takes arenas is for the package to
// find out, which is inside.

import Foundation

/// A command that runs a Python program on the heap.
package struct PythonCommand: Equatable, Sendable {
  /// What is executed.
  package var program: PreloadableProgram
  /// What it is called with, its own name first.
  package var arguments: [String]

  /// Puts the package in `directory` into a command: that of an interpreter, or of a script that names one in its first line.
  ///
  /// - Throws: `.missing` and `.usage` for what is no Python program, `.unavailable` for an interpreter that is too old.
  package init(_ command: [String], directory: String, searchPath: String?) throws(ProgramError) {
    var words = command
    var found = try PreloadableProgram(found: command[0], searchPath: searchPath)
    if !Self.isInterpreterName(command[0]), let line = Self.interpreterLine(of: found.path) {
      words = line + [found.path] + command.dropFirst()
      found = try PreloadableProgram(found: words[0], searchPath: searchPath)
    }
    guard Self.isInterpreterName(words[0]) else {
      throw ProgramError(
        .usage,
        "\(command[0]): neither a Python interpreter nor a script that names one in its first line; '--frontend python' "
          + "runs PYTHON [OPTIONS] SCRIPT, other programs run with '--frontend jemalloc'")
    }
    try Self.checkVersion(of: found.path)
    let place = try Self.placeOfProgram(in: words)
    program = found
    arguments = words[..<place] + [directory] + words[place...]
  }

  /// `python3`, `/usr/bin/python3.12`, `pypy3`: what is asked for its version, and nothing else is.
  static func isInterpreterName(_ name: String) -> Bool {
    let base = name.split(separator: "/").last.map(String.init) ?? ""
    let stem = base.hasPrefix("python") ? base.dropFirst(6) : base.hasPrefix("pypy") ? base.dropFirst(4) : nil
    // A version, and the letters of a build.
    return stem.map { $0.allSatisfy { $0.isNumber || $0 == "." || "dmt".contains($0) } } ?? false
  }

  /// The command in a script's first line, without `env` around it; nil if there is none, or it is no interpreter of ours.
  static func interpreterLine(of path: String) -> [String]? {
    guard let file = FileHandle(forReadingAtPath: path), let head = try? file.read(upToCount: 4096),
      head.starts(with: [0x23, 0x21])
    else { return nil }
    let line = String(decoding: head.dropFirst(2).prefix { $0 != 0x0A }, as: UTF8.self)
    var words = line.split { $0 == " " || $0 == "\t" || $0 == "\r" }.map(String.init)
    if words.first?.hasSuffix("/env") == true {
      words.removeFirst()
      if words.first == "-S" { words.removeFirst() }
    }
    return words.first.map(isInterpreterName) == true ? words : nil
  }

  /// Where the script, `-m`, `-c` or `-` stands among an interpreter's arguments.
  static func placeOfProgram(in words: [String]) throws(ProgramError) -> Int {
    var index = 1
    while index < words.count {
      let word = words[index]
      if word == "-" || !word.hasPrefix("-") { return index }
      if word == "--" {
        // The package takes the same sign.
        return index
      }
      if word.hasPrefix("--") {
        guard word == "--check-hash-based-pycs" else {
          throw ProgramError(.usage, "\(words[0]) \(word): runs no program")
        }
        index += 2
        continue
      }
      var takesNext = false
      for (offset, letter) in word.dropFirst().enumerated() {
        let isLast = offset == word.count - 2
        switch letter {
        case "c", "m":
          if offset > 0 {
            throw ProgramError(.usage, "\(word): with '--frontend python' -\(letter) must be an argument of its own")
          }
          return index
        case "W", "X": takesNext = isLast
        case "h", "V", "?": throw ProgramError(.usage, "\(words[0]) \(word): runs no program")
        case "x": throw ProgramError(.usage, "-x: '--frontend python' cannot skip a script's first line")
        default: continue
        }
        break
      }
      index += takesNext ? 2 : 1
    }
    throw ProgramError(
      .usage, "\(words[0]): names no program to run: a script, -m MODULE, -c CODE, or - for standard input")
  }

  private static func checkVersion(of path: String) throws(ProgramError) {
    let question = Process()
    question.executableURL = URL(fileURLWithPath: path)
    question.arguments = ["-c", "import sys; print('%d %d' % sys.version_info[:2])"]
    let answer = Pipe()
    question.standardOutput = answer
    question.standardInput = FileHandle.nullDevice
    question.standardError = FileHandle.nullDevice
    var version: [Int] = []
    if (try? question.run()) != nil {
      let text = String(decoding: answer.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      question.waitUntilExit()
      version = text.split { $0 == " " || $0 == "\n" }.compactMap { Int($0) }
    }
    guard version.count == 2 else {
      throw ProgramError(.unavailable, "\(path): does not answer as a Python interpreter when asked for its version")
    }
    guard (version[0], version[1]) >= (3, 8) else {
      throw ProgramError(
        .unavailable, "\(path): is Python \(version[0]).\(version[1]), and '--frontend python' needs 3.8 or later")
    }
  }
}
