// Scavenging: the rounds of select (locked), release (open), book (locked).
//
// One thread scavenges at a time. A tick that finds another at work leaves; whoever needs memory back now waits for its
// turn. `pendingOperations` keeps the heap alive until the last one has booked.

import CHugeSpanShims

extension PageHeapCore {
  /// Lets the policy decide, and carries out what it decided.
  ///
  /// `nanoseconds` is the caller's clock (any epoch, never decreasing); `processCPU` the CPU time that the process has
  /// used. Call it about as often as the report says; a tick while another thread scavenges does nothing and says so.
  /// Work is bounded by `HeapOptions.rangesPerTick`, and by `ranges`.
  package func tick(at nanoseconds: UInt64, processCPU: UInt64, ranges: Int = .max) -> TickReport {
    var report = TickReport()
    lock.lock()
    if state.pointee.scavenging {
      report.isUnfinished = true
      lock.unlock()
      return report
    }
    beginScavenging()
    if state.pointee.sharedBlocks > 0 { reviewShared(blocks: Self.sharedBlocksPerTick, giveUpAfter: 8) }
    let input = noteTick(nanoseconds, processCPU)
    restoreMappings()
    if state.pointee.totals.ticks % Self.ticksPerRetry == 0 { state.pointee.forgetRefusals(Self.blocksPerRetry) }
    if state.pointee.policy.keepsAccounts {
      judgeBlocks(input, ranges: min(state.pointee.options.rangesPerTick, ranges), &report)
      endScavenging()
      lock.unlock()
      return report
    }
    let plan = state.pointee.policy.plan(input)
    report.nextTickNanoseconds = plan.nextTick
    if state.pointee.releasesAtTicks {
      let kind = state.pointee.options.strategy.kind
      let done = carryOut(plan, ranges: min(state.pointee.options.rangesPerTick, ranges))
      report.releasedPages = done.pages
      report.isUnfinished = done.hitBound
      if kind == .freeThenDontneed { secondStage() }
      if plan.cures > 0 { cure(plan.cures) }
    }
    // A tick that ended early did not find the heap empty: only what it did is told.
    let endedEarly = report.isUnfinished || state.pointee.wasPostponed
    state.pointee.policy.booked(
      wanted: endedEarly ? min(plan.pages, report.releasedPages) : plan.pages, released: report.releasedPages)
    endScavenging()
    lock.unlock()
    return report
  }

  /// What the kernel refused is tried again a part at a time, and in few ticks: refusals end a release early.
  static var ticksPerRetry: Int { 64 }
  static var blocksPerRetry: Int { 1024 }
  /// Blocks that a tick asks the kernel about after a fork, until all are seen: a millisecond, at 6 to 9 us a block.
  static var sharedBlocksPerTick: Int { 128 }

  /// Releases free memory in `order` until `pages` are given to the kernel or nothing is left, by the configured
  /// strategy. Answers how many were; the last span may overshoot. What a policy orders, without a policy.
  package func release(pages: Int, order: ReleaseOrder) -> Int {
    lock.lock()
    awaitScavenging()
    let done = release(pages: pages, order: order, ranges: Int.max, givesWay: false)
    endScavenging()
    lock.unlock()
    return done.pages
  }

  /// Releases what a policy planned. Held lock on entry and return; open in between.
  private func carryOut(_ plan: ScavengePlan, ranges limit: Int) -> (pages: Int, hitBound: Bool) {
    if plan.beginsGeneration { beginGeneration() }
    if plan.pages > 0 && plan.order.walk == .oldest { findOldest(pages: plan.pages) }
    var order = plan.order
    order.wholeOnly = plan.pagesWithParts < plan.pages
    // Whoever waits needs memory now: the tick goes on another time.
    let first = release(
      pages: plan.pages, order: order, ranges: limit, givesWay: true, round: plan.roundPages,
      nanoseconds: plan.nanoseconds)
    if !order.wholeOnly || first.hitBound || first.pages >= plan.pagesWithParts {
      return (first.pages, first.hitBound)
    }
    let second = release(
      pages: plan.pagesWithParts - first.pages, order: plan.order, ranges: limit - first.ranges, givesWay: true)
    return (first.pages + second.pages, second.hitBound)
  }

