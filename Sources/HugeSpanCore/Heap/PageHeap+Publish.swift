// A heap tells what it is: totals, blocks, and what it is about to do, written to memory that others may read.
//
// A part of the blocks is written in each call, the lock is open every 256 blocks, and nothing of the heap changes. What the
// next tick would do is asked of a copy of the policy, with the frees since the last tick and none to come.

/// Where the publishing of a heap is. Zero is a beginning.
package struct PublishingProgress {
  var arena = 0
  var index = 0
  /// When the round that goes on began, and the one before.
  var roundBegan: UInt64 = 0
  /// What the next tick would do to the blocks seen in this round.
  var wholeBlocks: UInt64 = 0
  var breaks: UInt64 = 0
  var idleBlocks: UInt64 = 0
  var rebuilds: UInt64 = 0
  var pages: UInt64 = 0
  /// End of the records that were written in this round.
  var end = 0

  /// Nothing published.
  package init() {}
}

extension PageHeapCore {
  /// Where the records of arena `index` begin, and how many blocks it has; nil if there is no such arena. Each arena has its own
  /// stretch, as long as it may get, so a block's record stays where it is.
  package func publishedStretch(ofArena index: Int) -> (first: Int, count: Int)? {
    lock.lock()
    defer { lock.unlock() }
    if index >= state.pointee.arenaCount { return nil }
    return (state.pointee.firstRecord(ofArena: index), state.pointee.arenas[index].committedBlocks)
  }

  /// Writes up to `limit` blocks and all totals to `header` and `records`. `rooms` says of each arena how many records there
  /// is room for; `now` is the clock of who reads, `sinceTick` how long ago the last tick was and `untilNextTick` in how long the
  /// next one comes.
  package func publish(
    header: UnsafeMutablePointer<PublishedHeap>, records: UnsafeMutablePointer<PublishedBlock>,
    rooms: UnsafePointer<Int>, limit: Int, _ progress: inout PublishingProgress, now: UInt64, sinceTick: UInt64,
    untilNextTick: UInt64
  ) {
    // Accounts are of the last tick, so what is due at the next one is what is due within all of the time between.
    let between = sinceTick &+ untilNextTick
    var rest = limit
    lock.lock()
    if progress.arena == 0 && progress.index == 0 { progress.roundBegan = now }
    while progress.arena < state.pointee.arenaCount && rest > 0 {
      let arena = state.pointee.arenas[progress.arena]
      let first = state.pointee.firstRecord(ofArena: progress.arena)
      let room = min(arena.committedBlocks, rooms[progress.arena])
      if progress.index >= room {
        if room > 0 { progress.end = first + room }
        progress.arena += 1
        progress.index = 0
        continue
      }
      records[first + progress.index] = describe(arena, progress.index, sinceTick, between, &progress)
      progress.index += 1
      rest -= 1
      if rest & 255 == 0 {
        lock.unlock()
        lock.lock()
      }
    }
    fill(header, now: now, untilNextTick: untilNextTick)
    if progress.arena >= state.pointee.arenaCount {
      header.pointee.oldestAt = progress.roundBegan
      header.pointee.recordsEnd = UInt64(progress.end)
      forecast(header, progress, between: between)
      progress = PublishingProgress()
    }
    lock.unlock()
  }

  private func describe(
    _ arena: Arena, _ index: Int, _ sinceTick: UInt64, _ between: UInt64, _ progress: inout PublishingProgress
  ) -> PublishedBlock {
    let block = arena.block(index)
    var record = PublishedBlock()
    record.address = UInt64(arena.address(ofBlock: index))
    record.used = block.pointee.used
    // Those on their way to the kernel are in memory until they are booked.
    let isHere = block.pointee.kind != .absent
    record.idle = isHere ? UInt16(block.freeResidentPages) + block.pointee.inFlight : 0
    record.released = isHere ? block.pointee.released : UInt16(pagesPerBlock)
    record.lazy = block.pointee.lazy
    record.phantom = block.pointee.phantom
    let facts = state.pointee.facts(of: block)
    record.discarded = block.pointee.used - UInt16(facts.usedPages)
    record.longestFree = block.pointee.longest
    record.spans = block.pointee.spans
    record.kind = block.pointee.kind.rawValue
    record.backing = block.pointee.backing.rawValue
    record.cause = block.pointee.cause.rawValue
    record.flags = block.pointee.flags.rawValue
    record.isShared = state.pointee.mayBeShared(block) ? 1 : 0
    record.age = Float(facts.age)
    guard case .rentOrBuy(let policy) = state.pointee.policy, let accounts = arena.accounts,
      state.pointee.releasesAtTicks, !block.pointee.flags.contains(.refused), block.pointee.kind != .releasing
    else { return record }
    let forecast = policy.forecast(facts, accounts[index])
    record.step = forecast.step.rawValue
    record.accrued = Float(forecast.accrued)
    record.price = Float(forecast.price)
    record.wait = forecast.seconds.isFinite ? Float(max(0, forecast.seconds - Double(sinceTick) / 1e9)) : -1
    if forecast.seconds <= Double(between) / 1e9 {
      switch forecast.step {
      case .none: break
      case .releaseWhole: progress.wholeBlocks += 1
      case .breakBlock: progress.breaks += 1
      case .releaseIdle: progress.idleBlocks += 1
      case .rebuild: progress.rebuilds += 1
      }
      if forecast.step != .rebuild { progress.pages += UInt64(record.idle) }
    }
    return record
  }

