// `decommit`: whole free blocks become what they were before the heap grew into them, a reservation.
//
// What it gives that MADV_DONTNEED does not: under strict overcommit (vm.overcommit_memory = 2) the promise goes back with
// the memory, so that other programs may be promised it; and a stray access faults. What it costs: mappings. A block in
// the middle of others cuts their mapping in three, and so does one that is committed again in the middle of decommitted
// ones; the kernel allows 65,530 a process by default, for everything. So the heap counts the edges between committed and decommitted blocks
// and stops at a sixteenth of that; what comes then, or what the kernel refuses, is dropped by MADV_DONTNEED.
//
// The new mapping knows nothing of the advice that the arena was given, so that is repeated, here, where the lock is open:
// then a decommitted block is the same to the kernel as the rest of the arena that the heap has not grown into, and
// joins the mapping of its neighbours when it is committed again.

/// `decommit`.
package struct DecommitStrategy: ReleaseStrategy {
  /// There is room for more edges.
  package var mayDecommit: Bool
  /// The heap asks for hugepages by advice.
  package var advisesHugePages: Bool

  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    let known = batch.known
    if mayDecommit {
      batch.advise(.decommit, on: kernel, cost: &cost) {
        known[$0].isWhole
      } effect: { _ in
        .decommitted
      }
      if advisesHugePages { advise(batch, on: kernel, cost: &cost) }
    }
    batch.advise(.dontneed, on: kernel, cost: &cost) {
      known[$0].isWhole && known[$0].effect != .decommitted
    } effect: { _ in
      .gone
    }
    return cost
  }

  /// A refusal is no failure: the block comes back on base pages.
  private func advise<K: Kernel>(_ batch: ReleaseBatch, on kernel: K, cost: inout ReleaseCost) {
    for index in 0..<batch.count where batch.known[index].effect == .decommitted {
      cost.add(kernel.advise(.hugepage, UnsafeBufferPointer(start: batch.ranges + index, count: 1)))
    }
  }
}
