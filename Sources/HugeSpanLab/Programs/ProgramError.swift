// Why a program cannot be recorded or run on the heap, or a raw recording not be converted.

/// A refusal in one line, with the exit status that belongs to it.
package struct ProgramError: Error, Equatable, CustomStringConvertible {
  /// What kind of refusal; the raw value is the exit status.
  package enum Kind: Int32, Sendable {
    case usage = 64
    case malformed = 65
    case missing = 66
    case unavailable = 69
  }

  package var kind: Kind
  package var description: String

  package init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}
