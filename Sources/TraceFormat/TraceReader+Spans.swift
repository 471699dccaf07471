// Events of spans, decoded: what TraceReader.swift is for objects.

extension TraceReader {
  /// The event whose first byte holds `eventClass` and `detail`.
  mutating func spanEvent(_ eventClass: UInt8, _ detail: UInt8, at start: Int) throws(TraceError) -> TraceEventBody {
    switch eventClass {
    case EventClass.birth:
      let span = try birth(at: start)
      return try born(span, checkedPages(size(detail, at: start), at: start), SpanTraits())
    case EventClass.death: return .free(object: try death(detail, at: start))
    case EventClass.resize:
      let pages = try checkedPages(size(detail, at: start), at: start)
      let span = try livingSpan(at: start)
      lengths[span] = pages
      return .resizeSpan(span: span, pages: pages, isZeroed: false)
    default: return try otherSpanEvent(detail, at: start)
    }
  }

  private mutating func otherSpanEvent(_ detail: UInt8, at start: Int) throws(TraceError) -> TraceEventBody {
    switch detail {
    case OtherDetail.sample: return .sample(try sample(at: start))
    case OtherDetail.zeroed:
      let span = try birth(at: start)
      return try born(span, codedPages(at: start), SpanTraits(isZeroed: true))
    case OtherDetail.aligned:
      let span = try birth(at: start)
      let pages = try codedPages(at: start)
      return born(span, pages, SpanTraits(alignmentPages: 1 << Int(try alignmentLogarithm(at: start))))
    case OtherDetail.span: break
    default: throw impossible("an event of unknown kind", at: start)
    }
    guard let kind = chunkCursor.byte() else { throw short(at: start) }
    switch kind {
    case SpanDetail.birth:
      let span = try birth(at: start)
      let (pages, traits) = try pagesAndTraits(at: start)
      return born(span, pages, traits)
    case SpanDetail.refusedBirth:
      let (pages, traits) = try pagesAndTraits(at: start)
      return .refuseSpan(pages: pages, traits: traits)
    case SpanDetail.freePages, SpanDetail.freePagesJoined:
      return try freedPages(isJoined: kind == SpanDetail.freePagesJoined, at: start)
    case SpanDetail.growZeroed:
      let pages = try codedPages(at: start)
      let span = try livingSpan(at: start)
      lengths[span] = pages
      return .resizeSpan(span: span, pages: pages, isZeroed: true)
    case SpanDetail.refusedGrowth, SpanDetail.refusedGrowthZeroed:
      let pages = try codedPages(at: start)
      return .refuseGrowth(
        span: try livingSpan(at: start), pages: pages, isZeroed: kind == SpanDetail.refusedGrowthZeroed)
    default: throw impossible("an event of unknown kind", at: start)
    }
  }

  private mutating func born(_ span: Int, _ pages: Int, _ traits: SpanTraits) -> TraceEventBody {
    lengths.append(pages)
    return .allocateSpan(span: span, pages: pages, traits: traits)
  }

  private mutating func freedPages(isJoined: Bool, at start: Int) throws(TraceError) -> TraceEventBody {
    let span = try livingSpan(at: start)
    guard let first = chunkCursor.varint(), let pages = chunkCursor.varint() else { throw short(at: start) }
    let length = lengths[span]
    guard first < UInt64(length), pages > 0, pages <= UInt64(length) - first else {
      throw impossible("free of \(pages) pages from page \(first) on of span \(span), which has \(length)", at: start)
    }
    lastFreed = span
    if first == 0 { _ = live.remove(span) }
    var tail: Int?
    let rest = length - Int(first) - Int(pages)
    if rest > 0 {
      tail = try birth(at: start)
      lengths.append(rest)
    }
    lengths[span] = Int(first)
    return .freePages(span: span, first: Int(first), pages: Int(pages), tail: tail, isJoined: isJoined)
  }

  /// A span that is named by how many were born after it.
  private mutating func livingSpan(at start: Int) throws(TraceError) -> Int {
    guard let distance = chunkCursor.varint() else { throw short(at: start) }
    guard distance < UInt64(objectCount) else { throw impossible("an event of a span before the first", at: start) }
    let span = objectCount - 1 - Int(distance)
    if !live.contains(span) { throw impossible("an event of span \(span), which is dead", at: start) }
    return span
  }

  private mutating func pagesAndTraits(at start: Int) throws(TraceError) -> (pages: Int, traits: SpanTraits) {
    let pages = try codedPages(at: start)
    let logarithm = try alignmentLogarithm(at: start)
    guard let code = chunkCursor.byte() else { throw short(at: start) }
    guard let traits = SpanTraits(coded: code, alignmentLogarithm: logarithm) else {
      throw impossible("a span with traits \(code)", at: start)
    }
    return (pages, traits)
  }

  private mutating func alignmentLogarithm(at start: Int) throws(TraceError) -> UInt8 {
    guard let logarithm = chunkCursor.byte() else { throw short(at: start) }
    if logarithm > UInt8(TraceLimits.alignmentLogarithm) {
      throw impossible("an alignment of 2^\(logarithm) pages", at: start)
    }
    return logarithm
  }

  /// Pages outside of the first byte.
  private mutating func codedPages(at start: Int) throws(TraceError) -> Int {
    guard let code = chunkCursor.varint() else { throw short(at: start) }
    if code < UInt64(RecentSizes.escape) {
      return try checkedPages(checked(sizes.size(at: UInt8(code)), at: start), at: start)
    }
    sizes.insert(code - UInt64(RecentSizes.escape))
    return try checkedPages(checked(code - UInt64(RecentSizes.escape), at: start), at: start)
  }

  private func checkedPages(_ pages: Int, at start: Int) throws(TraceError) -> Int {
    if pages > TraceLimits.objectBytes / header.pageBytes { throw impossible("a span of \(pages) pages", at: start) }
    return pages
  }
}
