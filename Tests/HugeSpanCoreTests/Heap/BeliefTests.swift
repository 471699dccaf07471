// What the heap believes of memory after something unusual, against what is so.

import HugeSpanCore
import TestKernels
import Testing

private func options(_ strategy: StrategyKind = .splitDontneed, _ policy: PolicyChoice = .never) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 16 << 21
  options.policy = policy
  options.strategy = StrategyChoice(strategy)
  return options
}

private let longest = ReleaseOrder(preferBroken: true, length: .longest)

@Suite struct FreePages {
  @Test(arguments: [100, 512])
  func thatAreSwappedOutOrBeingMovedAreNotBelievedZero(pages: Int) throws {
    let kernel = ModelKernel(givesHugePages: false)
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try heap.allocate(SpanRequest(pageCount: 512 - pages % 512)).span
    let span = try heap.allocate(SpanRequest(pageCount: pages)).span
    kernel.touch(PageSpan(address: span.address & ~0x1f_ffff, pageCount: 512).range)
    heap.free(span)
    kernel.setAway(span.range)
    _ = try heap.residencyPass()
    heap.checkInvariants()
    var request = SpanRequest(pageCount: pages)
    request.wishedAddress = span.address
    let again = try heap.allocate(request)
    #expect(!again.isZero || kernel.readsAsZero(span.range))
    heap.free(span)
    request.mustBeZero = true
    _ = try heap.allocate(request)
    #expect(kernel.readsAsZero(span.range))
  }
}

@Suite struct AnEmptiedBrokenBlock {
  /// Six blocks that were broken and are free, most of each resident.
  private func sixOfThem<K: Kernel>(_ heap: borrowing PageHeapCore<K>, _ touch: (AddressRange) -> Void) throws {
    let heads = try (0..<6).map { _ in
      let head = try heap.allocate(SpanRequest(pageCount: 400)).span
      let tail = try heap.allocate(SpanRequest(pageCount: 112)).span
      touch(head.range)
      touch(tail.range)
      heap.free(tail)
      return head
    }
    #expect(heap.release(pages: 6 * 112, order: longest) == 6 * 112)
    for head in heads { heap.free(head) }
  }

  @Test func isDroppedAloneWhenOneIsNeeded() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    try sixOfThem(heap) { kernel.touch($0) }
    #expect(kernel.presentBytes == 6 * 400 * 4096)
    _ = try heap.allocate(SpanRequest(pageCount: 1))
    #expect(heap.statistics().rebuiltBlocks == 1)
    #expect(kernel.presentBytes == 5 * 400 * 4096)
    heap.checkInvariants()
  }

  @Test func isNotRebuiltByARefusal() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options())
    try sixOfThem(heap) { kernel.base.touch($0) }
    kernel.faults.fail(.advise(.dontneed), with: .invalid)
    _ = try heap.allocate(SpanRequest(pageCount: 1))
    #expect(heap.statistics().rebuiltBlocks == 0)
    heap.checkInvariants()
  }
}

@Suite struct ABlockOfWhichTwoPartsAreReleased {
  /// Used 100, free 100, used 100, free 100, used 112.
  private func parts(_ heap: borrowing PageHeapCore<FaultInjectingKernel<ModelKernel>>) throws -> [PageSpan] {
    let spans = try [100, 100, 100, 100, 112].map { try heap.allocate(SpanRequest(pageCount: $0)).span }
    return spans.sorted { $0.address < $1.address }
  }

