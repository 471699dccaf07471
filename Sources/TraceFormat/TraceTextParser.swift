// Reading the text form (TraceText.swift), line by line, with the line's number in every refusal.

struct TraceTextParser {
  /// The line that was read last, counted from 1.
  private(set) var lineNumber = 0
  /// What the `end` line said; nil before it, and when there is none.
  private(set) var ending: TraceEnding?

  private let file: TraceFile
  private var offset = 0
  /// A line that the header's loop read and did not want.
  private var heldBack: Substring?

  init(_ file: TraceFile) { self.file = file }

  /// The next line that says something, without its newline.
  private mutating func line() -> Substring? {
    if let heldBack {
      self.heldBack = nil
      return heldBack
    }
    while offset < file.bytes.count {
      let rest = file.bytes[offset...]
      let end = rest.firstIndex(of: 0x0A) ?? file.bytes.count
      let text = String(decoding: file.bytes[offset..<end], as: UTF8.self)
      offset = end + 1
      lineNumber += 1
      if text.first != "#" && text.contains(where: { !$0.isWhitespace }) { return text[...] }
    }
    return nil
  }

  func bad(_ text: String) -> TraceError { TraceError(.badLine(text), at: .line(lineNumber)) }

  mutating func header() throws(TraceError) -> TraceHeader {
    guard let first = line(), first.split(separator: " ").first == "hstrace" else {
      throw TraceError(.foreign, at: .line(max(lineNumber, 1)))
    }
    let version = first.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    if !(1...TraceHeader.currentVersion).contains(version) {
      throw TraceError(.unsupportedVersion(version), at: .line(lineNumber))
    }
    var header = TraceHeader(program: "")
    while let line = line() {
      let words = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
      let value = words.count > 1 ? words[1] : ""
      switch words[0] {
      case "program": header.program = try unescaped(value)
      case "argument": header.arguments.append(try unescaped(value))
      case "system": header.system = try unescaped(value)
      case "level" where version >= 2:
        guard let level = TraceLevel.allCases.first(where: { "\($0)" == value }) else {
          throw bad("no level is called '\(value)' (known: malloc, span)")
        }
        header.level = level
      case "page-bytes":
        guard let bytes = Int(value), (512...(1 << 30)).contains(bytes), bytes & (bytes - 1) == 0 else {
          throw bad("a page of '\(value)' bytes is not a page")
        }
        header.pageBytes = bytes
      case "clock-nanoseconds":
        guard let unit = UInt64(value), (1...1_000_000_000).contains(unit) else {
          throw bad("a clock step of '\(value)' ns is not within 1 and 1000000000")
        }
        header.timeUnitNanoseconds = unit
      case "started":
        guard let start = UInt64(value) else { throw bad("'\(value)' is not a number of nanoseconds since 1970") }
        header.startNanoseconds = start
      default:
        heldBack = line
        return header
      }
    }
    return header
  }

  private func unescaped(_ text: Substring) throws(TraceError) -> String {
    var result = ""
    var rest = text[...]
    while let character = rest.popFirst() {
      guard character == "\\" else {
        result.append(character)
        continue
      }
      switch rest.popFirst() {
      case "\\": result.append("\\")
      case "n": result.append("\n")
      case "r": result.append("\r")
      default: throw bad("a backslash is followed by neither \\, n nor r")
      }
    }
    return result
  }

  /// The next event; nil at the end.
  mutating func event() throws(TraceError) -> TraceEvent? {
    guard let line = line() else { return nil }
    var words = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" })[...]
    if words.first == "end" {
      ending = try end(words.dropFirst())
      if self.line() != nil { throw bad("something follows the end") }
      return nil
    }
    guard let seconds = words.popFirst(), let time = nanoseconds(seconds) else {
      throw bad("the line does not begin with a time in seconds")
    }
    let thread = try number(&words, "a thread")
    guard let kind = words.popFirst() else { throw bad("the event is missing") }
    let body: TraceEventBody
    switch kind {
    case "allocate": body = try birth(&words)
    case "resize": body = .resize(object: try number(&words, "an object"), bytes: try number(&words, "a size"))
    case "free": body = .free(object: try number(&words, "an object"))
    case "sample": body = .sample(try sample(&words))
    default:
      guard let span = try spanEvent(kind, &words) else {
        throw bad(
          "no event is called '\(kind)' (known: allocate, resize, free, sample; span, resize-span, free-pages, "
            + "refused-span, refused-growth)")
      }
      body = span
    }
    if let extra = words.first { throw bad("'\(extra)' is too much for an event of kind \(kind)") }
    return TraceEvent(time: time, thread: thread, body: body)
  }

  private func end(_ words: ArraySlice<Substring>) throws(TraceError) -> TraceEnding {
    let number = words.dropFirst().first.flatMap { Int($0) }
    switch (words.first, number, words.count) {
    case ("exited", let status?, 2): return .exited(status: status)
    case ("signalled", let signal?, 2): return .signalled(signal: signal)
    case ("stopped", nil, 1): return .stopped
    default: throw bad("the end is one of: exited STATUS, signalled SIGNAL, stopped")
    }
  }

  func number(_ words: inout ArraySlice<Substring>, _ what: String) throws(TraceError) -> Int {
    guard let word = words.popFirst() else { throw bad("\(what) is missing") }
    guard let number = Int(word) else { throw bad("'\(word)' is not \(what)") }
    return number
  }

  private func birth(_ words: inout ArraySlice<Substring>) throws(TraceError) -> TraceEventBody {
    let object = try number(&words, "an object")
    let bytes = try number(&words, "a size")
    switch words.popFirst() {
    case nil: return .allocate(object: object, bytes: bytes, alignment: 1, kind: .plain)
    case "zeroed": return .allocate(object: object, bytes: bytes, alignment: 1, kind: .zeroed)
    case "aligned":
      return .allocate(object: object, bytes: bytes, alignment: try number(&words, "an alignment"), kind: .aligned)
    case "mapped":
      return .allocate(object: object, bytes: bytes, alignment: try number(&words, "an alignment"), kind: .mapped)
    case let word?: throw bad("no way to allocate is called '\(word)' (known: zeroed, aligned N, mapped N)")
    }
  }

  private func sample(_ words: inout ArraySlice<Substring>) throws(TraceError) -> ProgramSample {
    var values: [UInt64] = []
    for name in ["cpu", "anonymous", "huge", "minor", "major"] {
      guard words.popFirst() == name[...], let value = words.popFirst().flatMap({ UInt64($0) }) else {
        throw bad("a sample is: cpu N anonymous N huge N minor N major N; '\(name)' with its number is missing")
      }
      values.append(value)
    }
    guard let anonymous = Int(exactly: values[1]), let huge = Int(exactly: values[2]) else {
      throw bad("a sample's bytes are too many")
    }
    return ProgramSample(
      cpuNanoseconds: values[0], anonymousBytes: anonymous, hugeBytes: huge, minorFaults: values[3],
      majorFaults: values[4])
  }

  /// Decimal seconds, exactly.
  private func nanoseconds(_ text: Substring) -> UInt64? {
    let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    guard let seconds = UInt64(parts[0]), seconds <= TraceLimits.nanoseconds / 1_000_000_000 else { return nil }
    var fraction: UInt64 = 0
    if parts.count == 2 {
      guard (1...9).contains(parts[1].count), let digits = UInt64(parts[1]), parts[1].first != "+" else { return nil }
      fraction = digits
      for _ in parts[1].count..<9 { fraction *= 10 }
    }
    return seconds * 1_000_000_000 + fraction
  }
}
