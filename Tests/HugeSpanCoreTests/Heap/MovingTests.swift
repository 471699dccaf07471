// Free hugepages that move under a span of several blocks: what they save, what is known of them afterwards, what happens when the
// kernel refuses, and what becomes of their mappings.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

private let blockBytes = 1 << 21

private func options(_ policy: PolicyChoice = .never, hardLimit: Int? = nil) -> HeapOptions {
  var options = HeapOptions()
  options.policy = policy
  options.hardLimitBytes = hardLimit
  options.firstArenaBytes = 8 << 30
  return options
}

/// `count` spans of a block each, of which every other one is free again: free hugepages, none beside another; and one more
/// behind them, so that none is beside what the heap grows by.
private func spread<K: Kernel>(
  _ heap: borrowing PageHeapCore<K>, _ count: Int, touch: (PageSpan) -> Void
) throws -> [PageSpan] {
  var kept: [PageSpan] = []
  var freed: [PageSpan] = []
  for index in 0...count {
    let span = try heap.allocate(SpanRequest(pageCount: 512)).span
    touch(span)
    if index % 2 == 0 { kept.append(span) } else { freed.append(span) }
  }
  for span in freed { heap.free(span) }
  return kept
}

@Suite struct HugepagesMoveUnderASpan {
  @Test func thatFindsNoRunInMemory() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try spread(heap, 16) { kernel.touch($0.range) }
    let span = try heap.allocate(SpanRequest(pageCount: 5 * 512 + 100))
    heap.checkInvariants()
    let now = heap.statistics()
    #expect(now.blocksMoved == 6 && now.displacedBlocks == 6 && now.movesRefused == 0)
    #expect(now.freeResidentBlocks == 2 && now.blocksPopulated == 17)
    // What is in it is nobody's, and not zero.
    #expect(!span.isZero && span.refaultedPages == 0)
    kernel.touch(span.span.range)
    #expect(kernel.presentBytes == 17 * blockBytes && kernel.hugeBytes == 17 * blockBytes)
    #expect(kernel.violations == [])
  }

  @Test func asFarAsThereAreAny() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try spread(heap, 8) { kernel.touch($0.range) }
    let span = try heap.allocate(SpanRequest(pageCount: 10 * 512)).span
    heap.checkInvariants()
    #expect(heap.statistics().blocksMoved == 4 && heap.statistics().freeResidentBlocks == 0)
    kernel.touch(span.range)
    #expect(kernel.presentBytes == 15 * blockBytes)
  }

  @Test func moreThanOneRoundOfThem() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try spread(heap, 300) { kernel.touch($0.range) }
    let span = try heap.allocate(SpanRequest(pageCount: 120 * 512)).span
    heap.checkInvariants()
    #expect(heap.statistics().blocksMoved == 120)
    kernel.touch(span.range)
    #expect(kernel.presentBytes == 301 * blockBytes && kernel.violations == [])
  }

  @Test func unlessTheyMayNot() throws {
    let kernel = ModelKernel()
    var choice = options()
    choice.movesBlocks = false
    let heap = try PageHeapCore(kernel: kernel, options: choice)
    _ = try spread(heap, 16) { kernel.touch($0.range) }
    _ = try heap.allocate(SpanRequest(pageCount: 4 * 512))
    #expect(heap.statistics().blocksMoved == 0 && kernel.count(of: .move) == 0)
  }

  @Test func andKnowWhatOfThemIsZero() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    // Only the first page of each was ever written or handed out.
    var spans: [PageSpan] = []
    for index in 0..<8 {
      let first = try heap.allocate(SpanRequest(pageCount: 1)).span
      kernel.touch(first.range)
      if index % 2 == 0 { spans.append(first) }
      let rest = try heap.allocate(SpanRequest(pageCount: 511)).span
      heap.free(rest)
      if index % 2 == 1 { heap.free(first) }
      // The block is left, so that the next one has to be another.
      if index % 2 == 0 { spans.append(try heap.allocate(SpanRequest(pageCount: 511)).span) }
    }
    var request = SpanRequest(pageCount: 2 * 512)
    request.mustBeZero = true
    let span = try heap.allocate(request)
    #expect(span.isZero && kernel.readsAsZero(span.span.range))
    heap.checkInvariants()
    #expect(kernel.violations == [])
  }

  @Test func belowALimitThatLeavesNoRoomForOthers() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(hardLimit: 17 * blockBytes))
    _ = try spread(heap, 16) { kernel.touch($0.range) }
    let span = try heap.allocate(SpanRequest(pageCount: 8 * 512)).span
    kernel.touch(span.range)
    heap.checkInvariants()
    #expect(heap.statistics().pagesReleased == 0 && kernel.presentBytes == 17 * blockBytes)
    #expect(throws: HeapError.limitExceeded) { try heap.allocate(SpanRequest(pageCount: 512)) }
  }

  @Test func butNotWhatAChildMayShare() throws {
    let kernel = ModelKernel()
    var choice = options()
    choice.strategy = StrategyChoice(.keep)
    let heap = try PageHeapCore(kernel: kernel, options: choice)
    _ = try spread(heap, 16) { kernel.touch($0.range) }
    heap.prepareForFork()
    kernel.fork()
    heap.resumeInParent()
    _ = try heap.allocate(SpanRequest(pageCount: 4 * 512))
    heap.checkInvariants()
    #expect(kernel.count(of: .move) == 0)
  }
}