  @Test(arguments: [22, 11] as [Int32])
  func isIntactWhenBothAreRefused(code: Int32) throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.dontneed, .immediate))
    let spans = try parts(heap)
    for span in spans { kernel.touch(span) }
    heap.free(spans[1])
    heap.free(spans[3])
    kernel.faults.fail(.advise(.dontneed), with: KernelError(code: code))
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 0)
    #expect(heap.statistics().partialIntactBlocks == 1 && heap.statistics().splits == 0)
    heap.checkInvariants()
  }

  @Test func isSplitOnceWhenTheFirstIsRefused() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.dontneed, .immediate))
    let spans = try parts(heap)
    for span in spans { kernel.touch(span) }
    heap.free(spans[1])
    heap.free(spans[3])
    kernel.faults.fail(.advise(.dontneed), count: 1, with: .invalid)
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 100)
    #expect(heap.statistics().partialBrokenBlocks == 1 && heap.statistics().splits == 1)
    heap.checkInvariants()
  }
}

@Suite struct ARefusalOfTheKernel {
  @Test func thatWasForAMomentDoesNotIdleThePolicy() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    var seed = SeedOptions()
    seed.rate = 1000
    let heap = try PageHeapCore(kernel: kernel, options: options(.dontneed, .seed(seed)))
    let spans = try (0..<3).map { _ in try heap.allocate(SpanRequest(pageCount: 300)).span }
    for span in spans { kernel.touch(span) }
    heap.free(spans[1])
    kernel.faults.fail(.advise(.dontneed), count: 1, with: .tryAgain)
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 0)
    heap.free(PageSpan(address: spans[2].address, pageCount: 1))
    #expect(heap.tick(at: 2, processCPU: 0).releasedPages > 0)
    heap.checkInvariants()
  }

  @Test(arguments: [100, 512])
  func isForgottenWhenMemoryIsDemanded(pages: Int) throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.splitDontneed, .immediate))
    _ = try heap.allocate(SpanRequest(pageCount: 400))
    let span = try heap.allocate(SpanRequest(pageCount: pages)).span
    kernel.touch(PageSpan(address: span.address & ~0x1f_ffff, pageCount: 512))
    heap.free(span)
    // The memory is locked, and then no more.
    kernel.faults.fail(.advise(.dontneed), with: .invalid)
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 0)
    kernel.faults.clear()
    #expect(heap.releaseNow(byteCount: 1 << 30) >= pages * 4096)
    heap.checkInvariants()
  }

  @Test func ofManyBlocksDoesNotHideTheOthers() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    var options = options(.dontneed, .immediate)
    options.firstArenaBytes = 640 << 21
    let heap = try PageHeapCore(kernel: kernel, options: options)
    for _ in 0..<600 { _ = try heap.allocate(SpanRequest(pageCount: 400)) }
    _ = try heap.allocate(SpanRequest(pageCount: 462))
    kernel.faults.fail(.advise(.dontneed), count: 600, with: .invalid)
    var released = 0
    for time in 1...60 { released += heap.tick(at: UInt64(time), processCPU: 0).releasedPages }
    #expect(released == 50)
    heap.checkInvariants()
  }

  @Test func isForgottenAfterAWhile() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.splitDontneed, .immediate))
    _ = try heap.allocate(SpanRequest(pageCount: 400))
    let span = try heap.allocate(SpanRequest(pageCount: 100)).span
    kernel.touch(PageSpan(address: span.address & ~0x1f_ffff, pageCount: 512))
    heap.free(span)
    kernel.faults.fail(.advise(.dontneed), with: .invalid)
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 0)
    kernel.faults.clear()
    var released = 0
    for time in 2..<200 { released += heap.tick(at: UInt64(time), processCPU: 0).releasedPages }
    #expect(released == 112)
    heap.checkInvariants()
  }
}

@Suite struct Phantom {
  @Test func isCuredAlsoWhereItsFirstPagesCameBackAsBasePages() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(.dontneed))
    let first = try heap.allocate(SpanRequest(pageCount: 100)).span
    let second = try heap.allocate(SpanRequest(pageCount: 412)).span
    kernel.touch(first.range)
    kernel.touch(second.range)
    heap.free(first)
    #expect(heap.release(pages: 100, order: longest) == 100)
    kernel.touch(try heap.allocate(SpanRequest(pageCount: 100)).span.range)
    #expect(kernel.phantomBytes == 100 * 4096)
    _ = heap.curePhantom(blocks: 1)
    #expect(kernel.phantomBytes == 0)
    #expect(heap.statistics().phantomPages == 0)
  }
}

