// What a release really did, read back from the kernel for a sample of ranges. Return codes lie.
//
// Whether a range is gone, its residency says. Whether a range is lazily free, nothing says that an unprivileged process can
// read for a range: smaps has a sum for a whole mapping (a walk over all of the arena, and without what the kernel
// still holds back in its per-processor batches), the pagemap has no bit for it, kpageflags is root's. So the promise
// itself is tried: what MADV_FREE gave up the kernel takes at once when it is told to page it out, with or without swap, and
// what it did not give up stays (or is swapped). MADV_PAGEOUT of one base page takes 5 to 10 us, of a hugepage 25 to 40, once in
// `HeapOptions.effectSamplePeriod` releases; the piece that it takes would have to be refaulted if it is used again.

extension ReleaseBatch {
  /// The range whose effect is read back: the first that has one.
  var sample: Int? {
    for index in 0..<count where known[index].effect > .refused { return index }
    return nil
  }

  /// Reads back the effect of range `index`.
  func check<K: Kernel>(_ index: Int, on kernel: K, cost: inout ReleaseCost) {
    switch known[index].effect {
    case .lazy: checkLazy(index, on: kernel, cost: &cost)
    // Of what is cold nothing can be read; what was swapped out was read back already.
    case .cold, .swapped, .postponed, .refused: break
    case .gone, .goneFromWholeFolio, .decommitted:
      guard let found = firstRegion(in: ranges[index], on: kernel) else { return }
      cost.effectsChecked += 1
      if found.count > 0 { cost.effectsMissing += 1 }
    }
  }

  /// What is in memory, or swapped, of `range`: the number of regions that were found, and the first; nil if the kernel
  /// does not say.
  private func firstRegion<K: Kernel>(
    in range: AddressRange, on kernel: K
  ) -> (count: Int, region: ResidentRegion?)? {
    do throws(KernelError) {
      let answer = try kernel.residency(
        of: range, into: UnsafeMutableBufferPointer(start: regions, count: ReleaseBatch.regionCapacity))
      return (answer.count, answer.count > 0 ? regions[0] : nil)
    } catch { return nil }
  }

  /// Pages out the first piece of a lazily freed range. If it stays, the range is not lazily free.
  private func checkLazy<K: Kernel>(_ index: Int, on kernel: K, cost: inout ReleaseCost) {
    guard kernel.capabilities.contains(.pageout), let found = firstRegion(in: ranges[index], on: kernel),
      let region = found.region, region.isPresent
    else { return }
    // A hugepage goes as a whole, if it is wholly ours to give.
    var piece = AddressRange(start: region.range.start, byteCount: 1 << pageShift)
    if region.isHuge && region.range.byteCount >= bytesPerBlock { piece.byteCount = bytesPerBlock }
    let outcome = withUnsafePointer(to: piece) { kernel.advise(.pageout, UnsafeBufferPointer(start: $0, count: 1)) }
    cost.add(outcome)
    guard outcome.error == nil, let after = firstRegion(in: piece, on: kernel) else { return }
    cost.effectsChecked += 1
    if after.count == 0 {
      // Of a longer range the piece is one that the kernel has taken, as it may at any time.
      if piece == ranges[index] { known[index].effect = .gone }
      return
    }
    cost.effectsMissing += 1
    known[index].effect = .refused
    // Most likely a process that was forked past the handlers; then the other ranges are no better.
    if isShared(ranges[index], on: kernel) {
      cost.foundSharing = true
      for other in 0..<count where known[other].effect == .lazy && isShared(ranges[other], on: kernel) {
        known[other].effect = .refused
      }
    }
  }
}
