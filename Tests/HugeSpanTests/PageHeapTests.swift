// The public heap on the real kernel.

import Glibc
import HugeSpan
import Testing

@Suite(.serialized) struct PageHeapTests {
  @Test func spansGrowShrinkAndGoAsTheReadmeShows() throws {
    let heap = try PageHeap()
    var span = try heap.allocate(pages: 256)
    span.pointer.storeBytes(of: 42, as: Int.self)
    let grown = try #require(heap.grow(span, by: 64))
    #expect(grown.pageCount == 320 && grown.address == span.address)
    span = heap.shrink(grown, toPages: 2)
    #expect(heap.span(containing: span.pointer + 5000) == span)
    #expect(heap.statistics.usedPages == 2)
    #expect(span.pointer.load(as: Int.self) == 42)
    heap.free(span)
    #expect(heap.statistics.usedPages == 0)
  }

  @Test func zeroedSpansReadAsZeroAlsoWhenTheirPagesWereDirty() throws {
    let heap = try PageHeap()
    let dirty = try heap.allocate(pages: 600)
    memset(dirty.pointer, 0xFF, 600 * PageHeap.pageBytes)
    heap.free(dirty)
    var request = SpanRequest(pageCount: 600)
    request.mustBeZero = true
    let span = try heap.allocate(request)
    #expect(span.isZero && span.span == dirty)
    let bytes = UnsafeRawBufferPointer(start: span.span.pointer, count: 600 * PageHeap.pageBytes)
    #expect(bytes.allSatisfy { $0 == 0 })
  }

  @Test func userDataStaysWithItsSpan() throws {
    var options = HeapOptions()
    options.userData = true
    let heap = try PageHeap(options)
    let spans = try (1...100).map { try heap.allocate(pages: $0) }
    for (index, span) in spans.enumerated() { heap.setUserData(UInt(index) + 7, of: span) }
    for (index, span) in spans.enumerated() { #expect(heap.userData(of: span) == UInt(index) + 7) }
  }

  @Test func theBackgroundScavengerReleasesWhileTheProgramIsIdle() throws {
    var options = HeapOptions()
    options.policy = .immediate
    options.strategy = .init(.dontneed)
    let heap = try PageHeap(options)
    let span = try heap.allocate(pages: 4096)
    memset(span.pointer, 1, 4096 * PageHeap.pageBytes)
    heap.free(span)
    #expect(heap.startScavenger() && heap.startScavenger())
    // Nothing is allocated or freed any more; the thread alone does it.
    for _ in 0..<500 where heap.statistics.freeResidentPages > 0 { usleep(10_000) }
    #expect(heap.statistics.freeResidentPages == 0)
    #expect(heap.statistics.pagesReleased >= 4096)
    heap.stopScavenger()
    let ticks = heap.statistics.ticks
    usleep(250_000)
    #expect(heap.statistics.ticks == ticks)
  }

  @Test func heapsAreIndependentAndGiveEverythingBack() async {
    await #expect(processExitsWith: .success) {
      func reserved() throws -> Int {
        let text = try #require(readFile("/proc/self/statm"))
        return Int(text.split(separator: " ")[0])!
      }
      let before = try reserved()
      do {
        let heaps = try (0..<3).map { _ in try PageHeap() }
        let spans = try heaps.map { try $0.allocate(pages: 1000) }
        #expect(Set(spans.map(\.address)).count == 3)
        heaps[1].free(spans[1])
        #expect(heaps[0].statistics.usedPages == 1000 && heaps[1].statistics.usedPages == 0)
        let during = try withExtendedLifetime(heaps) { try reserved() }
        #expect(during > before + 3 * 262_144)
      }
      // A stack of the test runner may come or go; an arena of a gigabyte would not be overlooked.
      #expect(try reserved() < before + 131_072)
    }
  }

  @Test func impossibleRequestsAreErrorsAndChangeNothing() throws {
    var options = HeapOptions()
    options.hardLimitBytes = 8 << 20
    let heap = try PageHeap(options)
    #expect(throws: HeapError.invalidRequest) { try heap.allocate(pages: 0) }
    #expect(throws: HeapError.limitExceeded) { try heap.allocate(pages: 4096) }
    var request = SpanRequest(pageCount: 4)
    request.alignmentPages = 3
    #expect(throws: HeapError.invalidRequest) { try heap.allocate(request) }
    #expect(heap.statistics.usedPages == 0)
    _ = try heap.allocate(pages: 1024)
  }

  // An embedder's own code has no other import than `HugeSpan`.
  @Test func everythingThatAnInterfaceOfOnesOwnMustNameCanBeNamed() throws {
    func settings(
      _ policy: PolicyChoice, _ strategy: StrategyKind, lifetime: ExpectedLifetime, objects: ObjectsPerSpan
    ) throws -> (TickReport, ResidencyReport) {
      var options = HeapOptions()
      options.policy = policy
      options.strategy = StrategyChoice(strategy, wholeBlocksOnly: true)
      let heap = try PageHeap(options)
      var request = SpanRequest(pageCount: 3)
      request.lifetime = lifetime
      request.objectsPerSpan = objects
      _ = try heap.allocate(request)
      do throws(KernelError) {
        return (heap.tick(at: 1, processCPU: 0), try heap.residencyPass())
      } catch { throw HeapError.kernel(error) }
    }
    var prices = RentOrBuyOptions()
    prices.costs = CostModel()
    let (tick, residency) = try settings(.rentOrBuy(prices), .dontneed, lifetime: .short, objects: .many)
    #expect(tick.nextTickNanoseconds > 0 && residency.usedPages == 3)
    #expect(try settings(.demandWindow(DemandWindowOptions()), .keep, lifetime: .long, objects: .few).1.usedPages == 3)
    #expect(try settings(.decay(DecayOptions()), .keep, lifetime: .long, objects: .few).1.usedPages == 3)
    #expect(try settings(.paced(PacedOptions()), .keep, lifetime: .long, objects: .few).1.usedPages == 3)
    #expect(try settings(.seed(SeedOptions()), .keep, lifetime: .long, objects: .few).1.usedPages == 3)
  }

  @Test func limitsCanBeMovedWhileTheHeapIsInUse() throws {
    let heap = try PageHeap()
    let span = try heap.allocate(pages: 1024)
    heap.setLimits(softBytes: nil, hardBytes: 4 << 20)
    #expect(throws: HeapError.limitExceeded) { try heap.allocate(pages: 1) }
    heap.setLimits(softBytes: nil, hardBytes: nil)
    heap.free(PageSpan(address: span.address, pageCount: 1))
    _ = try heap.allocate(pages: 600)
    #expect(heap.statistics.usedPages == 1623)
  }
}

private func readFile(_ path: String) -> String? {
  guard let file = fopen(path, "r") else { return nil }
  defer { fclose(file) }
  var buffer = [UInt8](repeating: 0, count: 4096)
  let count = fread(&buffer, 1, buffer.count, file)
  return String(decoding: buffer[..<count], as: UTF8.self)
}
