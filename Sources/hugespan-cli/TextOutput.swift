// Where a command writes text or JSON: a file, or standard output under the name `-`.
//
// Opened before the work begins: a file that cannot be made is no end for minutes of measuring. What the file held before
// goes with the first write, not when the work fails.

import Glibc
import OptionTable

/// An open file to write text to.
final class TextOutput {
  private let target: String
  private let file: Int32
  private var isEmptied = false

  /// Opens `target`, which is made unless it exists; `-` is standard output.
  init(_ target: String) throws {
    self.target = target
    file = target == "-" ? STDOUT_FILENO : open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
    if file < 0 {
      throw CommandFailure("\(target): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
    var about = stat()
    guard target != "-", fstat(file, &about) == 0, about.st_mode & S_IFMT == S_IFREG else { return }
    if !TextOutput.taken.insert(FileIdentity(about)).inserted {
      close(file)
      throw CommandFailure("\(target): is read or written by this command under another name", status: .usage)
    }
  }

  /// A file, whatever it is called.
  private struct FileIdentity: Hashable {
    let device: dev_t
    let number: ino_t

    init(_ about: stat) {
      device = about.st_dev
      number = about.st_ino
    }
  }

  /// What this command reads or writes. One command runs in a process, on one thread until its outputs are open.
  nonisolated(unsafe) private static var taken: Set<FileIdentity> = []

  /// The file at `path` is read, and no output may take its place.
  static func protect(_ path: String) {
    var about = stat()
    if stat(path, &about) == 0 { taken.insert(FileIdentity(about)) }
  }

  deinit { if file != STDOUT_FILENO && file >= 0 { close(file) } }

  /// Writes all of `text`; false if standard output has no reader any more.
  @discardableResult
  func write(_ text: String) throws -> Bool {
    if file == STDOUT_FILENO { return printOutput(text) }
    // Devices and pipes have no length.
    if !isEmptied { _ = ftruncate(file, 0) }
    isEmptied = true
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress!, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count < 0 {
        throw CommandFailure("\(target): cannot be written: \(String(cString: strerror(errno)))", status: .unavailable)
      }
      bytes = bytes.dropFirst(count)
    }
    return true
  }
}

extension Invocation {
  /// The file that option `name` names, open; nil if it was not given.
  func output(_ name: String) throws -> TextOutput? { try text(name).map(TextOutput.init) }
}
