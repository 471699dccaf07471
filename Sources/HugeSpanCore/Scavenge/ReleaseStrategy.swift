// How free memory is given to the kernel: the mechanism that a policy's decision is carried out with.
//
// A strategy gets a batch of ranges that the heap has taken out of reach, makes its system calls with the heap's lock
// open, and notes for each range what came of it. It decides nothing. Return codes are not trusted where the kernel is
// known to say yes and do nothing: the backing of a block is asked before a part of it is released, because what a
// partial MADV_DONTNEED does depends on it (in a split block it frees; in a hugepage it only unmaps, and the folio
// stays charged until something splits it).
//
//   keep                 nothing is ever released
//   dontneed             MADV_DONTNEED
//   free                 MADV_FREE: stays charged until the kernel wants it
//   free-then-dontneed   MADV_FREE, and MADV_DONTNEED when the range has been lazily free for a while
//   split-dontneed       MADV_COLD on one page splits the hugepage in place, then MADV_DONTNEED really frees

/// A release strategy.
package protocol ReleaseStrategy: Sendable {
  /// Releases the ranges of `batch` and notes the effect of each. Called with the lock open.
  func release<K: Kernel>(_ batch: borrowing ReleaseBatchView, on kernel: K) -> ReleaseCost
}

/// System calls made and the time they took.
package struct ReleaseCost: Sendable {
  package var calls = 0
  package var ranges = 0
  package var failures = 0
  package var nanoseconds: UInt64 = 0
  package var longestNanoseconds: UInt64 = 0
  package var effectsChecked = 0
  package var effectsMissing = 0

  mutating func add(_ outcome: AdviseOutcome) {
    calls += outcome.calls
    nanoseconds += outcome.nanoseconds
    longestNanoseconds = max(longestNanoseconds, outcome.longestNanoseconds)
  }
}

/// What a strategy sees of a batch.
package struct ReleaseBatchView: ~Copyable {
  let batch: ReleaseBatch

  /// Number of ranges.
  package var count: Int { batch.count }
  /// Range `index`.
  package func range(_ index: Int) -> AddressRange { batch.ranges[index] }
  /// Whether range `index` consists of wholly free pageblocks.
  package func isWhole(_ index: Int) -> Bool { batch.entries[index].wholeBlocks > 0 }
  /// What the kernel has under the block of range `index`, as far as it was asked.
  package func backing(_ index: Int) -> Backing { batch.entries[index].backing }

  /// Asks the kernel what it has under each block of which only a part is to be released.
  func learnBacking<K: Kernel>(on kernel: K) {
    for index in 0..<batch.count where batch.entries[index].wholeBlocks == 0 {
      if batch.entries[index].backing == .split { continue }
      if index > 0 && batch.entries[index - 1].wholeBlocks == 0
        && batch.entries[index - 1].block == batch.entries[index].block
      {
        batch.entries[index].backing = batch.entries[index - 1].backing
        continue
      }
      batch.entries[index].backing = backing(around: batch.ranges[index].start, on: kernel)
    }
  }

  /// What the kernel has under the block of `address`; unknown if it does not say.
  func backing<K: Kernel>(around address: UInt, on kernel: K) -> Backing {
    let start = address & ~UInt(bytesPerBlock - 1)
    do throws(KernelError) {
      let answer = try kernel.residency(
        of: AddressRange(start: start, byteCount: bytesPerBlock),
        into: UnsafeMutableBufferPointer(start: batch.regions, count: ReleaseBatch.regionCapacity))
      if answer.count == 0 { return .absent }
      if !batch.regions[0].isBackingKnown { return .unknown }
      return batch.regions[0].isHuge ? .huge : .split
    } catch { return .unknown }
  }

  /// Advises all ranges, skipping those that fail, and notes `effect` for the rest.
  func advise<K: Kernel>(_ advice: Advice, on kernel: K, cost: inout ReleaseCost, effect: (Int) -> ReleaseEffect) {
    var first = 0
    var failures = 0
    while first < batch.count && failures < ReleaseBatchView.mostFailures {
      let outcome = kernel.advise(
        advice, UnsafeBufferPointer(start: batch.ranges + first, count: batch.count - first))
      cost.add(outcome)
      for index in first..<(first + outcome.completedRanges) { batch.entries[index].effect = effect(index) }
      cost.ranges += outcome.completedRanges
      first += outcome.completedRanges
      if first < batch.count && outcome.error == nil { break }
      if let error = outcome.error {
        // This one stays where it was; those behind it may fare better.
        batch.entries[first].effect = error == .tryAgain ? .postponed : .refused
        failures += 1
        cost.failures += 1
        first += 1
      }
    }
  }

  /// After this many failed ranges the rest of a batch is put off.
  static let mostFailures = 16

  /// Reads back from the kernel whether range `index` is gone.
  func check<K: Kernel>(_ index: Int, on kernel: K, cost: inout ReleaseCost) {
    do throws(KernelError) {
      let answer = try kernel.residency(
        of: batch.ranges[index],
        into: UnsafeMutableBufferPointer(start: batch.regions, count: ReleaseBatch.regionCapacity))
      cost.effectsChecked += 1
      if answer.count > 0 { cost.effectsMissing += 1 }
    } catch {}
  }
}

