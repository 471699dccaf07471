// Everything of a heap that its lock guards, and the steps that change it.
//
// All of this runs under the lock and makes no system call. Every step that changes a block ends in `relist` or
// `settleIfEmpty`, the only two places that put a block into a list; so a block can not be in a list that its counters
// deny. `PageHeapCore` calls these steps and does what needs a kernel between them.
//
// What only looks is inlined where it is called often: a function that is not, called through a pointer, gets a copy of all
// of this, 6 KB with the policy in it. (An eighth of the time of a heap of broken blocks went there, for one question.)

/// A list of wholly free blocks, newest first.
struct FreeBlockList {
  var head: Block?
  var tail: Block?
  var count = 0

  @inline(__always)
  mutating func pushFront(_ block: Block) {
    block.pointee.previous = nil
    block.pointee.next = head
    if let head { head.pointee.previous = block } else { tail = block }
    head = block
    count &+= 1
  }

  mutating func pushBack(_ block: Block) {
    block.pointee.next = nil
    block.pointee.previous = tail
    if let tail { tail.pointee.next = block } else { head = block }
    tail = block
    count &+= 1
  }

  @inline(__always)
  mutating func remove(_ block: Block) {
    let next = block.pointee.next
    let previous = block.pointee.previous
    if let next { next.pointee.previous = previous } else { tail = previous }
    if let previous { previous.pointee.next = next } else { head = next }
    count &-= 1
  }
}

/// The guarded state. Lives in the heap's own mapping and is never copied.
struct HeapState {
  var arenas: UnsafeMutablePointer<Arena>
  var arenaCount = 0
  var lists: PlacementLists
  var releasable: ReleasableLists
  /// Wholly free blocks in memory: intact ones, lazily freed ones, and those that had been broken.
  var freeIntact = FreeBlockList()
  var freeLazy = FreeBlockList()
  var freeBroken = FreeBlockList()

  // Totals over occupied and freeResident blocks, in pages.
  var usedPages = 0
  var releasedPages = 0
  var lazyPages = 0
  var inFlightPages = 0
  var phantomPages = 0
  /// Of the used pages, those that are discarded.
  var discardedPages = 0
  // Blocks by kind.
  var occupiedBlocks = 0
  var freeResidentBlocks = 0
  var absentBlocks = 0
  var releasingBlocks = 0
  /// Blocks that are out of reach and empty: what a hugepage is moved to, or whose mapping is renewed.
  var emptyBlocksInFlight = 0
  /// Blocks with a mapping of their own, since a hugepage was moved there, and how many there may be at present.
  var displacedBlocks = 0
  var displacedLimit = 0
  var displacedCursor = BlockCursor()
  /// Absent blocks that are not committed, and how many neighbours of them are (the ends of an arena count as such).
  var decommittedBlocks = 0
  var decommittedEdges = 0

  /// Cumulative counters; its state fields are filled in by a snapshot only.
  var totals = HeapStatistics()
  /// Pages given back by the caller, for policies that count frees.
  var pagesFreed = 0

