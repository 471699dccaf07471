// Python programs on the heap, with the package of the sources and the library that was built beside this test: in a debug
// build the heap asserts its own state.

import Foundation
import Testing

@testable import HugeSpanLab

/// The interpreter itself, not a wrapper around it; nil if there is none of 3.8 or later.
let pythonInterpreter: String? = {
  let question =
    "import sys; assert sys.version_info >= (3, 8) and sys.implementation.name == 'cpython'; print(sys.executable)"
  guard let workshop = try? Workshop(),
    let outcome = try? workshop.outcome(of: ["/usr/bin/env", "python3", "-c", question]), outcome.status == 0
  else { return nil }
  return outcome.output.trimmingCharacters(in: .whitespacesAndNewlines)
}()

/// The library; nil where it cannot be loaded into an interpreter, as one with a sanitizer in it.
private let heapLibrary: String? = {
  guard let python = pythonInterpreter, let library = try? PreloadedLibrary.heap.locate(say: { _ in }) else {
    return nil
  }
  let load = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
  return (try? Child([python, "-c", load, library]).wait()) == 0 ? library : nil
}()

/// Whether Python programs can be run on the heap here.
let canRunPython = heapLibrary != nil

/// Why tests are skipped where they cannot.
let cannotRunPython: Comment = "needs python3 (CPython 3.8 or later), and a library built without a sanitizer"

extension Workshop {
  /// Runs a command; what it printed and how it ended.
  func outcome(of command: [String], environment: [String] = [], input: String? = nil) throws -> HeapOutcome {
    let name = "\(path)/command\(Int.random(in: 0..<1_000_000))"
    let source = try input.map { text in
      try text.write(toFile: name + ".in", atomically: true, encoding: .utf8)
      return name + ".in"
    }
    let shell = [
      "/bin/sh", "-c", "cd \(path) && exec env \"$@\" >\(name).out 2>\(name).err <\(source ?? "/dev/null")", "sh",
    ]
    let status = try Child(shell + environment + command).wait()
    func text(_ end: String) -> String { (try? String(contentsOfFile: name + end, encoding: .utf8)) ?? "" }
    return HeapOutcome(status: status, output: text(".out"), errors: text(".err"), report: nil)
  }

  /// Writes a Python program; its file's name.
  func script(_ source: String, name: String = "script\(Int.random(in: 0..<1_000_000)).py") throws -> String {
    try source.write(toFile: "\(path)/\(name)", atomically: true, encoding: .utf8)
    return "\(path)/\(name)"
  }

  /// Runs the interpreter with `arguments` on the heap, with settings as in HUGESPAN_CONF.
  func runPython(
    _ arguments: [String], options: [String] = [], configuration: String = "", environment: [String] = [],
    input: String? = nil
  ) throws -> HeapOutcome {
    let report = "\(path)/report\(Int.random(in: 0..<1_000_000)).json"
    let settings = [configuration, "statistics:\(report)"].filter { !$0.isEmpty }.joined(separator: ",")
    let directory = try PreloadedLibrary.pythonPackage()
    var outcome = try outcome(
      of: [try #require(pythonInterpreter), directory] + options + arguments,
      environment: ["HUGESPAN_LIBRARY=\(try #require(heapLibrary))", "HUGESPAN_CONF=\(settings)"] + environment,
      input: input)
    outcome.report = HeapReport(json: (try? String(contentsOfFile: report, encoding: .utf8)) ?? "")
    return outcome
  }
}
