// Spans of several blocks: the place that was found for one, and how it is taken.
//
// A span begins with a block. What it leaves of its last block is open to others (donated). To begin it in the free end of the block
// before instead was tried: it saves 2 % of the cost on the bundled images trace, and large spans could grow in place less often.

/// Where a span of several blocks begins, and which free blocks it takes.
struct SpanPlace {
  var arena: Int
  /// Block and page of the span's first page.
  var block: Int
  var page: Int
  /// The wholly free blocks that it takes.
  var firstFree: Int
  var freeCount: Int
  /// All of these are in memory.
  var isResident: Bool
}

extension PageHeapCore {
  /// Takes `count` pages from `place` on. Under the lock.
  func takeSpan(_ count: Int, at place: SpanPlace) -> AllocatedSpan {
    let arena = state.pointee.arenas + place.arena
    let before = state.pointee.totals.pagesRefaulted
    var isZero = true
    var rest = count
    var number = place.block
    var page = place.page
    while rest > 0 {
      let block = arena.pointee.block(number)
      let pages = min(rest, pagesPerBlock - page)
      let taken: (refaulted: Int, zero: Bool)
      if block.pointee.kind == .occupied {
        taken = state.pointee.take(
          block, PageRun(start: page, count: pages), startsSpan: rest == count, longest: nil)
      } else {
        state.pointee.claim(block, transient: false)
        if pages < pagesPerBlock { block.pointee.flags.insert(.donated) }
        taken = state.pointee.fill(block, count: pages, startsSpan: rest == count)
      }
      isZero = isZero && taken.zero
      state.pointee.relist(block)
      rest -= pages
      number += 1
      page = 0
    }
    state.pointee.totals.allocations &+= 1
    return AllocatedSpan(
      span: PageSpan(
        address: state.pointee.address(of: arena.pointee.block(place.block), page: place.page), pageCount: count),
      isZero: isZero, refaultedPages: min(state.pointee.totals.pagesRefaulted - before, count))
  }
}