@Suite struct AKernelThatRefusesToMove {
  @Test func leavesBothBlocksAsTheyWere() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try spread(heap, 16) { kernel.touch($0) }
    kernel.faults.fail(.move, with: .outOfMemory)
    let span = try heap.allocate(SpanRequest(pageCount: 4 * 512))
    heap.checkInvariants()
    let now = heap.statistics()
    #expect(now.blocksMoved == 0 && now.movesRefused == 1 && now.displacedBlocks == 0)
    #expect(span.isZero && now.freeResidentBlocks == 8)
    kernel.touch(span.span)
    #expect(kernel.base.presentBytes == 21 * blockBytes)
    // It is not asked again before some ticks.
    kernel.faults.clear()
    _ = try heap.allocate(SpanRequest(pageCount: 4 * 512))
    #expect(heap.statistics().blocksMoved == 0)
    for tick in 1...64 { _ = heap.tick(at: UInt64(tick) * 1_000_000_000, processCPU: 0) }
    _ = try heap.allocate(SpanRequest(pageCount: 4 * 512))
    #expect(heap.statistics().blocksMoved == 4)
    heap.checkInvariants()
    #expect(kernel.base.violations == [])
  }

  @Test func inTheMiddleKeepsWhatWasDone() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options())
    _ = try spread(heap, 16) { kernel.touch($0) }
    kernel.faults.fail(.move, skipping: 2, with: .outOfMemory)
    let span = try heap.allocate(SpanRequest(pageCount: 6 * 512)).span
    heap.checkInvariants()
    #expect(heap.statistics().blocksMoved == 2 && heap.statistics().freeResidentBlocks == 6)
    kernel.touch(span)
    #expect(kernel.base.presentBytes == 21 * blockBytes && kernel.base.violations == [])
  }
}

@Suite struct MappingsOfMovedHugepages {
  /// Fills a heap with more displaced blocks than it leaves alone, and empties them.
  private func displace<K: Kernel>(_ heap: borrowing PageHeapCore<K>) throws {
    _ = try spread(heap, 2400) { _ in }
    let spans = try (0..<600).map { _ in try heap.allocate(SpanRequest(pageCount: 2 * 512)).span }
    #expect(heap.statistics().displacedBlocks == 1200)
    for span in spans { heap.free(span) }
    heap.checkInvariants()
    _ = heap.tick(at: 1_000_000_000, processCPU: 0)
    #expect(heap.statistics().absentBlocks >= 1200)
  }

