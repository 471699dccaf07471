// What is resident, and on what, by the kernel's own word.
//
// PAGEMAP_SCAN walks the page tables and gives runs of pages of equal kind, hugepages told apart, in a microsecond for a
// block and a millisecond for 8 GiB. Kernels before 6.7, and sandboxes that filter the call, leave the pagemap file, which
// tells present and swapped pages and no more, and smaps, which tells how much of a whole mapping is huge. The fallback
// takes both together: see SmapsResidency.swift for what it can and cannot say.

import CHugeSpanShims

extension LinuxKernel {
  package func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    guard regions.count > 0 else { throw .invalid }
    return switch residencySource {
    case .pagemapScan: try Self.scan(range, into: regions)
    case .smaps: try smapsResidency(of: range, into: regions)
    }
  }

  /// One or more calls of the scan, until the range ends or the buffer is full.
  static func scan(
    _ range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    var count = 0
    var position = range.start
    // A small array on the stack, since the heap has no memory to give; the call is cheap enough to repeat.
    var found = InlineArray<64, hs_shim_page_region>(repeating: hs_shim_page_region())
    while position < range.end && count < regions.count {
      let capacity = min(found.count, regions.count - count)
      var walked: UInt64 = 0
      let filled = try valueOrError(
        withUnsafeMutableBytes(of: &found) {
          let buffer = $0.assumingMemoryBound(to: hs_shim_page_region.self).baseAddress!
          return call(from: position, to: range.end, into: buffer, capacity, &walked)
        })
      for index in 0..<filled {
        let region = found[index]
        let present = region.categories & UInt64(HS_SHIM_PAGE_IS_PRESENT) != 0
        let huge = region.categories & UInt64(HS_SHIM_PAGE_IS_HUGE) != 0
        let bytes = AddressRange(start: UInt(region.start), byteCount: Int(region.end - region.start))
        regions.initializeElement(
          at: count + index, to: ResidentRegion(range: bytes, isHuge: huge && present, isPresent: present))
      }
      count += filled
      position = UInt(walked)
      // Without a full buffer the walk is complete, whatever the last page was.
      if filled < capacity { position = range.end }
    }
    return (count, position)
  }

  /// The call itself, with one more try on a new descriptor where the old one is not the pagemap any more.
  private static func call(
    from start: UInt, to end: UInt, into buffer: UnsafeMutablePointer<hs_shim_page_region>, _ capacity: Int,
    _ walked: inout UInt64
  ) -> Int {
    var result = 0
    for attempt in 0..<2 {
      let file = ownPagemap.value(isStale: attempt > 0)
      if file < 0 { return Int(file) }
      result = hs_shim_pagemap_scan(file, UInt64(start), UInt64(end), buffer, capacity, &walked)
      if result != -Int(EBADF) && result != -Int(ENOTTY) { break }
    }
    return result
  }
}
