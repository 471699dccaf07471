// The priced policy carried out by the heap: on a model of a kernel that knows everything, and on the real one.

import Foundation
import HugeSpanCore
import TestKernels
import Testing

private func priced(_ change: (inout RentOrBuyOptions) -> Void = { _ in }) -> HeapOptions {
  var choice = RentOrBuyOptions()
  change(&choice)
  var options = HeapOptions()
  options.firstArenaBytes = 64 << 21
  options.policy = .rentOrBuy(choice)
  options.strategy = StrategyChoice(.splitDontneed)
  options.effectSamplePeriod = 0
  return options
}

/// A heap, and ticks of a quarter of a second.
private final class Clocked<K: Kernel> {
  let heap: PageHeapCore<K>
  var now: UInt64 = 0
  var cpu: UInt64 = 0

  init(_ kernel: K, _ options: HeapOptions) throws { heap = try PageHeapCore(kernel: kernel, options: options) }

  func pass(seconds: Double, busy: Double = 0) {
    for _ in 0..<Int(seconds * 4) {
      now += 250_000_000
      cpu += UInt64(busy * 250_000_000)
      _ = heap.tick(at: now, processCPU: cpu)
    }
  }
}

@Suite struct PricedRelease {
  @Test func givesEmptyBlocksBackAfterAboutHalfASecond() throws {
    let kernel = ModelKernel()
    let clocked = try Clocked(kernel, priced())
    let span = try clocked.heap.allocate(SpanRequest(pageCount: 10 * 512)).span
    kernel.touch(span.range)
    clocked.heap.free(span)
    clocked.pass(seconds: 0.5)
    #expect(kernel.presentBytes == 10 << 21)
    clocked.pass(seconds: 1)
    #expect(kernel.presentBytes == 0)
    clocked.heap.checkInvariants()
    #expect(kernel.violations == [])
  }

  /// The heap tells the policy when a use begins, however short the pauses between uses are.
  @Test func givesABlockBackAtOnceThatWasInUseForLongAndNotOneThatWasTakenAgainAndAgain() throws {
    let kernel = ModelKernel()
    let clocked = try Clocked(kernel, priced())
    let long = try clocked.heap.allocate(SpanRequest(pageCount: 512)).span
    kernel.touch(long.range)
    for _ in 0..<16 {
      let short = try clocked.heap.allocate(SpanRequest(pageCount: 512)).span
      kernel.touch(short.range)
      clocked.pass(seconds: 0.25)
      clocked.heap.free(short)
    }
    clocked.heap.free(long)
    clocked.pass(seconds: 0.25)
    #expect(kernel.presentBytes == 1 << 21)
    clocked.pass(seconds: 1)
    #expect(kernel.presentBytes == 0)
    clocked.heap.checkInvariants()
    #expect(kernel.violations == [])
  }

  @Test func breaksABlockOfAnIdleProgramAndRebuildsItWhenTheProgramIsBusy() throws {
    let kernel = ModelKernel()
    let clocked = try Clocked(kernel, priced())
    let kept = try clocked.heap.allocate(SpanRequest(pageCount: 300)).span
    let freed = try clocked.heap.allocate(SpanRequest(pageCount: 212)).span
    kernel.touch(kept.range)
    kernel.touch(freed.range)
    clocked.heap.free(freed)
    clocked.pass(seconds: 10)
    #expect(clocked.heap.statistics().splits == 1)
    #expect(kernel.presentBytes == 300 << 12)
    clocked.pass(seconds: 2, busy: 1)
    #expect(clocked.heap.statistics().collapses == 1)
    #expect(kernel.presentBytes == 2 << 20)
    #expect(try clocked.heap.observe().hugeBlocks == 1)
    // What came back reads as zero, and is known to.
    let again = try clocked.heap.allocate(SpanRequest(pageCount: 212))
    #expect(again.isZero && again.refaultedPages == 0)
    clocked.heap.checkInvariants()
    #expect(kernel.violations == [])
  }

  @Test func leavesABusyProgramsBlocksWhole() throws {
    let kernel = ModelKernel()
    let clocked = try Clocked(kernel, priced())
    let kept = try clocked.heap.allocate(SpanRequest(pageCount: 300)).span
    let freed = try clocked.heap.allocate(SpanRequest(pageCount: 212)).span
    kernel.touch(kept.range)
    kernel.touch(freed.range)
    clocked.heap.free(freed)
    clocked.pass(seconds: 60, busy: 1)
    #expect(clocked.heap.statistics().pagesReleased == 0)
  }

