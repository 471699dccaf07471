// What a run cost, in CPU-seconds: the heap's own counts times a price list, and memory at its price.
//
// Counts compare across machines, measured CPU time does not; so the cost is modelled, and what was measured stands beside it. The
// tax of running on base pages is modelled too: a replay touches memory, it does not look things up in it.

import HugeSpanCore

/// What counts for how much.
package struct CostWeights: Equatable, Sendable {
  /// Of TLB misses: 0 leaves them out.
  package var tax = 1.0
  /// Of lazily freed memory, as a share of the memory price: charged, and to be had for the asking. 0 to 1.
  package var lazy = 1.0

  /// Everything counts in full.
  package init() {}
}

/// The parts of a run's cost.
package struct RunCost: Equatable, Sendable {
  /// CPU-seconds of releases, splits, rebuilds, cures and faults.
  package var work: Double
  /// CPU-seconds that TLB misses cost while used memory was on base pages, unweighted; nil if the coverage is unknown.
  package var tax: Double?
  /// What the charged memory is worth, in CPU-seconds; nil if the charge is unknown.
  package var rent: Double?
  private let taxWeight: Double

  /// All of it, if all of it that counts is known.
  package var total: Double? {
    guard let tax = taxWeight == 0 ? 0 : tax, let rent else { return nil }
    return work + taxWeight * tax + rent
  }

  /// - Parameters:
  ///   - taxedCPUSeconds: CPU-seconds of the program, each counted by the share of used memory that was on base pages.
  ///   - chargedBytes: mean over `seconds`.
  ///   - lazyFreeBytes: the part of it that is lazily freed; needed only where that has a weight of its own.
  package init(
    _ heap: HeapStatistics, costs: CostModel, memoryPrice: Double, seconds: Double, taxedCPUSeconds: Double?,
    chargedBytes: Double?, lazyFreeBytes: Double? = nil, weights: CostWeights = CostWeights()
  ) {
    let wholePages = heap.pagesReleased - heap.pagesReleasedInParts
    // A lazily freed page that is still there is taken back by a write, without a fault.
    let partRefaults = heap.pagesRefaulted - heap.pagesRefaultedWhole - heap.lazyPagesReused
    // One sum to a line: what is released, what comes back, what is done to hugepages.
    var microseconds = Double(heap.releaseCalls) * costs.releaseCall + Double(heap.releaseRanges) * costs.releaseRange
    microseconds += Double(heap.pagesReleasedInParts) * costs.releasePage
    microseconds += Double(wholePages) / 512 * costs.releaseBlock
    microseconds += Double(partRefaults) * costs.pageFault
    var fresh = heap.blocksPopulated
    for index in heap.blocksRefaultedByAbsence.indices {
      let count = heap.blocksRefaultedByAbsence[index]
      microseconds += Double(count) * costs.blockFault(afterSeconds: HeapStatistics.absenceSeconds(index))
      fresh -= count
    }
    microseconds += Double(fresh) * costs.blockFault
    microseconds += Double(heap.blocksMoved + heap.movesRefused) * costs.blockMove
    microseconds += Double(heap.splits) * costs.split
    // A rebuild costs the machine the same when khugepaged makes it.
    microseconds += Double(heap.collapses + heap.reinflatedBlocks) * costs.collapse
    microseconds += Double(heap.cures) * costs.cure
    work = microseconds / 1e6
    tax = taxedCPUSeconds.map { $0 * costs.taxShare }
    taxWeight = weights.tax
    var held = chargedBytes
    if weights.lazy < 1 {
      held = if let chargedBytes, let lazyFreeBytes { chargedBytes - (1 - weights.lazy) * lazyFreeBytes } else { nil }
    }
    rent = held.map { $0 / Double(1 << 30) * seconds / 3600 * memoryPrice }
  }
}
