// Spans at a wished address, and growth in place, which is the same without a new start.

extension PageHeapCore {
  /// Allocates exactly the `count` pages at `address`, or throws `addressNotFree` and changes nothing.
  func allocateAt(_ address: UInt, _ count: Int) throws(HeapError) -> AllocatedSpan {
    lock.lock()
    do throws(HeapError) {
      try makeRoom(at: address, count)
      let taken = try takeRange(at: address, count, startsSpan: true)
      state.pointee.totals.allocations &+= 1
      lock.unlock()
      return settled(
        AllocatedSpan(
          span: PageSpan(address: address, pageCount: count), isZero: taken.zero, refaultedPages: taken.refaulted))
    } catch {
      lock.unlock()
      throw error
    }
  }

  /// Extends `span` by `pages` in place, into free pages that follow it, or returns nil and changes nothing; also if its
  /// last page is discarded.
  ///
  /// - Complexity: O(blocks of the extension). At a limit, what is released to make room besides.
  package func grow(_ span: PageSpan, by pages: Int) -> PageSpan? {
    if pages <= 0 { return pages == 0 ? span : nil }
    guard let grown = growInPlace(span, by: pages) else { return nil }
    if marksLazyBlocks {
      settleTakenBack(
        AddressRange(start: span.address &+ UInt(span.pageCount &<< pageShift), byteCount: pages &<< pageShift))
    }
    return grown
  }

  @inline(__always)
  private func growInPlace(_ span: PageSpan, by pages: Int) -> PageSpan? {
    lock.lock()
    defer { lock.unlock() }
    let end = span.address &+ UInt(truncatingIfNeeded: span.pageCount) &<< UInt(pageShift)
    // The span must be ours and end where its caller thinks, else the extension would be a span without a start.
    guard span.pageCount > 0, let last = state.pointee.block(at: end &- 1), last.pointee.kind == .occupied else {
      return nil
    }
    let page = Int((end &- 1) >> UInt(pageShift)) & (pagesPerBlock - 1)
    guard last.used[page], !state.pointee.isInFlight(last, PageRun(start: page, count: 1)) else { return nil }
    // A span that is discarded in part would be undone by nobody.
    if let maps = state.pointee.discards(of: last), maps.discarded[page] { return nil }
    // Arenas may lie end to end, and a span is in one of them.
    let arena = state.pointee.arenas[Int(last.pointee.arena)]
    guard arena.contains(span.address), arena.contains(end) else { return nil }
    do throws(HeapError) {
      // The lock may be open meanwhile; the span is its caller's, and whether the pages are free is asked again.
      try makeRoom(at: end, pages)
      _ = try takeRange(at: end, pages, startsSpan: false)
    } catch { return nil }
    return PageSpan(address: span.address, pageCount: span.pageCount + pages)
  }

  /// Releases other free memory if taking the pages at `address` would be above a limit. Held lock on entry and return;
  /// may open it in between.
  private func makeRoom(at address: UInt, _ count: Int) throws(HeapError) {
    if !state.pointee.hasLimit { return }
    var mayRelease = true
    while mayRelease {
      let charge = try chargeOfRange(at: address, count)
      if charge == 0 || state.pointee.excess(charge) <= 0 { return }
      if state.pointee.usedPages + count > state.pointee.hardLimitPages { throw .limitExceeded }
      mayRelease =
        releaseForLimit(pages: state.pointee.excess(charge))
        && state.pointee.chargedPages + charge > state.pointee.hardLimitPages
    }
  }

  /// Pages that would be charged if the `count` pages at `address` were taken; throws unless they are free everywhere.
  private func chargeOfRange(at address: UInt, _ count: Int) throws(HeapError) -> Int {
    let arena = state.pointee.arenaIndex(of: address)
    if arena < 0 { throw .addressNotFree }
    let arenaPointer = state.pointee.arenas + arena
    let offset = Int(address - arenaPointer.pointee.range.start)
    guard count <= (arenaPointer.pointee.range.byteCount - offset) >> pageShift else { throw .addressNotFree }
    let firstBlock = offset >> bytesPerBlockShift
    let first = (offset >> pageShift) & (pagesPerBlock - 1)
    let blocks = (first + count + pagesPerBlock - 1) / pagesPerBlock

    // Free everywhere? And how much would it charge?
    var charge = 0
    var rest = count
    var start = first
    for number in firstBlock..<(firstBlock + blocks) {
      let run = PageRun(start: start, count: min(rest, pagesPerBlock - start))
      if number < arenaPointer.pointee.committedBlocks {
        let block = arenaPointer.pointee.block(number)
        switch block.pointee.kind {
        case .occupied:
          if block.used.containsAny(run) { throw .addressNotFree }
          charge += block.pointee.released == 0 ? 0 : block.marks.count(in: run)
        case .absent: charge += pagesPerBlock
        case .freeResident: charge += block.gonePages
        case .releasing: throw .addressNotFree
        }
      } else {
        charge += pagesPerBlock
      }
      rest -= run.count
      start = 0
    }
    return charge
  }

  /// Takes the free pages at `address`. Under the lock; never opens it, so what it checked still holds when it takes.
  private func takeRange(
    at address: UInt, _ count: Int, startsSpan: Bool
  ) throws(HeapError) -> (refaulted: Int, zero: Bool) {
    let charge = try chargeOfRange(at: address, count)
    let arena = state.pointee.arenaIndex(of: address)
    let arenaPointer = state.pointee.arenas + arena
    let offset = Int(address - arenaPointer.pointee.range.start)
    let firstBlock = offset >> bytesPerBlockShift
    let first = (offset >> pageShift) & (pagesPerBlock - 1)
    let blocks = (first + count + pagesPerBlock - 1) / pagesPerBlock
    if state.pointee.chargedPages + charge > state.pointee.hardLimitPages { throw .limitExceeded }

    let missing = firstBlock + blocks - arenaPointer.pointee.committedBlocks
    if missing > 0 && !commit(arena, missing) { throw .kernel(.outOfMemory) }
    if let error = recommit(arena: arena, first: firstBlock, count: blocks) { throw .kernel(error) }

    var refaulted = 0
    var isZero = true
    var rest = count
    var start = first
    for number in firstBlock..<(firstBlock + blocks) {
      let block = arenaPointer.pointee.block(number)
      let run = PageRun(start: start, count: min(rest, pagesPerBlock - start))
      if block.pointee.kind != .occupied { state.pointee.claim(block, transient: false) }
      let taken = state.pointee.take(block, run, startsSpan: startsSpan && number == firstBlock, longest: nil)
      state.pointee.relist(block)
      refaulted += taken.refaulted
      isZero = isZero && taken.zero
      rest -= run.count
      start = 0
    }
    return (refaulted, isZero)
  }
}
