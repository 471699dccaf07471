// Which free memory goes next: a policy's order, carried out on the heap's lists.
//
// Each step sends one span into flight and answers with its pages. No step looks at more than a few lists: the longest
// free range of intact blocks is the key of the placement lists, that of broken blocks the key of the releasable lists.
// Only the longest run of wholly free blocks has to be looked for, in the arenas' bitmaps. Orders by age and by address have
// no list (`Selection+Walks`).

extension HeapState {
  /// Sends the next span of `order` into flight; 0 if there is none, or the batch is full.
  mutating func sendNext(_ order: ReleaseOrder, wanted: Int) -> Int {
    if batch.isFull || !releasesAtTicks { return 0 }
    let wholeOnly = options.strategy.releasesWholeOnly || order.wholeOnly
    switch order.walk {
    case .none: break
    case .oldest: return sendOldest(wholeOnly: wholeOnly)
    case .highest: return sendHighest(wanted: wanted, wholeOnly: wholeOnly)
    }
    if order.length == .roundRobin { return sendRoundRobin(order, wanted: wanted, wholeOnly: wholeOnly) }
    if order.preferBroken {
      let broken = sendBrokenWhole()
      if broken > 0 { return broken }
      if order.wholeFirst {
        let whole = sendLongestIntactRun(wanted: wanted)
        if whole > 0 { return whole }
      }
      if !wholeOnly, let block = releasable.longest() { return sendLongest(of: block) }
      let whole = sendLongestIntactRun(wanted: wanted)
      if whole > 0 || wholeOnly { return whole }
      guard !order.sparesIntact, let block = emptiestIntact() else { return 0 }
      return sendLongest(of: block)
    }
    // By length alone: wholly free blocks are longer than anything else.
    let whole = sendLongestIntactRun(wanted: wanted)
    if whole > 0 { return whole }
    let broken = sendBrokenWhole()
    if broken > 0 || wholeOnly { return broken }
    return sendLonger(releasable.longest(), longestIntact(limit: pagesPerBlock))
  }

  private mutating func sendLonger(_ broken: Block?, _ intact: Block?) -> Int {
    guard let broken else { return intact == nil ? 0 : sendLongest(of: intact!) }
    guard let intact else { return sendLongest(of: broken) }
    return sendLongest(of: intact.pointee.longest > broken.pointee.releasable ? intact : broken)
  }

  private mutating func sendLongest(of block: Block) -> Int {
    let run = block.longestReleasableRun()
    sendPart(block, run)
    return run.count
  }

  /// One wholly free block that had been broken.
  private mutating func sendBrokenWhole() -> Int {
    guard let block = freeBroken.head, !block.hasNothingToRelease else { return 0 }
    let pages = pagesPerBlock - Int(block.pointee.released)
    sendWhole(block, count: 1)
    return pages
  }

  /// The longest run of wholly free intact blocks, or as much of it as is wanted.
  private mutating func sendLongestIntactRun(wanted: Int) -> Int {
    guard let newest = freeIntact.head, !newest.hasNothingToRelease else { return 0 }
    var best: (arena: Int, start: Int, count: Int) = (0, 0, 0)
    if freeIntact.count == 1 {
      best = (Int(newest.pointee.arena), Int(newest.pointee.index), 1)
    } else {
      // While the lock is held runs only get shorter, so the next of the same length lies further up; only when there
      // is none the search begins anew. So a batch looks at all blocks once per length, not once per run.
      if runBound > 0 && runCursor.arena < arenaCount {
        longestIntactRun(in: runCursor.arena, from: runCursor.index, enough: runBound, &best)
        for index in (runCursor.arena + 1)..<max(arenaCount, runCursor.arena + 1) where best.count < runBound {
          longestIntactRun(in: index, from: 0, enough: runBound, &best)
        }
      }
      if runBound == 0 || best.count < runBound {
        best.count = 0
        for index in 0..<arenaCount where best.count < longestRun {
          longestIntactRun(in: index, from: 0, enough: longestRun, &best)
        }
      }
    }
    if best.count == 0 { return 0 }
    runBound = min(best.count, longestRun)
    runCursor = BlockCursor(arena: best.arena, index: best.start)
    let wantedBlocks = (max(wanted, 1) - 1) / pagesPerBlock + 1
    let count = min(min(best.count, wantedBlocks), longestRun)
    sendWhole(arenas[best.arena].block(best.start), count: count)
    return count * pagesPerBlock
  }

  /// Blocks given to the kernel in one range, at most: 128 MiB, so that one call stays short.
  static let longestCall = 64

