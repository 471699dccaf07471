// What a limit allows, what it refuses, and that it gives memory up before it refuses.

import HugeSpanCore
import TestKernels
import Testing

private func options(hard: Int? = nil, soft: Int? = nil) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 16 << 21
  options.policy = .never
  options.hardLimitBytes = hard.map { $0 * 4096 }
  options.softLimitBytes = soft.map { $0 * 4096 }
  return options
}

@Suite struct AHeapAtItsLimit {
  @Test func releasesCrumbsForASpanThatFitsWhereMemoryWasReleased() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(hard: 1324))
    func allocate(_ pages: Int, _ lifetime: ExpectedLifetime = .unknown) throws -> PageSpan {
      var request = SpanRequest(pageCount: pages)
      request.lifetime = lifetime
      let span = try heap.allocate(request).span
      kernel.touch(span.range)
      return span
    }
    _ = try allocate(300)
    let hole = try allocate(212)
    _ = try allocate(512)
    heap.free(hole)
    #expect(heap.releaseNow(byteCount: 212 * 4096) == 212 * 4096)
    // Two blocks less the hole, and a third full of crumbs, are the limit exactly.
    let crumbs = try (0..<128).map { _ in try allocate(4, .short) }.sorted { $0.address < $1.address }
    for index in stride(from: 0, to: 128, by: 2) { heap.free(crumbs[index]) }
    let span = try allocate(10)
    #expect(hole.range.contains(span.range))
    #expect(kernel.presentBytes <= 1324 * 4096)
    heap.checkInvariants()
  }

  @Test func refusesWhatCannotFitWithoutReservingIt() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(hard: 2048))
    #expect(throws: HeapError.limitExceeded) { try heap.allocate(SpanRequest(pageCount: 1 << 22)) }
    #expect(heap.statistics().blocks == 0 && kernel.reservations.isEmpty)
    heap.checkInvariants()
  }

  @Test(arguments: [true, false])
  func releasesMemoryForAWishedAddressAndForGrowth(isHard: Bool) throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: isHard ? options(hard: 1536) : options(soft: 1536))
    let spans = try (0..<3).map { _ in
      let span = try heap.allocate(SpanRequest(pageCount: 512)).span
      kernel.touch(span.range)
      return span
    }.sorted { $0.address < $1.address }
    heap.free(spans[1])
    #expect(heap.releaseNow(byteCount: 1 << 21) == 1 << 21)
    var request = SpanRequest(pageCount: 512)
    request.wishedAddress = spans[2].end
    kernel.touch(try heap.allocate(request).span.range)
    heap.free(spans[2])
    // The limit is reached; a whole block is free and resident, and the wished one is not.
    let grown = heap.grow(spans[0], by: 512)
    kernel.touch(try #require(grown).range)
    heap.checkInvariants()
    #expect(kernel.presentBytes == 1536 * 4096)

    heap.free(PageSpan(address: spans[1].address, pageCount: 512))
    request.wishedAddress = spans[2].address
    kernel.touch(try heap.allocate(request).span.range)
    heap.checkInvariants()
    #expect(kernel.presentBytes == 1536 * 4096)
  }

  @Test func releasesCrumbsBeforeReleasedMemoryComesBack() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(soft: 812))
    var crumb = SpanRequest(pageCount: 4)
    crumb.lifetime = .short
    let first = try heap.allocate(SpanRequest(pageCount: 300)).span
    let hole = try heap.allocate(SpanRequest(pageCount: 212)).span
    kernel.touch(PageSpan(address: first.address, pageCount: 512).range)
    heap.free(hole)
    #expect(heap.releaseNow(byteCount: 212 * 4096) == 212 * 4096)
    let crumbs = try (0..<128).map { _ in try heap.allocate(crumb).span }.sorted { $0.address < $1.address }
    for crumb in crumbs { kernel.touch(crumb.range) }
    for index in stride(from: 0, to: 128, by: 2) { heap.free(crumbs[index]) }
    kernel.touch(try heap.allocate(SpanRequest(pageCount: 10)).span.range)
    #expect(kernel.presentBytes <= 812 * 4096)
    heap.checkInvariants()
  }
}

/// `blocks` hugepages, written to; the upper half of each is free, and released by `strategy`, charged all the same.
private func halfReleased(
  _ kernel: ModelKernel, _ strategy: StrategyKind, blocks: Int, hard: Int? = nil, soft: Int? = nil
) throws -> PageHeapCore<ModelKernel> {
  var options = options(hard: hard, soft: soft)
  options.policy = .immediate
  options.strategy = StrategyChoice(strategy)
  options.effectSamplePeriod = 0
  let heap = try PageHeapCore(kernel: kernel, options: options)
  let spans = try (0..<(2 * blocks)).map { _ in try heap.allocate(SpanRequest(pageCount: 256)).span }
  for span in spans { kernel.touch(span.range) }
  for index in stride(from: 1, to: spans.count, by: 2) { heap.free(spans[index]) }
  #expect(heap.tick(at: 1, processCPU: 0).releasedPages == blocks * 256)
  let statistics = heap.statistics()
  #expect((strategy == .dontneed ? statistics.phantomPages : statistics.lazyPages) == blocks * 256)
  #expect(kernel.chargedBytes == blocks << 21)
  return heap
}