  @Test func areRenewedWhenThereAreManyAndTheirBlocksAreEmpty() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options(.immediate))
    try displace(heap)
    _ = heap.tick(at: 2_000_000_000, processCPU: 0)
    heap.checkInvariants()
    #expect(heap.statistics().displacedBlocks == 16)
    #expect(kernel.count(of: .advise(.decommit)) == 1184 && kernel.violations == [])
    // Committed and advised as before.
    let span = try heap.allocate(SpanRequest(pageCount: 1200 * 512)).span
    kernel.touch(span.range)
    #expect(kernel.hugeBytes == 1200 * blockBytes && kernel.violations == [])
  }

  @Test func areKeptIfTheKernelHasNoOthers() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.immediate))
    try displace(heap)
    kernel.faults.fail(.advise(.decommit), with: .outOfMemory)
    _ = heap.tick(at: 2_000_000_000, processCPU: 0)
    heap.checkInvariants()
    #expect(heap.statistics().displacedBlocks == 1200 && heap.statistics().decommittedBlocks == 0)
    // One refusal ends it for this tick.
    #expect(kernel.faults.count(of: .advise(.decommit)) == 1)
    kernel.faults.clear()
    _ = heap.tick(at: 3_000_000_000, processCPU: 0)
    #expect(heap.statistics().displacedBlocks == 16 && kernel.base.violations == [])
  }

  @Test func staysDecommittedIfItCannotBeRenewed() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try PageHeapCore(kernel: kernel, options: options(.immediate))
    try displace(heap)
    kernel.faults.fail(.commit, with: .outOfMemory)
    _ = heap.tick(at: 2_000_000_000, processCPU: 0)
    heap.checkInvariants()
    #expect(heap.statistics().decommittedBlocks == 1184)
    kernel.faults.clear()
    let span = try heap.allocate(SpanRequest(pageCount: 1200 * 512)).span
    heap.checkInvariants()
    #expect(heap.statistics().decommittedBlocks < 1184)
    kernel.touch(span)
    #expect(kernel.base.violations == [])
  }

  @Test func growTogetherAgainOnTheRealKernel() throws {
    try #require(realKernel.capabilities.contains(.move), "this kernel moves no hugepages")
    let heap = try PageHeapCore(kernel: realKernel, options: options(.immediate))
    // Memory that was never touched has no offset to keep.
    let first = try heap.allocate(SpanRequest(pageCount: 1)).span
    UnsafeMutablePointer<UInt>(bitPattern: first.address)!.pointee = 1
    try displace(heap)
    let before = mappings(of: heap.arena(at: 0))
    _ = heap.tick(at: 2_000_000_000, processCPU: 0)
    heap.checkInvariants()
    let after = mappings(of: heap.arena(at: 0))
    #expect(heap.statistics().displacedBlocks == 16)
    #expect(before >= 1200 && after <= 33, "\(before) mappings, then \(after)")
  }

  /// Mappings that lie in `range`.
  private func mappings(of range: AddressRange) -> Int {
    let lines = contents(ofFile: "/proc/self/maps") ?? ""
    return lines.split(separator: "\n").count { line in
      guard let start = UInt(line.prefix { $0 != "-" }, radix: 16) else { return false }
      return start >= range.start && start < range.end
    }
  }
}

@Suite(
  .enabled(if: realKernel.capabilities.contains(.move), "this kernel moves no hugepages"),
  .enabled(if: realKernel.capabilities.contains(.exactResidency), "this kernel does not tell what is resident"))
