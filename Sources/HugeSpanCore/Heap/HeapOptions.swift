// How a heap is made: limits, policy, strategy. Plain values; the text forms (`seed:rate=100`) are parsed elsewhere.

/// Which scavenge policy decides what to release and when.
public enum PolicyChoice: Equatable, Sendable {
  /// Releases nothing.
  case never
  /// Releases everything free at each tick.
  case immediate
  /// gperftools' scavenge counter with the given release rate (1 is its default, 10 its documented maximum).
  case gperftools(rate: Double)
  /// The three ideas of the seed mail on top of the scavenge counter, each with its switch.
  case seed(SeedOptions)
}

/// The seed policy's switches.
public struct SeedOptions: Equatable, Sendable {
  /// Pages released per thousand pages freed.
  public var rate: Double = 100
  /// Prefer spans in blocks that already lost their hugepage.
  public var preferBroken: Bool = true
  /// Prefer longer spans, and stretch the period by what a scavenge freed.
  public var preferLong: Bool = true
  /// Subtract refaulted pages from the progress towards the next scavenge.
  public var discountRefaults: Bool = true

  /// The defaults: all three ideas on.
  public init() {}
}

/// Which madvise sequence gives memory back.
public enum StrategyKind: UInt8, Sendable {
  case keep, dontneed, free, freeThenDontneed, splitDontneed
}

/// A strategy, possibly limited to whole pageblocks.
public struct StrategyChoice: Equatable, Sendable {
  /// The madvise sequence.
  public var kind: StrategyKind
  /// Release only wholly free pageblocks.
  public var wholeBlocksOnly: Bool
  /// Age at which lazily freed memory goes to the second stage of `freeThenDontneed`, in nanoseconds.
  public var secondStageNanoseconds: UInt64 = 10_000_000_000

  /// Creates the choice `kind`, for any range or for whole blocks only.
  public init(_ kind: StrategyKind, wholeBlocksOnly: Bool = false) {
    self.kind = kind
    self.wholeBlocksOnly = wholeBlocksOnly
  }
}

/// Everything that a heap is told when it is made.
public struct HeapOptions: Sendable {
  /// Keep one word of user data per span (costs 8 bytes of address space per page, memory only where it is used).
  public var userData: Bool = false
  /// Ask for transparent hugepages with madvise, once per arena.
  public var adviseHugePages: Bool = true
  /// Address space of the first arena in bytes; the following ones double.
  public var firstArenaBytes: Int = 1 << 30
  /// Above this many resident bytes free memory is released before the heap grows.
  public var softLimitBytes: Int? = nil
  /// Above this many resident bytes an allocation is an error.
  public var hardLimitBytes: Int? = nil
  /// Decides what to release and when.
  public var policy: PolicyChoice = .seed(SeedOptions())
  /// Releases it.
  public var strategy: StrategyChoice = StrategyChoice(.splitDontneed)
  /// Blocks examined and ranges released per tick, at most: a tick's work is bounded.
  public var rangesPerTick: Int = 1 << 16
  /// Every how many release calls the effect is read back from the kernel; 0 is never.
  public var effectSamplePeriod: Int = 64

  /// The defaults.
  public init() {}
}
