// What things cost: the one price list that the priced policy decides by and comparisons are reckoned with.
//
// All prices are CPU time in microseconds; memory is converted by one knob, the memory price. The defaults were measured
// on Linux 6.18 on x86-64 in a virtual machine with warm memory, and differ by a few times between machines.

/// Costs of the kernel's operations, in microseconds of CPU time.
public struct CostModel: Equatable, Sendable {
  /// A release call, whatever is in it.
  public var releaseCall: Double = 1
  /// A range in a release call.
  public var releaseRange: Double = 1
  /// A page of a range that is released from base pages.
  public var releasePage: Double = 0.12
  /// Splitting a hugepage so that a part of it can be released.
  public var split: Double = 170
  /// Releasing a whole hugepage.
  public var releaseBlock: Double = 9
  /// First touch of a page that had been released, as a base page.
  public var pageFault: Double = 1.3
  /// First touch of a block that comes back as a hugepage, with its zeroing.
  public var blockFault: Double = 200
  /// Making a block huge again (MADV_COLLAPSE).
  public var collapse: Double = 400
  /// Splitting a hugepage to give back what is phantom of it.
  public var cure: Double = 300
  /// Share of a busy CPU that is lost to TLB misses when all of a heap is on base pages.
  public var taxShare: Double = 0.15

  /// The defaults.
  public init() {}

  /// Buying a whole block once: to release it and to fault it back.
  package var wholeBlock: Double { releaseBlock + blockFault }

  /// What holding a page for a second costs, in microseconds, at `memoryPrice` CPU-seconds per GiB-hour.
  package static func rentPerPage(memoryPrice: Double) -> Double {
    memoryPrice * 1_000_000 / 3600 / Double((1 << 30) / 4096)
  }
}
