// The heap on the real kernel: what its strategies free is read back from the page tables and from the charge of a
// memory group, and the kernel's own limits are met for real.
//
// Each test runs in a process of its own, so that what it is charged, or limited to, is nobody else's.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

private let canBeCharged: Bool = {
  guard let membership = try? CgroupMembership.find() else { return false }
  MemoryCgroup.removeStale(under: membership)
  guard let group = try? MemoryCgroup.make(under: membership, number: 900) else { return false }
  return group.remove()
}()
private let canSplit =
  realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.honestSplit)
  && realKernel.capabilities.contains(.exactResidency)

/// The program of the half-released hugepages: two spans share each of a hundred blocks, and one of them is freed.
private final class HalfReleased {
  static let blocks = 100
  static let bytes = blocks << 21

  let heap: PageHeapCore<LinuxKernel>
  var kept: [PageSpan] = []
  let reader: ChargeReader
  let chargeAtStart: Int
  let chargeWhenFull: Int

  /// Fills the blocks, and frees the second half of each.
  init(_ strategy: StrategyKind) throws {
    var options = HeapOptions()
    options.policy = .immediate
    options.strategy = StrategyChoice(strategy)
    options.strategy.secondStageNanoseconds = 5_000_000_000
    heap = try PageHeapCore(kernel: realKernel, options: options)
    let membership = try CgroupMembership.find()
    let group = try MemoryCgroup.make(under: membership, number: 901)
    try group.enter()
    reader = try ChargeReader(version: group.version, directory: group.directory)
    guard let charge = reader.read() else { throw KernelError.invalid }
    chargeAtStart = charge
    var freed: [PageSpan] = []
    for _ in 0..<Self.blocks {
      kept.append(try heap.allocate(SpanRequest(pageCount: 256)).span)
      freed.append(try heap.allocate(SpanRequest(pageCount: 256)).span)
    }
    for span in kept + freed { Self.write(span) }
    guard let full = reader.read() else { throw KernelError.invalid }
    chargeWhenFull = full - chargeAtStart
    let report = try heap.residencyPass()
    #expect(report.hugeBlocks == Self.blocks && report.residentBytes == Self.bytes)
    #expect(Self.isNear(chargeWhenFull, Self.bytes))
    for span in freed { heap.free(span) }
  }

  static func write(_ span: PageSpan) {
    for address in stride(from: span.address, to: span.end, by: 4096) {
      UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
    }
  }

  /// Within two percent of what the blocks hold.
  static func isNear(_ bytes: Int, _ expected: Int) -> Bool { abs(bytes - expected) <= Self.bytes / 50 }

  func charge() throws -> Int {
    guard let charge = reader.read() else { throw KernelError.invalid }
    return charge - chargeAtStart
  }

  func resident() throws -> Int { try heap.observe().residentBytes }

  /// What was not freed is as it was.
  func isIntact() -> Bool {
    kept.allSatisfy { span in
      stride(from: span.address, to: span.end, by: 4096).allSatisfy {
        UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
      }
    }
  }

  /// The children of this test leave their group when they are done.
  static func leave() throws {
    let membership = try CgroupMembership.find()
    let parent = String(membership.directory.prefix(upTo: membership.directory.lastIndex(of: "/")!))
    MemoryCgroup(version: membership.version, directory: membership.directory, parent: parent).leaveAndRemove()
  }
}

@Suite(
  .serialized, .enabled(if: canBeCharged, "no memory group of one's own can be made here"),
  .enabled(if: canSplit, "this kernel gives no hugepages, or does not split them"))
