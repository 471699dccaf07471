// A user at work on a heap, and what an outsider sees of it: requests, and the ranges that reach the kernel.

import HugeSpanCore
import TestKernels

/// A user with a heap, its kernel, and the model of its free memory.
struct ObservedHeap: ~Copyable {
  let kernel = FaultInjectingKernel(ModelKernel())
  let heap: PageHeapCore<FaultInjectingKernel<ModelKernel>>
  var model = FreeMemoryModel()
  var spans: [PageSpan] = []
  var random: SeededGenerator
  var now: UInt64 = 0
  var longest = 900
  var usedPages = 0
  /// When something was last freed into a block, or released from it (the test says so), as ticks tell time.
  var lastChange: [UInt: UInt64] = [:]
  /// Pages in releases since the last tick of blocks that were made whole before they were used.
  var droppedPages = 0
  private var seen = 0

  init(_ policy: PolicyChoice, seed: UInt64) throws {
    var options = HeapOptions()
    options.policy = policy
    options.strategy = StrategyChoice(.dontneed)
    options.firstArenaBytes = 64 << 21
    options.effectSamplePeriod = 0
    // The model knows free memory by its address. What moves is no matter of a policy's.
    options.movesBlocks = false
    heap = try PageHeapCore(kernel: kernel, options: options)
    random = SeededGenerator(seed: seed)
    kernel.faults.startRecording()
  }

  /// Ranges released since the last call.
  private mutating func releasedRanges() -> [AddressRange] {
    let records = kernel.faults.records
    defer { seen = records.count }
    return records[seen...].filter { $0.call == .advise(.dontneed) }.flatMap(\.ranges)
  }

  /// Allocates and frees at random, `share` allocations in ten steps; how many pages were freed.
  mutating func work(steps: Int, allocating share: Int) throws -> Int {
    var freed = 0
    for _ in 0..<steps {
      if spans.isEmpty || Int.random(in: 0..<10, using: &random) < share {
        let isLarge = Int.random(in: 0..<12, using: &random) == 0
        let pages = Int.random(in: 1...(isLarge ? longest : 60), using: &random)
        let span = try heap.allocate(SpanRequest(pageCount: pages)).span
        // A block that is made whole again before it is used is dropped first.
        for range in releasedRanges() {
          _ = model.release(range, inScavenge: false)
          lastChange[range.start] = now
          droppedPages += range.byteCount >> 12
        }
        model.allocate(span.range)
        kernel.base.touch(span.range)
        spans.append(span)
        usedPages += pages
      } else {
        let span = spans.remove(at: Int.random(in: 0..<spans.count, using: &random))
        heap.free(span)
        model.free(span.range)
        FreeMemoryModel.forEachPiece(of: span.range) { block, _ in lastChange[block] = now }
        freed += span.pageCount
      }
    }
    usedPages -= freed
    return freed
  }

  /// The ranges that a tick releases, in order. The model has not been told of them.
  mutating func tick(after nanoseconds: UInt64 = 100_000_000) -> [AddressRange] {
    now += nanoseconds
    _ = heap.tick(at: now, processCPU: 0)
    droppedPages = 0
    return releasedRanges()
  }
}

/// Whole blocks of a range one by one; a part as it is.
func pieces(_ range: AddressRange) -> [AddressRange] {
  guard range.byteCount > 1 << 21 else { return [range] }
  return (0..<range.byteCount >> 21).map { AddressRange(start: range.start + UInt($0 << 21), byteCount: 1 << 21) }
}
