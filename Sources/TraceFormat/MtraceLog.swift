// The logs of glibc's mtrace.
//
// A line is what a call did, after who called (whose names may have blanks in them, so lines are read from their ends), in a
// frame of two lines that begin with =:
//
//     = Start
//     @ ./program:(function+0x1e)[0x401146] + 0x1f3a6b0 0x64      a birth: address and size
//     @ ./program:(function+0x2e)[0x401156] - 0x1f3a6b0           a death
//     @ ./program:(function+0x3e)[0x401166] < 0x1f3a6b0           realloc takes this away
//     @ ./program:(function+0x3e)[0x401166] > 0x1f3a720 0xc8      and this is what it has become
//     @ ./program:(function+0x4e)[0x401176] ! 0x1f3a720 0xffff    a realloc that failed: nothing changed
//     = End
//
// There are no times, no threads, no alignments, and calloc looks like malloc. A program that ends abruptly leaves a log
// without End whose last line may be cut off, as glibc writes it in blocks.

/// Reads mtrace's logs. What is wrong is refused with line and column.
struct MtraceLog {
  enum Call: Equatable {
    case allocate(address: UInt64, bytes: Int)
    case free(address: UInt64)
    case take(address: UInt64)
    case give(address: UInt64, bytes: Int)
    case fail
  }

  private(set) var scanner: LogScanner
  /// The log ended within a line.
  private(set) var isCut = false

  init(_ file: TraceFile) { scanner = LogScanner(file) }

  /// The next call; nil at the end.
  mutating func call() throws(TraceError) -> Call? {
    while scanner.advance() {
      let count = scanner.words.count
      if scanner.word(0, is: "=") {
        if count == 2 && (scanner.word(1, is: "Start") || scanner.word(1, is: "End")) { continue }
        if scanner.isWhole { throw scanner.refusal("after = comes Start or End", 1) }
      }
      // Part of a line may look like a whole one, with a size that lacks digits.
      if !scanner.isWhole {
        isCut = true
        return nil
      }
      let index = try operation()
      let address = try scanner.address(index + 1)
      if scanner.word(index, is: "-") { return .free(address: address) }
      if scanner.word(index, is: "<") { return .take(address: address) }
      if scanner.word(index, is: "!") {
        _ = try scanner.bytes(index + 2, at: 0)
        return .fail
      }
      let bytes = try scanner.bytes(index + 2, at: address)
      return scanner.word(index, is: "+")
        ? .allocate(address: address, bytes: bytes) : .give(address: address, bytes: bytes)
    }
    return nil
  }

  /// The word that says what was done: the last but one, or the last but two where a size follows the address.
  private func operation() throws(TraceError) -> Int {
    let count = scanner.words.count
    for (back, signs) in [(2, ["-", "<"]), (3, ["+", ">", "!"])] as [(Int, [StaticString])] {
      let index = count - back
      guard index == 0 || (index >= 2 && scanner.word(0, is: "@")) else { continue }
      if signs.contains(where: { scanner.word(index, is: $0) }) { return index }
    }
    // To name a place: the sign itself, if there is one, and what comes after it is wrong.
    let all: [StaticString] = ["-", "<", "+", ">", "!"]
    let start = scanner.word(0, is: "@") ? 2 : 0
    if let sign = (start..<max(count, start)).last(where: { index in all.contains { scanner.word(index, is: $0) } }) {
      let isShort = scanner.word(sign, is: "-") || scanner.word(sign, is: "<")
      throw scanner.refusal(
        "after \(scanner.text(sign)) come \(isShort ? "an address" : "an address and a size"), nothing else",
        min(sign + 1, count))
    }
    throw scanner.refusal("'\(scanner.text(start))' is no operation (known: + - < > !, after @ and who called)", start)
  }
}

extension MtraceLog {
  /// Reads the log in `file` and writes the trace to `output`.
  ///
  /// - Parameters:
  ///   - program: What the trace is to be called.
  ///   - eventsPerSecond: The pace, since such a log has no times.
  /// - Throws: what is wrong with the log, with line and column.
  /// - Complexity: O(bytes); memory O(live objects + objects / 8).
  static func run(
    _ file: TraceFile, program: String, eventsPerSecond: Int, to output: TraceOutput
  ) throws(TraceError) -> LogImport {
    var importer = try ObjectImporter(
      program: program, start: nil, isFine: false, eventsPerSecond: eventsPerSecond, output: output)
    var log = MtraceLog(file)
    /// What realloc has taken and not yet given.
    var taken: UInt64?
    while let call = try log.call() {
      if let old = taken {
        guard case .give(let address, let bytes) = call else {
          throw log.scanner.refusal("a line with < is followed by one with >, not by this", 0)
        }
        try importer.reallocate(old, to: address, bytes: bytes)
        taken = nil
        continue
      }
      switch call {
      case .allocate(let address, let bytes): try importer.allocate(address, bytes: bytes)
      case .free(let address): try importer.free(address)
      case .take(let address): taken = address
      case .give: throw log.scanner.refusal("a line with > comes after one with <, not after this", 0)
      case .fail: importer.report.failedCalls += 1
      }
    }
    importer.report.isCut = log.isCut || taken != nil
    return try importer.finish()
  }
}
