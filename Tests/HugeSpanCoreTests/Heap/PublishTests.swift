// What a heap publishes of itself, against what it says and what was done to it.

import HugeSpanCore
import TestKernels
import Testing

private func options(
  _ strategy: StrategyKind = .splitDontneed, _ policy: PolicyChoice = .never, arenaBlocks: Int = 16
) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = arenaBlocks << 21
  options.policy = policy
  options.strategy = StrategyChoice(strategy)
  options.effectSamplePeriod = 0
  return options
}

/// Room for what is published, and how far it is.
private final class Paper {
  let header = UnsafeMutablePointer<PublishedHeap>.allocate(capacity: 1)
  let records: UnsafeMutablePointer<PublishedBlock>
  let capacity: Int
  var progress = PublishingProgress()

  init(capacity: Int = 256) {
    self.capacity = capacity
    records = .allocate(capacity: capacity)
    records.initialize(repeating: PublishedBlock(), count: capacity)
    header.initialize(to: PublishedHeap())
  }

  deinit {
    header.deallocate()
    records.deallocate()
  }

  func publish<K: Kernel>(
    _ heap: borrowing PageHeapCore<K>, limit: Int = .max, now: UInt64 = 1, next: UInt64 = 250_000_000
  ) {
    var rooms = [Int](repeating: 0, count: 64)
    var arena = 0
    while let stretch = heap.publishedStretch(ofArena: arena) {
      rooms[arena] = max(0, min(stretch.first + stretch.count, capacity) - stretch.first)
      arena += 1
    }
    heap.publish(
      header: header, records: records, rooms: rooms, limit: limit, &progress, now: now, sinceTick: 0,
      untilNextTick: next)
  }

  var blocks: [PublishedBlock] {
    (0..<Int(header.pointee.recordsEnd)).map { records[$0] }.filter { $0.address != 0 }
  }

  func block(at address: UInt) -> PublishedBlock? { blocks.first { $0.address == UInt64(address & ~0x1f_ffff) } }

  func cause(at address: UInt) -> BackingCause? { block(at: address).flatMap { BackingCause(rawValue: $0.cause) } }
}

/// A block of which 400 pages are used and 112 are free, all in memory.
private func halfFree<K: Kernel>(_ heap: borrowing PageHeapCore<K>, _ touch: (AddressRange) -> Void) throws -> PageSpan
{
  let head = try heap.allocate(SpanRequest(pageCount: 400)).span
  let tail = try heap.allocate(SpanRequest(pageCount: 112)).span
  touch(head.range)
  touch(tail.range)
  heap.free(tail)
  return head
}

private let longest = ReleaseOrder(preferBroken: true, length: .longest)

