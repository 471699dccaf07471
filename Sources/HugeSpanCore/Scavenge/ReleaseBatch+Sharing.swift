// Ranges whose blocks a forked child may share.
//
// What a release does to a shared block (measured; a child maps the same folios):
//
//   MADV_FREE                     returns 0 and does nothing
//   MADV_COLD                     returns 0 and does not split
//   MADV_DONTNEED of the block    drops our mapping; the child's goes on being charged until the child goes
//   MADV_DONTNEED of a part       of a hugepage: splits our mapping and frees nothing, now or later (the folio stays whole)
//                                 of base pages: drops our mapping; what the child keeps may be a whole folio
//
// So a whole block is dropped, a part of a hugepage is left alone until no child shares it, and a part of base pages is
// dropped and booked as phantom: charged, and not in our page table.

extension ReleaseBatch {
  /// Asks the kernel about the blocks of ranges that may be shared: of parts, and `ofWhole` blocks too where it matters.
  func learnSharing<K: Kernel>(on kernel: K, ofWhole: Bool) {
    for index in 0..<count where known[index].sharing == .possible && (ofWhole || !known[index].isWhole) {
      if !known[index].isWhole && sharesBlockWithPrevious(index) {
        known[index].sharing = known[index - 1].sharing
        continue
      }
      known[index].sharing = isShared(ranges[index], on: kernel) ? .shared : .exclusive
    }
  }

  /// Whether another process maps pages of the blocks of `range`; true if the kernel does not say.
  func isShared<K: Kernel>(_ range: AddressRange, on kernel: K) -> Bool {
    let start = range.start & ~UInt(bytesPerBlock - 1)
    let end = (range.end &+ UInt(bytesPerBlock - 1)) & ~UInt(bytesPerBlock - 1)
    do throws(KernelError) {
      return try kernel.sharedPages(of: AddressRange(start: start, byteCount: Int(end - start)), limit: 1).shared > 0
    } catch { return true }
  }

  /// Whether range `index` is a part of a block that somebody else maps.
  @inline(__always)
  func isSharedPart(_ index: Int) -> Bool { known[index].sharing == .shared && !known[index].isWhole }

  /// A fork came while the ranges were with the kernel: what was ours alone may be no more, and what was to be freed lazily
  /// was perhaps not.
  func forgetSharing() {
    for index in 0..<count {
      if known[index].sharing == .exclusive { known[index].sharing = .possible }
      if known[index].effect == .lazy { known[index].effect = .postponed }
    }
  }

  /// Refuses to break hugepages that somebody else maps. Needs `learnSharing` and `learnBacking`.
  func refuseSharedHugePages() {
    for index in 0..<count where isSharedPart(index) {
      if known[index].backing == .huge || known[index].backing == .unknown { known[index].effect = .refused }
    }
  }

  /// Drops the ranges that somebody else maps, because no gentler advice has an effect on them. Needs `learnSharing`.
  func dropShared<K: Kernel>(on kernel: K, cost: inout ReleaseCost) {
    var isShared = false
    for index in 0..<count where known[index].sharing == .shared { isShared = true }
    if !isShared { return }
    learnBacking(on: kernel)
    refuseSharedHugePages()
    advise(.dontneed, on: kernel, cost: &cost) {
      known[$0].sharing == .shared && known[$0].effect != .refused
    } effect: {
      known[$0].isWhole ? .gone : .goneFromWholeFolio
    }
  }
}