struct HalfReleasedHugePages {
  @Test func stayChargedAfterDontneedUntilTheyAreCured() async {
    await #expect(processExitsWith: .success) {
      defer { try? HalfReleased.leave() }
      let program = try HalfReleased(.dontneed)
      #expect(program.heap.tick(at: 1, processCPU: 0).releasedPages == 25_600)
      #expect(try program.resident() == HalfReleased.bytes / 2)
      #expect(HalfReleased.isNear(try program.charge(), HalfReleased.bytes))
      // The heap knows it, without having asked for the charge.
      let phantom = program.heap.statistics().phantomPages << 12
      #expect(HalfReleased.isNear(phantom, try program.charge() - program.resident()))

      #expect(program.heap.curePhantom(blocks: HalfReleased.blocks) == 25_600)
      #expect(HalfReleased.isNear(try program.charge(), HalfReleased.bytes / 2))
      #expect(program.heap.statistics().phantomPages == 0)
      #expect(program.isIntact())
      program.heap.checkInvariants()
    }
  }

  @Test func areChargedOnceMoreWhenTheyAreTouchedAgain() async {
    await #expect(processExitsWith: .success) {
      defer { try? HalfReleased.leave() }
      let program = try HalfReleased(.dontneed)
      _ = program.heap.tick(at: 1, processCPU: 0)
      for _ in 0..<HalfReleased.blocks {
        HalfReleased.write(try program.heap.allocate(SpanRequest(pageCount: 256)).span)
      }
      #expect(try program.resident() == HalfReleased.bytes)
      #expect(HalfReleased.isNear(try program.charge(), HalfReleased.bytes * 3 / 2))
      #expect(program.heap.statistics().pagesRefaulted == 25_600)
    }
  }

  @Test func areReallyFreedAfterASplit() async {
    await #expect(processExitsWith: .success) {
      defer { try? HalfReleased.leave() }
      let program = try HalfReleased(.splitDontneed)
      #expect(program.heap.tick(at: 1, processCPU: 0).releasedPages == 25_600)
      #expect(try program.resident() == HalfReleased.bytes / 2)
      #expect(HalfReleased.isNear(try program.charge(), HalfReleased.bytes / 2))
      let statistics = program.heap.statistics()
      #expect(statistics.phantomPages == 0 && statistics.splits == HalfReleased.blocks)
      #expect(statistics.effectsMissing == 0)
      #expect(program.isIntact())
    }
  }

  @Test func areLazilyFreeAfterFreeUntilTheSecondStage() async {
    await #expect(processExitsWith: .success) {
      defer { try? HalfReleased.leave() }
      let program = try HalfReleased(.freeThenDontneed)
      #expect(program.heap.tick(at: 1, processCPU: 0).releasedPages == 25_600)
      #expect(program.heap.statistics().lazyPages == 25_600)
      #expect(HalfReleased.isNear(try lazyFreeBytes(), HalfReleased.bytes / 2))
      #expect(HalfReleased.isNear(try program.charge(), HalfReleased.bytes))
      // Not yet, and then.
      _ = program.heap.tick(at: 4_000_000_000, processCPU: 0)
      #expect(program.heap.statistics().lazyPages == 25_600)
      _ = program.heap.tick(at: 6_000_000_000, processCPU: 0)
      #expect(program.heap.statistics().lazyPages == 0)
      #expect(try lazyFreeBytes() == 0)
      #expect(try program.resident() == HalfReleased.bytes / 2)
      #expect(HalfReleased.isNear(try program.charge(), HalfReleased.bytes / 2))
      #expect(program.isIntact())
      program.heap.checkInvariants()
    }
  }

  @Test func answerReleaseNowWithWhatWasUncharged() async {
    await #expect(processExitsWith: .success) {
      defer { try? HalfReleased.leave() }
      let program = try HalfReleased(.keep)
      let before = try program.charge()
      let answer = program.heap.releaseNow(byteCount: 50 << 20)
      #expect(answer >= 50 << 20 && answer < 54 << 20)
      #expect(HalfReleased.isNear(try before - program.charge(), answer))
      #expect(program.isIntact())
    }
  }
}

/// LazyFree of the whole process.
private func lazyFreeBytes() throws -> Int {
  let text = try #require(contents(ofFile: "/proc/self/smaps_rollup"))
  let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("LazyFree:") })
  return try #require(Int(line.split(separator: " ")[1])) * 1024
}

