// Strategy `decommit`: blocks go and come back, and each way of not getting them back leaves the heap as it was.

import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

private typealias Faulty = FaultInjectingKernel<ModelKernel>

private func options(arenaBlocks: Int = 64) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = arenaBlocks << 21
  options.policy = .immediate
  options.strategy = StrategyChoice(.decommit)
  options.effectSamplePeriod = 1
  return options
}

@Suite struct DecommittedBlocks {
  private func heapWithEveryOtherBlock(_ kernel: Faulty, blocks: Int) throws -> (
    heap: UnsafeMutablePointer<PageHeapCore<Faulty>>, kept: [PageSpan]
  ) {
    let heap = UnsafeMutablePointer<PageHeapCore<Faulty>>.allocate(capacity: 1)
    heap.initialize(to: try PageHeapCore(kernel: kernel, options: options(arenaBlocks: blocks)))
    var spans = try (0..<blocks).map { _ in try heap.pointee.allocate(SpanRequest(pageCount: 512)).span }
    spans.sort { $0.address < $1.address }
    for span in spans { kernel.base.touch(span.range) }
    for index in stride(from: 0, to: blocks, by: 2) { heap.pointee.free(spans[index]) }
    return (heap, stride(from: 1, to: blocks, by: 2).map { spans[$0] })
  }

