// When the scavenger's thread should ask the kernel what is really under the heap.
//
// The heap learns of most changes because it makes them. What others do it has to ask: khugepaged rebuilds, reclaim splits and
// takes, and a forked child leaves the parent on base pages wherever it wrote meanwhile. A pass costs about a millisecond
// for 8 GiB of hugepages, but 20 for a GiB of base pages; so one follows another after five seconds, and after five hundred
// times the CPU time of the last one. (Not the time that passed: on a busy machine a pass waits for its turn, and one that
// waited a tenth of a second would be the last for a minute.)
//
// A program that does nothing changes little, but khugepaged goes on: by its defaults it looks at 16 MiB every ten seconds,
// and of a block that was broken and trimmed it makes a hugepage again, with all that had been released. (Without passes 70
// of 81 MiB that an idle server had released were back within a minute, and nobody knew.) So there they follow after
// fifteen seconds.

/// Decides when a residency pass is due, by clocks that it is told.
struct ResidencyPacing {
  /// Nanoseconds between passes, at least.
  static var period: UInt64 { 5_000_000_000 }
  /// Nanoseconds between passes, at least, while the program does nothing.
  static var idlePeriod: UInt64 { 15_000_000_000 }
  /// Share of a CPU that passes may take: one part in this.
  static var costFactor: UInt64 { 500 }
  /// Share of a CPU below which a program does nothing: one part in this.
  static var idleFactor: UInt64 { 100 }

  private var last: UInt64
  private var lastCPU: UInt64
  private var wait = ResidencyPacing.period

  /// The first pass is due a period from now.
  init(now: UInt64, processCPU: UInt64) {
    last = now
    lastCPU = processCPU
  }

  /// Whether a pass should be made now, in a process that has used `processCPU` nanoseconds of CPU time.
  func isDue(now: UInt64, processCPU: UInt64) -> Bool {
    if now < last &+ wait { return false }
    return processCPU &- lastCPU >= (now - last) / Self.idleFactor || now >= last &+ Self.idlePeriod
  }

  /// A pass was made at `now` and cost `cost` nanoseconds of CPU time.
  mutating func note(now: UInt64, cost: UInt64, processCPU: UInt64) {
    last = now
    lastCPU = processCPU
    wait = max(Self.period, cost &* Self.costFactor)
  }
}
