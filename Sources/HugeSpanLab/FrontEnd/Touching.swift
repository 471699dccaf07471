// Writing to memory as the program would, so that faults, residency and hugepages are the kernel's own doing.
//
// One word in each page of an object is enough for the kernel; writing all of it would only measure the memory's speed. The
// word is not zero, so that no page looks like one that was never used. Whether a page can fault is known from the span
// (was the page touched since the span was carved?), so only those writes are timed, and the time is that of faults.

import HugeSpanCore

/// How much of the objects' memory is written to.
package enum TouchMode: String, CaseIterable, Sendable {
  /// Every page of every object, when it is allocated.
  case all
  /// Small objects as `all`; of large ones the share of pages that the recorded program had in memory then.
  case recorded
  /// Nothing: the heap's own work alone.
  case none
}

/// The word that is written.
let touchMark: UInt64 = 0x5A5A_5A5A_5A5A_5A5A

extension FrontEnd {
  @inline(__always)
  mutating func touchSmall(_ span: SpanIndex, base: UInt, address: UInt, bytes: Int) {
    let pageShift: UInt = 12
    let first = (address &- base) &>> pageShift
    let last = (address &+ UInt(bitPattern: max(bytes, 1) &- 1) &- base) &>> pageShift
    let mask = (~0 &<< UInt64(first)) & (~0 &>> UInt64(63 &- last))
    let touched = spans.touchedPages(span)
    if touched & mask == mask {
      // Memory that is not there has no cache that the write would warm, and the pages were touched before.
      if K.hasMemory { write(address, base, first, last) }
      return
    }
    spans.setTouchedPages(span, touched | mask)
    let fresh = (mask & ~touched).nonzeroBitCount
    demand.touchedPages &+= fresh
    placement.add(.touch, address: base, pages: fresh)
    let start = meter.start()
    if K.hasMemory {
      write(address, base, first, last)
    } else {
      heap.kernel.touch(base &+ first &<< pageShift, pages: Int(last &- first) &+ 1)
    }
    meter.touch(since: start)
  }

  @inline(__always)
  private func write(_ address: UInt, _ base: UInt, _ first: UInt, _ last: UInt) {
    // Objects of the smallest class are eight bytes apart, so a word never reaches the next object.
    UnsafeMutablePointer<UInt64>(bitPattern: address & ~7).unsafelyUnwrapped.pointee = touchMark
    var page = first &+ 1
    while page <= last {
      UnsafeMutablePointer<UInt64>(bitPattern: base &+ (page &<< 12)).unsafelyUnwrapped.pointee = touchMark
      page &+= 1
    }
  }

  /// Touches the pages from `fromPage` to `toPage` of the span at `address`, or as many as the recorded program had.
  /// Returns where it ended.
  @inline(never)
  mutating func touchLarge(_ address: UInt, fromPage: Int, toPage: Int) -> Int {
    var end = toPage
    if touch == .recorded {
      end = min(toPage, max(fromPage, Int((Double(toPage) * touchedFraction).rounded(.up))))
    }
    touchAll(address, fromPage: fromPage, toPage: end)
    return end
  }

  mutating func touchAll(_ address: UInt, fromPage: Int, toPage end: Int) {
    if end <= fromPage { return }
    let start = meter.start()
    heap.kernel.touch(address + UInt(fromPage * SizeClasses.pageBytes), pages: end - fromPage)
    meter.touch(since: start)
  }
}