  /// Held lock on entry and return; open in between. In rounds of `round` pages, until the calls took `nanoseconds`.
  private func release(
    pages: Int, order: ReleaseOrder, ranges limit: Int, givesWay: Bool, round: Int = .max, nanoseconds: UInt64 = .max
  ) -> (pages: Int, hitBound: Bool, ranges: Int) {
    let kind = state.pointee.options.strategy.kind
    let before = state.pointee.totals.releaseNanoseconds
    var ranges = 0
    var released = 0
    while released < pages && ranges < limit && !state.pointee.wasPostponed
      && state.pointee.totals.releaseNanoseconds - before < nanoseconds
    {
      let wanted = min(pages - released, round)
      var selected = 0
      while selected < wanted && ranges < limit {
        let sent = state.pointee.sendNext(order, wanted: wanted - selected)
        if sent == 0 {
          if !state.pointee.walk.isPaused { break }
          // A long walk lets others at the heap.
          state.pointee.walk.isPaused = false
          lock.unlock()
          lock.lock()
          continue
        }
        selected += sent
        ranges += 1
      }
      // What the kernel refuses is marked and not chosen again, so this ends.
      if selected == 0 { break }
      released += releaseBatch(
        kind == .freeThenDontneed ? .free : kind, custom: state.pointee.options.customStrategy)
      if givesWay && state.pointee.waitingScavengers > 0 && released < pages { return (released, true, ranges) }
    }
    return (released, ranges >= limit, ranges)
  }

  private func noteTick(_ nanoseconds: UInt64, _ processCPU: UInt64) -> ScavengeInput {
    let input = state.pointee.input(at: nanoseconds, processCPU: processCPU)
    state.pointee.now = nanoseconds
    state.pointee.processCPU = processCPU
    state.pointee.totals.ticks += 1
    state.pointee.pagesFreedAtTick = state.pointee.pagesFreed
    state.pointee.pagesRefaultedAtTick = state.pointee.totals.pagesRefaulted
    state.pointee.releaseNanosecondsAtTick = state.pointee.totals.releaseNanoseconds
    return input
  }

  func beginScavenging() {
    state.pointee.scavenging = true
    state.pointee.pendingOperations += 1
    state.pointee.batch.count = 0
    state.pointee.runBound = 0
    state.pointee.wasPostponed = false
    state.pointee.releaseCause = .policy
  }

  func endScavenging() {
    state.pointee.scavenging = false
    state.pointee.pendingOperations -= 1
  }

  /// Waits until nobody scavenges, then does. Held lock on entry and return; open in between.
  func awaitScavenging() {
    while state.pointee.scavenging {
      // Counted, so that the heap outlives the wait.
      state.pointee.pendingOperations += 1
      state.pointee.waitingScavengers += 1
      lock.unlock()
      hs_shim_sleep_nanoseconds(20_000)
      lock.lock()
      state.pointee.waitingScavengers -= 1
      state.pointee.pendingOperations -= 1
    }
    beginScavenging()
  }

  // MARK: One round

  /// Carries the batch out with the lock open, and books it. Held lock on entry and return. Returns pages released.
  func releaseBatch(_ kind: StrategyKind, custom: CustomStrategy? = nil) -> Int {
    let batch = state.pointee.batch
    let sampling = state.pointee.options.effectSamplePeriod
    state.pointee.effectCountdown -= 1
    let check = sampling > 0 && state.pointee.effectCountdown < 0
    if check { state.pointee.effectCountdown = sampling - 1 }
    let forks = state.pointee.forks
    let mayDecommit = state.pointee.decommittedEdges < Self.mostDecommittedEdges
    let advisesHugePages = advisesHugePages
    lock.unlock()
    var cost: ReleaseCost
    switch kind {
    case _ where custom != nil: cost = custom!.release(batch, on: kernel)
    case .keep: cost = ReleaseCost()
    case .dontneed: cost = DontneedStrategy().release(batch, on: kernel)
    case .free, .freeThenDontneed: cost = FreeStrategy().release(batch, on: kernel)
    case .splitDontneed: cost = SplitDontneedStrategy().release(batch, on: kernel)
    case .deferred: cost = DeferredStrategy().release(batch, on: kernel)
    case .cold: cost = ColdStrategy().release(batch, on: kernel)
    case .pageout: cost = PageoutStrategy().release(batch, on: kernel)
    case .decommit:
      cost = DecommitStrategy(mayDecommit: mayDecommit, advisesHugePages: advisesHugePages).release(batch, on: kernel)
    }
    if check, let sample = batch.sample { batch.check(sample, on: kernel, cost: &cost) }
    lock.lock()
    if forks != state.pointee.forks { batch.forgetSharing() }
    if cost.foundSharing { state.pointee.markShared() }
    return book(cost)
  }

