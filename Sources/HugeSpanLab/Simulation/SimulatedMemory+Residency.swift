// What PAGEMAP_SCAN and kpageflags would say.

import HugeSpanCore

extension SimulatedState {
  /// Runs of equal residency of `range`, as far as `regions` goes.
  func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) -> (count: Int, walkedTo: UInt) {
    var count = 0
    /// False when there is no room for it.
    func add(_ start: UInt, _ byteCount: Int, _ isHuge: Bool, _ isPresent: Bool) -> Bool {
      if count > 0, regions[count - 1].range.end == start, regions[count - 1].isHuge == isHuge,
        regions[count - 1].isPresent == isPresent
      {
        regions[count - 1].range.byteCount += byteCount
        return true
      }
      if count == regions.count { return false }
      regions.initializeElement(
        at: count,
        to: ResidentRegion(
          range: AddressRange(start: start, byteCount: byteCount), isHuge: isHuge, isPresent: isPresent))
      count += 1
      return true
    }
    var position = range.start
    while position < range.end {
      let index = index(position)
      let start = address(index)
      let end = min(start + 1 << 21, range.end)
      let block = blocks[index]
      if block.has(Flag.mappedHuge) {
        if !add(position, Int(end - position), true, true) { return (count, position) }
      } else if block.side != 0 {
        let pages = pages(index)
        var page = Int(position - start) >> 12
        let last = Int(end - start) >> 12
        while page < last {
          let present = pages.present[page >> 6] >> UInt64(page & 63)
          let swapped = pages.swapped(page >> 6) >> UInt64(page & 63)
          var length = (present & 1 != 0 ? ~present : swapped & 1 != 0 ? ~swapped : present | swapped)
            .trailingZeroBitCount
          length = min(max(length, 1), 64 - page & 63, last - page)
          if (present | swapped) & 1 != 0
            && !add(start + UInt(page) << 12, length << 12, false, present & 1 != 0)
          {
            return (count, start + UInt(page) << 12)
          }
          page += length
        }
      }
      position = end
    }
    return (count, range.end)
  }

  /// Pages of `range` in memory, and those that a child maps too, up to `limit` of them.
  func sharing(of range: AddressRange, limit: Int) -> PageSharing {
    var sharing = PageSharing()
    var position = range.start
    while position < range.end && sharing.shared < limit {
      let index = index(position)
      let start = address(index)
      let end = min(start + 1 << 21, range.end)
      let block = blocks[index]
      if block.has(Flag.mappedHuge) {
        let count = Int(end - position) >> 12
        let shared = block.has(Flag.shared) ? min(count, limit - sharing.shared) : 0
        sharing.present += shared > 0 ? shared : count
        sharing.shared += shared
      } else if block.side != 0 {
        let pages = pages(index)
        for page in Int(position - start) >> 12..<Int(end - start) >> 12 where sharing.shared < limit {
          if pages.present[page >> 6] >> UInt64(page & 63) & 1 == 0 { continue }
          sharing.present += 1
          if pages.shared[page >> 6] >> UInt64(page & 63) & 1 != 0 { sharing.shared += 1 }
        }
      }
      position = end
    }
    return sharing
  }
}
