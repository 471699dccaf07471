// A trace of spans becomes a table that jemalloc's stress program for its page allocator replays (JemallocTable.swift).
//
// Such a table knows spans that are handed out and given back whole, and nothing else. What changes the length of a span
// becomes the release of the span and an allocation of what is left or of what it has become: so the pages in use are the
// trace's at every time. What a table cannot say at all is counted, for the user to be told.

/// What a table could not say.
public struct JemallocExport: Equatable, Sendable {
  /// Rows of the table, without its first line.
  public var rows = 0
  /// Spans that were handed out in the trace.
  public var spans = 0
  /// Spans that became longer or shorter, or were given back in part.
  public var replacedSpans = 0
  /// Spans that were aligned to more than a page.
  public var alignedSpans = 0
  /// Spans that had to read as zero.
  public var zeroedSpans = 0
  /// Spans with a hint other than that of many objects.
  public var hintedSpans = 0
  /// Requests that the heap refused.
  public var refusals = 0
  /// Samples of the program.
  public var samples = 0
  /// Releases by another thread than the one that allocated: a table knows them by the allocation's shard only.
  public var foreignReleases = 0
  /// Threads beyond the stress program's number of shards; they share shards with others.
  public var foldedThreads = 0

  /// A line for each kind of loss.
  public var losses: [String] {
    var result: [String] = []
    func add(_ count: Int, _ text: String) { if count > 0 { result.append("\(count) \(text)") } }
    add(replacedSpans, "changes of a span's length became a release and an allocation")
    add(alignedSpans, "spans were aligned to more than a page; a table has no alignment")
    add(zeroedSpans, "spans had to read as zero; a table does not say so")
    add(hintedSpans, "spans had hints that a table does not know")
    add(refusals, "refused requests were left out")
    add(samples, "samples of the program were left out")
    add(foreignReleases, "releases were made by another thread than the allocation; they have its shard")
    add(foldedThreads, "threads are numbered \(Self.shards) or more; they share the shards of others")
    return result
  }

  /// jemalloc's stress program takes no more.
  public static let shards = 128
}

extension JemallocExport {
  /// Reads the rest of `reader` and writes the table to `output`.
  ///
  /// - Parameter hasTimes: whether the table has a column of times, as the stress program wants it since it has a clock of
  ///   its own; they are nanoseconds since 1970.
  /// - Throws: what is wrong with the trace, or that it is not of spans.
  /// - Complexity: O(events); memory O(spans).
  public static func run(
    _ reader: consuming TraceReader, hasTimes: Bool, to output: TraceOutput
  ) throws(TraceError) -> JemallocExport {
    guard reader.header.level == .span else {
      throw TraceError(.badField("a trace of malloc, and a table is of spans (record with --level span)"), at: nil)
    }
    guard reader.header.pageBytes % JemallocTable.pageBytes == 0 else {
      throw TraceError(
        .badField("a page has \(reader.header.pageBytes) bytes, a table's \(JemallocTable.pageBytes)"), at: nil)
    }
    var exporter = Exporter(header: reader.header, hasTimes: hasTimes, output: output)
    while let event = try reader.next() { try exporter.add(event) }
    return try exporter.finish()
  }
}

private struct Exporter {
  private let output: TraceOutput
  private let header: TraceHeader
  private let hasTimes: Bool
  private var report = JemallocExport()
  private var buffer: [UInt8] = []
  /// Of each span of the trace the allocation that stands for it now, its thread, its pages and its column is_frequent.
  private var spans: [(allocation: Int, thread: Int, pages: Int, isFrequent: Bool)] = []
  private var foldedThreads = Set<Int>()

  init(header: TraceHeader, hasTimes: Bool, output: TraceOutput) {
    self.header = header
    self.hasTimes = hasTimes
    self.output = output
    buffer += Array("shard_ind,operation,size_or_alloc_index,\(hasTimes ? "nsecs," : "")is_frequent\n".utf8)
  }

  mutating func add(_ event: TraceEvent) throws(TraceError) {
    switch event.body {
    case .allocateSpan(_, let pages, let traits):
      report.spans += 1
      if traits.alignmentPages > 1 { report.alignedSpans += 1 }
      if traits.isZeroed { report.zeroedSpans += 1 }
      if traits.lifetime != .unknown || traits.objects == .few { report.hintedSpans += 1 }
      spans.append((0, event.thread, pages, traits.objects == .many))
      try allocate(spans.count - 1, event)
    case .free(let span): try free(span, event)
    case .resizeSpan(let span, let pages, _):
      if pages == spans[span].pages { return }
      report.replacedSpans += 1
      try free(span, event)
      spans[span].pages = pages
      try allocate(span, event)
    case .freePages(let span, let first, let pages, let tail, _):
      if first > 0 || tail != nil { report.replacedSpans += 1 }
      try free(span, event)
      if tail != nil {
        var rest = spans[span]
        rest.pages -= first + pages
        spans.append(rest)
      }
      spans[span].pages = first
      if first > 0 { try allocate(span, event) }
      if let tail { try allocate(tail, event) }
    case .refuseSpan, .refuseGrowth: report.refusals += 1
    case .sample: report.samples += 1
    case .allocate, .resize: preconditionFailure("no event of a trace of spans")
    }
  }

  private var allocations = 0

  private mutating func allocate(_ span: Int, _ event: TraceEvent) throws(TraceError) {
    spans[span].allocation = allocations
    allocations += 1
    try row(0, UInt64(spans[span].pages) * UInt64(header.pageBytes), span, event)
  }

  private mutating func free(_ span: Int, _ event: TraceEvent) throws(TraceError) {
    // The stress program takes a release from the shard of its allocation only.
    if spans[span].thread != event.thread { report.foreignReleases += 1 }
    try row(1, UInt64(spans[span].allocation), span, event)
  }

  private mutating func row(_ operation: Int, _ value: UInt64, _ span: Int, _ event: TraceEvent) throws(TraceError) {
    report.rows += 1
    let thread = spans[span].thread
    if thread >= JemallocExport.shards && foldedThreads.insert(thread).inserted { report.foldedThreads += 1 }
    let (time, overflow) = header.startNanoseconds.addingReportingOverflow(event.time)
    if overflow || time >= TraceLimits.nanoseconds { throw TraceError(.badField("the trace began too late"), at: nil) }
    let text =
      "\(thread % JemallocExport.shards),\(operation),\(value),\(hasTimes ? "\(time)," : "")"
      + "\(spans[span].isFrequent ? 1 : 0)\n"
    buffer += Array(text.utf8)
    if buffer.count > 1 << 16 {
      try output.write(buffer)
      buffer.removeAll(keepingCapacity: true)
    }
  }

  mutating func finish() throws(TraceError) -> JemallocExport {
    try output.write(buffer)
    return report
  }
}
