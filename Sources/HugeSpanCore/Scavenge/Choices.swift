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
  /// TCMalloc's background release: a constant rate, and no hugepage broken for what recent demand would want back.
  case demandWindow(DemandWindowOptions)
  /// jemalloc's decay: unused memory goes along a smooth curve.
  case decay(DecayOptions)
  /// Go's background scavenger: memory above a goal, for a percent of a processor's time.
  case paced(PacedOptions)
  /// Rent against purchase, block by block, at a memory price.
  case rentOrBuy(RentOrBuyOptions)
}

/// TCMalloc's release rate and the intervals of its adaptive subrelease.
public struct DemandWindowOptions: Equatable, Sendable {
  /// Over how long the largest fluctuation of demand within a second is looked for, in nanoseconds: up to ten minutes. If
  /// both intervals are 0, demand is not looked at.
  public var shortNanoseconds: UInt64 = 60_000_000_000
  /// Over how long the largest of the seconds' least demands is looked for, in nanoseconds: up to ten minutes.
  public var longNanoseconds: UInt64 = 300_000_000_000
  /// Bytes to release in a second, if there are so many: 32 MiB. TCMalloc's own default, 0, releases nothing.
  public var bytesPerSecond: UInt64 = 32 << 20
  /// The longest that demand is remembered, in nanoseconds.
  package static var longestNanoseconds: UInt64 { 600_000_000_000 }

  /// The defaults.
  public init() {}
}

/// jemalloc's decay time.
public struct DecayOptions: Equatable, Sendable {
  /// After how long nothing is left of what became unused at a time, in nanoseconds; 0 releases at once.
  public var decayNanoseconds: UInt64 = 10_000_000_000

  /// The default: 10 s.
  public init() {}
}

/// The budget of Go's background scavenger.
public struct PacedOptions: Equatable, Sendable {
  /// Share of a processor's time for releases, in percent: above 0, at most 100.
  public var budgetPercent: Double = 1
  /// The longest that a generation lasts, in nanoseconds. It ends sooner if as much was allocated as was in use.
  public var periodNanoseconds: UInt64 = 120_000_000_000

  /// The defaults: one percent, two minutes.
  public init() {}
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
  case cold, pageout, decommit, deferred
}

/// A strategy, possibly limited to whole pageblocks.
public struct StrategyChoice: Equatable, Sendable {
  /// The madvise sequence.
  public var kind: StrategyKind
  /// Release only wholly free pageblocks.
  public var wholeBlocksOnly: Bool
  /// Age at which lazily freed memory goes to the second stage of `freeThenDontneed`, in nanoseconds.
  public var secondStageNanoseconds: UInt64 = 10_000_000_000
  /// Whether `deferred` hands wholly free pageblocks to MADV_FREE when the policy gives them up, so that the kernel can take
  /// them without asking. Off, nothing at all happens to free memory without pressure.
  public var freesWholeBlocks: Bool = true

  /// Creates the choice `kind`, for any range or for whole blocks only.
  public init(_ kind: StrategyKind, wholeBlocksOnly: Bool = false) {
    self.kind = kind
    self.wholeBlocksOnly = wholeBlocksOnly
  }

  /// Whether parts of blocks are left alone. `decommit` always does: each range costs up to two of the process' mappings,
  /// of which the kernel allows 65,530, and a hole of pages would be one in the middle of a hugepage.
  /// `deferred` leaves them to the pressure that may come.
  package var releasesWholeOnly: Bool { wholeBlocksOnly || kind == .decommit || kind == .deferred }

  /// Whether a policy's decision has an effect at all.
  package var releasesAtTicks: Bool { kind != .keep && (kind != .deferred || freesWholeBlocks) }
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
    case .cold: contains(.cold) && contains(.dontneed)
    case .pageout: contains(.pageout) && contains(.dontneed)
    case .decommit: contains(.decommit) && contains(.dontneed)
    case .deferred: contains(.free) && supports(.splitDontneed)
    case .splitDontneed:
      contains(.dontneed) && (contains(.honestSplit) || !(contains(.hugePages) || contains(.collapse)))
    }
  }
}
