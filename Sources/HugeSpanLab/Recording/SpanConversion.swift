// A raw recording of a front end becomes a trace of spans: ranges of addresses become spans, numbered in the order of
// their birth, and parts of them.
//
// Memory at a wished address that follows a span makes that span longer: a front end asks for it for nothing else, and
// joins the two on its side. Elsewhere it is a span of its own.

import CRecordingLog
import TraceFormat

/// The state of the conversion: which spans live where.
struct SpanConversion {
  private var map = SpanMap()
  private let pageBytes: UInt64
  /// The number of the next span.
  private var nextSpan = 0

  init(pageBytes: Int) { self.pageBytes = UInt64(pageBytes) }

  /// Calls `emit` with the events of a record, and counts into `report` what was odd about it.
  mutating func add(
    _ record: LogRecord, _ report: inout ConversionReport, emit: (TraceEventBody) throws(TraceError) -> Void
  ) throws(TraceError) {
    switch record.kind {
    case HS_LOG_SPAN, HS_LOG_SPAN_AT: try birth(record, &report, emit)
    case HS_LOG_SPAN_FREE:
      let bytes = record.bytes
      let freed = try free(record.address, bytes, emit)
      if freed < bytes { report.unknownReleases += 1 }
    case HS_LOG_SPAN_REFUSED:
      let (pages, traits) = request(record)
      if pages < 1 || pages > UInt64(TraceLimits.objectBytes) / pageBytes { break }
      if record.address != 0, let before = map.piece(endingAt: record.address) {
        let total = (before.end - before.start) / pageBytes + pages
        try emit(.refuseGrowth(span: before.span, pages: Int(total), isZeroed: traits.isZeroed))
      } else {
        try emit(.refuseSpan(pages: Int(pages), traits: traits))
      }
    case HS_LOG_IMAGE:
      report.replacedImages += 1
      for piece in map.all { try emit(.free(object: piece.span)) }
      map = SpanMap()
    default: break
    }
  }

  private func request(_ record: LogRecord) -> (pages: UInt64, traits: SpanTraits) {
    let hints = UInt64(HS_LOG_SPAN_HINTS.rawValue)
    let alignment = max(1, min(record.alignment / Int(pageBytes), 1 << TraceLimits.alignmentLogarithm))
    let code = UInt8(truncatingIfNeeded: record.bytes & hints)
    let traits =
      SpanTraits(coded: code, alignmentLogarithm: UInt8(alignment.trailingZeroBitCount))
      ?? SpanTraits(alignmentPages: alignment)
    return ((record.bytes & ~hints) / pageBytes, traits)
  }

  private mutating func birth(
    _ record: LogRecord, _ report: inout ConversionReport, _ emit: (TraceEventBody) throws(TraceError) -> Void
  ) throws(TraceError) {
    let (pages, traits) = request(record)
    guard pages > 0, pages <= UInt64(TraceLimits.objectBytes) / pageBytes else { return }
    let end = record.address + pages * pageBytes
    if try free(record.address, pages * pageBytes, emit) > 0 { report.unseenReleases += 1 }
    report.heapBirths += 1
    if record.kind == HS_LOG_SPAN_AT, var before = map.piece(endingAt: record.address) {
      map.remove(before)
      before.end = end
      map.insert(before)
      let total = Int((before.end - before.start) / pageBytes)
      return try emit(.resizeSpan(span: before.span, pages: total, isZeroed: traits.isZeroed))
    }
    map.insert(SpanMap.Piece(start: record.address, end: end, span: nextSpan))
    try emit(.allocateSpan(span: nextSpan, pages: Int(pages), traits: traits))
    nextSpan += 1
  }

  /// Frees what is known of a range.
  ///
  /// - Returns: the bytes that were known.
  private mutating func free(
    _ start: UInt64, _ bytes: UInt64, _ emit: (TraceEventBody) throws(TraceError) -> Void
  ) throws(TraceError) -> UInt64 {
    let (end, overflow) = start.addingReportingOverflow(bytes)
    // No front end gives back more at once than there is; a record that says so is damage.
    if overflow || bytes > UInt64(TraceLimits.objectBytes) { return 0 }
    let pieces = map.pieces(from: start, to: end)
    var freed: UInt64 = 0
    for (index, piece) in pieces.enumerated() {
      let from = max(piece.start, start)
      let to = min(piece.end, end)
      freed += to - from
      map.remove(piece)
      if from > piece.start { map.insert(SpanMap.Piece(start: piece.start, end: from, span: piece.span)) }
      let isJoined = index + 1 < pieces.count && pieces[index + 1].start == to
      var tail: Int?
      if to < piece.end {
        tail = nextSpan
        map.insert(SpanMap.Piece(start: to, end: piece.end, span: nextSpan))
        nextSpan += 1
      }
      let first = Int((from - piece.start) / pageBytes)
      if !isJoined && tail == nil && first == 0 {
        try emit(.free(object: piece.span))
      } else if !isJoined && tail == nil {
        try emit(.resizeSpan(span: piece.span, pages: first, isZeroed: false))
      } else {
        try emit(
          .freePages(
            span: piece.span, first: first, pages: Int((to - from) / pageBytes), tail: tail, isJoined: isJoined))
      }
    }
    return freed
  }
}
