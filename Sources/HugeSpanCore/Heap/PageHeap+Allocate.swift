// Handing out spans.
//
// Three ways, by what is asked: inside a block (under 512 pages; PlacementLists says which), a run of blocks (512 pages
// and more; its tail is donated), and a wished address (whatever lies there must be free).

extension PageHeapCore {
  /// Allocates a span.
  ///
  /// - Complexity: O(free ranges of one block) inside a block; O(blocks / 64 + blocks of the span) for a run.
  /// - Throws: `invalidRequest`, `kernel` when address space or memory is refused, `limitExceeded`, `addressNotFree`.
  package func allocate(_ request: SpanRequest) throws(HeapError) -> AllocatedSpan {
    let count = request.pageCount
    var span: AllocatedSpan
    if count < pagesPerBlock && count > 0 && request.alignmentPages == 1 && request.wishedAddress == nil {
      span = try allocateInBlock(count, transient: request.isTransient)
    } else {
      guard count > 0, count <= 1 << 40, request.alignmentPages > 0, request.alignmentPages <= 1 << 30,
        request.alignmentPages & (request.alignmentPages - 1) == 0
      else { throw .invalidRequest }
      if let address = request.wishedAddress {
        guard address & 4095 == 0, address & (UInt(request.alignmentPages) << UInt(pageShift) &- 1) == 0 else {
          throw .invalidRequest
        }
        span = try allocateAt(address, count)
      } else if count < pagesPerBlock && request.alignmentPages <= pagesPerBlock {
        span = try allocateAligned(count, alignment: request.alignmentPages, request)
      } else {
        span = try allocateRun(count, alignment: UInt(request.alignmentPages) << UInt(pageShift))
      }
    }
    if request.mustBeZero && !span.isZero {
      // Outside the lock: the pages are ours already, and a gigabyte takes its time.
      kernel.zero(AddressRange(start: span.span.address, byteCount: count << pageShift))
      span.isZero = true
    }
    return span
  }

  // MARK: Inside a block

  @inline(__always)
  private func allocateInBlock(_ count: Int, transient: Bool) throws(HeapError) -> AllocatedSpan {
    lock.lock()
    // The common case: an intact block has room. No limit can be in the way, its pages are resident already.
    if let block = state.pointee.lists.best(.intact, transient: transient, count: count) {
      let result = place(count, in: block)
      lock.unlock()
      return result
    }
    return try allocateInBlockSlowly(count, transient: transient)
  }

  /// Enters and leaves with the lock as its caller holds it: held on entry, open on return.
  @inline(never)
  private func allocateInBlockSlowly(_ count: Int, transient: Bool) throws(HeapError) -> AllocatedSpan {
    makeRoomForRefault(count, transient: transient)
    if let block = findBlock(count, transient: transient, steers: true) {
      let result = place(count, in: block)
      lock.unlock()
      return result
    }
    do throws(HeapError) {
      let fresh = try freshBlock(transient: transient)
      var result = place(count, in: fresh.block)
      result.refaultedPages = fresh.refaultedPages(of: count, result.refaultedPages)
      lock.unlock()
      return settled(result)
    } catch {
      // What was released for the limit may have made room; and rather the wrong group than no memory at all.
      if let block = findBlock(count, transient: transient) ?? findBlock(count, transient: !transient) {
        let result = place(count, in: block)
        lock.unlock()
        return result
      }
      lock.unlock()
      throw error
    }
  }

  /// The occupied block for `count` pages, by rank; nil if none has room within the limit, or, where the caller `steers`,
  /// if a fresh hugepage is the better place: by its price, or because the policy says so.
  private func findBlock(_ count: Int, transient: Bool, steers: Bool = false) -> Block? {
    let lists = state.pointee.lists
    if let block = lists.best(.intact, transient: transient, count: count) { return block }
    if let block = lists.best(.donated, transient: transient, count: count) { return block }
    let avoidsDraining = state.pointee.steersToIntact && steers
    // A hugepage that is there already costs nothing; a broken block that is nearly empty had better drain.
    if avoidsDraining && state.pointee.freeIntact.head != nil { return nil }
    if let block = lists.best(.brokenResident, transient: transient, count: count), !(avoidsDraining && block.mayDrain)
    {
      return block
    }
    if state.pointee.chargedPages + count > state.pointee.hardLimitPages { return nil }
    guard let block = lists.best(.released, transient: transient, count: count), !(avoidsDraining && block.mayDrain)
    else { return nil }
    return steers && state.pointee.hadBetterOpen(insteadOf: block, count) ? nil : block
  }

