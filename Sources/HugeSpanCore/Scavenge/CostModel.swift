// What things cost: the one price list that the priced policy decides by and comparisons are reckoned with.
//
// All prices are CPU time in microseconds; memory is converted by one knob, the memory price. The defaults were measured
// on Linux 6.18 on x86-64 in a virtual machine with warm memory, and differ by a few times between machines: `hugespan
// calibrate` measures them on another.

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
  /// First touch of a block that comes back as a hugepage, with its zeroing, soon after it was released.
  public var blockFault: Double = 200
  /// The same when the machine had time to pass the memory on: hypervisors take back what a guest reports as free, and
  /// the next touch waits for them. As `blockFault` where nobody does.
  public var coldBlockFault: Double = 200
  /// Seconds after its release from which a block counts as cold.
  public var coldAfter: Double = 2
  /// Moving a hugepage to another address.
  public var blockMove: Double = 6
  /// Making a block huge again (MADV_COLLAPSE).
  public var collapse: Double = 400
  /// Splitting a hugepage to give back what is phantom of it.
  public var cure: Double = 300
  /// Share of a busy CPU that is lost to TLB misses when all of a heap is on base pages.
  public var taxShare: Double = 0.15

  /// The defaults.
  public init() {}

  /// Buying a whole block once: to release it and to fault it back. Whoever gives a block away does not know for how
  /// long, so the dearer fault counts.
  package var wholeBlock: Double { releaseBlock + max(blockFault, coldBlockFault) }

  /// Rebuilding a block: the collapse takes a hugepage of the machine's, which may be cold.
  package var rebuild: Double { collapse + max(coldBlockFault - blockFault, 0) }

  /// The first touch of a block that was with the kernel for `seconds`.
  package func blockFault(afterSeconds seconds: Double) -> Double { seconds < coldAfter ? blockFault : coldBlockFault }

  /// What holding a page for a second costs, in microseconds, at `memoryPrice` CPU-seconds per GiB-hour.
  package static func rentPerPage(memoryPrice: Double) -> Double {
    memoryPrice * 1_000_000 / 3600 / Double((1 << 30) / 4096)
  }
}

extension CostModel {
  /// The entries of the price list, by name: the one table behind files, settings and reports.
  package enum Price: UInt8, Sendable {
    case releaseCall, releaseRange, releasePage, releaseBlock, split, pageFault, blockFault, coldBlockFault, coldAfter
    case blockMove, collapse, cure, taxShare

    /// Raw values are 0 up to it.
    package static let count = Price.taxShare.rawValue + 1

    package var name: StaticString {
      switch self {
      case .releaseCall: "releaseCall"
      case .releaseRange: "releaseRange"
      case .releasePage: "releasePage"
      case .releaseBlock: "releaseBlock"
      case .split: "split"
      case .pageFault: "pageFault"
      case .blockFault: "blockFault"
      case .coldBlockFault: "coldBlockFault"
      case .coldAfter: "coldAfter"
      case .blockMove: "blockMove"
      case .collapse: "collapse"
      case .cure: "cure"
      case .taxShare: "taxShare"
      }
    }

    /// Whether the list can hold this value: a share is at most 1; prices are at most ten seconds, waits a day.
    package func allows(_ value: Double) -> Bool {
      switch self {
      case .taxShare: value >= 0 && value <= 1
      case .coldAfter: value >= 0 && value <= 86_400
      default: value >= 0 && value <= 10_000_000
      }
    }
  }

  package subscript(price: Price) -> Double {
    get {
      switch price {
      case .releaseCall: releaseCall
      case .releaseRange: releaseRange
      case .releasePage: releasePage
      case .releaseBlock: releaseBlock
      case .split: split
      case .pageFault: pageFault
      case .blockFault: blockFault
      case .coldBlockFault: coldBlockFault
      case .coldAfter: coldAfter
      case .blockMove: blockMove
      case .collapse: collapse
      case .cure: cure
      case .taxShare: taxShare
      }
    }
    set {
      switch price {
      case .releaseCall: releaseCall = newValue
      case .releaseRange: releaseRange = newValue
      case .releasePage: releasePage = newValue
      case .releaseBlock: releaseBlock = newValue
      case .split: split = newValue
      case .pageFault: pageFault = newValue
      case .blockFault: blockFault = newValue
      case .coldBlockFault: coldBlockFault = newValue
      case .coldAfter: coldAfter = newValue
      case .blockMove: blockMove = newValue
      case .collapse: collapse = newValue
      case .cure: cure = newValue
      case .taxShare: taxShare = newValue
      }
    }
  }
}
