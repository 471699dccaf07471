// Events of spans, encoded: what TraceWriter.swift is for objects.

extension TraceWriter {
  /// Refuses what no allocator can ask of a page heap, and books deaths.
  mutating func checkSpan(_ body: TraceEventBody) throws(TraceError) {
    switch body {
    case .allocateSpan(let span, let pages, let traits):
      if span != objectCount { throw impossible("span \(span) is born, \(objectCount) is next") }
      try check(pages: pages)
      try check(traits)
    case .resizeSpan(let span, let pages, _), .refuseGrowth(let span, let pages, _):
      try check(living: span, "resize")
      try check(pages: pages)
    case .refuseSpan(let pages, let traits):
      try check(pages: pages)
      try check(traits)
    case .free(let span):
      try check(living: span, "free")
      _ = live.remove(span)
    case .freePages(let span, let first, let pages, let tail, _):
      try check(living: span, "free")
      let length = lengths[span]
      if first < 0 || pages < 1 || first >= length || pages > length - first {
        throw impossible("free of \(pages) pages from page \(first) on of span \(span), which has \(length)")
      }
      if tail != (first + pages < length ? objectCount : nil) {
        throw impossible("the rest of span \(span) is span \(tail.map { "\($0)" } ?? "none"), \(objectCount) is next")
      }
      if first == 0 { _ = live.remove(span) }
    case .sample(let sample): try check(sample)
    case .allocate, .resize: throw impossible("an event of malloc in a trace of spans")
    }
  }

  private func check(living span: Int, _ what: String) throws(TraceError) {
    if span < 0 || span >= objectCount || !live.contains(span) {
      throw impossible("\(what) of span \(span), which does not live")
    }
  }

  private func check(pages: Int) throws(TraceError) {
    if pages <= 0 || pages > TraceLimits.objectBytes / header.pageBytes { throw impossible("a span of \(pages) pages") }
  }

  private func check(_ traits: SpanTraits) throws(TraceError) {
    let pages = traits.alignmentPages
    if pages <= 0 || pages & (pages - 1) != 0 || pages > 1 << TraceLimits.alignmentLogarithm {
      throw impossible("an alignment of \(pages) pages")
    }
  }

  /// Encodes an event that only spans have.
  mutating func encodeSpan(_ body: TraceEventBody, _ steps: UInt64) {
    switch body {
    case .allocateSpan(_, let pages, let traits):
      bear()
      lengths.append(pages)
      encodeSpanBirth(pages, traits, steps)
    case .resizeSpan(let span, let pages, let isZeroed):
      lengths[span] = pages
      if isZeroed {
        appendSpanFirst(SpanDetail.growZeroed, steps)
        appendSize(pages)
      } else {
        let index = sizes.index(of: UInt64(pages))
        appendFirst(EventClass.resize, detail: index ?? RecentSizes.escape, steps)
        if index == nil { payload.appendVarint(UInt64(pages)) }
      }
      payload.appendVarint(UInt64(objectCount - 1 - span))
    case .freePages(let span, let first, let pages, let tail, let isJoined):
      appendSpanFirst(isJoined ? SpanDetail.freePagesJoined : SpanDetail.freePages, steps)
      payload.appendVarint(UInt64(objectCount - 1 - span))
      payload.appendVarint(UInt64(first))
      payload.appendVarint(UInt64(pages))
      lastFreed = span
      if tail != nil {
        bear()
        lengths.append(lengths[span] - first - pages)
      }
      lengths[span] = first
    case .refuseSpan(let pages, let traits):
      appendSpanFirst(SpanDetail.refusedBirth, steps)
      appendTraits(pages, traits)
    case .refuseGrowth(let span, let pages, let isZeroed):
      appendSpanFirst(isZeroed ? SpanDetail.refusedGrowthZeroed : SpanDetail.refusedGrowth, steps)
      appendSize(pages)
      payload.appendVarint(UInt64(objectCount - 1 - span))
    case .allocate, .resize, .free, .sample: preconditionFailure("encoded elsewhere")
    }
  }

  private mutating func encodeSpanBirth(_ pages: Int, _ traits: SpanTraits, _ steps: UInt64) {
    if traits == SpanTraits() {
      let index = sizes.index(of: UInt64(pages))
      appendFirst(EventClass.birth, detail: index ?? RecentSizes.escape, steps)
      if index == nil { payload.appendVarint(UInt64(pages)) }
    } else if traits == SpanTraits(isZeroed: true) {
      appendFirst(EventClass.other, detail: OtherDetail.zeroed, steps)
      appendSize(pages)
    } else if traits == SpanTraits(alignmentPages: traits.alignmentPages) {
      appendFirst(EventClass.other, detail: OtherDetail.aligned, steps)
      appendSize(pages)
      payload.append(UInt8(traits.alignmentPages.trailingZeroBitCount))
    } else {
      appendSpanFirst(SpanDetail.birth, steps)
      appendTraits(pages, traits)
    }
  }

  private mutating func appendSpanFirst(_ detail: UInt8, _ steps: UInt64) {
    appendFirst(EventClass.other, detail: OtherDetail.span, steps)
    payload.append(detail)
  }

  private mutating func appendTraits(_ pages: Int, _ traits: SpanTraits) {
    appendSize(pages)
    payload.append(UInt8(traits.alignmentPages.trailingZeroBitCount))
    payload.append(traits.coded)
  }

  /// A size outside of the first byte: its place among the recent ones, or itself beyond those.
  private mutating func appendSize(_ pages: Int) {
    let index = sizes.index(of: UInt64(pages))
    payload.appendVarint(index.map(UInt64.init) ?? UInt64(pages) + UInt64(RecentSizes.escape))
  }
}
