// A thread that discards its spans, takes them back, and compares every page with what it was.
//
// Most spans have 1 to 16 pages, some 17 to 128, some 512 to 1,300: whole hugepages, and parts of the next. Some are
// discarded in two pieces, one later than the other, so that the kernel comes to them at different times. A few are kept after
// their verdict and compared again before they go: what was pinned must stay.

import CHugeSpanShims
import HugeSpanCore

typealias Heap = PageHeapCore<LinuxKernel>

/// What came of a number of verdicts.
struct Tally {
  var verdicts = 0
  var intact = 0
  var lost = 0
  var partlyLost = 0
  /// Verdicts on spans of 512 pages and more, and those of which a hugepage was whole before the discard and was not at the undo,
  /// or the other way round.
  var largeVerdicts = 0
  var splitBetween = 0
  var rebuiltBetween = 0
  var pages = 0
  var lostPages = 0
  /// Pages that were called intact and are not, pages that were called lost and are not zero, pages that changed after they
  /// were pinned.
  var falseIntact = 0
  var falseLost = 0
  var unpinned = 0
  /// Nanoseconds in calls on spans of at most 16 pages, and such calls; the same for 512 and more, with their pages.
  var smallDiscard: UInt64 = 0
  var smallUndo: UInt64 = 0
  var smallCalls = 0
  var smallPages = 0
  var largeDiscard: UInt64 = 0
  var largeUndo: UInt64 = 0
  var largePages = 0

  static func + (a: Tally, b: Tally) -> Tally {
    var sum = a
    sum.verdicts += b.verdicts
    sum.intact += b.intact
    sum.lost += b.lost
    sum.partlyLost += b.partlyLost
    sum.largeVerdicts += b.largeVerdicts
    sum.splitBetween += b.splitBetween
    sum.rebuiltBetween += b.rebuiltBetween
    sum.pages += b.pages
    sum.lostPages += b.lostPages
    sum.falseIntact += b.falseIntact
    sum.falseLost += b.falseLost
    sum.unpinned += b.unpinned
    sum.smallDiscard += b.smallDiscard
    sum.smallUndo += b.smallUndo
    sum.smallCalls += b.smallCalls
    sum.smallPages += b.smallPages
    sum.largeDiscard += b.largeDiscard
    sum.largeUndo += b.largeUndo
    sum.largePages += b.largePages
    return sum
  }
}

/// One thread's spans and what it found. Used by its thread alone until that has ended.
final class Worker: @unchecked Sendable {
  private enum Stage { case discarded, halfDiscarded, kept }
  private struct Item {
    var span: PageSpan
    var payload: Payload
    var stage: Stage
    /// Hugepages below it when it was discarded.
    var huge: Int
  }

  private let heap: UnsafeMutablePointer<Heap>
  private var items: [Item] = []
  private var small: Range<Int> = 0..<0
  private var medium: Range<Int> = 0..<0
  private var large: Range<Int> = 0..<0
  private var kept: [Int] = []
  private var random: UInt64
  private var lost = [UInt64](repeating: 0, count: 32)
  private(set) var tally = Tally()

  init(_ heap: UnsafeMutablePointer<Heap>, bytes: Int, seed: UInt64) throws {
    self.heap = heap
    random = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    // By bytes: a half in small spans, a quarter each in the others.
    func add(_ share: Int, _ pages: ClosedRange<Int>) throws -> Range<Int> {
      let first = items.count
      var rest = share
      while rest > 0 || items.count < first + 2 {
        let count = pages == 512...1300 && next(2) == 0 ? 512 : pages.lowerBound + next(pages.count)
        let span = try heap.pointee.allocate(SpanRequest(pageCount: count)).span
        items.append(Item(span: span, payload: Payload(seed: next()), stage: .discarded, huge: 0))
        fill(items.count - 1)
        try discard(items.count - 1)
        rest -= count * 4096
      }
      return first..<items.count
    }
    small = try add(bytes / 2, 1...16)
    medium = try add(bytes / 4, 17...128)
    large = try add(bytes / 4, 512...1300)
  }

  /// The large spans, for whoever wants to disturb them.
  var largeSpans: [PageSpan] { items[large].map(\.span) }

  private func next() -> UInt64 {
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    return random
  }
  private func next(_ bound: Int) -> Int { Int(next() >> 33) % bound }

