// A tick of the priced policy: every block is shown to it, and its verdicts are carried out.
//
// The walk holds the lock for 512 blocks at a time. Blocks never go away and only one thread scavenges, so between two
// stretches nothing is lost: what changed meanwhile is seen as it is then. Verdicts are collected into the same
// batches as any other release; a rebuild is a call of its own, one block at a time, with the lock open.

extension PageHeapCore {
  /// Blocks looked at before the lock is given up for a moment: some ten microseconds.
  static var blocksPerStretch: Int { 512 }

  /// Shows every block to the policy, and carries out what it says as long as no more than `limit` ranges go and nobody
  /// else waits for the scavenger; what is left is said again next time. Held lock on entry and return; open in between.
  func judgeBlocks(_ input: ScavengeInput, ranges limit: Int, _ report: inout TickReport) {
    guard case .rentOrBuy(var policy) = state.pointee.policy else { return }
    let refaulted = state.pointee.totals.pagesRefaulted - state.pointee.totals.pagesRefaultedWhole
    let plan = policy.begin(
      input, releasedParts: state.pointee.totals.pagesReleasedInParts - state.pointee.partsReleasedAtTick,
      refaultedParts: refaulted - state.pointee.partsRefaultedAtTick)
    state.pointee.partsReleasedAtTick = state.pointee.totals.pagesReleasedInParts
    state.pointee.partsRefaultedAtTick = refaulted
    report.nextTickNanoseconds = plan.nextTick
    defer { state.pointee.policy = .rentOrBuy(policy) }
    if !state.pointee.releasesAtTicks { return }
    state.pointee.steersToIntact = policy.options.steering
    let before = state.pointee.totals.releaseRanges
    var stretch = Self.blocksPerStretch
    for arena in 0..<state.pointee.arenaCount {
      var number = 0
      while number < state.pointee.arenas[arena].committedBlocks && !state.pointee.wasPostponed {
        if stretch == 0 {
          report.releasedPages += flush()
          lock.unlock()
          lock.lock()
          stretch = Self.blocksPerStretch
        }
        stretch -= 1
        let block = state.pointee.arenas[arena].block(number)
        let account = state.pointee.arenas[arena].accounts! + number
        number += 1
        if block.pointee.kind == .releasing || block.pointee.inFlight != 0 || block.pointee.flags.contains(.refused) {
          continue
        }
        let verdict = policy.judge(state.pointee.facts(of: block), &account.pointee)
        if block.pointee.wasClaimed { block.pointee.wasClaimed = false }
        if verdict == .leave { continue }
        let ranges = state.pointee.totals.releaseRanges - before + state.pointee.batch.count
        if ranges >= limit || state.pointee.waitingScavengers > 0 {
          report.isUnfinished = true
          continue
        }
        report.releasedPages += carryOut(verdict, block, &policy)
      }
    }
    report.releasedPages += flush()
    if state.pointee.options.strategy.kind == .freeThenDontneed { secondStage() }
    if plan.cures > 0 { cure(plan.cures) }
  }

  private func carryOut(_ verdict: BlockVerdict, _ block: Block, _ policy: inout RentOrBuyPolicy) -> Int {
    switch verdict {
    case .leave: return 0
    case .releaseWhole:
      let released = state.pointee.batch.isFull ? flush() : 0
      // The lock may have been open.
      if block.pointee.kind == .freeResident { state.pointee.sendWhole(block, count: 1) }
      return released
    case .releaseIdle: return releaseIdle(block)
    case .rebuild:
      let released = flush()
      policy.rebuilt(rebuild(block))
      return released
    }
  }

  /// Releases what is in the batch. Held lock on entry and return; open in between.
  private func flush() -> Int {
    if state.pointee.batch.count == 0 { return 0 }
    let kind = state.pointee.options.strategy.kind
    return releaseBatch(kind == .freeThenDontneed ? .free : kind, custom: state.pointee.options.customStrategy)
  }