  private func forecast(
    _ header: UnsafeMutablePointer<PublishedHeap>, _ progress: PublishingProgress, between: UInt64
  ) {
    header.pointee.flags |= PublishedHeap.forecastKnown
    header.pointee.nextWholeBlocks = progress.wholeBlocks
    header.pointee.nextBreaks = progress.breaks
    header.pointee.nextIdleBlocks = progress.idleBlocks
    header.pointee.nextRebuilds = progress.rebuilds
    header.pointee.nextPages = progress.pages
    header.pointee.nextCures = 0
    var policy = state.pointee.policy
    switch policy {
    case .custom:
      // Asking it would change what it knows.
      header.pointee.flags &= ~PublishedHeap.forecastKnown
    case .rentOrBuy(var priced):
      header.pointee.nextRebuilds = min(
        progress.rebuilds, UInt64(priced.rebuildsDue(withinSeconds: Double(between) / 1e9)))
      let input = state.pointee.input(at: state.pointee.now &+ between, processCPU: state.pointee.processCPU)
      header.pointee.nextCures = UInt64(priced.begin(input, releasedParts: 0, refaultedParts: 0).cures)
    default:
      if !state.pointee.releasesAtTicks { return }
      let plan = policy.plan(
        state.pointee.input(at: state.pointee.now &+ between, processCPU: state.pointee.processCPU))
      header.pointee.nextPages = UInt64(max(0, min(plan.pages, state.pointee.freeResidentPages)))
      header.pointee.nextCures = UInt64(max(0, plan.cures))
    }
  }

  private func fill(_ header: UnsafeMutablePointer<PublishedHeap>, now: UInt64, untilNextTick: UInt64) {
    let totals = state.pointee.totals
    header.pointee.policy = state.pointee.options.policyNumber
    header.pointee.strategy =
      state.pointee.options.customStrategy == nil ? state.pointee.options.strategy.kind.rawValue : 255
    var flags: UInt8 = header.pointee.flags & PublishedHeap.forecastKnown
    if state.pointee.options.strategy.releasesWholeOnly { flags |= PublishedHeap.wholeOnly }
    if state.pointee.options.strategy.freesWholeBlocks { flags |= PublishedHeap.freesWholeBlocks }
    header.pointee.flags = flags
    header.pointee.publishedAt = now
    header.pointee.nextTickAt = now &+ untilNextTick
    if case .rentOrBuy(let policy) = state.pointee.policy {
      header.pointee.memoryPrice = policy.options.memoryPrice
      header.pointee.taxPerPage = policy.taxPerPage
      header.pointee.busyCPUs = policy.busyCPUs
    }
    header.pointee.blocks = UInt64(state.pointee.blockCount)
    header.pointee.usedPages = UInt64(state.pointee.usedPages)
    header.pointee.idlePages = UInt64(state.pointee.freeResidentPages)
    header.pointee.lazyPages = UInt64(state.pointee.lazyPages)
    header.pointee.releasedPages = UInt64(state.pointee.releasedPages - state.pointee.lazyPages)
    header.pointee.phantomPages = UInt64(state.pointee.phantomPages)
    header.pointee.discardedPages = UInt64(state.pointee.discardedPages)
    header.pointee.metadataBytes = UInt64(state.pointee.metadataBytes)
    header.pointee.allocations = UInt64(totals.allocations)
    header.pointee.frees = UInt64(totals.frees)
    header.pointee.pagesReleased = UInt64(totals.pagesReleased)
    header.pointee.pagesReleasedInParts = UInt64(totals.pagesReleasedInParts)
    header.pointee.pagesRefaulted = UInt64(totals.pagesRefaulted)
    header.pointee.pagesRefaultedWhole = UInt64(totals.pagesRefaultedWhole)
    header.pointee.lazyPagesTaken = UInt64(totals.lazyPagesTaken)
    header.pointee.splits = UInt64(totals.splits)
    header.pointee.discardSplits = UInt64(totals.discardSplits)
    header.pointee.collapses = UInt64(totals.collapses)
    header.pointee.cures = UInt64(totals.cures)
    header.pointee.drains = UInt64(totals.drains)
    header.pointee.pagesDrained = UInt64(totals.pagesDrained)
    header.pointee.rebuiltBlocks = UInt64(totals.rebuiltBlocks)
    header.pointee.releaseCalls = UInt64(totals.releaseCalls)
    header.pointee.releaseNanoseconds = totals.releaseNanoseconds
    header.pointee.longestReleaseNanoseconds = totals.longestReleaseNanoseconds
    header.pointee.ticks = UInt64(totals.ticks)
    header.pointee.residencyPasses = UInt64(totals.residencyPasses)
    header.pointee.lostBlocks = UInt64(totals.lostBlocks)
    header.pointee.reinflatedBlocks = UInt64(totals.reinflatedBlocks)
  }
}

extension HeapOptions {
  /// HS_POLICY_... of hugespan.h.
  var policyNumber: UInt8 {
    if customPolicy != nil { return 4 }
    switch policy {
    case .never: return 0
    case .immediate: return 1
    case .gperftools: return 2
    case .seed: return 3
    case .rentOrBuy: return 5
    case .demandWindow: return 6
    case .decay: return 7
    case .paced: return 8
    }
  }
}

extension HeapState {
  /// The record of the first block of arena `index`.
  func firstRecord(ofArena index: Int) -> Int {
    var first = 0
    for earlier in 0..<index { first += arenas[earlier].totalBlocks }
    return first
  }
}