  @Test func survivesRebuildsThatFail() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let clocked = try Clocked(kernel, priced())
    let kept = try clocked.heap.allocate(SpanRequest(pageCount: 300)).span
    let freed = try clocked.heap.allocate(SpanRequest(pageCount: 212)).span
    kernel.base.touch(kept.range)
    kernel.base.touch(freed.range)
    clocked.heap.free(freed)
    clocked.pass(seconds: 10)
    kernel.faults.fail(.advise(.collapse), with: .outOfMemory)
    clocked.pass(seconds: 10, busy: 1)
    #expect(clocked.heap.statistics().collapses == 0)
    // One at once, then after pauses of one, two and four seconds.
    let failures = clocked.heap.statistics().releaseFailures
    #expect((3...4).contains(failures), "\(failures) tries")
    clocked.heap.checkInvariants()
    kernel.faults.clear()
    clocked.pass(seconds: 20, busy: 1)
    #expect(clocked.heap.statistics().collapses == 1)
    clocked.heap.checkInvariants()
  }

  @Test func releasesABlockOfMoreRangesThanABatchHolds() throws {
    let kernel = ModelKernel()
    let clocked = try Clocked(kernel, priced())
    let spans = try (0..<512).map { _ in try clocked.heap.allocate(SpanRequest(pageCount: 1)).span }
    for span in spans { kernel.touch(span.range) }
    for span in spans where span.address >> 12 & 1 == 1 { clocked.heap.free(span) }
    clocked.pass(seconds: 30)
    #expect(clocked.heap.statistics().releasedPages == 256)
    #expect(kernel.presentBytes == 1 << 20)
    clocked.heap.checkInvariants()
    #expect(kernel.violations == [])
  }

  @Test func steersNewSpansToAFreshHugepageAndLetsASparseBrokenBlockDrain() throws {
    for steering in [true, false] {
      let kernel = ModelKernel()
      let clocked = try Clocked(kernel, priced { $0.steering = steering })
      let kept = try clocked.heap.allocate(SpanRequest(pageCount: 20)).span
      let freed = try clocked.heap.allocate(SpanRequest(pageCount: 492)).span
      kernel.touch(kept.range)
      kernel.touch(freed.range)
      clocked.heap.free(freed)
      clocked.pass(seconds: 10)
      let next = try clocked.heap.allocate(SpanRequest(pageCount: 20)).span
      #expect((next.address >> 21 == kept.address >> 21) != steering)
    }
  }

  /// Under a hard limit the broken block is better than none.
  @Test func steersNobodyIntoTheHardLimit() throws {
    let kernel = ModelKernel()
    var options = priced()
    options.hardLimitBytes = 2 << 20
    let clocked = try Clocked(kernel, options)
    let kept = try clocked.heap.allocate(SpanRequest(pageCount: 20)).span
    let freed = try clocked.heap.allocate(SpanRequest(pageCount: 492)).span
    kernel.touch(kept.range)
    kernel.touch(freed.range)
    clocked.heap.free(freed)
    clocked.pass(seconds: 10)
    let next = try clocked.heap.allocate(SpanRequest(pageCount: 20)).span
    #expect(next.address >> 21 == kept.address >> 21)
  }
}

@Suite(
  .enabled(
    if: realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.honestSplit)
      && realKernel.capabilities.contains(.collapse) && realKernel.capabilities.contains(.exactResidency),
    "this kernel gives no hugepages, or does not split or rebuild them"))
struct PricedReleaseOnTheRealKernel {
  @Test func givesMemoryBackWhenIdleAndCoverageBackWhenBusy() async {
    await #expect(processExitsWith: .success) {
      let clocked = try Clocked(realKernel, priced())
      let pairs = try (0..<40).map { _ in
        (
          try clocked.heap.allocate(SpanRequest(pageCount: 300)).span,
          try clocked.heap.allocate(SpanRequest(pageCount: 212)).span
        )
      }
      for (kept, freed) in pairs {
        for span in [kept, freed] {
          for address in stride(from: span.address, to: span.end, by: 4096) {
            UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
          }
        }
      }
      try #require(try clocked.heap.observe().hugeBlocks == 40)
      for (_, freed) in pairs { clocked.heap.free(freed) }
      clocked.pass(seconds: 20)
      let idle = try clocked.heap.observe()
      #expect(idle.residentBytes == 40 * 300 << 12 && idle.hugeBlocks == 0, "\(idle)")
      clocked.pass(seconds: 20, busy: 1)
      let busy = try clocked.heap.observe()
      #expect(busy.hugeBlocks == 40, "\(busy)")
      #expect(clocked.heap.statistics().collapses >= 38)
      for (kept, _) in pairs {
        for address in stride(from: kept.address, to: kept.end, by: 4096) {
          try #require(UnsafePointer<UInt>(bitPattern: address)!.pointee == ~address)
        }
      }
      clocked.heap.checkInvariants()
    }
  }
}
