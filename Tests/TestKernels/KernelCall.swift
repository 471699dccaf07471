// The calls of a kernel by name, so that tests can count them, fail them, and hold them up.

import HugeSpanCore

/// A kind of call.
package enum KernelCall: Hashable, Sendable, CustomStringConvertible {
  case reserve, commit, unreserve, residency, sharing, zero, move, mapMetadata, unmapMetadata
  case advise(Advice)

  package var description: String {
    switch self {
    case .reserve: "reserve"
    case .commit: "commit"
    case .unreserve: "unreserve"
    case .residency: "residency"
    case .sharing: "sharing"
    case .zero: "zero"
    case .move: "move"
    case .mapMetadata: "mapMetadata"
    case .unmapMetadata: "unmapMetadata"
    case .advise(let advice): "advise(.\(advice))"
    }
  }
}

/// A small generator with a seed, for tests that must be repeatable: xorshift64*.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }

  package mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_f491_4f6c_dd1d
  }
}

extension AddressRange {
  package func contains(_ other: AddressRange) -> Bool { start <= other.start && other.end <= end }
  package func overlaps(_ other: AddressRange) -> Bool { start < other.end && other.start < end }
  package var hexadecimal: String { "0x\(String(start, radix: 16))+\(byteCount)" }
}