  func book(_ cost: ReleaseCost) -> Int {
    let count = state.pointee.batch.count
    let known = state.pointee.batch.known
    // Nothing is in flight any more once it is booked; the first booking must not see itself.
    state.pointee.batch.count = 0
    state.pointee.runBound = 0
    var pages = 0
    for index in 0..<count { pages += state.pointee.book(index, of: count, known[index]) }
    state.pointee.releaseEpoch += 1
    state.pointee.totals.pagesReleased += pages
    state.pointee.totals.releaseCalls += cost.calls
    state.pointee.totals.releaseRanges += cost.ranges
    state.pointee.totals.releaseFailures += cost.failures
    state.pointee.totals.releaseNanoseconds += cost.nanoseconds
    state.pointee.totals.longestReleaseNanoseconds = max(
      state.pointee.totals.longestReleaseNanoseconds, cost.longestNanoseconds)
    state.pointee.totals.effectsChecked += cost.effectsChecked
    state.pointee.totals.effectsMissing += cost.effectsMissing
    return pages
  }

  // MARK: Second stage

  /// Gives up memory that has been lazily free for longer than the strategy says. A part of the heap each tick.
  func secondStage() {
    if state.pointee.lazyPages == 0 { return }
    // Counted as released when they were lazily freed; the same pages are not counted again.
    let before = state.pointee.totals.pagesReleased
    defer { state.pointee.totals.pagesReleased = before }
    let age = UInt32(truncatingIfNeeded: state.pointee.options.strategy.secondStageNanoseconds >> 24)
    var examined = 0
    let blocks = state.pointee.occupiedBlocks + state.pointee.freeResidentBlocks + state.pointee.absentBlocks
    while examined < min(blocks, 4096) && !state.pointee.wasPostponed {
      while examined < min(blocks, 4096) && !state.pointee.batch.isFull {
        var cursor = state.pointee.lazyCursor
        guard let block = state.pointee.next(&cursor) else { break }
        if block.pointee.lazy > 0 && block.pointee.kind != .releasing {
          let now = UInt32(truncatingIfNeeded: state.pointee.now >> 24)
          if now &- block.pointee.stamp >= age && !state.pointee.sendLazy(block) { break }
        }
        state.pointee.lazyCursor = cursor
        examined += 1
      }
      if state.pointee.batch.count == 0 { break }
      _ = releaseBatch(.dontneed)
    }
  }

  // MARK: Cures

