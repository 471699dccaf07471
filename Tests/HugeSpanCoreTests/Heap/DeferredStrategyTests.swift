// Strategy `deferred`: nothing happens to free memory before somebody needs it, and then the cheapest goes first.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

private typealias Faulty = FaultInjectingKernel<ModelKernel>
private let block = 1 << 21

private func options(freesWholeBlocks: Bool = false, _ policy: PolicyChoice = .immediate) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 64 << 21
  options.policy = policy
  options.strategy = StrategyChoice(.deferred)
  options.strategy.freesWholeBlocks = freesWholeBlocks
  options.effectSamplePeriod = 0
  return options
}

private let advices: [Advice] = [.dontneed, .free, .cold, .pageout, .collapse, .decommit]

/// A heap of sixteen blocks on the model: eight wholly free, four half free and intact, two half free and broken, two in use.
private func mixedHeap(_ kernel: Faulty, _ options: HeapOptions) throws -> UnsafeMutablePointer<PageHeapCore<Faulty>> {
  let heap = UnsafeMutablePointer<PageHeapCore<Faulty>>.allocate(capacity: 1)
  heap.initialize(to: try PageHeapCore(kernel: kernel, options: options))
  var halves: [PageSpan] = []
  for _ in 0..<12 { halves.append(try heap.pointee.allocate(SpanRequest(pageCount: 256)).span) }
  let whole = try (0..<10).map { _ in try heap.pointee.allocate(SpanRequest(pageCount: 512)).span }
  for span in halves + whole { kernel.base.touch(span.range) }
  halves.sort { $0.address < $1.address }
  kernel.base.splitBehindTheBack(halves[0].range)
  kernel.base.splitBehindTheBack(halves[2].range)
  _ = try heap.pointee.residencyPass()
  for index in stride(from: 1, to: 12, by: 2) { heap.pointee.free(halves[index]) }
  for span in whole.dropLast(2) { heap.pointee.free(span) }
  heap.pointee.checkInvariants()
  return heap
}

