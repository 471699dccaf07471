// The logs that Android's malloc debugging writes (record_allocs), and that its memory_replay replays.
//
// A line is a call: which thread, which function, what it returned, what it was given, and in newer versions when it began and
// ended, in nanoseconds. Unlike in C, realloc's result comes before its argument.
//
//     TID: malloc ADDRESS SIZE                       TID: memalign ADDRESS ALIGNMENT SIZE
//     TID: calloc ADDRESS COUNT SIZE                 TID: free ADDRESS
//     TID: realloc ADDRESS OLD-ADDRESS SIZE          TID: thread_done 0x0
//
// A thread's number may be another thread's after thread_done. The log is read twice: the trace's clock is a microsecond if
// that rounds no time.

/// A line of such a log, checked for what it says on its own.
struct MemoryReplayLine {
  enum Call: Equatable {
    case allocate(bytes: Int, alignment: Int, kind: AllocationKind)
    case reallocate(old: UInt64, bytes: Int)
    case free
    case threadDone
  }

  var thread: UInt64
  var call: Call
  /// What the call returned, or for free what it was given.
  var address: UInt64
  /// When the call began; nil where the log has no times.
  var nanoseconds: UInt64?
}

/// Reads the lines of such a log. What is wrong is refused with line and column.
struct MemoryReplayLog {
  private(set) var scanner: LogScanner
  /// The first call decides whether calls have times.
  private var hasTimes: Bool?

  init(_ file: TraceFile) { scanner = LogScanner(file) }

  /// The next line; nil at the end.
  mutating func line() throws(TraceError) -> MemoryReplayLine? {
    guard scanner.advance() else { return nil }
    guard scanner.text(0).hasSuffix(":") else {
      throw scanner.refusal("'\(scanner.text(0))' is no thread: a number and a colon", 0)
    }
    let thread = try scanner.number(0, "thread", atMost: UInt64(UInt32.max), suffix: 1)
    let name = scanner.text(1)
    guard ["malloc", "calloc", "realloc", "memalign", "free", "thread_done"].contains(name) else {
      throw scanner.refusal(
        name.isEmpty
          ? "the line ends before the call"
          : "no call is called '\(name)' (known: malloc, calloc, realloc, memalign, free, thread_done)", 1)
    }
    var line = MemoryReplayLine(thread: thread, call: .free, address: try scanner.address(2))
    if name == "thread_done" {
      line.call = .threadDone
      if scanner.words.count > 3 { _ = try time(3) }
      if scanner.words.count > 4 { throw scanner.refusal("the line has more than a thread's end", 4) }
      return line
    }
    var next = 3
    switch name {
    case "malloc":
      line.call = .allocate(bytes: try scanner.bytes(3, at: line.address), alignment: 1, kind: .plain)
      next = 4
    case "calloc":
      line.call = .allocate(bytes: try product(line.address), alignment: 1, kind: .zeroed)
      next = 5
    case "realloc":
      line.call = .reallocate(old: try scanner.address(3), bytes: try scanner.bytes(4, at: line.address))
      next = 5
    case "memalign":
      let alignment = try alignment(3)
      line.call = .allocate(bytes: try scanner.bytes(4, at: line.address), alignment: alignment, kind: .aligned)
      next = 5
    default: break
    }
    line.nanoseconds = try times(next)
    return line
  }

  /// What calloc was asked for.
  private func product(_ address: UInt64) throws(TraceError) -> Int {
    let count = try scanner.bytes(3, at: address)
    let (total, overflow) = count.multipliedReportingOverflow(by: try scanner.bytes(4, at: address))
    if address == 0 { return 0 }
    if overflow || total > TraceLimits.objectBytes {
      throw scanner.refusal("\(scanner.text(3)) times \(scanner.text(4)) bytes are more than any address space", 3)
    }
    return total
  }

  /// Android's memalign takes the next power of two.
  private func alignment(_ index: Int) throws(TraceError) -> Int {
    let asked = Int(try scanner.number(index, "alignment", atMost: 1 << UInt64(TraceLimits.alignmentLogarithm)))
    return asked <= 1 ? 1 : 1 << (Int.bitWidth - (asked - 1).leadingZeroBitCount)
  }

  private func time(_ index: Int) throws(TraceError) -> UInt64 {
    try scanner.number(index, "time in nanoseconds", atMost: TraceLimits.nanoseconds)
  }

  /// Start and end from word `index` on; the start counts.
  private mutating func times(_ index: Int) throws(TraceError) -> UInt64? {
    if scanner.words.count > index + 2 {
      throw scanner.refusal("the line has more than a call and two times", index + 2)
    }
    let isTimed = hasTimes ?? (scanner.words.count > index)
    hasTimes = isTimed
    if !isTimed {
      if scanner.words.count > index { throw scanner.refusal("the line has a time, those before have none", index) }
      return nil
    }
    if scanner.words.count == index { throw scanner.refusal("the line has no times, those before have", index) }
    let start = try time(index)
    if try time(index + 1) < start { throw scanner.refusal("the call ends before it begins", index + 1) }
    return start
  }
}

extension MemoryReplayLog {
  /// Reads the log in `file` and writes the trace to `output`.
  ///
  /// - Parameters:
  ///   - program: What the trace is to be called.
  ///   - eventsPerSecond: The pace of a log without times.
  /// - Throws: what is wrong with the log, with line and column.
  /// - Complexity: O(bytes); memory O(live objects + objects / 8).
  static func run(
    _ file: TraceFile, program: String, eventsPerSecond: Int, to output: TraceOutput
  ) throws(TraceError) -> LogImport {
    var start: UInt64?
    var isFine = false
    var first = MemoryReplayLog(file)
    while !isFine, let line = try first.line() {
      guard let time = line.nanoseconds else {
        if line.call == .threadDone { continue }
        break
      }
      start = start ?? time
      isFine = (time &- start!) % 1000 != 0
    }
    var importer = try ObjectImporter(
      program: program, start: start, isFine: isFine, eventsPerSecond: eventsPerSecond, output: output)
    var log = MemoryReplayLog(file)
    while let line = try log.line() {
      importer.begin(thread: line.thread, nanoseconds: line.nanoseconds, line: log.scanner.lineNumber)
      switch line.call {
      case .allocate(let bytes, let alignment, let kind):
        try importer.allocate(line.address, bytes: bytes, alignment: alignment, kind: kind)
      case .reallocate(let old, let bytes): try importer.reallocate(old, to: line.address, bytes: bytes)
      case .free: try importer.free(line.address)
      case .threadDone: importer.endThread()
      }
    }
    return try importer.finish()
  }
}