struct MovedHugepagesOfTheRealKernel {
  @Test func stayHugeAndLeaveTheirNeighboursAlone() throws {
    let heap = try PageHeapCore(kernel: realKernel, options: options())
    let kept = try spread(heap, 24) { write($0, 1) }
    let before = try heap.observe().residentBytes
    let span = try heap.allocate(SpanRequest(pageCount: 9 * 512)).span
    #expect(heap.statistics().blocksMoved == 9)
    write(span, 2)
    let report = try heap.residencyPass()
    #expect(report.residentBytes == before && report.hugeBlocks == 25 && report.splitBlocks == 0)
    heap.checkInvariants()
    for each in kept { #expect(isWritten(each, 1)) }
    #expect(isWritten(span, 2))
    heap.free(span)
    #expect(heap.releaseNow(byteCount: 25 * blockBytes) == 12 * blockBytes)
    #expect(try heap.observe().residentBytes == 13 * blockBytes)
    for each in kept { #expect(isWritten(each, 1)) }
  }

  /// Fills, moves and empties at random from several threads, each of which knows what it wrote.
  @Test func keepWhatIsWrittenByManyThreads() async throws {
    let heap = try PublicHeap(options(.immediate))
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for number in 0..<4 {
        group.addTask {
          var random = SeededGenerator(seed: UInt64(number) + 1)
          var spans: [PageSpan] = []
          for step in 0..<400 {
            if spans.count > 6 || (step % 3 == 2 && !spans.isEmpty) {
              let span = spans.remove(at: Int.random(in: 0..<spans.count, using: &random))
              if !isWritten(span, number) { return false }
              heap.core.free(span)
            } else {
              let blocks = Int.random(in: 1...6, using: &random)
              let span = try heap.core.allocate(SpanRequest(pageCount: blocks * 512 - number * 7)).span
              write(span, number)
              spans.append(span)
            }
            if step % 16 == number { _ = heap.core.tick(at: UInt64(step) * 10_000_000, processCPU: 0) }
          }
          return spans.allSatisfy { isWritten($0, number) }
        }
      }
      for try await isRight in group { #expect(isRight) }
    }
    heap.core.checkInvariants()
    #expect(heap.core.statistics().blocksMoved > 0)
  }

  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer lets nobody lock memory"))
  func areNotTakenFromLockedMemory() throws {
    let range = try realKernel.reserve(byteCount: 2 * blockBytes, alignment: blockBytes)
    defer { realKernel.unreserve(range) }
    try realKernel.commit(range)
    _ = withUnsafePointer(to: range) { realKernel.advise(.hugepage, UnsafeBufferPointer(start: $0, count: 1)) }
    let source = AddressRange(start: range.start, byteCount: blockBytes)
    UnsafeMutablePointer<UInt>(bitPattern: source.start)!.pointee = 7
    guard mlock(UnsafeRawPointer(bitPattern: source.start)!, blockBytes) == 0 else {
      print("skipped: no memory can be locked here")
      return
    }
    let outcome = realKernel.move(source, to: source.end)
    #expect(outcome.error == .invalid && outcome.completedRanges == 0)
    #expect(UnsafePointer<UInt>(bitPattern: source.start)!.pointee == 7)
    UnsafeMutablePointer<UInt>(bitPattern: source.end)!.pointee = 8
    #expect(munlock(UnsafeRawPointer(bitPattern: source.start)!, blockBytes) == 0)
    // Not locked any more, and the place is taken by what is moved there.
    #expect(realKernel.move(source, to: source.end).error == nil)
    #expect(UnsafePointer<UInt>(bitPattern: source.end)!.pointee == 7)
    #expect(UnsafePointer<UInt>(bitPattern: source.start)!.pointee == 0)
  }

  @Test func areWhereTheyWereIfTheKernelRefuses() throws {
    let range = try realKernel.reserve(byteCount: 3 * blockBytes, alignment: blockBytes)
    defer { realKernel.unreserve(range) }
    try realKernel.commit(range)
    let source = AddressRange(start: range.start, byteCount: blockBytes)
    UnsafeMutablePointer<UInt>(bitPattern: source.start)!.pointee = 7
    // The two overlap.
    let outcome = realKernel.move(source, to: source.start + 4096)
    #expect(outcome.error == .invalid)
    #expect(UnsafePointer<UInt>(bitPattern: source.start)!.pointee == 7)
    UnsafeMutablePointer<UInt>(bitPattern: source.end)!.pointee = 8
    #expect(UnsafePointer<UInt>(bitPattern: source.end)!.pointee == 8)
  }
}

/// A heap that tasks can share.
private final class PublicHeap: Sendable {
  let core: PageHeapCore<LinuxKernel>
  init(_ options: HeapOptions) throws { core = try PageHeapCore(kernel: realKernel, options: options) }
}

private func write(_ span: PageSpan, _ value: Int) {
  for address in stride(from: span.address, to: span.end, by: 4096) {
    UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = address ^ UInt(value)
  }
}

private func isWritten(_ span: PageSpan, _ value: Int) -> Bool {
  stride(from: span.address, to: span.end, by: 4096).allSatisfy {
    UnsafePointer<UInt>(bitPattern: $0)!.pointee == $0 ^ UInt(value)
  }
}