  var options: HeapOptions
  var policy: PolicyState
  /// Time of the last tick, as the caller's clock has it.
  var now: UInt64 = 0
  /// CPU time of the process at the last tick.
  var processCPU: UInt64 = 0
  /// A thread is selecting, releasing or booking; others wait for their turn.
  var scavenging = false
  /// Operations that left the lock and will come back.
  var pendingOperations = 0
  /// Counts bookings, so that a residency pass can tell whether one came between.
  var releaseEpoch: UInt64 = 0
  var batch: ReleaseBatch
  /// Where each range of the batch came from.
  var origins: UnsafeMutablePointer<FlightOrigin>
  /// The kernel put off a part of what this scavenge gave it: the scavenge ends, the next one tries again.
  var wasPostponed = false
  /// On whose account the present scavenge releases.
  var releaseCause = BackingCause.policy
  var effectCountdown = 0
  /// Where the round robin over span lengths is: the next span is no longer than this; 0 means whole blocks.
  var roundRobinLength = 0
  /// Since the lock was taken: no run of wholly free intact blocks is longer than `runBound` (0: not known), and
  /// before `runCursor` none is as long.
  var runBound = 0
  var runCursor = BlockCursor()
  /// Where the walks of a release order are.
  var walk = ReleaseWalk()
  /// Where the walks over all blocks (second stage, cures) go on.
  var lazyCursor = BlockCursor()
  var phantomCursor = BlockCursor()
  /// Blocks that the walk that forgets refusals has yet to look at, and where it goes on.
  var refusalsToCheck = 0
  var refusalCursor = BlockCursor()
  /// Blocks that a forked child may share, forks so far, and where the walk that asks goes on.
  var sharedBlocks = 0
  var forks = 0
  var sharedCursor = BlockCursor()
  /// Threads that wait for their turn to scavenge.
  var waitingScavengers = 0
  var metadataBytes = 0
  /// Counters at the last tick, for what the policy is told.
  var pagesFreedAtTick = 0
  var pagesRefaultedAtTick = 0
  var releaseNanosecondsAtTick: UInt64 = 0
  /// Pages released from, and pages that came back into, blocks in use, at the last tick.
  var partsReleasedAtTick = 0
  var partsRefaultedAtTick = 0
  /// Whether lazily freed blocks carry marks.
  var marksLazyBlocks = false
  /// New spans go to fresh hugepages rather than to broken blocks that could drain. From the first tick on: in a heap that nobody
  /// ticks, what drains is neither released nor rebuilt, and steering would only spread.
  var steersToIntact = false
  /// Charge limit in pages, `Int.max` if there is none.
  var hardLimitPages = Int.max
  var softLimitPages = Int.max

  // MARK: Reading

  /// Pages that this heap is believed to be charged for.
  @inline(__always)
  var chargedPages: Int {
    (occupiedBlocks &+ freeResidentBlocks &+ releasingBlocks) &* pagesPerBlock &- releasedPages &+ lazyPages
      &+ phantomPages
  }

  @inline(__always)
  var hasLimit: Bool { min(softLimitPages, hardLimitPages) != .max }

  /// What should be released before another `pages` are charged; not above zero if they fit. All that is above the hard
  /// limit; above the soft one no more than a few times what is asked for, so that no allocation pays for all of it.
  func excess(_ pages: Int) -> Int {
    let charged = chargedPages + pages
    return max(charged - hardLimitPages, min(charged - softLimitPages, 4 * pages))
  }

  @inline(__always)
  var freeResidentPages: Int {
    (occupiedBlocks &+ freeResidentBlocks) &* pagesPerBlock &- usedPages &- inFlightPages &- releasedPages
  }

  /// Number of the arena that contains `address`, or -1. The newest arena holds half of everything: look there first.
  @inline(__always)
  func arenaIndex(of address: UInt) -> Int {
    var index = arenaCount &- 1
    while index >= 0 {
      if arenas[index].contains(address) { return index }
      index &-= 1
    }
    return -1
  }

  /// The committed block that contains `address`, or nil.
  @inline(__always)
  func block(at address: UInt) -> Block? {
    let arena = arenaIndex(of: address)
    if arena < 0 { return nil }
    let index = Int(bitPattern: (address &- arenas[arena].range.start) &>> UInt(bytesPerBlockShift))
    return index < arenas[arena].committedBlocks ? arenas[arena].block(index) : nil
  }

  @inline(__always)
  func address(of block: Block) -> UInt {
    arenas[Int(block.pointee.arena)].address(ofBlock: Int(block.pointee.index))
  }

  @inline(__always)
  func address(of block: Block, page: Int) -> UInt {
    address(of: block) &+ (UInt(bitPattern: page) &<< UInt(pageShift))
  }

  /// The block after `block` in its arena, if it is committed.
  @inline(__always)
  func following(_ block: Block) -> Block? {
    let index = Int(block.pointee.index) &+ 1
    let arena = Int(block.pointee.arena)
    return index < arenas[arena].committedBlocks ? arenas[arena].block(index) : nil
  }

