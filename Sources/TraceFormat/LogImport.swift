// A log of calls with addresses becomes a trace of malloc.
//
// Logs name objects by their addresses, which are used again and again; a trace numbers them. What a log says can contradict
// itself, since it begins in the middle of a program, and threads that write one log overtake each other: a release of what
// nobody was seen to allocate is left out, and where something is allocated over what lives, that is released first. All of it
// is counted. What cannot be a log at all is refused by the readers of the lines.

/// What came of a log.
public struct LogImport: Equatable, Sendable {
  /// Events of the trace.
  public var events = 0
  /// Objects that are born in it.
  public var objects = 0
  /// The log has times; else they were made up.
  public var hasTimes = false
  /// Lines with an earlier time than the line before, which they got instead.
  public var earlierLines = 0
  /// Releases of what was allocated before the log began; left out.
  public var unknownReleases = 0
  /// Allocations where something lived; its release is put in before.
  public var unseenReleases = 0
  /// Calls that got no memory; left out.
  public var failedCalls = 0
  /// The log ends in the middle of a line or of a call; that is left out.
  public var isCut = false
}

extension LogImport {
  /// Reads the log in `file` and writes the trace to `output`.
  ///
  /// - Parameters:
  ///   - format: `memoryReplay` or `mtrace`.
  ///   - program: What the trace is to be called.
  ///   - eventsPerSecond: The pace of a log without times.
  /// - Throws: what is wrong with the log, with line and column.
  public static func run(
    _ file: TraceFile, format: ImportFormat, program: String, eventsPerSecond: Int, to output: TraceOutput
  ) throws(TraceError) -> LogImport {
    switch format {
    case .mtrace: try MtraceLog.run(file, program: program, eventsPerSecond: eventsPerSecond, to: output)
    case .memoryReplay: try MemoryReplayLog.run(file, program: program, eventsPerSecond: eventsPerSecond, to: output)
    case .jemallocTable: preconditionFailure("a table is no log: JemallocImport")
    }
  }
}

/// The tables and logs that become traces.
public enum ImportFormat: String, CaseIterable, Sendable {
  case jemallocTable = "jemalloc-csv"
  case memoryReplay = "memory-replay"
  case mtrace

  /// What the first line looks like; a table if like nothing else, so that its columns are named to the user.
  public static func detect(_ file: TraceFile) -> ImportFormat {
    var scanner = LogScanner(file)
    guard scanner.advance() else { return .jemallocTable }
    let first = scanner.text(0)
    if ["=", "@", "+", "-", "<", ">", "!"].contains(first) { return .mtrace }
    if first.last == ":" && first.dropLast().allSatisfy(\.isNumber) && first.count > 1 { return .memoryReplay }
    return .jemallocTable
  }
}

/// Which object lives at an address, and the trace that is made.
struct ObjectImporter: ~Copyable {
  private var writer: TraceWriter
  private let interval: UInt64
  private var objects: [UInt64: Int] = [:]
  private var time: UInt64 = 0
  /// The numbers of the threads that did something, by what the log calls them.
  private var threads: [UInt64: Int] = [:]
  private var threadCount = 0
  private var thread: UInt64 = 0
  private var line = 1
  var report = LogImport()

  /// - Parameters:
  ///   - start: The time of the first call; nil for a log without times.
  ///   - isFine: Not all times are multiples of a microsecond after `start`.
  ///   - eventsPerSecond: The pace of a log without times.
  init(program: String, start: UInt64?, isFine: Bool, eventsPerSecond: Int, output: TraceOutput) throws(TraceError) {
    interval = 1_000_000_000 / UInt64(min(max(eventsPerSecond, 1), 1_000_000_000))
    let needsNanoseconds = start == nil ? interval % 1000 != 0 : isFine
    writer = try TraceWriter(
      header: TraceHeader(
        program: program, pageBytes: 4096, timeUnitNanoseconds: needsNanoseconds ? 1 : 1000,
        startNanoseconds: start ?? 0),
      output: output)
    report.hasTimes = start != nil
  }

  /// What follows is of this thread and time (nil where the log has none), and of this line.
  mutating func begin(thread: UInt64, nanoseconds: UInt64?, line: Int) {
    self.thread = thread
    self.line = line
    guard let nanoseconds else { return }
    let start = writer.header.startNanoseconds
    if nanoseconds < start || nanoseconds - start < time {
      report.earlierLines += 1
    } else {
      time = nanoseconds - start
    }
  }

  /// The thread has ended; what is called so from now on is another one.
  mutating func endThread() { threads[thread] = nil }

  /// Something is born; at address 0 the call failed. No bytes count as one, as in every trace.
  mutating func allocate(
    _ address: UInt64, bytes: Int, alignment: Int = 1, kind: AllocationKind = .plain
  ) throws(TraceError) {
    if address == 0 {
      report.failedCalls += 1
      return
    }
    try vacate(address)
    objects[address] = writer.objectCount
    try append(.allocate(object: writer.objectCount, bytes: max(bytes, 1), alignment: alignment, kind: kind))
  }

  /// What lies at `address` dies; nothing does at 0.
  mutating func free(_ address: UInt64) throws(TraceError) {
    if address == 0 { return }
    guard let object = objects.removeValue(forKey: address) else {
      report.unknownReleases += 1
      return
    }
    try append(.free(object: object))
  }

  /// realloc: what lay at `old` lies at `new` from now on.
  mutating func reallocate(_ old: UInt64, to new: UInt64, bytes: Int) throws(TraceError) {
    if old == 0 { return try allocate(new, bytes: bytes) }
    if new == 0 {
      // Of no bytes, it is a release; else the old memory stays.
      if bytes == 0 { try free(old) } else { report.failedCalls += 1 }
      return
    }
    guard let object = objects.removeValue(forKey: old) else {
      report.unknownReleases += 1
      return try allocate(new, bytes: bytes)
    }
    try vacate(new)
    objects[new] = object
    try append(.resize(object: object, bytes: max(bytes, 1)))
  }

  private mutating func vacate(_ address: UInt64) throws(TraceError) {
    guard let previous = objects.removeValue(forKey: address) else { return }
    report.unseenReleases += 1
    try append(.free(object: previous))
  }

  private mutating func append(_ body: TraceEventBody) throws(TraceError) {
    if !report.hasTimes { time = UInt64(writer.eventCount) * interval }
    try writer.append(TraceEvent(time: time, thread: try threadNumber(), body: body))
  }

  /// Threads are numbered as they first do something.
  private mutating func threadNumber() throws(TraceError) -> Int {
    if let known = threads[thread] { return known }
    if threadCount == TraceLimits.threads {
      throw TraceError(.badLine("more than \(TraceLimits.threads) threads"), at: .cell(line: line, column: 1))
    }
    threads[thread] = threadCount
    threadCount += 1
    return threadCount - 1
  }

  consuming func finish() throws(TraceError) -> LogImport {
    report.events = writer.eventCount
    report.objects = writer.objectCount
    let result = report
    try writer.finish(.stopped)
    return result
  }
}