  /// Sends every idle range of an occupied block, in as many batches as it takes.
  private func releaseIdle(_ block: Block) -> Int {
    var released = 0
    // A batch holds half of the ranges that a block can have; each round sends some, so this ends.
    for _ in 0..<4 {
      while !state.pointee.batch.isFull && block.pointee.kind == .occupied {
        let run = block.longestReleasableRun()
        if run.count == 0 { return released }
        state.pointee.sendPart(block, run)
      }
      released += flush()
      if block.pointee.kind != .occupied || block.pointee.flags.contains(.refused) || state.pointee.wasPostponed {
        break
      }
    }
    return released
  }

  /// Makes a broken block huge again, and answers whether it is. Held lock on entry and return; open in between.
  private func rebuild(_ block: Block) -> Bool {
    // The lock may have been open since the verdict.
    if block.pointee.kind != .occupied || !block.isBroken || state.pointee.holdsDiscarded(block) { return true }
    // A rebuild would copy what a child shares, and charge it twice.
    if state.pointee.mayBeShared(block) && !reviewShared(block) { return false }
    var range = AddressRange(start: state.pointee.address(of: block), byteCount: bytesPerBlock)
    if state.pointee.chargedPages + Int(block.pointee.released) > state.pointee.hardLimitPages { return false }
    let scratch = state.pointee.batch
    lock.unlock()
    let outcome = withUnsafePointer(to: &range) { kernel.advise(.collapse, UnsafeBufferPointer(start: $0, count: 1)) }
    let isDone = outcome.error == nil
    let backing = isDone ? scratch.backing(around: range.start, on: kernel) : .unknown
    lock.lock()
    var cost = ReleaseCost()
    cost.add(outcome)
    if !isDone { cost.failures += 1 }
    _ = book(cost)
    // Whoever emptied it meanwhile has it settled as a free block, and that is dropped as a whole.
    if isDone && block.pointee.kind == .occupied { state.pointee.bookRebuilt(block, backing) }
    return isDone && backing != .split
  }
}

extension HeapState {
  /// What a block's price depends on.
  func facts(of block: Block) -> BlockFacts {
    var facts = BlockFacts()
    facts.isOccupied = block.pointee.kind == .occupied
    facts.wasClaimed = block.pointee.wasClaimed
    facts.isResident = block.pointee.kind != .absent
    facts.isBroken = block.isBroken
    // Nobody runs on what is discarded, and a copy of it could not be dropped any more.
    let discarded = discardedCount(block)
    facts.usedPages = Int(block.pointee.used) - discarded
    facts.mayRebuild = discarded == 0
    facts.idlePages = facts.isResident ? block.freeResidentPages : 0
    facts.idleRanges = min(Int(block.pointee.spans) + 1, facts.idlePages)
    facts.releasedPages = Int(block.pointee.released) - Int(block.pointee.lazy)
    facts.phantomPages = Int(block.pointee.phantom)
    facts.age = Double(UInt32(truncatingIfNeeded: now >> 24) &- block.pointee.stamp) * 0.016777216
    return facts
  }

  /// All of an occupied block was brought into memory, as a hugepage unless the kernel says that somebody split it since.
  mutating func bookRebuilt(_ block: Block, _ backing: Backing) {
    unlist(block)
    becomeHuge(block)
    block.pointee.backing = backing
    if backing == .split {
      block.pointee.flags.insert(.broken)
      block.pointee.cause = .lost
    } else {
      totals.collapses += 1
      block.pointee.cause = .rebuilt
    }
    enlist(block)
  }

  /// All of a block that was broken is in memory again, as one hugepage; what had been gone was filled with zeros. The
  /// block is in no list.
  mutating func becomeHuge(_ block: Block) {
    releasedPages -= Int(block.pointee.released)
    lazyPages -= Int(block.pointee.lazy)
    block.pointee.released = 0
    block.pointee.lazy = 0
    block.forgetAllReleased()
    clearPhantom(block)
    block.pointee.flags.remove(.broken)
    block.pointee.cause = .none
  }
}