@Suite struct TheRealKernelsLimits {
  @Test func onAddressSpaceIsAnError() async {
    await #expect(processExitsWith: .success) {
      let heap = try PageHeapCore(kernel: realKernel, options: HeapOptions())
      let text = try #require(contents(ofFile: "/proc/self/statm"))
      let pages = try #require(Int(text.prefix { $0 != " " }))
      var limit = rlimit()
      limit.rlim_max = .max  // no limit
      limit.rlim_cur = rlim_t(pages << 12 + 64 << 20)
      try #require(setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0)
      var spans: [PageSpan] = []
      var refusal: HeapError? = nil
      while refusal == nil && spans.count < 1000 {
        do throws(HeapError) {
          spans.append(try heap.allocate(SpanRequest(pageCount: 500)).span)
        } catch { refusal = error }
      }
      #expect(refusal == .kernel(.outOfMemory))
      #expect(spans.count >= 8, "a smaller arena than the usual one would have fitted")
      heap.checkInvariants()
      for span in spans { heap.free(span) }
      _ = try heap.allocate(SpanRequest(pageCount: 500))
      heap.checkInvariants()
    }
  }

  @Test func onMappingsIsAnErrorAndReleasingStillWorks() async {
    await #expect(processExitsWith: .success) {
      var options = HeapOptions()
      options.policy = .immediate
      options.strategy = StrategyChoice(.dontneed)
      options.firstArenaBytes = 16 << 21
      let heap = try PageHeapCore(kernel: realKernel, options: options)
      let span = try heap.allocate(SpanRequest(pageCount: 600)).span
      memset(span.pointer, 1, 600 << 12)
      let fence = try Self.useUpMappings()
      var refusal: HeapError? = nil
      do throws(HeapError) {
        // More than what is left of the arena.
        _ = try heap.allocate(SpanRequest(pageCount: 16 * 512))
      } catch { refusal = error }
      #expect(refusal == .kernel(.outOfMemory))
      heap.checkInvariants()
      // Releasing cuts no mapping in two.
      heap.free(span)
      #expect(heap.tick(at: 1, processCPU: 0).releasedPages >= 600)
      #expect(try heap.observe().residentBytes == 0)
      realKernel.unreserve(fence)
      _ = try heap.allocate(SpanRequest(pageCount: 16 * 512))
      heap.checkInvariants()
    }
  }

  /// Cuts a mapping into pieces until the kernel allows no more.
  private static func useUpMappings() throws -> AddressRange {
    let fence = try realKernel.reserve(byteCount: 1 << 30, alignment: 4096)
    for page in stride(from: 1, to: 1 << 18, by: 2) {
      let piece = AddressRange(start: fence.start + UInt(page << 12), byteCount: 4096)
      do throws(KernelError) {
        try realKernel.commit(piece)
      } catch {
        try #require(error == .outOfMemory)
        return fence
      }
    }
    throw KernelError.invalid  // max_map_count is beyond what this test can use up
  }

  @Test func onLockedMemoryKeepsOnlyThat() throws {
    var options = HeapOptions()
    options.policy = .immediate
    options.strategy = StrategyChoice(.dontneed)
    let heap = try PageHeapCore(kernel: realKernel, options: options)
    var spans = try (0..<8).map { _ in try heap.allocate(SpanRequest(pageCount: 256)).span }
    for span in spans { memset(span.pointer, 1, 256 << 12) }
    let locked = spans[3].pointer
    try #require(mlock(locked, 4096) == 0)
    defer { munlock(locked, 4096) }
    for index in [7, 5, 3, 1] { heap.free(spans.remove(at: index)) }
    #expect(heap.tick(at: 1, processCPU: 0).releasedPages == 3 * 256)
    heap.checkInvariants()
    #expect(heap.statistics().releaseFailures == 1 && heap.statistics().freeResidentPages == 256)
    #expect(try realKernel.presentBytes(of: heap.arena(at: 0)) == 5 * 256 * 4096)
  }
}
