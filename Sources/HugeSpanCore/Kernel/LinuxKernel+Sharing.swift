// Which pages another process shares, by the kernel's own word.
//
// A forked child shares every page until one of both writes to it. The kernel tells by bit 56 of the page's word in the
// pagemap file: mapped by this process and by nobody else. It needs no privilege and is there since Linux 4.2; PAGEMAP_SCAN
// has no such category. Pages that are not in memory are nobody's to share here, and the shared page of zeros, which is
// mapped everywhere, must not count; so the residency is asked first, and only what it calls present is read.
//
// Measured: 2 us for a block that is a hugepage, 18 us for one in base pages; a block that is shared shows it in the
// first page nearly always, so that is read alone first (1 us).

import CHugeSpanShims

extension LinuxKernel {
  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    var sharing = PageSharing()
    var regions = InlineArray<32, ResidentRegion>(
      repeating: ResidentRegion(range: range, isHuge: false, isPresent: false))
    var position = range.start
    while position < range.end && sharing.shared < limit {
      let rest = AddressRange(start: position, byteCount: Int(range.end - position))
      var failure: KernelError? = nil
      let (count, walkedTo) = withUnsafeMutableBytes(of: &regions) { bytes -> (Int, UInt) in
        do throws(KernelError) {
          return try residency(of: rest, into: bytes.assumingMemoryBound(to: ResidentRegion.self))
        } catch {
          failure = error
          return (0, rest.end)
        }
      }
      if let failure { throw failure }
      for index in 0..<count where regions[index].isPresent && sharing.shared < limit {
        try countShared(in: regions[index].range, limit: limit, &sharing)
      }
      if walkedTo <= position { throw .invalid }
      position = walkedTo
    }
    return sharing
  }

  /// Reads the pagemap words of present pages: of the first page alone, then 512 at a time.
  private func countShared(
    in range: AddressRange, limit: Int, _ sharing: inout PageSharing
  ) throws(KernelError) {
    var words = InlineArray<512, UInt64>(repeating: 0)
    let pages = range.byteCount / geometry.pageBytes
    var first = 0
    while first < pages && sharing.shared < limit {
      let count = first == 0 && limit < pages ? 1 : min(pages - first, 512)
      let offset = (UInt64(range.start) / UInt64(geometry.pageBytes) + UInt64(first)) * 8
      let read = try Self.valueOrError(
        withUnsafeMutableBytes(of: &words) { Self.readPagemap($0.baseAddress!, count * 8, offset) })
      guard read == count * 8 else { throw .invalid }
      for index in 0..<count where words[index] >> 63 != 0 {
        sharing.present += 1
        if words[index] >> 56 & 1 == 0 { sharing.shared += 1 }
      }
      first += count
    }
  }

  /// One read, and one more on a new descriptor where the old one is not the pagemap any more.
  private static func readPagemap(_ words: UnsafeMutableRawPointer, _ byteCount: Int, _ offset: UInt64) -> Int {
    var result = 0
    for attempt in 0..<2 {
      let file = ownPagemap.value(isStale: attempt > 0)
      if file < 0 { return Int(file) }
      result = hs_shim_read_at(file, words, byteCount, offset)
      if result == byteCount { break }
    }
    return result
  }
}
