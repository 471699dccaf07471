// When the scavenger asks the kernel: by the clock, by what asking costs, and not in a program that does nothing; and that a
// heap whose hugepages were taken behind its back gets them again.

import CHugeSpanShims
import HugeSpanLab
import TestKernels
import Testing

@testable import HugeSpanCore

private let second: UInt64 = 1_000_000_000

@Suite struct PacingOfResidencyPasses {
  @Test func waitsFiveSeconds() {
    let pacing = ResidencyPacing(now: 100 * second, processCPU: 7 * second)
    #expect(!pacing.isDue(now: 104 * second, processCPU: 11 * second))
    #expect(pacing.isDue(now: 105 * second, processCPU: 12 * second))
  }

  @Test func asksNothingOfAnIdleProgram() {
    let pacing = ResidencyPacing(now: 0, processCPU: 0)
    #expect(!pacing.isDue(now: 100 * second, processCPU: second / 2))
    #expect(pacing.isDue(now: 100 * second, processCPU: second))
  }

  @Test func isRarerWhereAPassIsDear() {
    var pacing = ResidencyPacing(now: 0, processCPU: 0)
    pacing.note(start: 5 * second, end: 5 * second + 100_000_000, processCPU: 5 * second)
    #expect(!pacing.isDue(now: 50 * second, processCPU: 50 * second))
    #expect(pacing.isDue(now: 56 * second, processCPU: 56 * second))
  }
}

@Suite(
  .serialized,
  .enabled(
    if: realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.honestSplit)
      && realKernel.capabilities.contains(.collapse) && realKernel.capabilities.contains(.exactResidency),
    "this kernel gives no hugepages, or does not split, rebuild or show them"))
struct TheScavengerOfABusyProgram {
  @Test func rebuildsWhatSomebodyElseSplit() throws {
    var options = HeapOptions()
    options.policy = .rentOrBuy(RentOrBuyOptions())
    let heap = try LinuxHeap.create(options)
    defer { LinuxHeap.destroy(heap) }
    #expect(LinuxHeap.startScavenger(heap))
    let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 8 * 512)).span
    for address in stride(from: span.address, to: span.end, by: 4096) {
      UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
    }
    // As reclaim would: the heap is not told.
    for block in stride(from: span.address, to: span.end, by: 1 << 21) {
      let range = AddressRange(start: block, byteCount: 4096)
      #expect(
        withUnsafePointer(to: range) { realKernel.advise(.cold, UnsafeBufferPointer(start: $0, count: 1)) }.error == nil
      )
    }
    #expect(try heap.pointee.core.observe().hugeBlocks == 0)
    // Busy, so that hugepages are worth something: with a second thread's help in at most a pass and a few ticks.
    var sum: UInt = 0
    let start = hs_shim_monotonic_nanoseconds()
    while hs_shim_monotonic_nanoseconds() - start < 60 * second {
      for address in stride(from: span.address, to: span.end, by: 4096) {
        sum &+= UnsafePointer<UInt>(bitPattern: address)!.pointee
      }
      if heap.pointee.core.totals().collapses > 0, try heap.pointee.core.observe().hugeBlocks == 8 { break }
    }
    // The kernel's own thread may have come first to some of them.
    #expect(heap.pointee.core.totals().collapses > 0)
    #expect(try heap.pointee.core.observe().hugeBlocks == 8)
    #expect(sum != 0)
    for address in stride(from: span.address, to: span.end, by: 4096) {
      #expect(UnsafePointer<UInt>(bitPattern: address)!.pointee == ~address)
    }
    heap.pointee.core.checkInvariants()
    heap.pointee.core.free(span)
  }
}
