// The only file of the format that talks to the system: a trace's bytes in, a trace's bytes out.
//
// A trace is read whole rather than mapped: a file that another process shortens would end a mapped reader by SIGBUS,
// and traces are small.

import Glibc

/// The text of a system error number.
func systemErrorText(_ code: Int32) -> String { String(cString: strerror(code)) }

/// The bytes of a trace, kept while a reader needs them.
public final class TraceFile: Sendable {
  /// All bytes of the file; they live as long as this object.
  nonisolated(unsafe) public let bytes: UnsafeRawBufferPointer

  /// Copies `bytes`.
  public init(_ bytes: [UInt8]) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 16)
    copy.copyBytes(from: bytes)
    self.bytes = UnsafeRawBufferPointer(rebasing: copy[0..<bytes.count])
  }

  /// Reads the whole file at `path`.
  public init(path: String) throws(TraceError) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TraceError(.system(operation: "open", code: errno), at: nil) }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw TraceError(.system(operation: "stat", code: errno), at: nil) }
    // A pipe has no size: begin with a guess and double.
    var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(Int(status.st_size) + 1, 4096), alignment: 16)
    var count = 0
    while true {
      if count == buffer.count {
        let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: buffer.count * 2, alignment: 16)
        larger.copyMemory(from: UnsafeRawBufferPointer(buffer))
        buffer.deallocate()
        buffer = larger
      }
      let result = read(descriptor, buffer.baseAddress! + count, buffer.count - count)
      if result == 0 { break }
      if result < 0 {
        if errno == EINTR { continue }
        let code = errno
        buffer.deallocate()
        throw TraceError(.system(operation: "read", code: code), at: .byte(count))
      }
      count += result
    }
    self.bytes = UnsafeRawBufferPointer(rebasing: buffer[0..<count])
  }

  /// A copy of all bytes, for whoever does not keep the file.
  public var copy: [UInt8] { withExtendedLifetime(self) { Array(bytes) } }

  deinit { UnsafeRawBufferPointer(start: bytes.baseAddress, count: bytes.count).deallocate() }
}

/// Where a writer's bytes go.
public enum TraceOutput {
  /// An open file descriptor, which the caller closes.
  case descriptor(Int32)
  /// A function of the caller's.
  case function((UnsafeRawBufferPointer) -> Void)

  func write(_ bytes: [UInt8]) throws(TraceError) {
    switch self {
    case .function(let body): bytes.withUnsafeBytes { body($0) }
    case .descriptor(let descriptor):
      var code: Int32 = 0
      bytes.withUnsafeBytes { buffer in
        var written = 0
        while written < buffer.count {
          let result = Glibc.write(descriptor, buffer.baseAddress! + written, buffer.count - written)
          if result < 0 {
            if errno == EINTR { continue }
            code = errno
            return
          }
          written += result
        }
      }
      if code != 0 { throw TraceError(.system(operation: "write", code: code), at: nil) }
    }
  }
}
