// Does a preloaded library take effect in this program? Asked before it is started, since the dynamic linker stays silent when it ignores a
// preloaded library: a statically linked program would run to its end and leave an empty log.

import CRecordingLog
import Glibc

/// A program into which a library can be preloaded.
package struct PreloadableProgram: Equatable, Sendable {
  /// What is handed to exec.
  package var path: String

  /// Finds `name` as a shell would, and checks that a preloaded library takes effect in it.
  ///
  /// - Parameter verb: what is to be done with the program, for the advice in error messages.
  /// - Throws: `.missing` when there is no such file, `.usage` when it cannot be executed, `.unavailable` when it can
  ///   but would ignore the library.
  package init(named name: String, searchPath: String?, verb: String = "record") throws(ProgramError) {
    path = try Self.find(name, in: searchPath ?? "/usr/local/bin:/usr/bin:/bin")
    try Self.check(path, verb, depth: 0)
  }

  /// Finds `name` as a shell would, for a front end that preloads nothing.
  package init(found name: String, searchPath: String?) throws(ProgramError) {
    path = try Self.find(name, in: searchPath ?? "/usr/local/bin:/usr/bin:/bin")
  }

  private static func find(_ name: String, in searchPath: String) throws(ProgramError) -> String {
    if name.contains("/") {
      if access(name, F_OK) != 0 { throw ProgramError(.missing, "\(name): no such program") }
      if !isExecutableFile(name) {
        throw ProgramError(.usage, "\(name): not a file that may be executed (try chmod +x)")
      }
      return name
    }
    for directory in searchPath.split(separator: ":", omittingEmptySubsequences: false) {
      let candidate = directory.isEmpty ? name : "\(directory)/\(name)"
      if isExecutableFile(candidate) { return candidate }
    }
    throw ProgramError(.missing, "\(name): no such program in PATH")
  }

  private static func isExecutableFile(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
  }

  private static func check(_ path: String, _ verb: String, depth: Int) throws(ProgramError) {
    var status = stat()
    guard stat(path, &status) == 0 else { throw ProgramError(.missing, "\(path): no such program") }
    if status.st_mode & (S_ISUID | S_ISGID) != 0 {
      let bit = status.st_mode & S_ISUID != 0 ? "user" : "group"
      throw ProgramError(
        .unavailable,
        "\(path): is a set-\(bit)-id program, and the dynamic linker preloads nothing into those; \(verb) a copy without the bit"
      )
    }
    if hs_host_has_capabilities(path) {
      throw ProgramError(
        .unavailable, "\(path): carries file capabilities, and the dynamic linker preloads nothing then; \(verb) a copy"
      )
    }
    let head = try readHead(path)
    if head.starts(with: [0x23, 0x21]) {
      // "#!": the interpreter is what runs. The kernel follows five of them.
      guard depth < 5, let interpreter = interpreter(inScript: head) else {
        throw ProgramError(.usage, "\(path): its first line names no interpreter")
      }
      return try check(interpreter, verb, depth: depth + 1)
    }
    try checkObject(path, verb, head)
  }

  /// Enough for an ELF header with its program headers, and for any first line the kernel accepts.
  private static func readHead(_ path: String) throws(ProgramError) -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else {
      throw ProgramError(.usage, "\(path): cannot be read to see how it is linked: \(errorText(errno))")
    }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 65536)
    let count = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
    bytes.removeLast(bytes.count - max(0, count))
    return bytes
  }

  private static func interpreter(inScript head: [UInt8]) -> String? {
    let line = head.dropFirst(2).prefix { $0 != 0x0A }
    let words = line.split { $0 == 0x20 || $0 == 0x09 }
    return words.first.map { String(decoding: $0, as: UTF8.self) }
  }

  private static func checkObject(_ path: String, _ verb: String, _ head: [UInt8]) throws(ProgramError) {
    func number(_ offset: Int, _ count: Int) -> Int? {
      guard offset >= 0, offset + count <= head.count else { return nil }
      return (0..<count).reduce(0) { $0 | Int(head[offset + $1]) << (8 * $1) }
    }
    guard head.starts(with: [0x7F, 0x45, 0x4C, 0x46]) else {
      throw ProgramError(.usage, "\(path): neither an ELF program nor a script with an interpreter")
    }
    #if arch(x86_64)
      let machine = 62
    #elseif arch(arm64)
      let machine = 183
    #else
      #error("preloaded libraries are not known to work on this architecture")
    #endif
    if head.count < 64 || head[4] != 2 || number(18, 2) != machine {
      throw ProgramError(.unavailable, "\(path): is a program for another architecture than this one")
    }
    let table = number(32, 8)!
    let size = number(54, 2)!
    for index in 0..<number(56, 2)! {
      let entry = table + index * size
      // PT_INTERP
      guard number(entry, 4) == 3, let offset = number(entry + 8, 8), let length = number(entry + 32, 8),
        offset >= 0, length > 0, offset + length <= head.count
      else { continue }
      let linker = String(decoding: head[offset..<offset + length].prefix { $0 != 0 }, as: UTF8.self)
      if !linker.contains("/ld-linux") {
        throw ProgramError(
          .unavailable, "\(path): is linked against another C library than glibc (its linker is \(linker))")
      }
      return
    }
    throw ProgramError(
      .unavailable,
      "\(path): is statically linked, so no library can be preloaded into it; \(verb) a dynamically linked build")
  }
}

/// The text of a system error number.
func errorText(_ code: Int32) -> String { String(cString: strerror(code)) }
