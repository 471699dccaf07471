// Policies and strategies of an embedder's own, who imports nothing but HugeSpan.

import Glibc
import HugeSpan
import Testing

/// Releases everything at every other tick, and remembers what it was told.
private struct EveryOther: ScavengePolicy {
  final class Memory: @unchecked Sendable {
    var inputs: [ScavengeInput] = []
    var booked: [(wanted: Int, released: Int)] = []
  }
  let memory: Memory
  private var ticks = 0

  init(_ memory: Memory) { self.memory = memory }

  mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    memory.inputs.append(input)
    ticks += 1
    return ScavengePlan(pages: ticks % 2 == 0 ? input.releasablePages : 0, nextTick: 5_000_000)
  }

  mutating func booked(wanted: Int, released: Int) { memory.booked.append((wanted, released)) }
}

/// Advises nothing of parts, and DONTNEED of whole blocks.
private final class WholeOnly: ReleaseStrategy, @unchecked Sendable {
  var bytes = 0
  var parts = 0

  func release(_ ranges: UnsafeMutableBufferPointer<ReleasableRange>) -> Int {
    var calls = 0
    for index in ranges.indices {
      if !ranges[index].isWhole {
        parts += 1
        ranges[index].effect = .refused
        continue
      }
      calls += 1
      bytes += ranges[index].byteCount
      let failed = madvise(ranges[index].address, ranges[index].byteCount, MADV_DONTNEED) != 0
      ranges[index].effect = failed ? .refused : .gone
    }
    return calls
  }
}

@Suite struct CustomPoliciesAndStrategies {
  @Test func aPolicyOfOnesOwnDecides() throws {
    let memory = EveryOther.Memory()
    let heap = try PageHeap(policy: EveryOther(memory))
    let span = try heap.allocate(pages: 1024)
    for page in 0..<1024 { (span.pointer + page * 4096).storeBytes(of: 1, as: UInt8.self) }
    heap.free(span)
    #expect(heap.tick(at: 1_000_000, processCPU: 0).releasedPages == 0)
    let second = heap.tick(at: 2_000_000, processCPU: 3)
    #expect(second.releasedPages == 1024 && second.nextTickNanoseconds == 5_000_000)
    #expect(memory.inputs.count == 2 && memory.inputs[0].freedPages == 1024 && memory.inputs[1].elapsed == 1_000_000)
    #expect(memory.inputs[1].processCPU == 3)
    #expect(memory.booked.last?.wanted == 1024 && memory.booked.last?.released == 1024)
    #expect(heap.statistics.freeResidentPages == 0)
  }

  @Test func aStrategyOfOnesOwnReleases() throws {
    let strategy = WholeOnly()
    var options = HeapOptions()
    options.policy = .immediate
    let heap = try PageHeap(options, policy: nil, strategy: strategy)
    let span = try heap.allocate(pages: 512 * 4)
    for page in 0..<2048 { (span.pointer + page * 4096).storeBytes(of: 1, as: UInt8.self) }
    let kept = heap.shrink(span, toPages: 700)
    let report = heap.tick(at: 1_000_000, processCPU: 0)
    #expect(strategy.bytes == 2 << 21 && report.releasedPages == 1024)
    #expect(strategy.parts > 0)
    #expect(heap.statistics.freeResidentPages == 1024 - 700)
    // What is gone reads as zero again, and what is used is as it was.
    let again = try heap.allocate(pages: 1024)
    #expect((again.pointer + 5 * 4096).load(as: UInt8.self) == 0)
    #expect((kept.pointer + 699 * 4096).load(as: UInt8.self) == 1)
  }

  @Test func bothLiveAsLongAsTheHeap() throws {
    weak var gone: WholeOnly?
    do {
      let strategy = WholeOnly()
      gone = strategy
      let heap = try PageHeap(policy: EveryOther(EveryOther.Memory()), strategy: strategy)
      let span = try heap.allocate(pages: 512)
      span.pointer.storeBytes(of: 1, as: UInt8.self)
      heap.free(span)
      #expect(heap.startScavenger())
      for _ in 0..<500 where strategy.bytes == 0 { usleep(10_000) }
      #expect(strategy.bytes == 1 << 21)
    }
    #expect(gone == nil)
  }
}
