// How the heap ends the program: one line that names the address, written without allocation, then a trap.
//
// Only for what the caller must never do (free a page twice, free what is not the heap's) and for what we must never
// do (a broken invariant). Everything else is an error value.

import CHugeSpanShims

/// Ends the program with `message`, then `address` in hexadecimal.
@inline(never)
func fail(_ message: StaticString, address: UInt) -> Never {
  var line = MessageLine()
  line.append("hugespan: ")
  line.append(message)
  line.append(" 0x")
  line.append(hexadecimal: address)
  line.append("\n")
  line.die()
}

/// A line of text on the stack.
private struct MessageLine {
  var bytes = InlineArray<256, UInt8>(repeating: 0)
  var length = 0

  mutating func append(_ byte: UInt8) {
    if length < 256 {
      bytes[length] = byte
      length += 1
    }
  }

  mutating func append(_ text: StaticString) {
    let start = text.utf8Start
    for index in 0..<text.utf8CodeUnitCount { append(start[index]) }
  }

  mutating func append(hexadecimal value: UInt) {
    var shift = max(0, (UInt.bitWidth - 1 - value.leadingZeroBitCount) & ~3)
    while shift >= 0 {
      let digit = UInt8(truncatingIfNeeded: (value >> UInt(shift)) & 15)
      append(digit < 10 ? 48 + digit : 87 + digit)
      shift -= 4
    }
  }

  mutating func die() -> Never {
    let count = length
    withUnsafeMutablePointer(to: &bytes) { pointer in
      hs_shim_die(UnsafeRawPointer(pointer).assumingMemoryBound(to: CChar.self), count)
    }
  }
}
