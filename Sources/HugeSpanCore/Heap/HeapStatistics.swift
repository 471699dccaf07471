// What the heap knows of itself, as plain numbers. Pages are of the kernel's base size.

/// A snapshot of a heap. Cumulative counters never decrease; the rest are states.
public struct HeapStatistics: Equatable, Sendable {
  // State, in pages.
  /// Pages in spans that are handed out.
  public var usedPages = 0
  /// Free pages that are believed resident and not given to the kernel in any way.
  public var freeResidentPages = 0
  /// Free pages given to the kernel that it has not taken yet, as far as is known: freed lazily (MADV_FREE), cold, or
  /// paged out. Charged until it takes them; paged out ones are in swap.
  public var lazyPages = 0
  /// Free pages released and gone.
  public var releasedPages = 0
  /// Pages released from a hugepage that was not split: charged, though in no page table.
  public var phantomPages = 0
  /// Of the used pages, those whose contents are discarded: the kernel may take them, until they are undone or freed.
  public var discardedPages = 0
  /// Free pages at the tails of large spans, open to small spans.
  public var donatedPages = 0

  // Blocks by state; they add up to `blocks`.
  /// Pageblocks that are committed.
  public var blocks = 0
  /// Of these, blocks without a free page.
  public var fullBlocks = 0
  /// Blocks with used and free pages that have their hugepage, as far as the heap knows.
  public var partialIntactBlocks = 0
  /// Blocks with used and free pages that lost it.
  public var partialBrokenBlocks = 0
  /// Wholly free blocks in memory.
  public var freeResidentBlocks = 0
  /// Wholly free blocks that are not.
  public var absentBlocks = 0
  /// Of the absent blocks, those that must be committed before they are used (strategy `decommit`).
  public var decommittedBlocks = 0
  /// Blocks with a mapping of their own, since a hugepage was moved there.
  public var displacedBlocks = 0

  // Used bytes by backing, as last learned from the kernel.
  /// Used pages in blocks that one hugepage maps.
  public var usedOnHugePages = 0
  /// Used pages in blocks that base pages map.
  public var usedOnSplitPages = 0
  /// Used pages in blocks of which the kernel was not asked yet.
  public var usedOnUnknownPages = 0
  /// Used pages in blocks that lost their hugepage, as far as the heap believes.
  public var usedOnBrokenPages = 0
  /// Used pages in blocks that have released pages: what TCMalloc's filler counts as not on intact hugepages.
  public var usedBesideReleasedPages = 0

  /// Blocks by the length of their longest free range: index 0 counts 0, index k counts 2^(k-1) ..< 2^k.
  public var longestFreeHistogram = InlineArray<11, Int>(repeating: 0)

