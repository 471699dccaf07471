// A table of jemalloc's page allocator becomes a trace of spans.
//
// The table is read twice: the trace's clock is a microsecond if all times are multiples of that, and else a nanosecond,
// so that no time is rounded.

/// What came of a table.
public struct JemallocImport: Equatable, Sendable {
  /// Events of the trace.
  public var events = 0
  /// Spans that are handed out in it.
  public var spans = 0
  /// The table has times; else they were made up.
  public var hasTimes = false
  /// Rows with an earlier time than the row before, which they got instead.
  public var earlierRows = 0
  /// Releases in a capture of what was allocated before it began; left out.
  public var unknownReleases = 0
  /// Allocations in a capture where something lived; its release is put in before.
  public var unseenReleases = 0
}

extension JemallocImport {
  /// Reads the table in `file` and writes the trace to `output`.
  ///
  /// Shards become threads. `is_frequent` becomes the hint of many objects.
  ///
  /// - Parameters:
  ///   - program: What the trace is to be called.
  ///   - requestsPerSecond: The pace of a table without times.
  /// - Throws: what is wrong with the table, with line and column.
  /// - Complexity: O(bytes); memory O(allocations).
  public static func run(
    _ file: TraceFile, program: String, requestsPerSecond: Int, to output: TraceOutput
  ) throws(TraceError) -> JemallocImport {
    var start: UInt64?
    var unit: UInt64 = 1000
    var first = try JemallocTable(file)
    while let row = try first.row() {
      guard let time = row.nanoseconds else { break }
      start = start ?? time
      if (time &- start!) % 1000 != 0 {
        unit = 1
        break
      }
    }
    let table = try JemallocTable(file)
    // The largest of a few billion, and the clock cannot tell requests apart.
    let interval = 1_000_000_000 / UInt64(min(max(requestsPerSecond, 1), 1_000_000_000))
    let header = TraceHeader(
      program: program, pageBytes: JemallocTable.pageBytes,
      timeUnitNanoseconds: start == nil && interval % 1000 != 0 ? 1 : unit, startNanoseconds: start ?? 0, level: .span)
    var importer = Importer(
      table: table, writer: try TraceWriter(header: header, output: output), interval: interval)
    try importer.readAll()
    return try importer.finish()
  }
}

private struct Importer: ~Copyable {
  private var table: JemallocTable
  private var writer: TraceWriter
  private let interval: UInt64
  private var report = JemallocImport()
  private var time: UInt64 = 0
  /// Of each allocation, by its number, whether it lives.
  private var isLive: [Bool] = []
  /// Of a capture: what lives at an address.
  private var spans: [UInt64: Int] = [:]

  init(table: JemallocTable, writer: consuming TraceWriter, interval: UInt64) {
    self.table = table
    self.writer = writer
    self.interval = interval
    report.hasTimes = table.hasTimes
  }

  mutating func readAll() throws(TraceError) {
    while let row = try table.row() {
      advance(to: row)
      switch row.request {
      case .allocate(let bytes, let address):
        if let address {
          if let previous = spans[address] {
            report.unseenReleases += 1
            try emit(.free(object: previous), row)
          }
          spans[address] = writer.objectCount
        }
        isLive.append(true)
        try emit(
          .allocateSpan(
            span: writer.objectCount, pages: bytes / JemallocTable.pageBytes,
            traits: SpanTraits(objects: row.isFrequent ? .many : .unknown)), row)
      case .free(let allocation):
        guard allocation < UInt64(isLive.count) else {
          throw table.refusal("allocation \(allocation) is given back, only \(isLive.count) were made before")
        }
        if !isLive[Int(allocation)] { throw table.refusal("allocation \(allocation) is given back a second time") }
        isLive[Int(allocation)] = false
        try emit(.free(object: Int(allocation)), row)
      case .freeAddress(let address):
        if let span = spans.removeValue(forKey: address) {
          try emit(.free(object: span), row)
        } else {
          report.unknownReleases += 1
        }
      }
    }
  }

  private mutating func advance(to row: JemallocRow) {
    guard let nanoseconds = row.nanoseconds else {
      // Rows are counted by what came of them; in a table without times each becomes one event.
      time = UInt64(writer.eventCount) * interval
      return
    }
    let start = writer.header.startNanoseconds
    if nanoseconds < start || nanoseconds - start < time {
      report.earlierRows += 1
    } else {
      time = nanoseconds - start
    }
  }

  private mutating func emit(_ body: TraceEventBody, _ row: JemallocRow) throws(TraceError) {
    do { try writer.append(TraceEvent(time: time, thread: row.shard, body: body)) } catch {
      if case .event = error.location { throw TraceError(error.problem, at: .line(table.lineNumber)) }
      throw error
    }
  }

  consuming func finish() throws(TraceError) -> JemallocImport {
    report.events = writer.eventCount
    report.spans = writer.objectCount
    let result = report
    try writer.finish(.stopped)
    return result
  }
}
