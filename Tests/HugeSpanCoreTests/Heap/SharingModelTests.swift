// What the heap believes of shared memory, on the model of a kernel and with one that does not answer.

import HugeSpanCore
import TestKernels
import Testing

private func options(_ strategy: StrategyKind) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 16 << 21
  options.policy = .immediate
  options.strategy = StrategyChoice(strategy)
  options.effectSamplePeriod = 0
  return options
}

private typealias Faulty = FaultInjectingKernel<ModelKernel>

/// A heap with a block half free, one wholly free and one in use, forked.
private func forkedHeap(_ kernel: Faulty, _ strategy: StrategyKind) throws -> (
  UnsafeMutablePointer<PageHeapCore<Faulty>>
) {
  let heap = UnsafeMutablePointer<PageHeapCore<Faulty>>.allocate(capacity: 1)
  heap.initialize(to: try PageHeapCore(kernel: kernel, options: options(strategy)))
  let spans = try [512, 256, 256, 512].map { try heap.pointee.allocate(SpanRequest(pageCount: $0)).span }
  for span in spans { kernel.base.touch(span.range) }
  _ = try heap.pointee.residencyPass()
  heap.pointee.free(spans[2])
  heap.pointee.free(spans[3])
  heap.pointee.prepareForFork()
  kernel.base.fork()
  heap.pointee.resumeInParent()
  heap.pointee.checkInvariants()
  return heap
}

@Suite struct MemoryThatAChildMayShare {
  static let strategies: [StrategyKind] = [
    .dontneed, .free, .freeThenDontneed, .splitDontneed, .cold, .pageout,
  ]

  /// Also where the kernel does not tell who shares: a sandbox that hides the pagemap.
  @Test(arguments: strategies, [true, false])
  func isDroppedAsAWholeOrNotAtAll(strategy: StrategyKind, isReadable: Bool) throws {
    let kernel = Faulty(ModelKernel(hasSwap: strategy == .pageout))
    if !isReadable { kernel.faults.fail(.sharing, with: .notSupported) }
    let heap = try forkedHeap(kernel, strategy)
    // Without the pagemap nobody can see that the child is gone.
    if !isReadable { kernel.base.endChildren() }
    kernel.faults.startRecording()
    for time in 1...10 { _ = heap.pointee.tick(at: UInt64(time) * 1_000_000_000, processCPU: 0) }
    heap.pointee.checkInvariants()
    let calls = kernel.faults.records.map(\.call)
    #expect(!calls.contains(.advise(.free)) && !calls.contains(.advise(.cold)))
    #expect(calls.filter { $0 == .advise(.dontneed) }.count == 1)
    #expect(kernel.base.hugeBytes == 2 << 21)
    let statistics = heap.pointee.statistics()
    #expect(statistics.lazyPages == 0 && statistics.splits == 0 && statistics.absentBlocks == 14)
    #expect(statistics.freeResidentPages == 256 && statistics.phantomPages == 0)
    // The half is tried again, and goes when the child has gone.
    kernel.faults.clear()
    kernel.base.endChildren()
    for time in 11...20 { _ = heap.pointee.tick(at: UInt64(time) * 1_000_000_000, processCPU: 0) }
    heap.pointee.checkInvariants()
    #expect(heap.pointee.statistics().freeResidentPages == 0)
    heap.deinitialize(count: 1)
    heap.deallocate()
    #expect(kernel.base.violations == [] && kernel.faults.isBalanced)
  }

  @Test func isAskedAboutOnlyAfterAFork() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.free))
    for round in 1...20 {
      let span = try heap.allocate(SpanRequest(pageCount: 700)).span
      kernel.base.touch(span.range)
      heap.free(span)
      _ = heap.tick(at: UInt64(round), processCPU: 0)
    }
    #expect(kernel.faults.count(of: .sharing) == 0)
  }

  @Test func isAskedAboutUntilAllOfItIsSeenAndThenNoMore() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try forkedHeap(kernel, .splitDontneed)
    kernel.base.endChildren()
    for time in 1...3 { _ = heap.pointee.tick(at: UInt64(time), processCPU: 0) }
    let asked = kernel.faults.count(of: .sharing)
    #expect(asked > 0)
    for time in 4...20 { _ = heap.pointee.tick(at: UInt64(time), processCPU: 0) }
    #expect(kernel.faults.count(of: .sharing) == asked)
    heap.pointee.checkInvariants()
  }

  @Test(arguments: strategies)
  func isHandedOutInNewHugePages(strategy: StrategyKind) throws {
    let kernel = Faulty(ModelKernel())
    let heap = try forkedHeap(kernel, strategy)
    let refaulted = heap.pointee.statistics().pagesRefaulted
    let span = try heap.pointee.allocate(SpanRequest(pageCount: 512)).span
    kernel.base.touch(span.range)
    #expect(kernel.base.hugeBytes == 3 << 21 && kernel.base.presentBytes == 3 << 21)
    #expect(heap.pointee.statistics().pagesRefaulted == refaulted, "a block that was exchanged is no refault")
    heap.pointee.checkInvariants()
  }

  @Test func thatTurnsOutToBeSharedMakesARefusedFreeARelease() throws {
    // A fork that nobody told of, and every effect read back.
    let kernel = Faulty(ModelKernel())
    var options = options(.free)
    options.effectSamplePeriod = 1
    let heap = try PageHeapCore(kernel: kernel, options: options)
    let span = try heap.allocate(SpanRequest(pageCount: 1024)).span
    kernel.base.touch(span.range)
    heap.free(span)
    kernel.base.fork()
    _ = heap.tick(at: 1, processCPU: 0)
    #expect(heap.statistics().lazyPages == 0 && heap.statistics().effectsMissing == 1)
    heap.checkInvariants()
    #expect(heap.releaseNow(byteCount: 1 << 30) == 0, "what a child keeps is not uncharged")
    #expect(kernel.base.presentBytes == 0 && heap.statistics().absentBlocks == 16)
    heap.checkInvariants()
  }
}
