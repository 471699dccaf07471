// How a heap is made: limits, policy, strategy. Plain values; the text forms (`seed:rate=100`) are parsed elsewhere.

/// Everything that a heap is told when it is made.
public struct HeapOptions: Sendable {
  /// Keep one word of user data per span (costs 8 bytes of address space per page, memory only where it is used).
  public var userData: Bool = false
  /// Ask for transparent hugepages with madvise, once per arena, where memory gets none without.
  public var adviseHugePages: Bool = true
  /// Move free hugepages under spans of several blocks, where else memory would have to be faulted in.
  public var movesBlocks: Bool = true
  /// Address space of the first arena in bytes; the following ones double.
  public var firstArenaBytes: Int = 1 << 30
  /// Above this many resident bytes free memory is released before the heap grows.
  public var softLimitBytes: Int? = nil
  /// Above this many resident bytes an allocation is an error.
  public var hardLimitBytes: Int? = nil
  /// Decides what to release and when.
  public var policy: PolicyChoice = .rentOrBuy(RentOrBuyOptions())
  /// Releases it.
  public var strategy: StrategyChoice = StrategyChoice(.splitDontneed)
  /// Above this many bytes that the process has resident, strategy `deferred` gives free memory back; nil for no such limit.
  public var pressureLimitBytes: Int? = nil
  /// A policy of the embedder's own; it takes the place of `policy`.
  package var customPolicy: CustomPolicy? = nil
  /// A strategy of the embedder's own; it takes the place of `strategy`, except for its limit to whole blocks.
  package var customStrategy: CustomStrategy? = nil
  /// Blocks examined and ranges released per tick, at most: a tick's work is bounded.
  public var rangesPerTick: Int = 1 << 16
  /// Every how many release calls the effect is read back from the kernel; 0 is never. A lazily freed sample is paged out
  /// for that: one page of a range, or one hugepage, is gone with each.
  public var effectSamplePeriod: Int = 64

  /// The defaults.
  public init() {}
}
