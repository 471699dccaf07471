// What the heap knows of itself, as plain numbers. Pages are of the kernel's base size.

/// A snapshot of a heap. Cumulative counters never decrease; the rest are states.
public struct HeapStatistics: Equatable, Sendable {
  // State, in pages.
  /// Pages in spans that are handed out.
  public var usedPages = 0
  /// Free pages that are believed resident and not given to the kernel in any way.
  public var freeResidentPages = 0
  /// Free pages given to the kernel lazily (MADV_FREE): charged until it takes them.
  public var lazyPages = 0
  /// Free pages released and gone.
  public var releasedPages = 0
  /// Pages released from a hugepage that was not split: charged, though in no page table.
  public var phantomPages = 0
  /// Free pages at the tails of large spans, open to small spans.
  public var donatedPages = 0

  // Blocks by state; they add up to `blocks`.
  public var blocks = 0
  public var fullBlocks = 0
  public var partialIntactBlocks = 0
  public var partialBrokenBlocks = 0
  public var freeResidentBlocks = 0
  public var absentBlocks = 0

  // Used bytes by backing, as last learned from the kernel.
  public var usedOnHugePages = 0
  public var usedOnSplitPages = 0
  public var usedOnUnknownPages = 0
  /// Used pages in blocks that lost their hugepage, as far as the heap believes.
  public var usedOnBrokenPages = 0
  /// Used pages in blocks that have released pages: what TCMalloc's filler counts as not on intact hugepages.
  public var usedBesideReleasedPages = 0

  /// Blocks by the length of their longest free range: index 0 counts 0, index k counts 2^(k-1) ..< 2^k.
  public var longestFreeHistogram = InlineArray<11, Int>(repeating: 0)

  // Cumulative.
  public var allocations = 0
  public var frees = 0
  public var pagesReleased = 0
  public var pagesRefaulted = 0
  /// Of the refaulted pages, those in wholly released blocks (one 2 MiB fault each, where hugepages are to be had).
  public var pagesRefaultedWhole = 0
  /// Lazily freed pages that were reused before anyone asked whether the kernel had taken them.
  public var lazyPagesReused = 0
  /// Intact blocks broken by a release.
  public var splits = 0
  public var collapses = 0
  public var cures = 0
  /// Emptied broken blocks that were dropped when they were needed again, so that they come back huge.
  public var rebuiltBlocks = 0
  /// madvise and process_madvise calls made for releases, and the ranges in them.
  public var releaseCalls = 0
  public var releaseRanges = 0
  public var releaseFailures = 0
  public var releaseNanoseconds: UInt64 = 0
  public var longestReleaseNanoseconds: UInt64 = 0
  public var ticks = 0
  /// Releases whose effect was read back, and those that had none.
  public var effectsChecked = 0
  public var effectsMissing = 0
  /// Blocks that were broken and were found huge again, and huge ones found broken, by residency passes.
  public var reinflatedBlocks = 0
  public var lostBlocks = 0
  public var residencyPasses = 0
  /// Bytes of the heap's own tables that are in use.
  public var metadataBytes = 0

  /// All zero.
  public init() {}

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
  public var scannedBlocks = 0
  public var hugeBlocks = 0
  public var splitBlocks = 0
  public var absentBlocks = 0
  public var reinflatedBlocks = 0
  public var lostBlocks = 0
  /// Resident bytes in the heap's arenas by the kernel's word.
  public var residentBytes = 0
  public var hugeBytes = 0
  /// Used pages that lie on hugepages, by the kernel's word, and all used pages.
  public var usedPagesOnHuge = 0
  public var usedPages = 0

  /// Nothing found.
  public init() {}
}
