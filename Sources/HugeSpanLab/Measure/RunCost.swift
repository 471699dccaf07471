// What a run cost, in CPU-seconds: the heap's own counts times a price list, and memory at its price.
//
// Counts compare across machines, measured CPU time does not; so the cost is modelled, and what was measured stands beside it. The
// tax of running on base pages is modelled too: a replay touches memory, it does not look things up in it.

import HugeSpanCore

/// The parts of a run's cost.
package struct RunCost: Equatable, Sendable {
  /// CPU-seconds of releases, splits, rebuilds, cures and faults.
  package var work: Double
  /// CPU-seconds that TLB misses cost while used memory was on base pages; nil if the coverage is unknown.
  package var tax: Double?
  /// What the charged memory is worth, in CPU-seconds; nil if the charge is unknown.
  package var rent: Double?

  /// All of it, if all of it is known.
  package var total: Double? {
    guard let tax, let rent else { return nil }
    return work + tax + rent
  }

  /// - Parameters:
  ///   - taxedCPUSeconds: CPU-seconds of the program, each counted by the share of used memory that was on base pages.
  ///   - chargedBytes: mean over `seconds`.
  package init(
    _ heap: HeapStatistics, costs: CostModel, memoryPrice: Double, seconds: Double, taxedCPUSeconds: Double?,
    chargedBytes: Double?
  ) {
    let wholePages = heap.pagesReleased - heap.pagesReleasedInParts
    let partRefaults = heap.pagesRefaulted - heap.pagesRefaultedWhole
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
    microseconds += Double(heap.splits) * costs.split
    microseconds += Double(heap.collapses) * costs.collapse + Double(heap.cures) * costs.cure
    work = microseconds / 1e6
    tax = taxedCPUSeconds.map { $0 * costs.taxShare }
    rent = chargedBytes.map { $0 / Double(1 << 30) * seconds / 3600 * memoryPrice }
  }
}
