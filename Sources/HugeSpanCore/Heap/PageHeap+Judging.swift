// A tick of the priced policy: every block is shown to it, and its verdicts are carried out.
//
// The walk holds the lock for 512 blocks at a time. Blocks never go away and only one thread scavenges, so between two
// stretches nothing is lost: what changed meanwhile is seen as it is then. Verdicts are collected into the same
// batches as any other release; a rebuild is a call of its own, one block at a time, with the lock open.

extension PageHeapCore {
  /// Blocks looked at before the lock is given up for a moment: some ten microseconds.
  static var blocksPerStretch: Int { 512 }

  /// Shows every block to the policy. Held lock on entry and return; open in between.
  func judgeBlocks(_ input: ScavengeInput, _ report: inout TickReport) {
    guard case .rentOrBuy(var policy) = state.pointee.policy else { return }
    let refaulted = state.pointee.totals.pagesRefaulted - state.pointee.totals.pagesRefaultedWhole
    let plan = policy.begin(
      input, releasedParts: state.pointee.partsReleased - state.pointee.partsReleasedAtTick,
      refaultedParts: refaulted - state.pointee.partsRefaultedAtTick)
    state.pointee.partsReleasedAtTick = state.pointee.partsReleased
    state.pointee.partsRefaultedAtTick = refaulted
    report.nextTickNanoseconds = plan.nextTick
    if !state.pointee.strategyReleases { return }
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
        if block.pointee.kind == .releasing || block.pointee.inFlight != 0 { continue }
        if block.pointee.flags.contains(.refused) { continue }
        switch policy.judge(state.pointee.facts(of: block), &account.pointee) {
        case .leave: break
        case .releaseWhole:
          if state.pointee.batch.isFull { report.releasedPages += flush() }
          // The lock may have been open.
          if block.pointee.kind == .freeResident { state.pointee.sendWhole(block, count: 1) }
        case .releaseIdle: report.releasedPages += releaseIdle(block)
        case .rebuild:
          report.releasedPages += flush()
          policy.rebuilt(rebuild(block))
        }
      }
    }
    report.releasedPages += flush()
    if state.pointee.options.strategy.kind == .freeThenDontneed { secondStage() }
    if plan.cures > 0 { cure(plan.cures) }
    state.pointee.policy = .rentOrBuy(policy)
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

  /// Makes a broken block huge again. Held lock on entry and return; open in between. Whether it did is asked of the kernel.
  private func rebuild(_ block: Block) -> Bool {
    var range = AddressRange(start: state.pointee.address(of: block), byteCount: bytesPerBlock)
    if state.pointee.chargedPages + Int(block.pointee.released) > state.pointee.hardLimitPages { return false }
    let scratch = state.pointee.batch
    lock.unlock()
    let outcome = withUnsafePointer(to: &range) { kernel.advise(.collapse, UnsafeBufferPointer(start: $0, count: 1)) }
    let isHuge = outcome.error == nil && scratch.backing(around: range.start, on: kernel) == .huge
    lock.lock()
    var cost = ReleaseCost()
    cost.add(outcome)
    if !isHuge { cost.failures += 1 }
    _ = book(cost)
    // Whoever emptied it meanwhile has it settled as a free block, and that is dropped as a whole.
    if isHuge && block.pointee.kind == .occupied && block.pointee.inFlight == 0 { state.pointee.bookRebuilt(block) }
    return isHuge
  }
}

extension HeapState {
  /// What a block's price depends on.
  func facts(of block: Block) -> BlockFacts {
    var facts = BlockFacts()
    facts.isOccupied = block.pointee.kind == .occupied
    facts.isResident = block.pointee.kind != .absent
    facts.isBroken = block.isBroken
    facts.usedPages = Int(block.pointee.used)
    facts.idlePages = facts.isResident ? block.freeResidentPages : 0
    facts.idleRanges = min(Int(block.pointee.spans) + 1, facts.idlePages)
    facts.releasedPages = Int(block.pointee.released) - Int(block.pointee.lazy)
    facts.phantomPages = Int(block.pointee.phantom)
    facts.age = Double(UInt32(truncatingIfNeeded: now >> 24) &- block.pointee.stamp) * 0.016777216
    return facts
  }

  /// An occupied block was made huge again.
  mutating func bookRebuilt(_ block: Block) {
    unlist(block)
    becomeHuge(block)
    block.pointee.backing = .huge
    totals.collapses += 1
    enlist(block)
  }

  /// All of a block that was broken is in memory again, as one hugepage; what had been gone was filled with zeros. The
  /// block is in no list.
  mutating func becomeHuge(_ block: Block) {
    releasedPages -= Int(block.pointee.released)
    lazyPages -= Int(block.pointee.lazy)
    block.pointee.released = 0
    block.pointee.lazy = 0
    block.releasedMap.fill(false)
    clearPhantom(block)
    block.pointee.flags.remove(.broken)
  }
}