  /// Blocks in a range, at most: `deferred` asks of each block whether it is one hugepage.
  private var longestRun: Int { options.strategy.kind == .deferred ? 1 : HeapState.longestCall }

  /// Looks at the runs of arena `index` from block `first` on until one of `enough` blocks is found.
  private func longestIntactRun(
    in index: Int, from first: Int, enough: Int, _ best: inout (arena: Int, start: Int, count: Int)
  ) {
    let arena = arenas[index]
    // Without any of the other kinds the map alone tells, and no header has to be fetched.
    let areAllIntact = freeBroken.count == 0 && freeLazy.count == 0 && freeIntact.tail?.hasNothingToRelease != true
    arena.forEachRun(of: arena.residentWords, from: first) { start, end in
      if end - start <= best.count { return true }
      if areAllIntact {
        best = (index, start, end - start)
        return best.count < enough
      }
      var from = start
      for number in start..<(end + 1) {
        if number < end && number - from < enough {
          let block = arena.block(number)
          if !block.isBroken && block.pointee.released == 0 && !block.hasNothingToRelease { continue }
        }
        if number - from > best.count { best = (index, from, number - from) }
        if best.count >= enough { return false }
        from = number + 1
      }
      return true
    }
  }

  /// The intact occupied block with the longest free range of at most `limit` pages, donated tails included.
  @inline(__always)
  private func longestIntact(limit: Int) -> Block? {
    var best: Block? = nil
    consider(.intact, transient: false, limit, &best)
    consider(.intact, transient: true, limit, &best)
    consider(.donated, transient: false, limit, &best)
    return best
  }

  /// The intact block to break next. Breaking costs a hugepage whatever is released from it, and after its longest
  /// span the rest of it comes next; so among blocks with long free ranges the one that gives most in all. (The longest
  /// range alone broke a tenth more of the used pages in the deterministic program.)
  @inline(__always)
  private func emptiestIntact() -> Block? {
    var best: Block? = nil
    considerEmpty(lists.emptiest(.intact, transient: false, limit: HeapState.candidates), &best)
    considerEmpty(lists.emptiest(.intact, transient: true, limit: HeapState.candidates), &best)
    considerEmpty(lists.emptiest(.donated, transient: false, limit: HeapState.candidates), &best)
    return best
  }

  /// Blocks looked at before one is broken: some microseconds, against the hundreds that a split costs.
  static let candidates = 512

  private func considerEmpty(_ block: Block?, _ best: inout Block?) {
    guard let block else { return }
    if best == nil || block.useToBreak < best!.useToBreak { best = block }
  }

  private func consider(_ rank: PlacementRank, transient: Bool, _ limit: Int, _ best: inout Block?) {
    // A block that the kernel refused must not hide the others of its length.
    var found: Block? = nil
    var limit = limit
    while found == nil, limit > 0, let head = lists.longest(rank, transient: transient, limit: limit) {
      found = head
      while let each = found, each.pointee.flags.contains(.refused) { found = each.pointee.next }
      limit = Int(head.pointee.longest) - 1
    }
    guard let block = found else { return }
    if best == nil || block.pointee.longest > best!.pointee.longest { best = block }
  }

  // MARK: Round robin

  /// One span of the next length, downwards, then whole blocks, then from the top again.
  private mutating func sendRoundRobin(_ order: ReleaseOrder, wanted: Int, wholeOnly: Bool) -> Int {
    for _ in 0..<2 {
      if roundRobinLength > 0 && !wholeOnly {
        let limit = roundRobinLength
        let broken = releasable.longest(limit: limit)
        let intact = order.preferBroken && broken != nil ? nil : longestIntact(limit: limit)
        let brokenLength = broken.map { Int($0.pointee.releasable) } ?? 0
        let intactLength = intact.map { Int($0.pointee.longest) } ?? 0
        if max(brokenLength, intactLength) > 0 {
          let sent = sendLonger(broken, intact)
          roundRobinLength = max(brokenLength, intactLength) - 1
          return sent
        }
      }
      roundRobinLength = pagesPerBlock
      // With broken blocks preferred, whole intact ones wait until no broken one has anything.
      let broken = sendBrokenWhole()
      if broken > 0 { return broken }
      if order.preferBroken && !wholeOnly && releasable.longest() != nil { continue }
      let whole = sendLongestIntactRun(wanted: min(wanted, pagesPerBlock))
      if whole > 0 { return whole }
    }
    return 0
  }
}