@Suite struct AGrowth {
  @Test func ofASpanThatIsShorterByNowIsRefused() throws {
    let heap = try PageHeapCore(kernel: ModelKernel(), options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 100)).span
    _ = heap.shrink(span, toPages: 50)
    #expect(heap.grow(span, by: 10) == nil)
    #expect(heap.grow(PageSpan(address: span.address, pageCount: .max >> 13), by: 10) == nil)
    heap.checkInvariants()
    #expect(heap.span(containing: span.address)?.pageCount == 50)
  }
}

@Suite struct ASpanInABlockThatHadBeenReleased {
  @Test(arguments: [10, 512, 700])
  func saysHowManyOfItsPagesComeBack(pages: Int) throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 1024)).span
    kernel.touch(span.range)
    heap.free(span)
    #expect(heap.releaseNow(byteCount: 1 << 30) == 1024 * 4096)
    #expect(try heap.allocate(SpanRequest(pageCount: pages)).refaultedPages == pages)
  }
}

@Suite struct TheOrderOfReleases {
  @Test func onDemandTakesLazyMemoryBeforeItBreaksABlock() throws {
    let kernel = ModelKernel()
    var options = options(.free)
    options.effectSamplePeriod = 0  // a sample is gone
    let heap = try PageHeapCore(kernel: kernel, options: options)
    let whole = try heap.allocate(SpanRequest(pageCount: 512)).span
    let first = try heap.allocate(SpanRequest(pageCount: 300)).span
    kernel.touch(whole.range)
    kernel.touch(PageSpan(address: first.address & ~0x1f_ffff, pageCount: 512).range)
    heap.free(whole)
    #expect(heap.release(pages: 512, order: longest) == 512)
    #expect(heap.releaseNow(byteCount: 1 << 21) == 1 << 21)
    #expect(heap.statistics().splits == 0)
    heap.checkInvariants()
  }

  @Test func ofWholeBlocksIsLongestRunFirstThenByAddressOverManyBatches() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    var options = options()
    options.firstArenaBytes = 4096 << 21
    let heap = try PageHeapCore(kernel: kernel, options: options)
    let all = try heap.allocate(SpanRequest(pageCount: 2048 * 512)).span
    var generator = SeededGenerator(seed: 7)
    var runs: [AddressRange] = []
    var block = 0
    while block < 2048 {
      let count = min(Int.random(in: 1...7, using: &generator), 2048 - block)
      let run = PageSpan(address: all.address + UInt(block) << 21, pageCount: count * 512)
      heap.free(run)
      runs.append(run.range)
      block += count + 1
    }
    kernel.faults.startRecording()
    _ = heap.release(pages: 1 << 30, order: longest)
    heap.checkInvariants()
    let released = kernel.faults.records.filter { $0.call == .advise(.dontneed) }.flatMap(\.ranges)
    let expected = runs.sorted { ($1.byteCount, $0.start) < ($0.byteCount, $1.start) }
    #expect(runs.count > 256 && released == expected)
  }
}

@Suite struct AnArena {
  @Test(arguments: [true, false])
  func isAdvisedOnceAndOnlyWhereMemoryGetsNoHugepagesWithout(isNeeded: Bool) throws {
    var capabilities = KernelCapabilities.all
    if !isNeeded { capabilities.insert(.hugePagesUnasked) }
    let kernel = ModelKernel(capabilities: capabilities)
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try heap.allocate(SpanRequest(pageCount: 512))
    _ = try heap.allocate(SpanRequest(pageCount: 5120))
    #expect(kernel.count(of: .advise(.hugepage)) == (isNeeded ? 1 : 0))
  }
}