@Suite struct DeferredMemory {
  @Test func costsNoCallAndStaysHuge() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options())
    defer { heap.deallocate() }
    let huge = kernel.base.hugeBytes
    for time in 1...20 {
      let report = heap.pointee.tick(at: UInt64(time) * 1_000_000_000, processCPU: 0)
      #expect(report.releasedPages == 0)
    }
    for advice in advices { #expect(kernel.faults.count(of: .advise(advice)) == 0, "\(advice)") }
    #expect(kernel.base.hugeBytes == huge && huge == 14 << 21)
    // Reuse takes it back for nothing.
    for _ in 0..<8 { _ = try heap.pointee.allocate(SpanRequest(pageCount: 512)) }
    #expect(heap.pointee.statistics().pagesRefaulted == 0 && kernel.base.presentBytes == 16 << 21)
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  @Test func asWholeBlocksIsLazilyFree() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options(freesWholeBlocks: true))
    defer { heap.deallocate() }
    _ = heap.pointee.tick(at: 1, processCPU: 0)
    #expect(kernel.base.lazyBytes == 8 * block && kernel.base.hugeBytes == 14 * block)
    #expect(kernel.faults.count(of: .advise(.dontneed)) == 0 && heap.pointee.statistics().splits == 0)
    #expect(heap.pointee.statistics().freeResidentPages == 6 * 256, "parts stay")
    heap.pointee.checkInvariants()
    // The kernel takes them without asking; what is in use stays.
    kernel.base.reclaimLazy()
    #expect(kernel.base.presentBytes == 8 * block)
    _ = try heap.pointee.residencyPass()
    heap.pointee.checkInvariants()
    #expect(heap.pointee.statistics().lazyPagesTaken == 8 * 512)
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  /// Reuse pins each block by one atomic operation, and that tells whether the kernel had dropped it.
  @Test(arguments: [[512], [2048], [300], [512, 1024]])
  func asWholeBlocksTellsOnReuseWhatTheKernelDropped(sizes: [Int]) throws {
    for isDropped in [false, true] {
      let kernel = Faulty(ModelKernel())
      let heap = try mixedHeap(kernel, options(freesWholeBlocks: true))
      defer { heap.deallocate() }
      _ = heap.pointee.tick(at: 1, processCPU: 0)
      try #require(kernel.base.lazyBytes == 8 * block)
      if isDropped { kernel.base.reclaimLazy() }
      let before = heap.pointee.statistics()
      var blocks = 0
      for size in sizes {
        _ = try heap.pointee.allocate(SpanRequest(pageCount: size))
        blocks += (size + 511) / 512
      }
      let after = heap.pointee.statistics()
      // No block in use has room for 300 pages: a lazily free one is taken.
      #expect(after.pagesRefaulted - before.pagesRefaulted == blocks * 512)
      #expect(after.lazyPagesTaken - before.lazyPagesTaken == (isDropped ? blocks * 512 : 0))
      #expect(after.lazyPagesReused - before.lazyPagesReused == (isDropped ? 0 : blocks * 512))
      #expect(after.pagesRefaultedWhole - before.pagesRefaultedWhole == (isDropped ? blocks * 512 : 0))
      // Nothing but these blocks was touched, and what was there is not lazily free any more.
      #expect(kernel.base.lazyBytes == (isDropped ? 0 : (8 - blocks) * block))
      heap.pointee.checkInvariants()
      heap.deinitialize(count: 1)
      #expect(kernel.base.violations == [])
    }
  }

  @Test func asWholeBlocksTellsWhenASpanGrowsIntoThem() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options(freesWholeBlocks: true))
    defer { heap.deallocate() }
    let long = try heap.pointee.allocate(SpanRequest(pageCount: 1024)).span
    let short = heap.pointee.shrink(long, toPages: 512)
    _ = heap.pointee.tick(at: 1, processCPU: 0)
    kernel.base.reclaimLazy()
    let before = heap.pointee.statistics().lazyPagesTaken
    #expect(heap.pointee.grow(short, by: 512) == long)
    #expect(heap.pointee.statistics().lazyPagesTaken - before == 512)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  /// On the real kernel, where MADV_PAGEOUT takes what is lazily free at once, with swap or without.
  @Test(
    .enabled(
      if: realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.exactResidency)
        && realKernel.capabilities.contains(.pageout) && realKernel.capabilities.contains(.free)),
    arguments: [false, true])
  func asWholeBlocksTellsOnReuseWhatTheRealKernelDropped(isDropped: Bool) throws {
    let heap = try PageHeapCore(kernel: realKernel, options: options(freesWholeBlocks: true))
    let spans = try (0..<4).map { _ in try heap.allocate(SpanRequest(pageCount: 512)).span }
    for span in spans {
      for address in stride(from: span.address, to: span.end, by: 4096) {
        UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = 7
      }
    }
    for span in spans { heap.free(span) }
    _ = heap.tick(at: 1, processCPU: 0)
    try #require(heap.statistics().lazyPages == 4 * 512)
    if isDropped {
      for span in spans {
        withUnsafePointer(to: span.range) { range in
          _ = realKernel.advise(.pageout, UnsafeBufferPointer(start: range, count: 1))
        }
      }
    }
    for _ in 0..<4 { _ = try heap.allocate(SpanRequest(pageCount: 512)) }
    let after = heap.statistics()
    #expect(after.lazyPagesTaken == (isDropped ? 4 * 512 : 0) && after.lazyPagesReused == (isDropped ? 0 : 4 * 512))
    #expect(after.usedOnHugePages == (isDropped ? 0 : 4 * 512))
    heap.checkInvariants()
  }

  /// Reclaim leaves a page table behind, with which touches bring base pages.
  @Test func thatWasTakenIsAHugePageAgainForWhoeverGetsAllOfTheBlock() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options(freesWholeBlocks: true))
    defer { heap.deallocate() }
    _ = heap.pointee.tick(at: 1, processCPU: 0)
    kernel.base.reclaimLazy()
    let before = kernel.base.hugeBytes
    let span = try heap.pointee.allocate(SpanRequest(pageCount: 1024)).span
    #expect(kernel.faults.count(of: .advise(.dontneed)) == 2)
    kernel.base.touch(span.range)
    #expect(kernel.base.hugeBytes == before + 2 * block)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  @Test func thatIsNoHugePageIsDroppedAndNotFreedLazily() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(freesWholeBlocks: true))
    let spans = try (0..<4).map { _ in try heap.allocate(SpanRequest(pageCount: 512)).span }
    for span in spans { kernel.base.touch(span.range) }
    // Without the heap's knowledge.
    kernel.base.splitBehindTheBack(spans[1].range)
    for span in spans { heap.free(span) }
    _ = heap.tick(at: 1, processCPU: 0)
    #expect(kernel.base.lazyBytes == 3 * block && kernel.base.presentBytes == 3 * block)
    heap.checkInvariants()
  }

  @Test func goesByWholeBlocksThenBrokenOnesThenBySplitting() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options())
    defer { heap.deallocate() }
    // Enough is left.
    #expect(heap.pointee.relieve(headroom: 100 << 20, reserve: 100 << 20) == 0)
    let charged = kernel.base.chargedBytes
    // Twice the reserve, and no more.
    #expect(heap.pointee.relieve(headroom: block, reserve: 2 * block) == 3 * block)
    #expect(kernel.base.chargedBytes == charged - 3 * block && kernel.base.hugeBytes == 11 * block)
    #expect(heap.pointee.statistics().splits == 0)
    // The other five whole ones, and what is free in broken blocks.
    #expect(heap.pointee.relieve(headroom: -2 * block, reserve: 2 * block) == 6 * block)
    #expect(kernel.base.hugeBytes == 6 * block && heap.pointee.statistics().splits == 0)
    #expect(kernel.base.chargedBytes == charged - 9 * block)
    // And at last the intact ones.
    #expect(heap.pointee.relieve(headroom: 0, reserve: 100 * block) == 2 * block)
    #expect(heap.pointee.statistics().splits == 4 && kernel.base.phantomBytes == 0)
    #expect(kernel.base.chargedBytes == charged - 11 * block && kernel.base.hugeBytes == 2 * block)
    #expect(heap.pointee.relieve(headroom: 0, reserve: 100 * block) == 0, "nothing is left")
    let statistics = heap.pointee.statistics()
    #expect(statistics.drains == 3 && statistics.pagesDrained == 11 * 512)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  @Test func goesByQuartersWhenTasksAreStalled() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options())
    defer { heap.deallocate() }
    #expect(heap.pointee.relieve(headroom: .max, reserve: 0, isStalled: true) == 8 * block, "at least 16 MiB")
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
  }

  @Test func isOnlyThisStrategys() throws {
    let kernel = Faulty(ModelKernel())
    var others = options()
    for kind in [StrategyKind.keep, .dontneed, .free, .splitDontneed, .cold, .pageout, .decommit] {
      others.strategy = StrategyChoice(kind)
      let heap = try mixedHeap(kernel, others)
      defer { heap.deallocate() }
      #expect(heap.pointee.relieve(headroom: -1 << 30, reserve: 1 << 30) == 0, "\(kind)")
      heap.deinitialize(count: 1)
    }
  }

  @Test(arguments: [Advice.dontneed, .cold])
  func thatTheKernelRefusesStays(advice: Advice) throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options())
    defer { heap.deallocate() }
    kernel.faults.fail(.advise(advice), with: .invalid)
    let given = heap.pointee.relieve(headroom: 0, reserve: 1 << 40)
    heap.pointee.checkInvariants()
    // What cannot be split, and may be, is not believed to be uncharged.
    #expect(given == (advice == .dontneed ? 0 : 8 * block), "\(given) bytes given back")
    kernel.faults.clear()
    for _ in 0..<8 { _ = try heap.pointee.allocate(SpanRequest(pageCount: 512)) }
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [] && kernel.faults.isBalanced)
  }

  @Test func isDroppedUnderALiveChildAndNeverFreedLazily() throws {
    let kernel = Faulty(ModelKernel())
    let heap = try mixedHeap(kernel, options(freesWholeBlocks: true))
    defer { heap.deallocate() }
    heap.pointee.prepareForFork()
    kernel.base.fork()
    heap.pointee.resumeInParent()
    for time in 1...4 { _ = heap.pointee.tick(at: UInt64(time), processCPU: 0) }
    #expect(kernel.faults.count(of: .advise(.free)) == 0 && kernel.base.lazyBytes == 0)
    #expect(kernel.base.hugeBytes == 6 * block, "hugepages in use stay")
    // Parts of shared hugepages are not torn for others' need either.
    _ = heap.pointee.relieve(headroom: 0, reserve: 1 << 40)
    #expect(kernel.base.hugeBytes == 6 * block)
    heap.pointee.checkInvariants()
    heap.deinitialize(count: 1)
    #expect(kernel.base.violations == [])
  }

  /// In a group that has 300 MiB, 200 of them free in the heap: what the program then takes beside the heap is there.
  @Test(
    .enabled(if: canBeCharged, "no memory group of one's own can be made here"),
    .enabled(if: canSplit, "this kernel gives no hugepages, or does not split them"),
    .enabled(if: !hasAddressSanitizer, "the address sanitizer's own memory is charged too"))
  func isGivenBackBeforeTheGroupsLimitIsHit() async {
    await #expect(processExitsWith: .success) {
      let group = try MemoryCgroup.make(under: try CgroupMembership.find(), number: 970)
      try group.enter()
      defer { group.leaveAndRemove() }
      let file = group.version == .one ? "memory.limit_in_bytes" : "memory.max"
      let limit = 300 << 20
      let reader = try ChargeReader(version: group.version, directory: group.directory)
      try "\(limit)".write(toFile: group.directory + "/" + file, atomically: false, encoding: .utf8)
      let heap = try LinuxHeap.create(options(freesWholeBlocks: false, .never))
      // Half of it whole blocks, half of it halves of blocks.
      let whole = try (0..<50).map { _ in try heap.pointee.core.allocate(SpanRequest(pageCount: 512)).span }
      var kept: [PageSpan] = []
      var freed: [PageSpan] = []
      for _ in 0..<50 {
        kept.append(try heap.pointee.core.allocate(SpanRequest(pageCount: 256)).span)
        freed.append(try heap.pointee.core.allocate(SpanRequest(pageCount: 256)).span)
      }
      for span in whole + kept + freed { HalfReleased.write(span) }
      #expect(LinuxHeap.startScavenger(heap))
      for span in whole + freed { heap.pointee.free(span) }
      let before = heap.pointee.core.statistics()
      #expect(before.pagesReleased == 0 && before.pagesDrained == 0 && before.freeResidentPages == 75 * 512)
      #expect((reader.read() ?? 0) > 190 << 20)

      // 180 MiB at 500 MB/s, by steps of 1 MiB.
      let bytes = 180 << 20
      let start = hs_shim_map(bytes)
      for offset in stride(from: 0, to: bytes, by: 4096) {
        if offset % (1 << 20) == 0 { usleep(2_000) }
        UnsafeMutablePointer<UInt8>(bitPattern: start + offset)!.pointee = 1
      }
      let after = heap.pointee.core.statistics()
      let record = heap.pointee.pressureRecord()
      #expect(after.drains > 0 && after.pagesDrained > 10 << 8, "\(after.pagesDrained) pages given back")
      #expect(record.leastHeadroom > 0 && record.looks > 0, "\(record)")
      let isIntact = kept.allSatisfy { span in
        stride(from: span.address, to: span.end, by: 4096).allSatisfy {
          UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
        }
      }
      #expect(isIntact)
      heap.pointee.core.checkInvariants()
      LinuxHeap.destroy(heap)
    }
  }

  @Test func isGivenBackAtTheUsersOwnLimit() async {
    await #expect(processExitsWith: .success) {
      var own = options(freesWholeBlocks: false, .never)
      let text = try #require(contents(ofFile: "/proc/self/statm"))
      let resident = try #require(Int(text.split(separator: " ")[1])) << 12
      own.pressureLimitBytes = resident + 150 << 20
      let heap = try LinuxHeap.create(own)
      let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 140 << 8)).span
      HalfReleased.write(span)
      heap.pointee.free(span)
      // Whoever ticks by hand looks by hand.
      _ = heap.pointee.watchPressure()
      #expect(heap.pointee.core.statistics().pagesDrained > 0)
      let resident2 = try heap.pointee.core.observe().residentBytes
      #expect(resident2 < 140 << 20, "\(resident2) bytes are resident")
      LinuxHeap.destroy(heap)
    }
  }
}
