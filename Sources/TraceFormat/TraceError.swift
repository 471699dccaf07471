// Why a trace cannot be read or written, and where.
//
// A reader is pointed at files that other tools, disks and transfers have damaged, so every refusal names the problem
// and the place: the byte offset in a binary trace, the line in a text one.

/// What is wrong with a trace, and at which place of it.
public struct TraceError: Error, Equatable, Sendable {
  /// What is wrong.
  public enum Problem: Equatable, Sendable {
    /// The file cannot be opened, read or written; `code` is the system's error number.
    case system(operation: String, code: Int32)
    /// The file does not begin as a trace does.
    case foreign
    /// The file is of a version that this reader does not know.
    case unsupportedVersion(Int)
    /// The checksum of the header, a chunk or the end record is not that of its bytes.
    case checksum(part: String, stored: UInt32, computed: UInt32)
    /// The file ends within the header, a chunk, or before the end record.
    case truncated(part: String, missing: Int)
    /// A field of the header, of a chunk's header or of the end record contradicts the rest.
    case badField(String)
    /// An event that no program can have caused.
    case impossibleEvent(String)
    /// A line of the text form that is not understood.
    case badLine(String)
  }

  /// A place in a trace.
  public enum Location: Equatable, Sendable {
    /// A byte offset from the start of a binary trace.
    case byte(Int)
    /// A line, counted from 1, of the text form.
    case line(Int)
    /// A field of a line of a table, or a byte of a line of a log; both are counted from 1.
    case cell(line: Int, column: Int)
    /// An event, counted from 0, that was given to a writer.
    case event(Int)
  }

  /// What is wrong.
  public var problem: Problem
  /// Where; nil when no place is to blame.
  public var location: Location?

  /// Creates an error from what is wrong and where.
  public init(_ problem: Problem, at location: Location?) {
    self.problem = problem
    self.location = location
  }
}

extension TraceError: CustomStringConvertible {
  /// One line that says what is wrong and where, without the file's name.
  public var description: String {
    let what =
      switch problem {
      case .system(let operation, let code): "\(operation) failed: \(systemErrorText(code))"
      case .foreign: "not a HugeSpan trace (it does not begin with the bytes of one)"
      case .unsupportedVersion(let version):
        "version \(version) of the trace format is not supported, only 1 and 2 are"
      case .checksum(let part, let stored, let computed):
        "the checksum of the \(part) is \(hexadecimal(stored)), its bytes give \(hexadecimal(computed))"
      case .truncated(let part, let missing): "cut off in the \(part), \(missing) bytes are missing"
      case .badField(let text): text
      case .impossibleEvent(let text): "impossible event: \(text)"
      case .badLine(let text): text
      }
    return switch location {
    case .byte(let offset): "\(what), at byte \(offset)"
    case .line(let number): "\(what), in line \(number)"
    case .cell(let line, let column): "\(what), in line \(line), column \(column)"
    case .event(let index): "\(what), at event \(index)"
    case nil: what
    }
  }

  private func hexadecimal(_ value: UInt32) -> String {
    let digits = String(value, radix: 16)
    return "0x" + String(repeating: "0", count: 8 - digits.count) + digits
  }
}
