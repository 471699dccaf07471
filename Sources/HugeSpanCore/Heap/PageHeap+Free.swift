// Taking pages back: a span, a part of one, or any union of neighbours.
//
// A heap under a real allocator gets sub-ranges and unions of what it handed out, so there is one operation, on ranges.
// What remains of a span that is cut stays a span: its head keeps its start, its tail gets one.

extension PageHeapCore {
  /// Frees the pages of `span`, which may be any range of pages that are all handed out.
  ///
  /// Ends the program, naming the address, when a page of it is not: a double free, or not of this heap.
  ///
  /// - Complexity: O(blocks of the span).
  package func free(_ span: PageSpan) {
    lock.lock()
    free(locked: span)
    state.pointee.totals.frees &+= 1
    lock.unlock()
  }

  @inline(__always)
  private func free(locked span: PageSpan) {
    guard let block = state.pointee.block(at: span.address), span.address & 4095 == 0,
      UInt(bitPattern: span.pageCount &- 1) < 1 << 40
    else { failFree(span) }
    // What is discarded is freed as anything else; that it is wanted is forgotten.
    if state.pointee.discardedPages != 0, let range = AddressRange(span) { state.pointee.endDiscard(range) }
    let first = Int(bitPattern: (span.address &>> UInt(pageShift)) & UInt(pagesPerBlock &- 1))
    if span.pageCount == pagesPerBlock && first == 0 && block.pointee.kind == .occupied
      && Int(block.pointee.used) == pagesPerBlock && block.pointee.spans == 1 && block.marks[0]
    {
      // One span that fills its block: nothing to check page by page.
      startSpanAfter(block, PageRun(start: 0, count: pagesPerBlock))
      state.pointee.giveWhole(block)
      return
    }
    if first &+ span.pageCount <= pagesPerBlock {
      let run = PageRun(start: first, count: span.pageCount)
      check(block, run)
      startSpanAfter(block, run)
      state.pointee.give(block, run)
      return
    }
    freeManyBlocks(block, first: first, count: span.pageCount)
  }

  @inline(never)
  private func freeManyBlocks(_ firstBlock: Block, first: Int, count: Int) {
    // Checked as a whole before anything changes, so that a message about a bad free finds the heap as it was.
    forEachPiece(firstBlock, first: first, count: count) { block, run, _ in check(block, run) }
    forEachPiece(firstBlock, first: first, count: count) { block, run, isLast in
      if isLast { startSpanAfter(block, run) }
      state.pointee.give(block, run)
    }
  }

  /// Calls `body` with the part of the range in each block, ascending.
  func forEachPiece(_ firstBlock: Block, first: Int, count: Int, _ body: (Block, PageRun, Bool) -> Void) {
    var block = firstBlock
    var start = first
    var rest = count
    while true {
      let pages = min(rest, pagesPerBlock - start)
      rest -= pages
      // What follows is looked up first: giving a block back changes its links.
      // Arenas may lie end to end, and whoever merges neighbours does not know where one ends.
      let end = state.pointee.address(of: block) &+ UInt(bytesPerBlock)
      let next = rest > 0 ? state.pointee.following(block) ?? state.pointee.block(at: end) : nil
      body(block, PageRun(start: start, count: pages), rest == 0)
      if rest == 0 { return }
      guard let next else {
        fail("free of memory that is not of this heap at", address: state.pointee.address(of: block, page: 0))
      }
      block = next
      start = 0
    }
  }

  /// Ends the program unless every page of `run` is handed out.
  @inline(__always)
  private func check(_ block: Block, _ run: PageRun) {
    if block.pointee.kind != .occupied || !block.used.containsAll(run)
      || (block.pointee.inFlight != 0 && state.pointee.isInFlight(block, run))
    {
      failFree(block, run)
    }
  }

  @inline(never)
  private func failFree(_ span: PageSpan) -> Never {
    if state.pointee.block(at: span.address) == nil {
      fail("free of memory that is not of this heap at", address: span.address)
    }
    fail("free of something else than whole pages at", address: span.address)
  }

  @inline(never)
  private func failFree(_ block: Block, _ run: PageRun) -> Never {
    var page = run.start
    if block.pointee.kind == .occupied { page = min(block.used.firstClear(from: run.start), run.end - 1) }
    fail(
      "double free, or free of memory that was never handed out, at",
      address: state.pointee.address(of: block, page: page))
  }

  /// If the span goes on behind the range that is freed, its rest becomes a span of its own.
  @inline(__always)
  private func startSpanAfter(_ block: Block, _ run: PageRun) {
    if run.end < pagesPerBlock {
      if block.used[run.end] && !block.marks[run.end] { startSpan(block, run.end) }
    } else if let next = state.pointee.following(block), next.pointee.kind == .occupied, next.used[0], !next.marks[0] {
      startSpan(next, 0)
    }
  }

  @inline(never)
  private func startSpan(_ block: Block, _ page: Int) {
    block.marks.setBit(page)
    block.pointee.spans += 1
    state.pointee.relist(block)
  }

  /// Shortens `span` to its first `pageCount` pages and frees the rest. At least one page stays.
  package func shrink(_ span: PageSpan, toPages pageCount: Int) -> PageSpan {
    if pageCount >= span.pageCount || pageCount < 1 { return span }
    let rest = PageSpan(
      address: span.address + UInt(pageCount) << UInt(pageShift), pageCount: span.pageCount - pageCount)
    lock.lock()
    free(locked: rest)
    lock.unlock()
    return PageSpan(address: span.address, pageCount: pageCount)
  }
}
