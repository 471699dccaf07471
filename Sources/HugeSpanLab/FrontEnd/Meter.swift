// Where the time of a replay goes: into the heap, into faults, into neither.
//
// The clock is read around each heap call and around each write that may fault; both are far rarer than events. What the
// reading itself costs is measured once and taken off. The clock is the wall's: it costs a tenth of the thread's CPU clock.
// The loop knows both clocks over long stretches and scales the sums by their ratio, so that time in which the thread did
// not run is spread out, and does not count.

import CHugeSpanShims

/// Sums of time, and the pages in use.
package struct Meter: Sendable {
  package private(set) var heapCalls = 0
  package private(set) var heapNanoseconds: UInt64 = 0
  package private(set) var longestHeapCall: UInt64 = 0
  package private(set) var touchCalls = 0
  package private(set) var touchNanoseconds: UInt64 = 0
  /// Pages in spans, now and at most.
  package private(set) var usedPages = 0
  package private(set) var peakUsedPages = 0

  /// Nanoseconds that reading the clock twice takes: the least of many tries.
  package let overhead: UInt64
  /// Without it only pages are counted; reading the clock is a good part of what an event costs.
  private let isTimed: Bool

  package init(isTimed: Bool = true) {
    self.isTimed = isTimed
    var least = UInt64.max
    for _ in 0..<200 {
      let first = hs_shim_monotonic_nanoseconds()
      least = min(least, hs_shim_monotonic_nanoseconds() - first)
    }
    overhead = least
  }

  @inline(__always)
  func start() -> UInt64 { isTimed ? hs_shim_monotonic_nanoseconds() : 0 }

  @inline(__always)
  mutating func heapCall(since start: UInt64) {
    heapCalls &+= 1
    if !isTimed { return }
    let taken = hs_shim_monotonic_nanoseconds() &- start
    heapNanoseconds &+= taken > overhead ? taken &- overhead : 0
    if taken > longestHeapCall { longestHeapCall = taken }
  }

  @inline(__always)
  mutating func touch(since start: UInt64) {
    touchCalls &+= 1
    if !isTimed { return }
    let taken = hs_shim_monotonic_nanoseconds() &- start
    touchNanoseconds &+= taken > overhead ? taken &- overhead : 0
  }

  @inline(__always)
  mutating func take(pages: Int) {
    usedPages &+= pages
    if usedPages > peakUsedPages { peakUsedPages = usedPages }
  }

  @inline(__always)
  mutating func give(pages: Int) { usedPages &-= pages }
}
