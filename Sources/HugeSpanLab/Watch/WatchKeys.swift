// Keys, from the bytes that a terminal sends for them.

/// What a key asks for.
package enum WatchKey: Equatable, Sendable {
  case quit, pause, nextView, longer, shorter, help
  /// Any other.
  case other
}

/// Takes the bytes of keys apart. Sequences of arrows and function keys are one key that asks for nothing, though they have
/// letters in them, also where they come in two reads.
package struct WatchKeyReader: Sendable {
  private enum State { case ground, escape, sequence, single }
  private var state = State.ground

  package init() {}

  package mutating func keys(_ bytes: some Sequence<UInt8>) -> [WatchKey] {
    var keys: [WatchKey] = []
    for byte in bytes {
      switch state {
      case .ground:
        if byte == 0x1B { state = .escape } else { keys.append(Self.key(byte)) }
      case .escape:
        switch byte {
        case UInt8(ascii: "["): state = .sequence
        case UInt8(ascii: "O"): state = .single
        // The escape key by itself, then another.
        default:
          state = .ground
          keys.append(Self.key(byte))
        }
      case .sequence:
        if byte >= 0x40 && byte <= 0x7E {
          state = .ground
          keys.append(.other)
        }
      case .single:
        state = .ground
        keys.append(.other)
      }
    }
    return keys
  }

  private static func key(_ byte: UInt8) -> WatchKey {
    switch byte {
    case UInt8(ascii: "q"), UInt8(ascii: "Q"): .quit
    case UInt8(ascii: " "), UInt8(ascii: "p"), UInt8(ascii: "P"): .pause
    case UInt8(ascii: "v"), UInt8(ascii: "V"), 0x09: .nextView
    case UInt8(ascii: "+"), UInt8(ascii: "="): .longer
    case UInt8(ascii: "-"), UInt8(ascii: "_"): .shorter
    case UInt8(ascii: "?"), UInt8(ascii: "h"): .help
    default: .other
    }
  }
}
