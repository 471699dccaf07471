// A heap tells what it is: totals, blocks, and what it is about to do, written to memory that others may read.
//
// A part of the blocks is written in each call, the lock is open every 64 blocks, and nothing of the heap changes. What the
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
  ///
  /// What is described under the lock goes to the page with the lock open: the page may have to come back from swap first.
  package func publish(
    header: UnsafeMutablePointer<PublishedHeap>, records: UnsafeMutablePointer<PublishedBlock>,
    rooms: UnsafePointer<Int>, limit: Int, _ progress: inout PublishingProgress, now: UInt64, sinceTick: UInt64,
    untilNextTick: UInt64
  ) {
    // Accounts are of the last tick, so what is due at the next one is what is due within all of the time between.
    let between = sinceTick &+ untilNextTick
    if progress.arena == 0 && progress.index == 0 { progress.roundBegan = now }
    var described = InlineArray<64, PublishedBlock>(repeating: PublishedBlock())
    var rest = limit
    while rest > 0 {
      lock.lock()
      if progress.arena >= state.pointee.arenaCount {
        lock.unlock()
        break
      }
      let arena = state.pointee.arenas[progress.arena]
      let first = state.pointee.firstRecord(ofArena: progress.arena)
      let room = min(arena.committedBlocks, rooms[progress.arena])
      let count = max(0, min(min(room - progress.index, described.count), rest))
      for offset in 0..<count {
        described[offset] = describe(arena, progress.index + offset, sinceTick, between, &progress)
      }
      lock.unlock()
      for offset in 0..<count { records[first + progress.index + offset] = described[offset] }
      progress.index += count
      rest -= count
      if progress.index >= room {
        if room > 0 { progress.end = first + room }
        progress.arena += 1
        progress.index = 0
      }
    }
    var written = header.pointee
    lock.lock()
    fill(&written, now: now, untilNextTick: untilNextTick)
    if progress.arena >= state.pointee.arenaCount {
      written.oldestAt = progress.roundBegan
      written.recordsEnd = UInt64(progress.end)
      forecast(&written, progress, between: between)
      progress = PublishingProgress()
    }
    lock.unlock()
    header.pointee = written
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
    _ header: inout PublishedHeap, _ progress: PublishingProgress, between: UInt64
  ) {
    header.flags |= PublishedHeap.forecastKnown
    header.nextWholeBlocks = progress.wholeBlocks
    header.nextBreaks = progress.breaks
    header.nextIdleBlocks = progress.idleBlocks
    header.nextRebuilds = progress.rebuilds
    header.nextPages = progress.pages
    header.nextCures = 0
    var policy = state.pointee.policy
    switch policy {
    case .custom:
      // Asking it would change what it knows.
      header.flags &= ~PublishedHeap.forecastKnown
    case .rentOrBuy(var priced):
      header.nextRebuilds = min(
        progress.rebuilds, UInt64(priced.rebuildsDue(withinSeconds: Double(between) / 1e9)))
      let input = state.pointee.input(at: state.pointee.now &+ between, processCPU: state.pointee.processCPU)
      header.nextCures = UInt64(priced.begin(input, releasedParts: 0, refaultedParts: 0).cures)
    default:
      if !state.pointee.releasesAtTicks { return }
      let plan = policy.plan(
        state.pointee.input(at: state.pointee.now &+ between, processCPU: state.pointee.processCPU))
      header.nextPages = UInt64(max(0, min(plan.pages, state.pointee.freeResidentPages)))
      header.nextCures = UInt64(max(0, plan.cures))
    }
  }

  private func fill(_ header: inout PublishedHeap, now: UInt64, untilNextTick: UInt64) {
    let totals = state.pointee.totals
    header.policy = state.pointee.options.publishedPolicy.rawValue
    header.strategy =
      state.pointee.options.customStrategy == nil ? state.pointee.options.strategy.kind.rawValue : 255
    var flags: UInt8 = header.flags & PublishedHeap.forecastKnown
    if state.pointee.options.strategy.releasesWholeOnly { flags |= PublishedHeap.wholeOnly }
    if state.pointee.options.strategy.freesWholeBlocks { flags |= PublishedHeap.freesWholeBlocks }
    header.flags = flags
    header.publishedAt = now
    header.nextTickAt = now &+ untilNextTick
    if case .rentOrBuy(let policy) = state.pointee.policy {
      header.memoryPrice = policy.options.memoryPrice
      header.taxPerPage = policy.taxPerPage
      header.busyCPUs = policy.busyCPUs
    }
    header.blocks = UInt64(state.pointee.blockCount)
    header.usedPages = UInt64(state.pointee.usedPages)
    header.idlePages = UInt64(state.pointee.freeResidentPages)
    header.lazyPages = UInt64(state.pointee.lazyPages)
    header.releasedPages = UInt64(state.pointee.releasedPages - state.pointee.lazyPages)
    header.phantomPages = UInt64(state.pointee.phantomPages)
    header.discardedPages = UInt64(state.pointee.discardedPages)
    header.metadataBytes = UInt64(state.pointee.metadataBytes)
    header.allocations = UInt64(totals.allocations)
    header.frees = UInt64(totals.frees)
    header.pagesReleased = UInt64(totals.pagesReleased)
    header.pagesReleasedInParts = UInt64(totals.pagesReleasedInParts)
    header.pagesRefaulted = UInt64(totals.pagesRefaulted)
    header.pagesRefaultedWhole = UInt64(totals.pagesRefaultedWhole)
    header.lazyPagesTaken = UInt64(totals.lazyPagesTaken)
    header.splits = UInt64(totals.splits)
    header.discardSplits = UInt64(totals.discardSplits)
    header.collapses = UInt64(totals.collapses)
    header.cures = UInt64(totals.cures)
    header.drains = UInt64(totals.drains)
    header.pagesDrained = UInt64(totals.pagesDrained)
    header.rebuiltBlocks = UInt64(totals.rebuiltBlocks)
    header.releaseCalls = UInt64(totals.releaseCalls)
    header.releaseNanoseconds = totals.releaseNanoseconds
    header.longestReleaseNanoseconds = totals.longestReleaseNanoseconds
    header.ticks = UInt64(totals.ticks)
    header.residencyPasses = UInt64(totals.residencyPasses)
    header.lostBlocks = UInt64(totals.lostBlocks)
    header.reinflatedBlocks = UInt64(totals.reinflatedBlocks)
  }
}

extension HeapOptions {
  fileprivate var publishedPolicy: PublishedPolicy {
    if customPolicy != nil { return .custom }
    switch policy {
    case .never: return .never
    case .immediate: return .immediate
    case .gperftools: return .gperftools
    case .seed: return .seed
    case .rentOrBuy: return .rentOrBuy
    case .demandWindow: return .demandWindow
    case .decay: return .decay
    case .paced: return .paced
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