  /// Above a limit, other free memory goes before released memory comes back. Held lock on entry and return; may open it
  /// in between, so nothing found before still holds.
  @inline(__always)
  private func makeRoomForRefault(_ count: Int, transient: Bool) {
    if state.pointee.hasLimit { makeRoomForRefaultAtLimit(count, transient: transient) }
  }

  @inline(never)
  private func makeRoomForRefaultAtLimit(_ count: Int, transient: Bool) {
    let lists = state.pointee.lists
    guard state.pointee.excess(count) > 0, lists.best(.intact, transient: transient, count: count) == nil,
      lists.best(.donated, transient: transient, count: count) == nil,
      lists.best(.brokenResident, transient: transient, count: count) == nil,
      lists.best(.released, transient: transient, count: count) != nil
    else { return }
    _ = releaseForLimit(pages: state.pointee.excess(count))
  }

  /// Places `count` pages in `block`, which has a free range of that length. Under the lock.
  @inline(__always)
  private func place(_ count: Int, in block: Block) -> AllocatedSpan {
    guard let fit = block.used.bestFit(count: count, longest: Int(block.pointee.longest)) else {
      fail("longest free range of a block is wrong at", address: state.pointee.address(of: block))
    }
    return take(block, PageRun(start: fit.start, count: count), longest: fit.longestAfter)
  }

  @inline(__always)
  private func take(_ block: Block, _ run: PageRun, longest: Int?) -> AllocatedSpan {
    let taken = state.pointee.take(block, run, startsSpan: true, longest: longest)
    state.pointee.totals.allocations &+= 1
    state.pointee.relist(block)
    return AllocatedSpan(
      span: PageSpan(address: state.pointee.address(of: block, page: run.start), pageCount: run.count),
      isZero: taken.zero, refaultedPages: taken.refaulted)
  }

  // MARK: Fresh blocks

  /// Takes a wholly free block and lists it as occupied. Held lock on entry and return; may open it in between.
  private func freshBlock(transient: Bool) throws(HeapError) -> FreshBlock {
    let block = try obtainFreeBlock()
    let before = state.pointee.totals.pagesRefaulted
    state.pointee.claim(block, transient: transient)
    state.pointee.relist(block)
    return FreshBlock(block: block, cameBackWhole: state.pointee.totals.pagesRefaulted != before)
  }

  /// A wholly free block, still listed as free: resident and intact before lazily freed before emptied broken before
  /// absent before grown.
  @inline(__always)
  func obtainFreeBlock() throws(HeapError) -> Block {
    if let block = state.pointee.freeIntact.head { return block }
    return try obtainFreeBlockSlowly()
  }

  @inline(never)
  private func obtainFreeBlockSlowly() throws(HeapError) -> Block {
    var mayRelease = state.pointee.hasLimit
    var mayRebuild = true
    while true {
      if let block = state.pointee.freeIntact.head ?? state.pointee.freeLazy.head { return block }
      if let block = state.pointee.freeBroken.head {
        if mayRebuild && state.pointee.strategyReleases {
          // Dropping what is left of it costs one call and buys a hugepage at the next touch.
          mayRebuild = dropBroken(block)
          // This one and no other: what is free beside it stays in memory.
          if block.pointee.kind == .absent, state.pointee.chargedPages + pagesPerBlock <= state.pointee.hardLimitPages {
            return block
          }
          continue
        }
        if state.pointee.chargedPages + block.gonePages <= state.pointee.hardLimitPages { return block }
      }
      if mayRelease && state.pointee.excess(pagesPerBlock) > 0 {
        // Somebody else may have taken the room: as long as there is something to release, it is not too late.
        mayRelease =
          releaseForLimit(pages: state.pointee.excess(pagesPerBlock))
          && state.pointee.chargedPages + pagesPerBlock > state.pointee.hardLimitPages
        continue
      }
      if state.pointee.chargedPages + pagesPerBlock > state.pointee.hardLimitPages { throw .limitExceeded }
      if let block = absentBlock() { return block }
      if let error = grow(blocks: 1, alignment: 1) { throw .kernel(error) }
    }
  }

