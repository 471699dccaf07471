// `deferred`: free memory is the heap's until somebody needs it. The madvise bit that the mail on MADV_FREE proposes, in user space.
//
// The proposal has the kernel note which ranges are free and take them under reclaim only. Here the heap knows them anyway:
// its own maps are the queue. A free enters it by being a free, reuse takes it back by being an allocation, and neither
// makes a system call; hugepages stay whole, and what has to be zero is zeroed when it is asked for. What the kernel would do
// under reclaim is done by `PageHeapCore.relieve` when somebody who watches says how little is left: wholly free blocks
// first (9 us a hugepage), then what is free in broken blocks, then what is lazily free, and at last intact blocks are split.
//
// The one thing that costs nearly nothing is done before: blocks that the policy gives up and that are wholly free hugepages go to
// MADV_FREE (1 to 3 us). The kernel takes them before any other anonymous memory, without asking, even from a process that is
// stopped; a write takes them back whole, and one atomic operation tells whether they were there still (PageHeap+TakeBack.swift). A block that is no hugepage, or that a child shares, is dropped instead.

/// What `deferred` does at a tick, to whole blocks.
package struct DeferredStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: true)
    let known = batch.known
    for index in 0..<batch.count where known[index].isWhole && known[index].sharing != .shared {
      known[index].backing = isHuge(batch.ranges[index], batch, on: kernel) ? .huge : .split
    }
    // A mark on each, for the one who takes it back: zeros there tell that the kernel has dropped it.
    for index in 0..<batch.count
    where known[index].isWhole && known[index].sharing != .shared && known[index].backing == .huge {
      var address = batch.ranges[index].start
      while address < batch.ranges[index].end {
        kernel.setWord(K.lazyMark(of: address), at: address)
        address &+= UInt(bytesPerBlock)
      }
    }
    batch.advise(.free, on: kernel, cost: &cost) {
      known[$0].isWhole && known[$0].sharing != .shared && known[$0].backing == .huge
    } effect: { _ in
      .lazy
    }
    batch.advise(.dontneed, on: kernel, cost: &cost) {
      known[$0].isWhole && (known[$0].sharing == .shared || known[$0].backing != .huge)
    } effect: { _ in
      .gone
    }
    return cost
  }

  /// Whether all blocks of the range are hugepages.
  private func isHuge<K: Kernel>(_ range: AddressRange, _ batch: ReleaseBatch, on kernel: K) -> Bool {
    do throws(KernelError) {
      let answer = try kernel.residency(
        of: range, into: UnsafeMutableBufferPointer(start: batch.regions, count: ReleaseBatch.regionCapacity))
      var huge = 0
      for index in 0..<answer.count where batch.regions[index].isHuge { huge += batch.regions[index].range.byteCount }
      return huge == range.byteCount
    } catch { return false }
  }
}