/// `dontneed`.
package struct DontneedStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: borrowing ReleaseBatchView, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnBacking(on: kernel)
    let entries = batch.batch.entries
    batch.advise(.dontneed, on: kernel, cost: &cost) { index in
      let wholeFolio = entries[index].backing == .huge || entries[index].wholeFolio
      return entries[index].wholeBlocks == 0 && wholeFolio ? .goneFromWholeFolio : .gone
    }
    return cost
  }
}

/// `free`, and the first stage of `free-then-dontneed`.
package struct FreeStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: borrowing ReleaseBatchView, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.advise(.free, on: kernel, cost: &cost) { _ in .lazy }
    return cost
  }
}

/// `split-dontneed`.
package struct SplitDontneedStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: borrowing ReleaseBatchView, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnBacking(on: kernel)
    split(batch, on: kernel, cost: &cost)
    let entries = batch.batch.entries
    batch.advise(.dontneed, on: kernel, cost: &cost) { index in
      entries[index].wholeBlocks == 0 && entries[index].backing == .huge ? .goneFromWholeFolio : .gone
    }
    return cost
  }

  /// Splits every hugepage of which a part goes, and leaves `huge` as the backing of those that could not be.
  ///
  /// Only free pages are made cold, so nobody misses their warmth. One of them is enough where one entry maps the
  /// hugepage. Where the folio is whole but mapped by pages, or the kernel does not say, all pages of the range are: if
  /// any of them belongs to a hugepage, that is split, and if none does the range frees honestly as it is.
  private func split<K: Kernel>(_ batch: borrowing ReleaseBatchView, on kernel: K, cost: inout ReleaseCost) {
    let entries = batch.batch.entries
    for index in 0..<batch.count where entries[index].wholeBlocks == 0 {
      let isMappedHuge = entries[index].backing == .huge
      guard isMappedHuge || entries[index].backing == .unknown || entries[index].wholeFolio else { continue }
      if isMappedHuge && index > 0 && entries[index - 1].wholeBlocks == 0
        && entries[index - 1].block == entries[index].block
      {
        entries[index].backing = entries[index - 1].backing
        continue
      }
      var range = batch.range(index)
      if isMappedHuge { range.byteCount = 1 << pageShift }
      let outcome = withUnsafePointer(to: range) { kernel.advise(.cold, UnsafeBufferPointer(start: $0, count: 1)) }
      cost.add(outcome)
      if outcome.error != nil {
        cost.failures += 1
        entries[index].backing = .huge
      } else if isMappedHuge {
        // Whether it was split is asked of the kernel, not of the return code.
        entries[index].backing = batch.backing(around: range.start, on: kernel) == .huge ? .huge : .split
      } else {
        entries[index].backing = .split
      }
    }
  }
}
