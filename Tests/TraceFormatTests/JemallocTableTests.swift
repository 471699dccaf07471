// Tables of jemalloc's page allocator: what they say, what is refused in them and where, and the way there and back.

import Testing

@testable import TraceFormat

@Suite("A table of jemalloc's page allocator") struct JemallocTableTests {
  private func importing(_ text: String, rate: Int = 5000) throws -> (bytes: [UInt8], report: JemallocImport) {
    var bytes: [UInt8] = []
    var report = JemallocImport()
    try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
      report = try JemallocImport.run(
        TraceFile(Array(text.utf8)), program: "table", requestsPerSecond: rate, to: .function(sink))
    }
    return (bytes, report)
  }

  private func exporting(_ bytes: [UInt8], hasTimes: Bool = true) throws -> (text: String, report: JemallocExport) {
    var output: [UInt8] = []
    var report = JemallocExport()
    try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in output.append(contentsOf: part) }) { sink in
      report = try JemallocExport.run(TraceReader(TraceFile(bytes)), hasTimes: hasTimes, to: .function(sink))
    }
    return (String(decoding: output, as: UTF8.self), report)
  }

  private func span(_ span: Int, _ pages: Int, _ objects: SpanTraits.Objects = .unknown) -> TraceEventBody {
    .allocateSpan(span: span, pages: pages, traits: SpanTraits(objects: objects))
  }

  @Test("becomes spans: shards threads, times relative to the first")
  func replayTable() throws {
    let (bytes, report) = try importing(
      """
      shard_ind,operation,size_or_alloc_index,nsecs,is_frequent
      0,0,8192,5000000,1
      3,0,2097152,5007000,0

      0,1,0,5009000,1\r
      """)
    let read = try decode(bytes)
    #expect(
      read.events == [
        TraceEvent(time: 0, thread: 0, body: span(0, 2, .many)),
        TraceEvent(time: 7000, thread: 3, body: span(1, 512)),
        TraceEvent(time: 9000, thread: 0, body: .free(object: 0)),
      ])
    let header = try TraceReader(TraceFile(bytes)).header
    #expect(header.startNanoseconds == 5_000_000 && header.timeUnitNanoseconds == 1000 && header.level == .span)
    #expect(report.events == 3 && report.spans == 2 && report.hasTimes && report.earlierRows == 0)
  }

  @Test("without times gets them at a rate; columns may stand in any order")
  func withoutTimes() throws {
    let (bytes, report) = try importing("size_or_alloc_index,operation,shard_ind\n4096,0,1\n0,1,1\n", rate: 1000)
    #expect(try decode(bytes).events.map(\.time) == [0, 1_000_000] && !report.hasTimes)
  }

  @Test("keeps nanoseconds where there are some")
  func fineTimes() throws {
    let (bytes, _) = try importing("shard_ind,operation,size_or_alloc_index,nsecs\n0,0,4096,7\n0,1,0,1008\n")
    #expect(try decode(bytes).events.map(\.time) == [0, 1001])
  }

  @Test("of a capture has addresses; what began before it is left out, and time never goes back")
  func capture() throws {
    let (bytes, report) = try importing(
      """
      shard_ind_int,addr_int,nsecs_int,probe,size_int
      1,4096,1000,hpa_dalloc,4096
      1,140737488355328,2000,hpa_alloc,8192
      1,140737488363520,1000,hpa_alloc,4096
      2,140737488355328,4000,hpa_alloc,12288
      1,140737488363520,5000,hpa_dalloc,0
      """)
    #expect(
      try decode(bytes).events == [
        TraceEvent(time: 1000, thread: 1, body: span(0, 2)), TraceEvent(time: 1000, thread: 1, body: span(1, 1)),
        TraceEvent(time: 3000, thread: 2, body: .free(object: 0)), TraceEvent(time: 3000, thread: 2, body: span(2, 3)),
        TraceEvent(time: 4000, thread: 1, body: .free(object: 1)),
      ])
    #expect(report.unknownReleases == 1 && report.unseenReleases == 1 && report.earlierRows == 1)
  }

  @Test("of a capture of the cache has caches for shards, and releases that end early")
  func cacheCapture() throws {
    let (bytes, report) = try importing(
      """
      process_id,thread_id,thread_name,nsecs_int,_c4,sec_ptr_int,sec_shard_ptr_int,edata_ptr_int,size_int,is_frequent_reuse_int
      7,8,worker,1000,sec_alloc,140737488355328,1,4096,8192,1
      7,9,other,2000,sec_alloc,140737488359424,1,8192,4096,0
      7,8,worker,3000,sec_dalloc,140737488355328,1,4096,,
      7,8,worker,4000,sec_dalloc,140737488355328,1,8192
      """)
    #expect(
      try decode(bytes).events == [
        TraceEvent(time: 0, thread: 0, body: span(0, 2, .many)), TraceEvent(time: 1000, thread: 1, body: span(1, 1)),
        TraceEvent(time: 2000, thread: 0, body: .free(object: 0)),
        TraceEvent(time: 3000, thread: 0, body: .free(object: 1)),
      ])
    #expect(report.unknownReleases == 0)
  }

  private static let names = "shard_ind,operation,size_or_alloc_index,nsecs,is_frequent\n"

  @Test(
    "is refused with line and column",
    arguments: [
      (names + "0,0,4096,1,1\n\n0,2,4096,1,1", 4, 2), (names + "0,0,4095,1,1", 2, 3), (names + "0,0,0,1,1", 2, 3),
      (names + "0,0,-4096,1,1", 2, 3), (names + "x,0,4096,1,1", 2, 1), (names + "1048576,0,4096,1,1", 2, 1),
      (names + "0,0,4096,1", 2, 5), (names + "0,0,4096,1,1,1", 2, 6), (names + "0,0,4096,,1", 2, 4),
      (names + "0,0,4096,99999999999999999999,1", 2, 4), (names + "0,0,4096,1,2", 2, 5), (names + "0,1,0,1,1", 2, 3),
      (names + "0,0,4096,1,1\n0,1,0,2,1\n0,1,0,3,1", 4, 3), (names + "0,0,281474976710656,1,1", 2, 3),
      ("shard_ind,operation,colour", 1, 3), ("shard_ind,operation", 1, 3), ("nsecs,nsecs", 1, 2),
      ("0,0,4096,1", 1, 1), ("shard_ind,addr,nsecs,probe,size\n0,4096,1,free,4096", 2, 4),
      ("shard_ind,addr,nsecs,probe,size\n0,4096,1,hpa_alloc", 2, 5),
      ("shard_ind,addr,nsecs,probe,size\n0,4096,1", 2, 4),
      ("size,probe,shard_ind,addr,nsecs\n4096,hpa_dalloc,0", 2, 4), ("shard_ind,probe,nsecs,size", 1, 5),
    ])
  func refusals(text: String, line: Int, column: Int) {
    let error = #expect(throws: TraceError.self) { _ = try importing(text) }
    #expect(error?.location == .cell(line: line, column: column), "\(text): \(String(describing: error))")
    #expect(error?.description.hasSuffix(", in line \(line), column \(column)") == true)
  }

  @Test("that is empty is refused")
  func empty() {
    let error = #expect(throws: TraceError.self) { _ = try importing("\n \n") }
    #expect(error?.location == .line(1))
  }

  @Test("gives back a trace of whole spans, times, threads and hint included", arguments: 1...10)
  func roundTrip(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var events: [TraceEvent] = []
    var live: [(span: Int, thread: Int)] = []
    var time: UInt64 = 0
    var born = 0
    for _ in 0..<2000 {
      if !live.isEmpty && UInt8.random(in: 0..<9, using: &random) < 4 {
        let (span, thread) = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        events.append(TraceEvent(time: time, thread: thread, body: .free(object: span)))
      } else {
        let thread = Int.random(in: 0..<128, using: &random)
        let pages = Int.random(in: 1...3000, using: &random)
        events.append(
          TraceEvent(time: time, thread: thread, body: span(born, pages, .random(using: &random) ? .many : .unknown)))
        live.append((born, thread))
        born += 1
      }
      time += UInt64.random(in: 0..<100, using: &random) * (seed % 2 == 0 ? 1000 : 1)
    }
    var header = spanHeader
    header.startNanoseconds = 1_700_000_000_123_456_789
    header.timeUnitNanoseconds = seed % 2 == 0 ? 1000 : 1
    header.program = "table"
    let bytes = try encode(events, header: header, ending: .stopped)
    let (text, report) = try exporting(bytes)
    #expect(report.losses.isEmpty && report.rows == events.count, "seed \(seed): \(report.losses)")
    #expect(try importing(text).bytes == bytes, "seed \(seed)")
    // Without times all but these come back.
    let untimed = try decode(try importing(exporting(bytes, hasTimes: false).text).bytes).events
    #expect(untimed.map(\.body) == events.map(\.body) && untimed.map(\.thread) == events.map(\.thread), "seed \(seed)")
  }

  @Test(
    "has as many live pages as the trace at any time, whatever the trace does, and says what it cannot",
    arguments: 1...5)
  func losses(seed: UInt64) throws {
    let events = randomSpanTrace(seed: seed, count: 1500)
    let (text, report) = try exporting(try encode(events, header: spanHeader))
    let again = try decode(try importing(text).bytes)
    #expect(livePages(again.events) == livePages(events), "seed \(seed)")
    #expect(report.losses.count == 7, "seed \(seed): \(report.losses)")
  }

  /// The live pages after the last event of each time that has one that changes them; times from the first of these.
  private func livePages(_ events: [TraceEvent]) -> [UInt64: Int] {
    var lengths: [Int: Int] = [:]
    var live = 0
    var result: [UInt64: Int] = [:]
    var start: UInt64?
    for event in events {
      let before = live
      switch event.body {
      case .allocateSpan(let span, let pages, _):
        lengths[span] = pages
        live += pages
      case .resizeSpan(let span, let pages, _):
        live += pages - lengths[span]!
        lengths[span] = pages
      case .freePages(let span, let first, let pages, let tail, _):
        if let tail { lengths[tail] = lengths[span]! - first - pages }
        lengths[span] = first
        live -= pages
      case .free(let span): live -= lengths[span]!
      default: continue
      }
      if start == nil { start = event.time }
      if live != before || result[event.time - start!] != nil { result[event.time - start!] = live }
    }
    return result
  }

  @Test("is not made of a trace of malloc")
  func malloc() throws {
    let error = #expect(throws: TraceError.self) { _ = try exporting(try encode(randomTrace(seed: 1, count: 10))) }
    #expect(error?.description.contains("--level span") == true)
  }
}