@Suite struct LazilyFreeMemory {
  @Test(arguments: [true, false])
  func makesRoomUnderALimit(isHard: Bool) throws {
    let kernel = ModelKernel()
    let limit = 8 * 512
    let heap = try halfReleased(kernel, .free, blocks: 8, hard: isHard ? limit : nil, soft: isHard ? nil : limit)
    kernel.touch(try heap.allocate(SpanRequest(pageCount: 1024)).span.range)
    #expect(kernel.chargedBytes == 8 << 21)
    #expect(heap.statistics().phantomPages == 0 && heap.statistics().lazyPages == 4 * 256)
    heap.checkInvariants()
  }

  @Test func isUnchargedOnDemand() throws {
    let kernel = ModelKernel()
    let heap = try halfReleased(kernel, .free, blocks: 8)
    #expect(heap.releaseNow(byteCount: 1000 * 4096) == 1024 * 4096)
    #expect(kernel.chargedBytes == (8 << 21) - 1024 * 4096)
    #expect(heap.statistics().phantomPages == 0)
    heap.checkInvariants()
  }
}

@Suite struct PhantomMemory {
  @Test(arguments: [true, false])
  func makesRoomUnderALimit(isHard: Bool) throws {
    let kernel = ModelKernel()
    let limit = 8 * 512
    let heap = try halfReleased(kernel, .dontneed, blocks: 8, hard: isHard ? limit : nil, soft: isHard ? nil : limit)
    // Two whole blocks, that is the phantom of four.
    kernel.touch(try heap.allocate(SpanRequest(pageCount: 1024)).span.range)
    #expect(kernel.chargedBytes == 8 << 21)
    #expect(heap.statistics().cures == 4)
    heap.checkInvariants()
  }

  @Test func goesBeforeAHugepageIsBroken() throws {
    let kernel = ModelKernel()
    let heap = try halfReleased(kernel, .dontneed, blocks: 8)
    // Two more, intact and partly free.
    for _ in 0..<2 { kernel.touch(try heap.allocate(SpanRequest(pageCount: 400)).span.range) }
    let before = (charge: kernel.chargedBytes, splits: heap.statistics().splits)
    // The answer is what is sure, and phantom is only believed.
    #expect(heap.releaseNow(byteCount: 1000 * 4096) == 0)
    #expect(before.charge - kernel.chargedBytes == 1024 * 4096)
    #expect(heap.statistics().splits == before.splits)
    // What is asked for beyond is taken from them.
    #expect(heap.releaseNow(byteCount: .max) == 2 * 112 * 4096)
    #expect(heap.statistics().phantomPages == 0 && kernel.chargedBytes == kernel.presentBytes)
    heap.checkInvariants()
  }
}

@Suite struct AnAmountBeyondAllBounds {
  @Test func canBeReleased() async throws {
    await #expect(processExitsWith: .success) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: options())
      heap.free(try heap.allocate(SpanRequest(pageCount: 512)).span)
      _ = heap.releaseNow(byteCount: .max)
      heap.free(try heap.allocate(SpanRequest(pageCount: 512)).span)
      _ = heap.release(pages: .max, order: ReleaseOrder(preferBroken: true, length: .longest))
      heap.checkInvariants()
    }
  }

  @Test func canBeARate() async throws {
    await #expect(processExitsWith: .success) {
      for rate in [1e300, .infinity, .leastNonzeroMagnitude, .greatestFiniteMagnitude, .nan, -1] {
        for choice in [PolicyChoice.gperftools(rate: rate), .seed(SeedOptions(rate: rate))] {
          var options = options()
          options.policy = choice
          let heap = try PageHeapCore(kernel: ModelKernel(), options: options)
          for time in 1...3 {
            heap.free(try heap.allocate(SpanRequest(pageCount: 512)).span)
            let released = heap.tick(at: UInt64(time), processCPU: 0).releasedPages
            precondition(released > 0 || !(rate > 1) || time > 1)
          }
        }
      }
    }
  }

  @Test func cannotBeFreed() async throws {
    let said = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: options())
      let span = try heap.allocate(SpanRequest(pageCount: 5)).span
      heap.free(PageSpan(address: span.address + 4096, pageCount: .max))
    }
    #expect(String(decoding: said.standardErrorContent, as: UTF8.self).contains("hugespan: free of"))
  }
}

extension SeedOptions {
  fileprivate init(rate: Double) {
    self.init()
    self.rate = rate
  }
}