@Suite struct APublishedHeap {
  @Test(arguments: [1, 7, 1000])
  func hasEveryPageOnceHoweverFewBlocksAreWrittenAtATime(limit: Int) throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    var spans: [PageSpan] = []
    // Two arenas, of 16 blocks and of more.
    for step in 0..<60 {
      let span = try heap.allocate(SpanRequest(pageCount: [3, 200, 512, 700][step % 4])).span
      kernel.touch(span.range)
      spans.append(span)
    }
    for (number, span) in spans.enumerated() where number % 3 != 0 { heap.free(span) }
    _ = heap.release(pages: 1 << 20, order: longest)
    let paper = Paper()
    var rounds = 0
    repeat {
      paper.publish(heap, limit: limit)
      rounds += 1
    } while paper.header.pointee.oldestAt == 0 && rounds < 1000
    let told = heap.statistics()
    let blocks = paper.blocks
    #expect(blocks.count == told.blocks && Int(paper.header.pointee.blocks) == told.blocks)
    #expect(Set(blocks.map(\.address)).count == blocks.count)
    #expect(blocks.reduce(0) { $0 + Int($1.used) } == told.usedPages)
    #expect(blocks.reduce(0) { $0 + Int($1.idle) } == told.freeResidentPages)
    let present = blocks.filter { $0.kind != 0 }
    #expect(present.reduce(0) { $0 + Int($1.released) - Int($1.lazy) } == told.releasedPages)
    #expect(blocks.count { $0.kind == 0 } == told.absentBlocks)
    #expect(Int(paper.header.pointee.usedPages) == told.usedPages)
    #expect(Int(paper.header.pointee.splits) == told.splits && told.splits > 0)
    #expect(rounds >= told.blocks / limit)
  }

  @Test func isCutWhereThePageEnds() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try heap.allocate(SpanRequest(pageCount: 10 * 512))
    let paper = Paper(capacity: 4)
    paper.publish(heap)
    #expect(paper.blocks.count == 4 && paper.header.pointee.recordsEnd == 4)
    #expect(Int(paper.header.pointee.blocks) == heap.statistics().blocks)
  }

  @Test func saysWhoseReleaseBrokeABlock() throws {
    let kernel = ModelKernel()
    let paper = Paper()
    func cause(
      _ strategy: StrategyKind = .splitDontneed, _ policy: PolicyChoice = .never,
      _ change: (inout HeapOptions) -> Void = { _ in },
      _ release: (borrowing PageHeapCore<ModelKernel>, PageSpan) throws -> Void
    ) throws -> BackingCause? {
      var chosen = options(strategy, policy)
      change(&chosen)
      let heap = try PageHeapCore(kernel: kernel, options: chosen)
      let head = try halfFree(heap) { kernel.touch($0) }
      paper.publish(heap)
      #expect(paper.cause(at: head.address) == BackingCause.none)
      try release(heap, head)
      heap.checkInvariants()
      paper.publish(heap)
      return paper.cause(at: head.address)
    }
    #expect(try cause { heap, _ in _ = heap.releaseNow(byteCount: 1) } == .request)
    #expect(try cause(.splitDontneed, .immediate) { heap, _ in _ = heap.tick(at: 1, processCPU: 0) } == .policy)
    #expect(
      try cause(.splitDontneed, .never, { $0.hardLimitBytes = 950 << 12 }) { heap, _ in
        _ = try heap.allocate(SpanRequest(pageCount: 300))
      } == .limit)
    #expect(
      try cause(.deferred) { heap, _ in _ = heap.relieve(headroom: 0, reserve: 1 << 20) } == .pressure)
    #expect(try cause { heap, head in try heap.discard(PageSpan(address: head.address, pageCount: 16)) } == .discard)
  }

  @Test func saysWhatTheKernelDid() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let paper = Paper()
    let head = try halfFree(heap) { kernel.touch($0) }
    let whole = AddressRange(start: head.address & ~0x1f_ffff, byteCount: 1 << 21)
    _ = try heap.residencyPass()
    kernel.splitBehindTheBack(whole)
    _ = try heap.residencyPass()
    paper.publish(heap)
    #expect(paper.cause(at: head.address) == .lost && paper.block(at: head.address)?.backing == Backing.split.rawValue)
    kernel.collapseBehindTheBack(whole)
    _ = try heap.residencyPass()
    paper.publish(heap)
    #expect(paper.cause(at: head.address) == .reinflated)
    #expect(paper.block(at: head.address)?.flags == 0 || paper.block(at: head.address)!.flags & 1 == 0)
    heap.checkInvariants()
  }

  @Test func tellsWhatWasNeverHuge() throws {
    let kernel = ModelKernel(givesHugePages: false)
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let head = try halfFree(heap) { kernel.touch($0) }
    _ = try heap.residencyPass()
    let paper = Paper()
    paper.publish(heap)
    #expect(paper.cause(at: head.address) == .neverHuge)
    // What is gone has no past.
    heap.free(head)
    _ = heap.releaseNow(byteCount: 1 << 21)
    paper.publish(heap)
    #expect(paper.cause(at: head.address) == BackingCause.none && paper.block(at: head.address)?.kind == 0)
  }

  @Test func tellsWhatAChildMayShare() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 512)).span
    kernel.touch(span.range)
    heap.free(span)
    heap.prepareForFork()
    kernel.fork()
    heap.resumeInParent()
    let paper = Paper()
    paper.publish(heap)
    #expect(paper.cause(at: span.address) == .shared && paper.block(at: span.address)?.isShared == 1)
  }

  @Test func foretellsTheNextTickOfThePricedPolicy() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(.splitDontneed, .rentOrBuy(RentOrBuyOptions())))
    let paper = Paper()
    let kept = try halfFree(heap) { kernel.touch($0) }
    // One: of several empty blocks the first that go change what is known of waits.
    let gone = try heap.allocate(SpanRequest(pageCount: 512)).span
    kernel.touch(gone.range)
    heap.free(gone)
    var now: UInt64 = 0
    var foretold = 0
    for _ in 0..<60 {
      paper.publish(heap, now: now, next: 250_000_000)
      #expect(paper.header.pointee.flags & PublishedHeap.forecastKnown != 0)
      let before = heap.statistics()
      now += 250_000_000
      let report = heap.tick(at: now, processCPU: 0)
      // The first tick only begins to count.
      if before.ticks == 0 { continue }
      #expect(Int(paper.header.pointee.nextPages) == report.releasedPages)
      #expect(Int(paper.header.pointee.nextBreaks) == heap.statistics().splits - before.splits)
      foretold += report.releasedPages
    }
    #expect(foretold == 512 + 112)
    #expect(paper.cause(at: kept.address) == .policy)
  }

  @Test func foretellsWhatACountingPolicyWouldAskFor() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(.dontneed, .immediate))
    let span = try heap.allocate(SpanRequest(pageCount: 2 * 512)).span
    kernel.touch(span.range)
    _ = heap.tick(at: 1, processCPU: 0)
    heap.free(span)
    let paper = Paper()
    paper.publish(heap, now: 1)
    #expect(paper.header.pointee.nextPages == 1024)
    let before = heap.statistics()
    #expect(before.pagesReleased == 0)
    _ = heap.tick(at: 2, processCPU: 0)
    paper.publish(heap, now: 2)
    #expect(paper.header.pointee.nextPages == 0 && heap.statistics().pagesReleased == 1024)
  }
}