  // MARK: Aligned, inside a block

  private func allocateAligned(
    _ count: Int, alignment: Int, _ request: SpanRequest
  ) throws(HeapError) -> AllocatedSpan {
    // Blocks are aligned to more than any alignment here, so a fresh block always serves.
    lock.lock()
    let transient = request.isTransient
    // Any free range of this length contains an aligned one.
    let sufficient = min(count + alignment - 1, pagesPerBlock)
    makeRoomForRefault(sufficient, transient: transient)
    var block = alignedCandidate(count, alignment: alignment, transient: transient)
    if block == nil { block = findBlock(sufficient, transient: transient, steers: true) }
    var fresh: FreshBlock? = nil
    if block == nil {
      do throws(HeapError) {
        fresh = try freshBlock(transient: transient)
        block = fresh!.block
      } catch {
        // What was released for the limit may have made room; and rather the wrong group than no memory at all.
        block = findBlock(sufficient, transient: transient) ?? findBlock(sufficient, transient: !transient)
        if block == nil {
          lock.unlock()
          throw error
        }
      }
    }
    guard let start = alignedStart(in: block!, count: count, alignment: alignment) else {
      fail("longest free range of a block is wrong at", address: state.pointee.address(of: block!))
    }
    var result = take(block!, PageRun(start: start, count: count), longest: nil)
    if let fresh { result.refaultedPages = fresh.refaultedPages(of: count, result.refaultedPages) }
    lock.unlock()
    return settled(result)
  }

  /// Looks at the best eight intact blocks, whose ranges may happen to be aligned.
  private func alignedCandidate(_ count: Int, alignment: Int, transient: Bool) -> Block? {
    let base = PlacementLists.base(.intact, transient: transient)
    let end = base + PlacementLists.listsPerRank
    var from = base + (count - 1) * PlacementLists.degrees
    for _ in 0..<8 {
      guard from < end, let list = state.pointee.lists.firstList(from: from, end: end),
        let block = state.pointee.lists.heads[list]
      else { return nil }
      if alignedStart(in: block, count: count, alignment: alignment) != nil { return block }
      from = list + 1
    }
    return nil
  }

  /// The aligned place in the shortest free range that has one.
  private func alignedStart(in block: Block, count: Int, alignment: Int) -> Int? {
    var best: Int? = nil
    var bestCount = pagesPerBlock + 1
    block.used.forEachClearRun { run in
      let start = (run.start + alignment - 1) & ~(alignment - 1)
      if start + count <= run.end && run.count < bestCount {
        best = start
        bestCount = run.count
      }
      return true
    }
    return best
  }

  // MARK: Runs of blocks

  private func allocateRun(_ count: Int, alignment: UInt) throws(HeapError) -> AllocatedSpan {
    let blocks = (count + pagesPerBlock - 1) / pagesPerBlock
    lock.lock()
    // A single block, the commonest run: the newest intact one, if it is aligned well enough by being a block.
    if blocks == 1 && alignment <= UInt(bytesPerBlock) {
      if let block = state.pointee.freeIntact.head {
        let result = takeWhole(block)
        lock.unlock()
        return result
      }
      return try allocateWholeSlowly()
    }
    var mayRelease = state.pointee.hasLimit
    var mayMove = true
    while true {
      let found = bestRun(blocks, alignment: alignment)
      if mayMove, let found, !found.isResident, moveUnder(found) {
        // Somebody may have taken a part of it meanwhile; then the rest is faulted in.
        mayMove = false
        continue
      }
      // What is not there of the run will be charged; of one that is still to be made, at least what free blocks in
      // memory cannot give. Asked before the heap grows, so that a refusal reserves nothing.
      let missing =
        found.map { missingPages($0.arena, $0.firstFree, $0.freeCount) }
        ?? max(blocks - state.pointee.freeResidentBlocks, 0) * pagesPerBlock
      if mayRelease && missing > 0 && state.pointee.excess(missing) > 0 {
        // What cannot fit even then is not worth a release.
        let mayFit = state.pointee.usedPages + count <= state.pointee.hardLimitPages
        mayRelease =
          mayFit && releaseForLimit(pages: state.pointee.excess(missing))
          && state.pointee.chargedPages + missing > state.pointee.hardLimitPages
        continue
      }
      if missing > 0 && state.pointee.chargedPages + missing > state.pointee.hardLimitPages {
        lock.unlock()
        throw .limitExceeded
      }
      if let found {
        if let error = recommit(arena: found.arena, first: found.firstFree, count: found.freeCount) {
          lock.unlock()
          throw .kernel(error)
        }
        let result = takeSpan(count, at: found)
        let mayBeShared = state.pointee.sharedBlocks > 0
        lock.unlock()
        if mayBeShared { renewShared(result.span) }
        return settled(result)
      }
      if let error = grow(blocks: blocks, alignment: alignment) {
        lock.unlock()
        throw .kernel(error)
      }
    }
  }

