// Where a command writes text or JSON: a file, or standard output under the name `-`.

import Glibc
import OptionTable

/// An open file to write text to.
final class TextOutput {
  private let target: String
  private let file: Int32
  private var isWritten = false

  /// Opens `target`; `-` is standard output. What is in a file stays until something else is written.
  init(_ target: String) throws {
    self.target = target
    file = target == "-" ? STDOUT_FILENO : open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
    if file < 0 {
      throw CommandFailure("\(target): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
  }

  deinit { if file != STDOUT_FILENO && file >= 0 { close(file) } }

  /// Writes all of `text`; false if standard output has no reader any more.
  @discardableResult
  func write(_ text: String) throws -> Bool {
    if file == STDOUT_FILENO { return printOutput(text) }
    // A pipe or a device has no length, and needs none taken away.
    if !isWritten { _ = ftruncate(file, 0) }
    isWritten = true
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress!, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count < 0 {
        throw CommandFailure("\(target): cannot be written: \(String(cString: strerror(errno)))", status: .usage)
      }
      bytes = bytes.dropFirst(count)
    }
    return true
  }
}

/// Writes `text` to the file `target`, or to standard output for `-`.
func writeText(_ text: String, to target: String) throws { try TextOutput(target).write(text) }
