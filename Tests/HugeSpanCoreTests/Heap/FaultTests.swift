// Every system call that can fail, failing: nothing leaks, the invariants hold, the caller gets the error.

import Foundation
import HugeSpanCore
import TestKernels
import Testing

private typealias FaultyHeap = PageHeapCore<FaultInjectingKernel<ModelKernel>>

private let noMemory = HeapError.kernel(.outOfMemory)
private let isNoTerminal = KernelError(code: 25)  // ENOTTY

/// Small arenas, so that growth happens; every effect is read back.
private func smallOptions(_ strategy: StrategyKind = .splitDontneed) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 4 << 21
  options.strategy = StrategyChoice(strategy)
  options.policy = .immediate
  options.effectSamplePeriod = 1
  return options
}

extension FaultInjectingKernel<ModelKernel> {
  /// Writes to a whole span, as its user does.
  func touch(_ span: PageSpan) { base.touch(span.range) }
}

@Suite struct AHeapWhoseKernelRefuses {
  @Test func addressSpaceTellsItsCaller() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    do {
      let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
      kernel.faults.fail(.reserve, with: .outOfMemory)
      #expect(throws: noMemory) { try heap.allocate(SpanRequest(pageCount: 1)) }
      #expect(throws: noMemory) { try heap.allocate(SpanRequest(pageCount: 5000)) }
      heap.checkInvariants()
      #expect(kernel.faults.reservations == [] && heap.statistics().blocks == 0)
      // It was the kernel, not the heap: later it works.
      kernel.faults.clear()
      _ = try heap.allocate(SpanRequest(pageCount: 1))
    }
    #expect(kernel.faults.isBalanced)
  }

  @Test func aBigReservationGetsASmallerOne() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
    kernel.faults.fail(.reserve, count: 2, with: .outOfMemory)
    _ = try heap.allocate(SpanRequest(pageCount: 1))
    #expect(kernel.faults.reservations.map(\.byteCount) == [1 << 21])
  }

  @Test func memoryUnderStrictOvercommitTellsItsCaller() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    do {
      let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
      let first = try heap.allocate(SpanRequest(pageCount: 2048)).span
      kernel.faults.fail(.commit, with: .outOfMemory)
      #expect(throws: noMemory) { try heap.allocate(SpanRequest(pageCount: 600)) }
      #expect(throws: noMemory) { try heap.allocate(SpanRequest(pageCount: 3)) }
      heap.checkInvariants()
      // What is committed already can be had.
      heap.free(first)
      _ = try heap.allocate(SpanRequest(pageCount: 600))
      heap.checkInvariants()
    }
    #expect(kernel.faults.isBalanced)
  }

  @Test func tablesTellsItsCaller() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    kernel.faults.fail(.mapMetadata, count: 1, with: .outOfMemory)
    #expect(throws: noMemory) { _ = try FaultyHeap(kernel: kernel, options: smallOptions()) }
    #expect(kernel.faults.isBalanced)
    do {
      let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
      kernel.faults.fail(.mapMetadata, with: .outOfMemory)
      #expect(throws: noMemory) { try heap.allocate(SpanRequest(pageCount: 1)) }
      #expect(kernel.faults.reservations == [])
      heap.checkInvariants()
    }
    #expect(kernel.faults.isBalanced)
  }

  @Test func hugePagesWorksWithoutThem() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    kernel.faults.fail(.advise(.hugepage), with: .invalid)
    let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
    let span = try heap.allocate(SpanRequest(pageCount: 700)).span
    kernel.touch(span)
    #expect(kernel.base.hugeBytes == 0 && kernel.base.presentBytes == 700 * 4096)
    let report = try heap.residencyPass()
    #expect(report.hugeBlocks == 0 && report.residentBytes == 700 * 4096)
    heap.checkInvariants()
  }

  @Test(
    arguments: [StrategyKind.dontneed, .free, .freeThenDontneed, .splitDontneed, .cold, .pageout], [22, 11] as [Int32])
  func aReleaseKeepsTheMemory(strategy: StrategyKind, code: Int32) throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    do {
      let heap = try FaultyHeap(kernel: kernel, options: smallOptions(strategy))
      let spans = try (0..<40).map { _ in try heap.allocate(SpanRequest(pageCount: 100)).span }
      for span in spans { kernel.touch(span) }
      for (index, span) in spans.enumerated() where index % 2 == 0 { heap.free(span) }
      for advice in [Advice.dontneed, .free, .cold, .pageout, .decommit] {
        kernel.faults.fail(.advise(advice), with: KernelError(code: code))
      }
      let present = kernel.base.presentBytes
      #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 0)
      heap.checkInvariants()
      let statistics = heap.statistics()
      #expect(statistics.pagesReleased == 0 && statistics.releasedPages == 0 && statistics.lazyPages == 0)
      #expect(statistics.releaseFailures > 0)
      #expect(kernel.base.presentBytes == present)
      #expect(heap.releaseNow(byteCount: 1 << 30) == 0)
      // The memory is still the heap's, and can be used.
      for _ in 0..<20 { _ = try heap.allocate(SpanRequest(pageCount: 100)) }
      heap.checkInvariants()
    }
    #expect(kernel.faults.isBalanced && kernel.base.violations == [])
  }

  @Test func oneLockedRangeDoesNotKeepTheOthers() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try FaultyHeap(kernel: kernel, options: smallOptions(.dontneed))
    // Blocks of 512 pages, the first half of each in use.
    let spans = try (0..<8).map { _ in
      [try heap.allocate(SpanRequest(pageCount: 256)).span, try heap.allocate(SpanRequest(pageCount: 256)).span]
    }
    for pair in spans { for span in pair { kernel.touch(span) } }
    for pair in spans { heap.free(pair[1]) }
    kernel.faults.fail(.advise(.dontneed), count: 1, completing: 3, with: .invalid)
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 7 * 256)
    heap.checkInvariants()
    #expect(heap.statistics().freeResidentPages == 256)
    #expect(kernel.base.presentBytes == 9 * 256 * 4096)
  }

  @Test func aPassingRefusalIsTriedAgain() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try FaultyHeap(kernel: kernel, options: smallOptions(.dontneed))
    let spans = try (0..<4).map { _ in try heap.allocate(SpanRequest(pageCount: 512)).span }
    for span in spans { kernel.touch(span) }
    for span in spans { heap.free(span) }
    kernel.faults.fail(.advise(.dontneed), count: 4, with: .tryAgain)
    var released = 0
    for tick in 1...6 { released += heap.tick(at: UInt64(tick) * 1_000_000_000, processCPU: 0).releasedPages }
    #expect(released == 2048 && kernel.base.presentBytes == 0)
    heap.checkInvariants()
  }

  @Test func theScanReleasesAllTheSame() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
    kernel.faults.fail(.residency, with: isNoTerminal)
    let spans = try (0..<10).map { _ in try heap.allocate(SpanRequest(pageCount: 250)).span }
    for span in spans { kernel.touch(span) }
    for (index, span) in spans.enumerated() where index % 2 == 0 { heap.free(span) }
    #expect(throws: isNoTerminal) { try heap.residencyPass() }
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages > 5 * 250)
    heap.checkInvariants()
    // Blocks whose backing is unknown are split before a part of them goes, so nothing is left as phantom.
    #expect(kernel.base.phantomBytes == 0 && kernel.base.chargedBytes == kernel.base.presentBytes)
    #expect(heap.statistics().usedOnHugePages == 0)
  }
}