  @Test func areWholeOnesAndCountedAsAbsent() throws {
    let kernel = Faulty(ModelKernel())
    let (heap, kept) = try heapWithEveryOtherBlock(kernel, blocks: 16)
    defer { heap.deallocate() }
    heap.pointee.free(PageSpan(address: kept[0].address, pageCount: 100))
    #expect(heap.pointee.tick(at: 1, processCPU: 0).releasedPages == 8 * 512)
    heap.pointee.checkInvariants()
    let statistics = heap.pointee.statistics()
    #expect(statistics.decommittedBlocks == 8 && statistics.absentBlocks == 8 && statistics.splits == 0)
    #expect(statistics.freeResidentPages == 100, "a part of a block stays")
    #expect(kernel.base.presentBytes == 8 << 21 && kernel.faults.count(of: .advise(.dontneed)) == 0)
    // And back: committed one by one, huge, and zero.
    for _ in 0..<8 {
      let allocated = try heap.pointee.allocate(SpanRequest(pageCount: 512))
      #expect(allocated.isZero && allocated.refaultedPages == 512)
      kernel.base.touch(allocated.span.range)
      heap.pointee.checkInvariants()
    }
    #expect(heap.pointee.statistics().decommittedBlocks == 0 && kernel.base.hugeBytes == 16 << 21)
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [] && kernel.faults.isBalanced)
  }

  /// By a span in a block, a block, a run, an aligned one, and one at a wished address.
  @Test(arguments: 0..<5)
  func thatCannotBeCommittedAreAFailureWithoutHalfState(way: Int) throws {
    let kernel = Faulty(ModelKernel())
    let (heap, kept) = try heapWithEveryOtherBlock(kernel, blocks: 16)
    defer { heap.deallocate() }
    _ = heap.pointee.tick(at: 1, processCPU: 0)
    for index in 1...2 { heap.pointee.free(kept[index]) }
    _ = heap.pointee.tick(at: 2, processCPU: 0)
    var request = SpanRequest(pageCount: [1, 512, 3 * 512, 64, 700][way])
    if way == 3 { request.alignmentPages = 64 }
    if way == 4 { request.wishedAddress = kept[1].address }
    let before = heap.pointee.statistics()
    // No more memory of any kind.
    kernel.faults.fail(.commit, with: .outOfMemory)
    kernel.faults.fail(.reserve, with: .outOfMemory)
    #expect(throws: HeapError.kernel(.outOfMemory)) { try heap.pointee.allocate(request) }
    heap.pointee.checkInvariants()
    let after = heap.pointee.statistics()
    #expect(after == before && after.decommittedBlocks == before.decommittedBlocks)
    kernel.faults.clear()
    let span = try heap.pointee.allocate(request).span
    kernel.base.touch(span.range)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [] && kernel.faults.isBalanced)
  }

  @Test func areCommittedTogetherWhenAPieceWouldTakeTooManyMappings() throws {
    let kernel = Faulty(ModelKernel())
    let (heap, kept) = try heapWithEveryOtherBlock(kernel, blocks: 8)
    defer { heap.deallocate() }
    for span in kept { heap.pointee.free(span) }
    _ = heap.pointee.tick(at: 1, processCPU: 0)
    #expect(heap.pointee.statistics().decommittedBlocks == 8)
    kernel.faults.fail(.commit, count: 1, with: .outOfMemory)
    let span = try heap.pointee.allocate(SpanRequest(pageCount: 512)).span
    kernel.base.touch(span.range)
    #expect(heap.pointee.statistics().decommittedBlocks == 0)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  @Test func areDroppedInsteadWhereTheKernelRefuses() throws {
    let kernel = Faulty(ModelKernel())
    let (heap, _) = try heapWithEveryOtherBlock(kernel, blocks: 16)
    defer { heap.deallocate() }
    kernel.faults.fail(.advise(.decommit), with: .outOfMemory)
    #expect(heap.pointee.tick(at: 1, processCPU: 0).releasedPages == 8 * 512)
    #expect(heap.pointee.statistics().decommittedBlocks == 0 && kernel.base.presentBytes == 8 << 21)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
  }

  @Test(arguments: [22, 11] as [Int32])
  func stayWhereTheKernelRefusesBothWays(code: Int32) throws {
    let kernel = Faulty(ModelKernel())
    let (heap, _) = try heapWithEveryOtherBlock(kernel, blocks: 16)
    defer { heap.deallocate() }
    for advice in [Advice.decommit, .dontneed] { kernel.faults.fail(.advise(advice), with: KernelError(code: code)) }
    #expect(heap.pointee.tick(at: 1, processCPU: 0).releasedPages == 0)
    let statistics = heap.pointee.statistics()
    #expect(statistics.releaseFailures > 0 && statistics.decommittedBlocks == 0)
    #expect(statistics.freeResidentPages == 8 * 512 && kernel.base.presentBytes == 16 << 21)
    heap.pointee.checkInvariants()
    for _ in 0..<8 { _ = try heap.pointee.allocate(SpanRequest(pageCount: 512)) }
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [] && kernel.faults.isBalanced)
  }

  @Test func areNoMoreThanTheirShareOfMappings() throws {
    let kernel = Faulty(ModelKernel())
    let (heap, _) = try heapWithEveryOtherBlock(kernel, blocks: 8192)
    defer { heap.deallocate() }
    for time in 1...4 { _ = heap.pointee.tick(at: UInt64(time), processCPU: 0) }
    // Two edges a block, and a batch may overshoot.
    let decommitted = heap.pointee.statistics().decommittedBlocks
    #expect((2048...2048 + 128).contains(decommitted), "\(decommitted) blocks decommitted")
    #expect(kernel.base.presentBytes == 4096 << 21)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
  }

  @Test(.enabled(if: canSplit, "this kernel gives no hugepages"))
  func comeBackHugeOnTheRealKernel() async {
    await #expect(processExitsWith: .success) {
      let heap = try PageHeapCore(kernel: realKernel, options: options())
      for round in 1...3 {
        let spans = try (0..<40).map { _ in try heap.allocate(SpanRequest(pageCount: 512)).span }
        for span in spans { HalfReleased.write(span) }
        let report = try heap.observe()
        #expect(report.residentBytes == 40 << 21 && report.hugeBytes == 40 << 21, "\(report) in round \(round)")
        for index in spans.indices where index % 3 != 0 || round == 3 { heap.free(spans[index]) }
        _ = heap.tick(at: UInt64(round), processCPU: 0)
        heap.checkInvariants()
        #expect(heap.statistics().decommittedBlocks == (round == 3 ? 40 : 26))
        #expect(try heap.observe().residentBytes == (round == 3 ? 0 : 14 << 21))
        for index in spans.indices where index % 3 == 0 && round != 3 { heap.free(spans[index]) }
      }
      #expect(heap.statistics().effectsMissing == 0 && heap.statistics().releaseFailures == 0)
    }
  }
}
