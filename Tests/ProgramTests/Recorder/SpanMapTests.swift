// Spans by address, and what records become, against a model that knows the owner of each page.

import CRecordingLog
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("Recorded spans") struct SpanMapTests {
  @Test("agree with a model that keeps each page's owner", arguments: 1...10)
  func model(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    // Around the border of a pageblock, and a span that covers some of them.
    let first: UInt64 = 500
    let pages = 1600
    var owners = [Int?](repeating: nil, count: pages)
    var lengths: [Int: Int] = [:]
    var conversion = SpanConversion(pageBytes: 4096)
    var report = ConversionReport()
    var born = 0
    for step in 0..<3000 {
      let isLong = Int.random(in: 0..<20, using: &random) == 0
      let start = Int.random(in: 0..<pages, using: &random)
      let count = min(pages - start, Int.random(in: 1...(isLong ? 1200 : 12), using: &random))
      let isBirth = owners[start..<start + count].allSatisfy { $0 == nil }
      let kind =
        isBirth
        ? (Bool.random(using: &random) ? HS_LOG_SPAN : HS_LOG_SPAN_AT)
        : HS_LOG_SPAN_FREE
      let record = LogRecord(
        time: 0, thread: 0, kind: kind, alignment: 4096, address: (first + UInt64(start)) * 4096,
        bytes: UInt64(count) * 4096)
      var events: [TraceEventBody] = []
      try conversion.add(record, &report) { (event) throws(TraceError) in events.append(event) }
      let what: Comment = "seed \(seed), step \(step), \(kind) \(start) \(count): \(events)"
      if isBirth {
        let before = start > 0 ? owners[start - 1] : nil
        // Only what ends there can grow; a span never has a hole.
        if kind == HS_LOG_SPAN_AT, let before {
          lengths[before]! += count
          for page in start..<start + count { owners[page] = before }
          try #require(events == [.resizeSpan(span: before, pages: lengths[before]!, isZeroed: false)], what)
        } else {
          for page in start..<start + count { owners[page] = born }
          lengths[born] = count
          try #require(events == [.allocateSpan(span: born, pages: count, traits: SpanTraits())], what)
          born += 1
        }
      } else {
        try check(events, &owners, &lengths, &born, start..<start + count, what)
      }
    }
    #expect(report.unseenReleases == 0)
  }

  /// Applies the events of a release to the model and compares.
  private func check(
    _ events: [TraceEventBody], _ owners: inout [Int?], _ lengths: inout [Int: Int], _ born: inout Int,
    _ range: Range<Int>, _ what: Comment
  ) throws {
    var expected = owners
    for page in range { expected[page] = nil }
    for event in events {
      switch event {
      case .free(let span):
        for page in owners.indices where owners[page] == span { owners[page] = nil }
        lengths[span] = nil
      case .resizeSpan(let span, let pages, _):
        let start = owners.firstIndex(of: span)!
        for page in start + pages..<start + lengths[span]! { owners[page] = nil }
        lengths[span] = pages
      case .freePages(let span, let first, let pages, let tail, _):
        let start = owners.firstIndex(of: span)!
        let length = lengths[span]!
        for page in start + first..<start + first + pages { owners[page] = nil }
        if let tail {
          try #require(tail == born, what)
          born += 1
          for page in start + first + pages..<start + length {
            owners[page] = tail
            expected[page] = tail
          }
          lengths[tail] = length - first - pages
        }
        lengths[span] = first == 0 ? nil : first
      default: Issue.record(what)
      }
    }
    try #require(owners == expected, what)
    let joined = events.dropLast().map { if case .freePages(_, _, _, _, true) = $0 { true } else { false } }
    // Pieces with a hole between them are no neighbours.
    #expect(joined.count == max(0, events.count - 1), what)
  }

  @Test("that were refused name the span that was to grow")
  func refusals() throws {
    var conversion = SpanConversion(pageBytes: 4096)
    var report = ConversionReport()
    var events: [TraceEventBody] = []
    func add(_ kind: hs_log_kind, _ page: UInt64, _ pages: UInt64, alignment: Int = 4096, hints: UInt64 = 0) throws {
      let record = LogRecord(
        time: 0, thread: 0, kind: kind, alignment: alignment, address: page * 4096, bytes: pages * 4096 | hints)
      try conversion.add(record, &report) { (event) throws(TraceError) in events.append(event) }
    }
    try add(HS_LOG_SPAN, 10, 4, alignment: 1 << 21, hints: 1)
    try add(HS_LOG_SPAN_REFUSED, 14, 2)
    try add(HS_LOG_SPAN_REFUSED, 20, 2)
    try add(HS_LOG_SPAN_REFUSED, 0, 3, hints: 1)
    try add(HS_LOG_SPAN_FREE, 100, 1)
    try add(HS_LOG_SPAN, 12, 9)
    try add(HS_LOG_IMAGE, 0, 0)
    #expect(
      events == [
        .allocateSpan(span: 0, pages: 4, traits: SpanTraits(alignmentPages: 512, isZeroed: true)),
        .refuseGrowth(span: 0, pages: 6, isZeroed: false), .refuseSpan(pages: 2, traits: SpanTraits()),
        .refuseSpan(pages: 3, traits: SpanTraits(isZeroed: true)),
        .resizeSpan(span: 0, pages: 2, isZeroed: false), .allocateSpan(span: 1, pages: 9, traits: SpanTraits()),
        .free(object: 0), .free(object: 1),
      ])
    #expect(report.unknownReleases == 1 && report.unseenReleases == 1 && report.replacedImages == 1)
  }
}