@Suite struct AHeapOnAKernelThatLacksSomething {
  @Test(arguments: [(16384, 32 << 20), (4096, 0), (4096, 1 << 20), (65536, 512 << 20)])
  func refusesOtherPageSizes(page: Int, huge: Int) {
    let kernel = FaultInjectingKernel(ModelKernel(geometry: PageGeometry(pageBytes: page, hugePageBytes: huge)))
    #expect(throws: HeapError.unsupportedPageSize(pageBytes: page, hugePageBytes: huge)) {
      _ = try FaultyHeap(kernel: kernel, options: HeapOptions())
    }
    #expect(kernel.faults.isBalanced)
  }

  @Test func refusesAStrategyThatWouldDoNothing() throws {
    var lacking = KernelCapabilities.all
    lacking.remove(.honestSplit)
    let kernel = ModelKernel(capabilities: lacking)
    #expect(throws: HeapError.strategyNotSupported) {
      _ = try PageHeapCore(kernel: kernel, options: smallOptions(.splitDontneed))
    }
    #expect(kernel.isEmpty)
    _ = try PageHeapCore(kernel: kernel, options: smallOptions(.dontneed))
  }

  @Test func worksWithHugePagesTurnedOff() throws {
    let kernel = FaultInjectingKernel(ModelKernel(givesHugePages: false))
    let heap = try FaultyHeap(kernel: kernel, options: smallOptions())
    let spans = try (0..<30).map { _ in try heap.allocate(SpanRequest(pageCount: 100)).span }
    for span in spans { kernel.touch(span) }
    let report = try heap.residencyPass()
    #expect(report.hugeBlocks == 0 && report.residentBytes == 3000 * 4096)
    #expect(heap.statistics().usedOnHugePages == 0 && heap.statistics().usedOnSplitPages == 3000)
    for (index, span) in spans.enumerated() where index % 3 != 0 { heap.free(span) }
    _ = heap.tick(at: 1, processCPU: 0)
    heap.checkInvariants()
    #expect(kernel.base.presentBytes == 1000 * 4096 && kernel.base.chargedBytes == 1000 * 4096)
    // There was nothing to split.
    #expect(kernel.faults.count(of: .advise(.cold)) == 0)
  }
}