  /// Makes `count` verdicts.
  func run(_ count: Int) throws {
    while tally.verdicts < count {
      let kind = next(100)
      let range = kind < 1 ? large : kind < 8 ? medium : small
      let index = range.lowerBound + next(range.count)
      switch items[index].stage {
      case .discarded: try takeBack(index)
      case .halfDiscarded:
        let span = items[index].span
        try discard(PageSpan(address: span.address, pageCount: span.pageCount / 2))
        items[index].stage = .discarded
      case .kept: continue
      }
    }
  }

  private func address(_ index: Int, _ page: Int) -> UInt { items[index].span.address + UInt(page * 4096) }

  private func fill(_ index: Int) {
    for page in 0..<items[index].span.pageCount { items[index].payload.write(page, at: address(index, page)) }
  }

  private func discard(_ span: PageSpan) throws {
    let start = hs_shim_monotonic_nanoseconds()
    try heap.pointee.discard(span)
    let time = hs_shim_monotonic_nanoseconds() - start
    if span.pageCount <= 16 { tally.smallDiscard += time }
    if span.pageCount >= 512 { tally.largeDiscard += time }
  }

  /// Discards item `index`, wholly or the second half of it.
  private func discard(_ index: Int) throws {
    let span = items[index].span
    if span.pageCount >= 512 { items[index].huge = hugeBlocks(span) }
    if span.pageCount > 1 && span.pageCount <= 128 && next(2) == 0 {
      let half = span.pageCount / 2
      try discard(PageSpan(address: address(index, half), pageCount: span.pageCount - half))
      items[index].stage = .halfDiscarded
    } else {
      try discard(span)
      items[index].stage = .discarded
    }
  }

  private func takeBack(_ index: Int) throws {
    let span = items[index].span
    if span.pageCount >= 512 {
      let huge = hugeBlocks(span)
      if huge < items[index].huge { tally.splitBetween += 1 }
      if huge > items[index].huge { tally.rebuiltBetween += 1 }
      tally.largeVerdicts += 1
    }
    let start = hs_shim_monotonic_nanoseconds()
    let undone = try lost.withUnsafeMutableBufferPointer {
      try heap.pointee.undoDiscard(span, lostPages: $0.baseAddress)
    }
    let time = hs_shim_monotonic_nanoseconds() - start
    if span.pageCount <= 16 {
      tally.smallUndo += time
      tally.smallCalls += 1
      tally.smallPages += span.pageCount
    }
    if span.pageCount >= 512 {
      tally.largeUndo += time
      tally.largePages += span.pageCount
    }
    tally.verdicts += 1
    tally.pages += span.pageCount
    tally.lostPages += undone.lostPages
    switch undone.verdict {
    case .intact: tally.intact += 1
    case .lost: tally.lost += 1
    case .partlyLost: tally.partlyLost += 1
    }
    var isWhole = true
    for page in 0..<span.pageCount {
      if lost[page >> 6] >> UInt64(page & 63) & 1 != 0 {
        isWhole = false
        if !Payload.isZero(at: address(index, page)) { tally.falseLost += 1 }
      } else if !items[index].payload.isWritten(page, at: address(index, page)) {
        tally.falseIntact += 1
      }
    }
    if isWhole != (undone.verdict == .intact) { tally.falseIntact += 1 }
    // Other contents half of the time, and wherever something is missing.
    if !isWhole || next(2) == 0 {
      items[index].payload.seed = next()
      fill(index)
    }
    if span.pageCount <= 16 && next(4) == 0 {
      items[index].stage = .kept
      kept.append(index)
      if kept.count > 32 { try letGo(kept.removeFirst()) }
    } else {
      try discard(index)
    }
  }

  private func letGo(_ index: Int) throws {
    for page in 0..<items[index].span.pageCount
    where !items[index].payload.isWritten(page, at: address(index, page)) { tally.unpinned += 1 }
    try discard(index)
  }

  private func hugeBlocks(_ span: PageSpan) -> Int {
    var regions = [ResidentRegion](
      repeating: ResidentRegion(range: AddressRange(start: 0, byteCount: 0), isHuge: false, isPresent: false), count: 16
    )
    var bytes = 0
    var start = span.address
    let end = span.address + UInt(span.pageCount) << 12
    while start < end {
      let rest = AddressRange(start: start, byteCount: Int(end - start))
      guard
        let answer = try? regions.withUnsafeMutableBufferPointer({
          try heap.pointee.kernel.residency(of: rest, into: $0)
        }),
        answer.walkedTo > start
      else { break }
      for index in 0..<answer.count where regions[index].isHuge { bytes += regions[index].range.byteCount }
      start = answer.walkedTo
    }
    return bytes >> 21
  }
}
