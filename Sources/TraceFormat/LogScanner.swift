// The lines of a log that another tool wrote, and the words in them.
//
// Both logs that can be imported (`MemoryReplayLog`, `MtraceLog`) have lines of words with blanks between, so the lines are
// taken apart here, and what is wrong with a word is refused with its line and the column of its first byte.

/// Walks the lines of a log that have words.
struct LogScanner {
  private let file: TraceFile
  private var offset = 0
  private var lineStart = 0
  private var lineEnd = 0
  /// The line that is looked at, counted from 1.
  private(set) var lineNumber = 0
  /// Where its words are.
  private(set) var words: [Range<Int>] = []
  /// The line ends as a line does. The last one may not, when its writer was stopped in the middle of it.
  private(set) var isWhole = true

  init(_ file: TraceFile) { self.file = file }

  /// Goes to the next line that has words; false at the end.
  mutating func advance() -> Bool {
    while offset < file.bytes.count {
      lineStart = offset
      lineEnd = offset
      words.removeAll(keepingCapacity: true)
      while lineEnd < file.bytes.count && file.bytes[lineEnd] != 0x0A {
        if Self.isBlank(file.bytes[lineEnd]) {
          lineEnd += 1
          continue
        }
        let start = lineEnd
        while lineEnd < file.bytes.count && file.bytes[lineEnd] != 0x0A && !Self.isBlank(file.bytes[lineEnd]) {
          lineEnd += 1
        }
        words.append(start..<lineEnd)
      }
      isWhole = lineEnd < file.bytes.count
      offset = lineEnd + 1
      lineNumber += 1
      if !words.isEmpty { return true }
    }
    return false
  }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0D }

  /// Whether the word is `text`.
  func word(_ index: Int, is text: StaticString) -> Bool {
    guard words.indices.contains(index), words[index].count == text.utf8CodeUnitCount else { return false }
    return text.withUTF8Buffer { zip(file.bytes[words[index]], $0).allSatisfy { $0 == $1 } }
  }

  /// A word as it can be shown to the user: not all of another kind of file.
  func text(_ index: Int) -> String {
    guard words.indices.contains(index) else { return "" }
    return String(
      decoding: file.bytes[words[index]].prefix(40).map { $0 >= 0x20 && $0 < 0x7F ? $0 : UInt8(ascii: "?") },
      as: UTF8.self)
  }

  /// A refusal of a word, or of the end of the line where the word is missing.
  func refusal(_ text: String, _ index: Int) -> TraceError {
    let place = words.indices.contains(index) ? words[index].lowerBound : words.last?.upperBound ?? lineStart
    return TraceError(.badLine(text), at: .cell(line: lineNumber, column: place - lineStart + 1))
  }

  /// The word as a number: decimal, or hexadecimal after 0x. `suffix` bytes at its end are not part of it.
  func number(_ index: Int, _ name: String, atMost limit: UInt64, suffix: Int = 0) throws(TraceError) -> UInt64 {
    guard words.indices.contains(index) else { throw refusal("the line ends before \(name)", index) }
    guard let value = Self.number(file.bytes[words[index].dropLast(suffix)]), value <= limit else {
      throw refusal("'\(text(index))' is no \(name): a number of at most \(limit)", index)
    }
    return value
  }

  /// The word as the size of what lies at `address`. A call that failed may have asked for any.
  func bytes(_ index: Int, at address: UInt64) throws(TraceError) -> Int {
    let limit = UInt64(TraceLimits.objectBytes)
    return Int(min(try number(index, "size", atMost: address == 0 ? .max : limit), limit))
  }

  /// The word as an address; 0 may be spelt `(nil)` or `(null)`.
  func address(_ index: Int) throws(TraceError) -> UInt64 {
    if word(index, is: "(nil)") || word(index, is: "(null)") { return 0 }
    guard words.indices.contains(index) else { throw refusal("the line ends before an address", index) }
    let bytes = file.bytes[words[index]]
    // All tools print addresses so; a decimal number is another column.
    guard bytes.starts(with: [0x30, 0x78]), let value = Self.number(bytes) else {
      throw refusal("'\(text(index))' is no address: 0x and hexadecimal digits", index)
    }
    return value
  }

  private static func number(_ text: Slice<UnsafeRawBufferPointer>) -> UInt64? {
    let isHexadecimal = text.starts(with: [0x30, 0x78])
    let digits = isHexadecimal ? text.dropFirst(2) : text
    if digits.isEmpty { return nil }
    var value: UInt64 = 0
    for byte in digits {
      let digit: UInt8
      switch byte {
      case 0x30...0x39: digit = byte - 0x30
      case 0x61...0x66 where isHexadecimal: digit = byte - 0x61 + 10
      case 0x41...0x46 where isHexadecimal: digit = byte - 0x41 + 10
      default: return nil
      }
      let (shifted, overflow) = value.multipliedReportingOverflow(by: isHexadecimal ? 16 : 10)
      let (sum, carry) = shifted.addingReportingOverflow(UInt64(digit))
      if overflow || carry { return nil }
      value = sum
    }
    return value
  }
}