@Suite struct EverySingleCall {
  /// Fails each call of a scenario in turn, with each error, and looks whether the heap came through.
  @Test func mayFail() async {
    // In a child, since a heap that finds itself broken ends the process.
    let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
      try Self.runAll()
    }
    if result == nil { await Self.explain() }
  }

  /// How each heap releases: between them they make every call there is.
  private static let kinds: [(strategy: StrategyKind, policy: PolicyChoice)] = [
    (.splitDontneed, .immediate), (.dontneed, .immediate), (.freeThenDontneed, .immediate),
    (.splitDontneed, .rentOrBuy(RentOrBuyOptions())), (.pageout, .immediate), (.decommit, .immediate),
    (.deferred, .immediate),
  ]

  private static func runAll() throws {
    var runs: [KernelCall: Int] = [:]
    let errors = [KernelError.outOfMemory, .invalid, .tryAgain]
    for (number, kind) in kinds.enumerated() {
      let counts = try run(kind, failing: nil)
      for (call, count) in counts.sorted(by: { $0.key.description < $1.key.description }) {
        for index in 0..<count {
          // All errors under the first kind, and in turns under the others.
          for error in number == 0 ? errors : [errors[index % 3]] {
            say("failing \(call) number \(index) with \(error.code) under \(kind)")
            _ = try run(kind, failing: (call, index, error))
            runs[call, default: 0] += 1
          }
        }
      }
    }
    for call in calls { precondition(runs[call, default: 0] > 0, "\(call) was never made, so never failed") }
  }

  /// The last words of a run that failed.
  private static func explain() async {
    var lines: [Substring] = []
    await withKnownIssue(isIntermittent: true) {
      let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try Self.runAll()
      }
      lines = String(decoding: result.standardErrorContent, as: UTF8.self).split(separator: "\n")
    }
    let last = lines.lastIndex { $0.hasPrefix("failing") } ?? 0
    Issue.record("\(lines[last..<min(last + 5, lines.count)].joined(separator: "\n"))")
  }

  /// Fills, thins out, releases, refills; the calls that were made. Errors of allocation are ignored, all else is not.
  private static func run(
    _ kind: (strategy: StrategyKind, policy: PolicyChoice), failing fault: (KernelCall, Int, KernelError)?
  ) throws -> [KernelCall: Int] {
    let kernel = FaultInjectingKernel(ModelKernel())
    if let (call, index, error) = fault { kernel.faults.fail(call, skipping: index, count: 1, with: error) }
    do {
      var options = smallOptions(kind.strategy)
      options.policy = kind.policy
      options.userData = true
      options.softLimitBytes = 14 << 21
      let heap: FaultyHeap
      do throws(HeapError) {
        heap = try FaultyHeap(kernel: kernel, options: options)
      } catch {
        precondition(kernel.faults.isBalanced, "a heap that could not be made left something behind")
        return [:]
      }
      var spans: [PageSpan] = []
      func allocate(_ pages: Int, zero: Bool = false) {
        var request = SpanRequest(pageCount: pages)
        request.mustBeZero = zero
        do throws(HeapError) {
          let span = try heap.allocate(request).span
          kernel.touch(span)
          kernel.base.setUsed(span.range, true)
          spans.append(span)
        } catch { precondition(error == .kernel(fault!.2) || error == .kernel(.outOfMemory), "threw \(error)") }
        heap.checkInvariants()
      }
      for pages in [3, 100, 400, 512, 1300, 60, 200, 513] { allocate(pages) }
      for round in 0..<3 {
        for index in stride(from: spans.count - 1, through: 0, by: -2) {
          kernel.base.setUsed(spans[index].range, false)
          heap.free(spans.remove(at: index))
          heap.checkInvariants()
        }
        // A busy program, in whose time something comes due: what is to be released, and what is to be made huge again.
        for turn in 1...3 {
          let now = UInt64(4 * round + turn) * 1_000_000_000
          _ = heap.tick(at: now, processCPU: now / (turn == 1 ? 1 : 100_000))
          heap.checkInvariants()
        }
        _ = try? heap.residencyPass()
        heap.checkInvariants()
        for pages in [7, 90, 1024, 300] { allocate(pages, zero: pages == 90) }
        _ = heap.releaseNow(byteCount: 50 * 4096)
        _ = heap.curePhantom(blocks: 4)
        heap.checkInvariants()
      }
      precondition(heap.statistics().usedPages == spans.reduce(0) { $0 + $1.pageCount }, "used pages are wrong")
    }
    precondition(kernel.faults.isBalanced, "something was not given back")
    precondition(kernel.base.violations == [], "\(kernel.base.violations)")
    return Dictionary(uniqueKeysWithValues: calls.map { ($0, kernel.faults.count(of: $0)) })
  }

  /// Those that can fail; what a fork brings about (`sharing`) has tests of its own.
  private static let calls: [KernelCall] =
    [.reserve, .commit, .residency, .mapMetadata]
    + [.dontneed, .free, .cold, .hugepage, .pageout, .collapse, .decommit].map { .advise($0) }
}