  /// Gives the phantom of up to `count` blocks back, by splitting the hugepage they still hold, until `pages` are believed to
  /// have gone; looks at `limit` blocks at most. Held lock on entry and return; open in between.
  func cure(_ count: Int, pages: Int = .max, examining limit: Int = 4096) {
    if !kernel.capabilities.contains(.honestSplit) { return }
    let before = state.pointee.phantomPages
    var cured = 0
    var examined = 0
    let blocks = min(state.pointee.blockCount, limit)
    while cured < count && examined < blocks && state.pointee.phantomPages > 0
      && before - state.pointee.phantomPages < pages
    {
      var cursor = state.pointee.phantomCursor
      guard let block = state.pointee.next(&cursor) else { return }
      state.pointee.phantomCursor = cursor
      examined += 1
      if block.pointee.phantom == 0 || block.pointee.kind != .occupied { continue }
      // What a child shares is not split by any advice.
      if state.pointee.mayBeShared(block) && !reviewShared(block) { continue }
      // Any page of the folio that is still mapped would do, but nobody knows which those are: pages that came back
      // are base pages beside it.
      var probe = AddressRange(start: state.pointee.address(of: block), byteCount: bytesPerBlock)
      lock.unlock()
      let outcome = withUnsafePointer(to: &probe) { kernel.advise(.cold, UnsafeBufferPointer(start: $0, count: 1)) }
      lock.lock()
      var cost = ReleaseCost()
      cost.add(outcome)
      _ = book(cost)
      if outcome.error == nil {
        state.pointee.clearPhantom(block)
        state.pointee.totals.cures += 1
        cured += 1
      }
    }
  }

  /// Gives phantom memory back now, in up to `blocks` blocks; answers how many pages are not phantom any more.
  package func curePhantom(blocks: Int) -> Int {
    lock.lock()
    awaitScavenging()
    let before = state.pointee.phantomPages
    cure(blocks)
    let cured = before - state.pointee.phantomPages
    endScavenging()
    lock.unlock()
    return cured
  }

  /// Drops what is left of an emptied broken block, so that its next touch brings a hugepage. Held lock on entry and
  /// return; open in between. False if somebody else is scavenging or the kernel refused.
  func dropBroken(_ block: Block) -> Bool {
    if state.pointee.scavenging || block.pointee.flags.contains(.refused) { return false }
    beginScavenging()
    defer { endScavenging() }
    if state.pointee.mayBeShared(block) {
      _ = reviewShared(block)
      // Ours alone again, or somebody else's by now: what is free has to be looked for anew.
      if block.pointee.kind != .freeResident || !block.isBroken { return true }
    }
    state.pointee.sendWhole(block, count: 1)
    let before = state.pointee.totals.pagesReleased
    _ = releaseBatch(.dontneed)
    // Not a scavenge: nobody decided to do without this memory.
    let dropped = state.pointee.totals.pagesReleased - before
    state.pointee.totals.pagesReleased = before
    guard block.pointee.kind == .absent else { return dropped > 0 }
    state.pointee.totals.rebuiltBlocks += 1
    block.pointee.flags.remove(.wasReleased)
    return true
  }
}

extension HeapState {
  /// What a policy would be told if this were a tick.
  func input(at nanoseconds: UInt64, processCPU: UInt64) -> ScavengeInput {
    var input = ScavengeInput()
    input.now = nanoseconds
    // A clock that goes back is the caller's mistake; the time since then is not known, and not huge.
    let isFirst = totals.ticks == 0 || nanoseconds < now
    input.elapsed = isFirst ? 0 : nanoseconds - now
    input.processCPU = processCPU
    input.freedPages = pagesFreed - pagesFreedAtTick
    input.refaultedPages = totals.pagesRefaulted - pagesRefaultedAtTick
    input.releasablePages = freeResidentPages
    // What is discarded nobody runs on.
    input.usedPages = usedPages - discardedPages
    input.phantomPages = phantomPages
    input.releaseNanoseconds = totals.releaseNanoseconds - releaseNanosecondsAtTick
    return input
  }

  /// Sends the lazily free memory of a block into flight; false if the batch has no room for all of it.
  mutating func sendLazy(_ block: Block) -> Bool {
    if block.pointee.kind == .freeResident {
      if batch.isFull { return false }
      sendWhole(block, count: 1)
      return true
    }
    var page = 0
    while page < pagesPerBlock {
      let start = block.firstReleased(from: page)
      if start >= pagesPerBlock { break }
      if block.zeroMap[start] {
        page = start + 1
        continue
      }
      if batch.isFull { return false }
      let end = min(
        min(block.used.firstSet(from: start), block.marks.firstClear(from: start)), block.zeroMap.firstSet(from: start))
      sendPart(block, PageRun(start: start, count: end - start))
      page = end
    }
    return true
  }
}