  /// Whether `count` pages had better go to a fresh block than to `block`, which has released pages: if the pages that would
  /// come back one by one (1.3 us each) cost more than the first touch of a hugepage (0.39 us a page), and most occupied
  /// blocks have no released pages, so that the rest of a fresh one soon finds users. Not at a limit.
  @inline(__always)
  func hadBetterOpen(insteadOf block: Block, _ count: Int) -> Bool {
    min(count, block.gonePages) * 10 > pagesPerBlock * 3 && lists.releasedBlocks * 2 < occupiedBlocks
      && (!hasLimit || excess(pagesPerBlock) <= 0)
  }

  // MARK: Lists

  /// Puts an occupied block into the lists where its counters say it belongs.
  @inline(__always)
  mutating func relist(_ block: Block) {
    lists.update(block)
    if block.isBroken { relistReleasable(block) }
  }

  @inline(never)
  mutating func relistReleasable(_ block: Block) {
    let length =
      block.pointee.flags.contains(.refused) || block.freeResidentPages == 0 ? 0 : block.longestReleasableRun().count
    if length != Int(block.pointee.releasable) {
      releasable.remove(block)
      releasable.insert(block, length: length)
    }
  }

  // MARK: Taking

  /// What the strategy can do at all.
  var strategyReleases: Bool { options.strategy.kind != .keep || options.customStrategy != nil }

  /// What it does when the policy says so, without pressure.
  @inline(__always)
  var releasesAtTicks: Bool { options.strategy.releasesAtTicks || options.customStrategy != nil }

  /// Makes a free block occupied, with no used page yet. It must be relisted or filled by the caller.
  @inline(__always)
  mutating func claim(_ block: Block, transient: Bool) {
    let arena = Int(block.pointee.arena)
    arenas[arena].markTaken(Int(block.pointee.index))
    if block.pointee.kind == .freeResident {
      freeResidentBlocks &-= 1
      if block.isBroken {
        freeBroken.remove(block)
      } else if block.pointee.released != 0 {
        freeLazy.remove(block)
        takeBackLazily(block)
      } else {
        freeIntact.remove(block)
      }
    } else {
      claimAbsent(block)
    }
    block.pointee.kind = .occupied
    block.pointee.wasClaimed = true
    block.pointee.longest = UInt16(pagesPerBlock)
    block.pointee.list = noList
    if transient { block.pointee.flags.insert(.transient) }
    occupiedBlocks &+= 1
  }

  /// A wholly lazily freed block comes back as a whole by one write to any of its pages.
  private mutating func takeBackLazily(_ block: Block) {
    let count = Int(block.pointee.released)
    totals.pagesRefaulted += count
    totals.lazyPagesReused += count
    releasedPages -= count
    lazyPages -= count
    block.pointee.released = 0
    block.pointee.lazy = 0
    block.marks.fill(false)
    if marksLazyBlocks { block.pointee.backing = .takenBack }
  }

  @inline(never)
  private mutating func claimAbsent(_ block: Block) {
    absentBlocks -= 1
    totals.blocksPopulated += 1
    if block.pointee.flags.contains(.wasReleased) {
      totals.pagesRefaulted += pagesPerBlock
      totals.pagesRefaultedWhole += pagesPerBlock
      let steps = UInt32(truncatingIfNeeded: now &>> 24) &- block.pointee.stamp
      totals.blocksRefaultedByAbsence[HeapStatistics.absenceClass(steps)] += 1
      block.pointee.flags.remove(.wasReleased)
    }
    // The first touch brings the whole block, zeroed; the next residency pass says whether it did.
    block.pointee.flags.insert(.hasZero)
    block.zeroMap.fill(true)
    block.pointee.backing = .unknown
  }

