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
//   cold                 MADV_COLD: stays, with its contents; swapped out first when memory is short (SwapStrategies)
//   pageout              MADV_PAGEOUT: swapped out now (SwapStrategies)
//   decommit             whole blocks become a reservation again (DecommitStrategy)
//   deferred             nothing before memory gets short, but whole blocks are lazily free (DeferredStrategy)

/// A release strategy.
package protocol ReleaseStrategy: Sendable {
  /// Releases the ranges of `batch` and notes the effect of each. Called with the lock open.
  func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost
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
  /// Blocks turned out to be shared with another process that no fork handler told of.
  package var foundSharing = false

  mutating func add(_ outcome: AdviseOutcome) {
    calls += outcome.calls
    nanoseconds += outcome.nanoseconds
    longestNanoseconds = max(longestNanoseconds, outcome.longestNanoseconds)
  }
}

/// `dontneed`.
package struct DontneedStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: false)
    batch.learnBacking(on: kernel)
    batch.refuseSharedHugePages()
    let known = batch.known
    batch.advise(.dontneed, on: kernel, cost: &cost) {
      known[$0].effect != .refused
    } effect: { index in
      let wholeFolio = known[index].backing == .huge || known[index].wholeFolio || known[index].sharing == .shared
      return !known[index].isWhole && wholeFolio ? .goneFromWholeFolio : .gone
    }
    return cost
  }
}

/// `free`, and the first stage of `free-then-dontneed`. What a child shares the kernel does not free lazily; it is dropped.
package struct FreeStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: true)
    let known = batch.known
    batch.advise(.free, on: kernel, cost: &cost) {
      known[$0].sharing != .shared
    } effect: { _ in
      .lazy
    }
    batch.dropShared(on: kernel, cost: &cost)
    return cost
  }
}

/// `split-dontneed`.
package struct SplitDontneedStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: false)
    batch.learnBacking(on: kernel)
    batch.refuseSharedHugePages()
    split(batch, on: kernel, cost: &cost)
    let known = batch.known
    batch.advise(.dontneed, on: kernel, cost: &cost) {
      known[$0].effect != .refused
    } effect: { index in
      let wholeFolio = known[index].backing == .huge || known[index].sharing == .shared
      return !known[index].isWhole && wholeFolio ? .goneFromWholeFolio : .gone
    }
    return cost
  }

  /// Splits every hugepage of which a part goes, and leaves `huge` as the backing of those that could not be.
  ///
  /// Only free pages are made cold, so nobody misses their warmth. One of them is enough where one entry maps the
  /// hugepage. Where the folio is whole but mapped by pages, or the kernel does not say, all pages of the range are: if
  /// any of them belongs to a hugepage, that is split, and if none does the range frees honestly as it is.
  private func split<K: Kernel>(_ batch: ReleaseBatch, on kernel: K, cost: inout ReleaseCost) {
    let known = batch.known
    for index in 0..<batch.count where !known[index].isWhole && known[index].sharing != .shared {
      let isMappedHuge = known[index].backing == .huge
      guard isMappedHuge || known[index].backing == .unknown || known[index].wholeFolio else { continue }
      if isMappedHuge && batch.sharesBlockWithPrevious(index) {
        known[index].backing = known[index - 1].backing
        continue
      }
      var range = batch.ranges[index]
      if isMappedHuge { range.byteCount = 1 << pageShift }
      let outcome = withUnsafePointer(to: range) { kernel.advise(.cold, UnsafeBufferPointer(start: $0, count: 1)) }
      cost.add(outcome)
      if outcome.error != nil {
        cost.failures += 1
        known[index].backing = .huge
      } else if isMappedHuge {
        // Whether it was split is asked of the kernel, not of the return code.
        known[index].backing = batch.backing(around: range.start, on: kernel) == .huge ? .huge : .split
      } else {
        known[index].backing = .split
      }
    }
  }
}
