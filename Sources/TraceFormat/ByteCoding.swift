// Numbers as bytes: little-endian fields of fixed width, and varints of 1 to 10 bytes (seven bits a byte, lowest first,
// the top bit says that more follow). Signed differences are folded to unsigned first (0, −1, 1, −2, … → 0, 1, 2, 3, …).

extension [UInt8] {
  /// Appends the bytes of `value`, lowest first.
  mutating func appendField<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
    var rest = value
    for _ in 0..<MemoryLayout<Value>.size {
      append(UInt8(truncatingIfNeeded: rest))
      rest >>= 8
    }
  }

  /// Appends `value` as a varint.
  mutating func appendVarint(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest &>>= 7
    }
    append(UInt8(truncatingIfNeeded: rest))
  }

  /// Appends the length of `text` in UTF-8 as a varint, then its bytes.
  mutating func appendText(_ text: String) {
    let bytes = Array(text.utf8)
    appendVarint(UInt64(bytes.count))
    append(contentsOf: bytes)
  }
}

/// The bytes that `value` takes as a varint.
func varintLength(_ value: UInt64) -> Int { value == 0 ? 1 : (70 - value.leadingZeroBitCount) / 7 }

/// Signed to unsigned, small magnitudes to small numbers.
func folded(_ value: Int64) -> UInt64 { UInt64(bitPattern: (value &<< 1) ^ (value &>> 63)) }

/// The inverse of `folded`.
func unfolded(_ value: UInt64) -> Int64 { Int64(bitPattern: value &>> 1) ^ -Int64(bitPattern: value & 1) }

/// Reads numbers from a range of bytes, never beyond its end.
struct ByteCursor {
  let bytes: UnsafeRawBufferPointer
  /// The next byte to read.
  var position: Int
  /// One after the last byte that may be read.
  let end: Int

  init(_ bytes: UnsafeRawBufferPointer, from position: Int, to end: Int) {
    precondition(0 <= position && position <= end && end <= bytes.count)
    self.bytes = bytes
    self.position = position
    self.end = end
  }

  /// The bytes left.
  var count: Int { end &- position }

  /// The next byte, nil at the end.
  @inline(__always)
  mutating func byte() -> UInt8? {
    guard position < end else { return nil }
    let byte = bytes.load(fromByteOffset: position, as: UInt8.self)
    position &+= 1
    return byte
  }

  /// The next field of fixed width, nil when fewer bytes are left.
  mutating func field<Value: FixedWidthInteger & UnsignedInteger>(_: Value.Type = Value.self) -> Value? {
    guard count >= MemoryLayout<Value>.size else { return nil }
    defer { position += MemoryLayout<Value>.size }
    return Value(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: Value.self))
  }

  /// The next varint, nil when it is cut off, longer than ten bytes or greater than 2^64 − 1.
  @inline(__always)
  mutating func varint() -> UInt64? {
    guard let first = byte() else { return nil }
    if first < 0x80 { return UInt64(first) }
    return longVarint(UInt64(first & 0x7F))
  }

  private mutating func longVarint(_ low: UInt64) -> UInt64? {
    var value = low
    var shift: UInt64 = 7
    while let next = byte() {
      let part = UInt64(next & 0x7F)
      if shift == 63 && part > 1 { return nil }
      value |= part &<< shift
      if next < 0x80 { return value }
      shift &+= 7
      if shift > 63 { return nil }
    }
    return nil
  }

  /// The next text (length and UTF-8), nil when it is cut off; bytes that are not UTF-8 become replacement characters.
  mutating func text() -> String? {
    guard let length = varint(), length <= UInt64(count) else { return nil }
    defer { position += Int(length) }
    return String(decoding: bytes[position..<position + Int(length)], as: UTF8.self)
  }
}