  // Cumulative.
  /// Spans handed out.
  public var allocations = 0
  /// Calls that gave pages back.
  public var frees = 0
  /// Pages given to the kernel, lazily or not.
  public var pagesReleased = 0
  /// Of the released pages, those from blocks in use.
  public var pagesReleasedInParts = 0
  /// Absent blocks that were taken into use, for the first time or again.
  public var blocksPopulated = 0
  /// Pages that were used again after having been released.
  public var pagesRefaulted = 0
  /// Of the refaulted pages, those in wholly released blocks (one 2 MiB fault each, where hugepages are to be had).
  public var pagesRefaultedWhole = 0
  /// Of the absent blocks that were taken into use again, how many had been with the kernel for less than half a second, and
  /// for less than 1, 2, 4, 8 and more seconds: what a machine asks for a hugepage can depend on it.
  public var blocksRefaultedByAbsence = InlineArray<6, Int>(repeating: 0)
  /// Lazily freed pages that were reused: still there, or (but for whole blocks of strategy `deferred`, which are looked at) not known.
  public var lazyPagesReused = 0
  /// Lazily freed pages that the kernel had taken: found by residency passes, or when blocks that strategy `deferred` had freed
  /// lazily were taken back.
  public var lazyPagesTaken = 0
  /// Intact blocks broken by a release.
  public var splits = 0
  /// Blocks that were made huge again on purpose.
  public var collapses = 0
  /// Blocks whose phantom was given back by splitting their hugepage.
  public var cures = 0
  /// How often memory was given back because others needed it (strategy `deferred`), and how many pages.
  public var drains = 0
  /// Pages that were given back because others needed memory.
  public var pagesDrained = 0
  /// Emptied broken blocks that were dropped when they were needed again, so that they come back huge.
  public var rebuiltBlocks = 0
  /// Free hugepages that were moved under a span of several blocks, moves that the kernel refused, and the time of both in nanoseconds.
  public var blocksMoved = 0
  /// Moves that the kernel refused; each ends the moves of its span.
  public var movesRefused = 0
  /// Time spent in moves, in nanoseconds.
  public var moveNanoseconds: UInt64 = 0
  /// madvise and process_madvise calls made for releases, and the ranges in them.
  public var releaseCalls = 0
  /// Ranges in the calls that released.
  public var releaseRanges = 0
  /// Ranges that the kernel refused.
  public var releaseFailures = 0
  /// Time spent in calls that released, in nanoseconds.
  public var releaseNanoseconds: UInt64 = 0
  /// The longest of these calls, in nanoseconds.
  public var longestReleaseNanoseconds: UInt64 = 0
  /// Ticks that were not turned away.
  public var ticks = 0
  /// Releases whose effect was read back, and those that had none.
  public var effectsChecked = 0
  /// Of the releases whose effect was read back, those that had none.
  public var effectsMissing = 0
  /// Blocks that were broken and were found huge again, and huge ones found broken, by residency passes.
  public var reinflatedBlocks = 0
  /// Blocks that were huge and were found split, by residency passes.
  public var lostBlocks = 0
  /// Residency passes made.
  public var residencyPasses = 0
  /// Ranges that were discarded.
  public var discards = 0
  /// Hugepages that were split because a part of them was discarded.
  public var discardSplits = 0
  /// Discarded ranges that were undone and found intact.
  public var undoneIntact = 0
  /// Discarded ranges that were undone and of which nothing was left.
  public var undoneLost = 0
  /// Discarded ranges that were undone and of which some pages were lost.
  public var undonePartly = 0
  /// Pages that were found lost when they were undone.
  public var discardedPagesLost = 0
  /// Bytes of the heap's own tables that are in use.
  public var metadataBytes = 0

  /// All zero.
  public init() {}

  /// Whether the states and counters that policies see are equal.
  public static func == (a: Self, b: Self) -> Bool {
    guard a.usedPages == b.usedPages, a.freeResidentPages == b.freeResidentPages, a.lazyPages == b.lazyPages,
      a.releasedPages == b.releasedPages, a.blocks == b.blocks, a.allocations == b.allocations, a.frees == b.frees,
      a.pagesReleased == b.pagesReleased, a.pagesRefaulted == b.pagesRefaulted, a.splits == b.splits
    else { return false }
    return true
  }
}

/// What a tick did.
public struct TickReport: Equatable, Sendable {
  /// Pages given to the kernel by this tick.
  public var releasedPages = 0
  /// The caller should tick again no later than this long after this tick, in nanoseconds.
  public var nextTickNanoseconds: UInt64 = 1_000_000_000
  /// The tick's bound on work was reached; tick again soon.
  public var isUnfinished = false

  /// Nothing done.
  public init() {}
}

/// What a residency pass found.
public struct ResidencyReport: Equatable, Sendable {
  /// Blocks looked at.
  public var scannedBlocks = 0
  /// Blocks that one hugepage maps.
  public var hugeBlocks = 0
  /// Blocks with pages in memory that no hugepage maps.
  public var splitBlocks = 0
  /// Wholly free blocks that are not.
  /// Blocks of which nothing is in memory.
  public var absentBlocks = 0
  /// Blocks that were believed split and are huge again.
  public var reinflatedBlocks = 0
  /// Blocks that were huge and were found split, by residency passes.
  public var lostBlocks = 0
  /// Resident bytes in the heap's arenas by the kernel's word.
  public var residentBytes = 0
  /// Of the resident bytes, those on hugepages.
  public var hugeBytes = 0
  /// Used pages that lie on hugepages, by the kernel's word, and all used pages.
  public var usedPagesOnHuge = 0
  /// All used pages.
  public var usedPages = 0

  /// Nothing found.
  public init() {}
}

extension HeapStatistics {
  /// Index into `blocksRefaultedByAbsence` for an absence in the steps of a block's stamp: 2^24 ns.
  static func absenceClass(_ steps: UInt32) -> Int {
    // 30 steps are half a second; each class is twice as long as the one before.
    let halves = steps / 30
    return halves == 0 ? 0 : min(5, 32 - halves.leadingZeroBitCount)
  }

  /// Seconds of absence with which a class begins.
  package static func absenceSeconds(_ index: Int) -> Double { index == 0 ? 0 : Double(1 << index) / 4 }
}
