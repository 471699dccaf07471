// Policies and strategies by name and setting, as plain values. The text forms (`seed:rate=100`) are parsed elsewhere.

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
  /// Rent against purchase, block by block, at a memory price.
  case rentOrBuy(RentOrBuyOptions)
}

/// What the priced policy goes by.
public struct RentOrBuyOptions: Equatable, Sendable {
  /// What memory is worth: CPU-seconds per GiB-hour. Cloud prices put it near 400; more releases sooner.
  public var memoryPrice: Double = 400
  /// Make broken blocks huge again when they are used enough.
  public var rebuild: Bool = true
  /// Place new spans on fresh hugepages rather than in broken blocks that could drain.
  public var steering: Bool = true
  /// What the kernel's operations cost.
  public var costs = CostModel()

  /// The defaults.
  public init() {}
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

extension KernelCapabilities {
  /// Whether a release by `kind` does on this kernel what it says. Where there are no hugepages there is none to split,
  /// and the honest strategy needs nothing but MADV_DONTNEED.
  package func supports(_ kind: StrategyKind) -> Bool {
    switch kind {
    case .keep: true
    case .dontneed: contains(.dontneed)
    case .free: contains(.free)
    case .freeThenDontneed: contains(.free) && contains(.dontneed)
    case .splitDontneed:
      contains(.dontneed) && (contains(.honestSplit) || !(contains(.hugePages) || contains(.collapse)))
    }
  }
}
