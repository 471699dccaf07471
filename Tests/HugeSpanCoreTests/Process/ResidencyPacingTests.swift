// When the scavenger asks the kernel: by the clock, by what asking costs, and less in a program that does nothing; and that a
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

  /// khugepaged does not rest when the program does.
  @Test func isRarerInAnIdleProgramAndDoesNotEnd() {
    var pacing = ResidencyPacing(now: 0, processCPU: 0)
    #expect(!pacing.isDue(now: 14 * second, processCPU: 0))
    #expect(pacing.isDue(now: 15 * second, processCPU: 0))
    #expect(pacing.isDue(now: 10 * second, processCPU: second / 10))
    pacing.note(now: 15 * second, cost: 100_000_000, processCPU: 0)
    #expect(!pacing.isDue(now: 60 * second, processCPU: 0) && pacing.isDue(now: 65 * second, processCPU: 0))
  }

  @Test func isRarerWhereAPassIsDear() {
    var pacing = ResidencyPacing(now: 0, processCPU: 0)
    pacing.note(now: 5 * second, cost: 100_000_000, processCPU: 5 * second)
    #expect(!pacing.isDue(now: 54 * second, processCPU: 54 * second))
    #expect(pacing.isDue(now: 55 * second, processCPU: 55 * second))
  }
}

@Suite(
  .enabled(
    if: realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.honestSplit)
      && realKernel.capabilities.contains(.collapse) && realKernel.capabilities.contains(.exactResidency),
    "this kernel gives no hugepages, or does not split, rebuild or show them"))
struct TheScavengerOfABusyProgram {
  /// In a process of its own, which nobody forks; and the clocks are the test's: neither the machine's load nor khugepaged, which
  /// looks at 16 MiB in ten seconds, comes between.
  @Test func rebuildsWhatSomebodyElseSplit() async {
    await #expect(processExitsWith: .success) {
      var options = HeapOptions()
      options.policy = .rentOrBuy(RentOrBuyOptions())
      let heap = try LinuxHeap.create(options)
      defer { LinuxHeap.destroy(heap) }
      let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 8 * 512)).span
      for address in stride(from: span.address, to: span.end, by: 4096) {
        UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
      }
      // As reclaim would: the heap is not told.
      for block in stride(from: span.address, to: span.end, by: 1 << 21) {
        let range = AddressRange(start: block, byteCount: 4096)
        let outcome = withUnsafePointer(to: range) {
          realKernel.advise(.cold, UnsafeBufferPointer(start: $0, count: 1))
        }
        precondition(outcome.error == nil, "\(outcome)")
      }
      func hugeBlocks() throws -> Int { try heap.pointee.core.observe().hugeBlocks }
      var found = try hugeBlocks()
      precondition(found == 0, "\(found) blocks were not split")
      // A program that keeps one CPU busy. The pass comes after five seconds, and the tick of the same turn knows of it; for two
      // minutes more, what the kernel refuses for a moment is tried again.
      var pacing = ResidencyPacing(now: 0, processCPU: 0)
      var time: UInt64 = 0
      while time < 130 * second && found < 8 {
        time += second
        _ = heap.pointee.scavengeOnce(&pacing, now: time, processCPU: time)
        precondition(heap.pointee.core.totals().collapses == 0 || time >= 5 * second, "rebuilt what it did not know of")
        found = try hugeBlocks()
      }
      precondition(found == 8, "\(found) of 8 blocks are huge")
      precondition(heap.pointee.core.totals().collapses > 0, "not rebuilt by the heap")
      for address in stride(from: span.address, to: span.end, by: 4096) {
        precondition(UnsafePointer<UInt>(bitPattern: address)!.pointee == ~address, "contents changed")
      }
      heap.pointee.core.checkInvariants()
      heap.pointee.core.free(span)
    }
  }
}