  /// Enters with the lock held and leaves with it open.
  @inline(never)
  private func allocateWholeSlowly() throws(HeapError) -> AllocatedSpan {
    do throws(HeapError) {
      let block = try obtainFreeBlockSlowly()
      let before = state.pointee.totals.pagesRefaulted
      var result = takeWhole(block)
      result.refaultedPages = state.pointee.totals.pagesRefaulted - before
      lock.unlock()
      return settled(result)
    } catch {
      lock.unlock()
      throw error
    }
  }

  @inline(__always)
  private func takeWhole(_ block: Block) -> AllocatedSpan {
    state.pointee.claim(block, transient: false)
    let taken = state.pointee.fillWhole(block)
    state.pointee.totals.allocations &+= 1
    if block.isBroken { state.pointee.relist(block) }
    return AllocatedSpan(
      span: PageSpan(address: state.pointee.address(of: block), pageCount: pagesPerBlock), isZero: taken.zero,
      refaultedPages: taken.refaulted)
  }

  /// The free run of blocks that fits best over all arenas: the shortest in memory, or else the one with most blocks in memory.
  private func bestRun(_ blocks: Int, alignment: UInt) -> SpanPlace? {
    if state.pointee.freeResidentBlocks >= blocks,
      let place = bestRun(blocks, { $0.shortestResidentRun(count: blocks, alignment: alignment) })
    {
      return place
    }
    return bestRun(blocks) { $0.mostResidentRun(count: blocks, alignment: alignment) }
  }

  @inline(__always)
  private func bestRun(_ blocks: Int, _ search: (Arena) -> BlockRun?) -> SpanPlace? {
    var best: (arena: Int, run: BlockRun)? = nil
    for index in 0..<state.pointee.arenaCount {
      guard let found = search(state.pointee.arenas[index]) else { continue }
      if let known = best?.run,
        (-known.resident, known.length) <= (-found.resident, found.length)
      {
        continue
      }
      best = (index, found)
      if found.resident == blocks && found.length == blocks { break }
    }
    return best.map {
      SpanPlace(
        arena: $0.arena, block: $0.run.first, page: 0, firstFree: $0.run.first, freeCount: blocks,
        isResident: $0.run.resident == blocks)
    }
  }

  /// Pages of `count` free blocks that are not in memory.
  private func missingPages(_ arena: Int, _ first: Int, _ count: Int) -> Int {
    var pages = 0
    for number in first..<(first + count) {
      let block = state.pointee.arenas[arena].block(number)
      pages += block.pointee.kind == .absent ? pagesPerBlock : block.gonePages
    }
    return pages
  }
}

/// A block that was claimed for a span.
private struct FreshBlock {
  var block: Block
  /// All of it had been released: the first touch brings it back as a whole.
  var cameBackWhole: Bool

  /// Of `count` pages, those that come back; `single` of them were found released one by one.
  func refaultedPages(of count: Int, _ single: Int) -> Int { cameBackWhole ? count : single }
}

extension SpanRequest {
  /// Whether the span is expected to go soon. A stated lifetime outweighs what the number of objects suggests.
  @inline(__always)
  var isTransient: Bool { lifetime == .short || (lifetime == .unknown && objectsPerSpan == .few) }
}