  /// Marks the free `run` used. `longest` is what remains, if the caller knows it.
  /// Returns how many of the pages were released before, and whether all read as zero.
  @inline(__always)
  mutating func take(_ block: Block, _ run: PageRun, startsSpan: Bool, longest: Int?) -> (refaulted: Int, zero: Bool) {
    var refaulted = 0
    var isZero = false
    if block.pointee.released != 0 { refaulted = takeReleased(block, run) }
    block.used.set(run)
    if startsSpan {
      block.marks.setBit(run.start)
      block.pointee.spans &+= 1
    }
    block.pointee.used &+= UInt16(truncatingIfNeeded: run.count)
    usedPages &+= run.count
    if block.pointee.flags.contains(.hasZero) { isZero = takeZero(block, run) }
    block.pointee.longest = UInt16(truncatingIfNeeded: longest ?? block.used.longestClearRun().count)
    return (refaulted, isZero)
  }

  private mutating func takeReleased(_ block: Block, _ run: PageRun) -> Int {
    let map = block.marks
    let zero = block.zeroMap
    var count = 0
    var lazy = 0
    PageMap.forEachWord(of: run) { word, mask in
      let bits = map.words[word] & mask
      count += bits.nonzeroBitCount
      lazy += (bits & ~zero.words[word]).nonzeroBitCount
      map.words[word] &= ~mask
    }
    block.pointee.released -= UInt16(count)
    block.pointee.lazy -= UInt16(lazy)
    releasedPages -= count
    lazyPages -= lazy
    if !block.pointee.flags.contains(.wasReleased) {
      // Pages that were found absent, never given back by us: their first touch is no refault.
      return 0
    }
    totals.pagesRefaulted += count
    totals.lazyPagesReused += lazy
    return count
  }

  private mutating func takeZero(_ block: Block, _ run: PageRun) -> Bool {
    let count = block.zeroMap.count(in: run)
    if count != 0 {
      block.zeroMap.clear(run)
      if block.zeroMap.isEmpty { block.pointee.flags.remove(.hasZero) }
    }
    return count == run.count
  }

  /// Fills a claimed block with `count` used pages from its first page on.
  @inline(__always)
  mutating func fill(_ block: Block, count: Int, startsSpan: Bool) -> (refaulted: Int, zero: Bool) {
    take(block, PageRun(start: 0, count: count), startsSpan: startsSpan, longest: pagesPerBlock &- count)
  }

  /// Fills a claimed block with one span's pages. The same as `fill`, for the commonest large span.
  @inline(__always)
  mutating func fillWhole(_ block: Block) -> (refaulted: Int, zero: Bool) {
    if block.pointee.released != 0 || block.pointee.flags.contains(.hasZero) {
      return fill(block, count: pagesPerBlock, startsSpan: true)
    }
    block.used.fill(true)
    block.marks.setBit(0)
    block.pointee.spans = 1
    block.pointee.used = UInt16(pagesPerBlock)
    block.pointee.longest = 0
    usedPages &+= pagesPerBlock
    return (0, false)
  }

  /// Marks a wholly used, intact block of one span free.
  @inline(__always)
  mutating func giveWhole(_ block: Block) {
    block.used.fill(false)
    block.marks.clearBit(0)
    block.pointee.spans = 0
    block.pointee.used = 0
    block.pointee.version &+= 1
    block.pointee.stamp = UInt32(truncatingIfNeeded: now &>> 24)
    usedPages &-= pagesPerBlock
    pagesFreed &+= pagesPerBlock
    settleEmpty(block)
  }

  // MARK: Giving back

  /// Marks the used `run` free. The caller has checked that it is used.
  @inline(__always)
  mutating func give(_ block: Block, _ run: PageRun) {
    let used = block.used
    used.clear(run)
    block.pointee.spans &-= UInt16(truncatingIfNeeded: block.marks.clearCounting(run))
    block.pointee.used &-= UInt16(truncatingIfNeeded: run.count)
    block.pointee.version &+= 1
    block.pointee.stamp = UInt32(truncatingIfNeeded: now &>> 24)
    usedPages &-= run.count
    pagesFreed &+= run.count
    if block.pointee.used == 0 && block.pointee.inFlight == 0 {
      settleEmpty(block)
    } else {
      let merged = used.clearRun(around: run).count
      if merged > Int(block.pointee.longest) { block.pointee.longest = UInt16(truncatingIfNeeded: merged) }
      relist(block)
    }
  }

