// Text in a buffer that somebody else owns: messages and reports of a library that may not allocate.
//
// What does not fit is left out, and the writer remembers that it was; nothing is ever written past the end.

/// Appends to a fixed buffer.
struct FixedText {
  private let start: UnsafeMutablePointer<UInt8>
  private let capacity: Int
  /// Bytes written.
  private(set) var count = 0
  /// Something did not fit.
  private(set) var isTruncated = false

  init(_ start: UnsafeMutablePointer<UInt8>, capacity: Int) {
    self.start = start
    self.capacity = capacity
  }

  mutating func append(_ byte: UInt8) {
    if count < capacity {
      start[count] = byte
      count += 1
    } else {
      isTruncated = true
    }
  }

  mutating func append(_ text: StaticString) {
    let bytes = text.utf8Start
    for index in 0..<text.utf8CodeUnitCount { append(bytes[index]) }
  }

  /// Bytes of a user's text, shortened where they are many; what would garble a terminal becomes a question mark.
  mutating func append(quoting bytes: UnsafeBufferPointer<UInt8>, atMost limit: Int = 64) {
    append(UInt8(ascii: "'"))
    for byte in bytes.prefix(limit) { append(byte < 0x20 || byte == 0x7F ? UInt8(ascii: "?") : byte) }
    if bytes.count > limit { append("...") }
    append(UInt8(ascii: "'"))
  }

  mutating func append(decimal value: UInt64) {
    var divisor: UInt64 = 1
    while value / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(value / divisor % 10))
      divisor /= 10
    }
  }

  /// Room behind the text for a terminating zero: always, at the price of its last byte.
  mutating func terminate() {
    if count == capacity { count -= 1 }
    start[count] = 0
  }
}
