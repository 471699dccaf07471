// Strategies that leave free memory its contents and count on swap: `cold` and `pageout`.
//
// They treat free memory as if it were in use and merely cold, which is what a program does to its memory that knows
// nothing of the heap's. They are here to be compared with: what nobody will read again is compressed, or written, and read back.
//
//   MADV_COLD     of a whole hugepage 1 us, which stays whole; of a part it splits it. Nothing is freed. When memory gets
//                 short the pages are swapped out before others; without swap they stay for ever.
//   MADV_PAGEOUT  with zram 5 ms a hugepage, and 13 ms to read it back page by page: the charge falls by all of it, what
//                 zram needs comes on top elsewhere. Without swap nothing leaves, and the hugepage is split for it.
//
// (Linux 6.18.) So `pageout` reads back what became of the first range of a batch before it touches the others: one hugepage
// in a hundred is lost where there is no swap, and not all of them. Whether there is room for more is not asked otherwise:
// /proc/swaps says nothing of a group's own limit.

/// `cold`. Somebody else's pages are not cooled by advice; what a child shares is dropped.
package struct ColdStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: true)
    let known = batch.known
    batch.advise(.cold, on: kernel, cost: &cost) {
      known[$0].sharing != .shared
    } effect: { _ in
      .cold
    }
    batch.dropShared(on: kernel, cost: &cost)
    return cost
  }
}

/// `pageout`. What a child shares is dropped.
package struct PageoutStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: true)
    let known = batch.known
    var first = 0
    while first < batch.count && known[first].sharing == .shared { first += 1 }
    if first < batch.count {
      batch.advise(.pageout, on: kernel, cost: &cost) {
        $0 == first
      } effect: {
        batch.effectOfPageout($0, on: kernel)
      }
      if known[first].effect > .refused {
        batch.advise(.pageout, on: kernel, cost: &cost) {
          $0 > first && known[$0].sharing != .shared
        } effect: {
          batch.effectOfPageout($0, on: kernel)
        }
      } else {
        for index in (first + 1)..<max(batch.count, first + 1) where known[index].sharing != .shared {
          known[index].effect = known[first].effect
        }
      }
    }
    batch.dropShared(on: kernel, cost: &cost)
    return cost
  }
}

extension ReleaseBatch {
  /// What became of range `index`, as its pages tell; and that its hugepage, if it had one, is no more.
  fileprivate func effectOfPageout<K: Kernel>(_ index: Int, on kernel: K) -> ReleaseEffect {
    let range = ranges[index]
    var present = 0
    var away = 0
    var isHuge = false
    var start = range.start
    while start < range.end {
      do throws(KernelError) {
        let answer = try kernel.residency(
          of: AddressRange(start: start, byteCount: Int(range.end - start)),
          into: UnsafeMutableBufferPointer(start: regions, count: ReleaseBatch.regionCapacity))
        for region in 0..<answer.count {
          let pages = regions[region].range.byteCount >> pageShift
          if regions[region].isPresent { present += pages } else { away += pages }
          isHuge = isHuge || regions[region].isHuge
        }
        if answer.walkedTo <= start { break }
        start = answer.walkedTo
      } catch {
        // Not known: then it counts as what costs more.
        known[index].backing = .unknown
        return .cold
      }
    }
    if !isHuge { known[index].backing = .split }
    if present == 0 { return away == 0 ? .gone : .swapped }
    return present == range.byteCount >> pageShift ? .refused : .cold
  }
}