  /// Moves an occupied block without used pages to the free ones.
  @inline(__always)
  mutating func settleEmpty(_ block: Block) {
    lists.remove(block)
    if block.isBroken { releasable.remove(block) }
    block.pointee.longest = UInt16(pagesPerBlock)
    block.pointee.flags.remove(.roles)
    occupiedBlocks &-= 1
    let arena = Int(block.pointee.arena)
    if block.pointee.released == 0 && !block.isBroken && (sharedBlocks == 0 || !isLostToSharing(block)) {
      block.pointee.kind = .freeResident
      freeResidentBlocks &+= 1
      freeIntact.pushFront(block)
      arenas[arena].markFree(Int(block.pointee.index), resident: true)
    } else {
      settleBroken(block, arena: arena)
    }
  }

  @inline(never)
  private mutating func settleBroken(_ block: Block, arena: Int) {
    let gone = Int(block.pointee.released) - Int(block.pointee.lazy)
    if gone == pagesPerBlock {
      // Nothing of it is mapped any more, so nothing is charged either, split or not.
      releasedPages -= gone
      makeAbsent(block)
      return
    }
    block.pointee.kind = .freeResident
    block.pointee.flags.insert(.broken)
    freeResidentBlocks += 1
    listFree(block)
    arenas[arena].markFree(Int(block.pointee.index), resident: true)
  }

  /// Lists a wholly free resident block. Those that have nothing to release stand at the end.
  mutating func listFree(_ block: Block) {
    if block.isBroken {
      if block.hasNothingToRelease { freeBroken.pushBack(block) } else { freeBroken.pushFront(block) }
    } else if block.pointee.released != 0 {
      freeLazy.pushFront(block)
    } else if block.hasNothingToRelease {
      freeIntact.pushBack(block)
    } else {
      freeIntact.pushFront(block)
    }
  }

  /// Books a block, already out of every list and count, as wholly released.
  mutating func makeAbsent(_ block: Block) {
    if sharedBlocks != 0 { unmarkShared(block) }
    phantomPages -= Int(block.pointee.phantom)
    block.pointee.phantom = 0
    if block.pointee.flags.contains(.hasZero) { block.zeroMap.fill(false) }
    if block.pointee.released != 0 {
      block.marks.fill(false)
      block.pointee.released = 0
      block.pointee.lazy = 0
    }
    block.pointee.kind = .absent
    block.pointee.backing = .absent
    block.pointee.cause = .none
    block.pointee.flags = .wasReleased
    block.pointee.stamp = UInt32(truncatingIfNeeded: now &>> 24)
    absentBlocks += 1
    arenas[Int(block.pointee.arena)].markFree(Int(block.pointee.index), resident: false)
  }
}

/// A place in the walk over all blocks of all arenas.
struct BlockCursor {
  var arena = 0
  var index = 0
}

extension HeapState {
  /// The block at `cursor`, which moves on and around; nil if the heap has no block.
  func next(_ cursor: inout BlockCursor) -> Block? {
    var tries = 0
    while tries <= arenaCount {
      if cursor.arena >= arenaCount { cursor = BlockCursor() }
      if arenaCount == 0 { return nil }
      if cursor.index < arenas[cursor.arena].committedBlocks {
        cursor.index += 1
        return arenas[cursor.arena].block(cursor.index - 1)
      }
      cursor.arena += 1
      cursor.index = 0
      tries += 1
    }
    return nil
  }

  /// All committed blocks.
  var blockCount: Int {
    occupiedBlocks + freeResidentBlocks + absentBlocks + releasingBlocks + emptyBlocksInFlight
  }

  /// Lets up to `limit` blocks be tried again that the kernel refused to release, in a walk over all blocks: memory that
  /// was locked may be no more.
  mutating func forgetRefusals(_ limit: Int) {
    var rest = min(limit, refusalsToCheck)
    refusalsToCheck -= rest
    while rest > 0, let block = next(&refusalCursor) {
      rest -= 1
      if !block.pointee.flags.contains(.refused) || block.pointee.kind == .releasing { continue }
      unlist(block)
      block.pointee.flags.remove(.refused)
      enlist(block)
    }
  }
}
