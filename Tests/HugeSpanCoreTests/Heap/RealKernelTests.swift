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

let canBeCharged: Bool = {
  guard let membership = try? CgroupMembership.find() else { return false }
  MemoryCgroup.removeStale(under: membership)
  guard let group = try? MemoryCgroup.make(under: membership, number: 900) else { return false }
  return group.remove()
}()
let canSplit =
  realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.honestSplit)
  && realKernel.capabilities.contains(.exactResidency)

/// The program of the half-released hugepages: two spans share each of a hundred blocks, and one of them is freed.
final class HalfReleased {
  static let blocks = 100
  static let bytes = blocks << 21

  let heap: PageHeapCore<LinuxKernel>
  let group: MemoryCgroup
  private let reader: ChargeReader
  private(set) var kept: [PageSpan] = []
  private var chargeAtStart = 0
  private var failures: [String] = []

  /// Runs `body` on the half-released program. When something is not as expected and khugepaged was at work meanwhile
  /// (it makes hugepages of what was just split, if it comes by), it is done over.
  static func run(_ strategy: StrategyKind, _ body: (HalfReleased) throws -> Void) throws {
    for attempt in 1...6 {
      let rebuilt = blocksRebuiltByTheKernel()
      let program = try HalfReleased(strategy, number: 900 + attempt)
      defer { program.group.leaveAndRemove() }
      try body(program)
      program.expect(program.isIntact(), "what was not freed has changed")
      program.heap.checkInvariants()
      if program.failures.isEmpty { return }
      if attempt == 6 || blocksRebuiltByTheKernel() == rebuilt {
        for failure in program.failures { Issue.record("\(failure)") }
        return
      }
    }
  }

  /// Fills the blocks, and frees the second half of each.
  private init(_ strategy: StrategyKind, number: Int) throws {
    var options = HeapOptions()
    options.policy = .immediate
    options.strategy = StrategyChoice(strategy)
    options.strategy.secondStageNanoseconds = 5_000_000_000
    heap = try PageHeapCore(kernel: realKernel, options: options)
    group = try MemoryCgroup.make(under: try CgroupMembership.find(), number: number)
    try group.enter()
    reader = try ChargeReader(version: group.version, directory: group.directory)
    chargeAtStart = charge
    var freed: [PageSpan] = []
    for _ in 0..<Self.blocks {
      kept.append(try heap.allocate(SpanRequest(pageCount: 256)).span)
      freed.append(try heap.allocate(SpanRequest(pageCount: 256)).span)
    }
    for span in kept + freed { Self.write(span) }
    expect(resident == Self.bytes && heap.statistics().blocks >= Self.blocks, "\(resident) bytes are resident")
    expectNear(charge, Self.bytes, "charge when full")
    for span in freed { heap.free(span) }
  }

  static func write(_ span: PageSpan) {
    for address in stride(from: span.address, to: span.end, by: 4096) {
      UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
    }
  }

  /// The first `count` of the kept spans are not the program's any more.
  func forget(_ count: Int) { kept.removeFirst(count) }

  private func isIntact() -> Bool {
    kept.allSatisfy { span in
      stride(from: span.address, to: span.end, by: 4096).allSatisfy {
        UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
      }
    }
  }

  /// What the group is charged since the program began; -1 if the kernel does not say.
  var charge: Int { reader.read().map { $0 - chargeAtStart } ?? -1 }
  var resident: Int { (try? heap.observe().residentBytes) ?? -1 }

  func expect(_ condition: Bool, _ message: @autoclosure () -> String) {
    if !condition { failures.append(message()) }
  }

  /// Within two percent of what the blocks hold.
  func expectNear(_ bytes: Int, _ expected: Int, _ name: String) {
    expect(abs(bytes - expected) <= Self.bytes / 50, "\(name) is \(bytes), not about \(expected)")
  }
}

@Suite(
  .serialized, .enabled(if: canBeCharged, "no memory group of one's own can be made here"),
  .enabled(if: canSplit, "this kernel gives no hugepages, or does not split them"),
  .enabled(if: !hasAddressSanitizer, "the address sanitizer's own memory is charged too"))
struct HalfReleasedHugePages {
  @Test func stayChargedAfterDontneedUntilTheyAreCured() async {
    await #expect(processExitsWith: .success) {
      try HalfReleased.run(.dontneed) { program in
        let report = program.heap.tick(at: 1, processCPU: 0)
        program.expect(report.releasedPages == 25_600, "\(report)")
        program.expect(program.resident == HalfReleased.bytes / 2, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes, "charge after the release")
        // The heap knows it, without having asked for the charge.
        let phantom = program.heap.statistics().phantomPages << 12
        program.expectNear(phantom, program.charge - program.resident, "phantom")

        let cured = program.heap.curePhantom(blocks: HalfReleased.blocks)
        program.expect(cured == 25_600, "\(cured) pages cured")
        program.expectNear(program.charge, HalfReleased.bytes / 2, "charge after the cure")
        program.expect(program.heap.statistics().phantomPages == 0, "phantom is left")
      }
    }
  }

  @Test func areChargedOnceMoreWhenTheyAreTouchedAgain() async {
    await #expect(processExitsWith: .success) {
      try HalfReleased.run(.dontneed) { program in
        _ = program.heap.tick(at: 1, processCPU: 0)
        // Spans that are not worth a fresh hugepage each.
        for _ in 0..<(2 * HalfReleased.blocks) {
          HalfReleased.write(try program.heap.allocate(SpanRequest(pageCount: 128)).span)
        }
        program.expect(program.resident == HalfReleased.bytes, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes * 3 / 2, "charge")
        let refaulted = program.heap.statistics().pagesRefaulted
        program.expect(refaulted == 25_600, "\(refaulted) pages refaulted")
        // The first pages of each block are the folio's, the others came back beside it; the cure has to find the first.
        _ = program.heap.curePhantom(blocks: HalfReleased.blocks)
        program.expectNear(program.charge, HalfReleased.bytes, "charge after the cure")
      }
    }
  }

  @Test func areReallyFreedAfterASplit() async {
    await #expect(processExitsWith: .success) {
      try HalfReleased.run(.splitDontneed) { program in
        let report = program.heap.tick(at: 1, processCPU: 0)
        program.expect(report.releasedPages == 25_600, "\(report)")
        program.expect(program.resident == HalfReleased.bytes / 2, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes / 2, "charge")
        let statistics = program.heap.statistics()
        program.expect(statistics.phantomPages == 0, "phantom is left")
        program.expect(statistics.splits == HalfReleased.blocks, "\(statistics.splits) splits")
        program.expect(statistics.effectsMissing == 0, "a release had no effect")
      }
    }
  }

  @Test func areLazilyFreeAfterFreeUntilTheSecondStage() async {
    await #expect(processExitsWith: .success) {
      try HalfReleased.run(.freeThenDontneed) { program in
        let report = program.heap.tick(at: 1, processCPU: 0)
        program.expect(report.releasedPages == 25_600, "\(report)")
        program.expectNear(try lazyFreeBytes(), HalfReleased.bytes / 2, "LazyFree")
        program.expectNear(program.charge, HalfReleased.bytes, "charge")
        // Not yet, and then.
        _ = program.heap.tick(at: 4_000_000_000, processCPU: 0)
        program.expect(program.heap.statistics().lazyPages == 25_600, "the second stage came too early")
        _ = program.heap.tick(at: 6_000_000_000, processCPU: 0)
        program.expect(program.heap.statistics().lazyPages == 0, "the second stage did not come")
        program.expect(try lazyFreeBytes() == 0, "the kernel still has lazily freed pages")
        program.expect(program.resident == HalfReleased.bytes / 2, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes / 2, "charge after the second stage")
      }
    }
  }

  @Test(arguments: [StrategyKind.keep, .dontneed, .free, .freeThenDontneed, .splitDontneed])
  func answerReleaseNowWithWhatWasUncharged(strategy: StrategyKind) async {
    let number = Int(strategy.rawValue)
    await #expect(processExitsWith: .success) { [number = number as Int] in
      let strategy = StrategyKind(rawValue: UInt8(number))!
      try HalfReleased.run(strategy) { program in
        let charge = program.charge
        let answer = program.heap.releaseNow(byteCount: 50 << 20)
        program.expect(answer >= 50 << 20 && answer < 54 << 20, "answered \(answer)")
        program.expectNear(charge - program.charge, answer, "what was uncharged")

        // The rest when the strategy has had its turn: resident still, lazily free, phantom, or gone already.
        _ = program.heap.tick(at: 1, processCPU: 0)
        let chargeBefore = program.charge
        let rest = program.heap.releaseNow(byteCount: .max)
        // The answer is what is sure; phantom goes besides.
        let phantom = strategy == .dontneed ? HalfReleased.bytes / 2 - answer : 0
        program.expectNear(chargeBefore - program.charge, rest + phantom, "what was uncharged after the strategy")
        program.expectNear(program.charge, HalfReleased.bytes / 2, "charge at the end")
        program.expect(program.resident == HalfReleased.bytes / 2, "\(program.resident) bytes are resident")
      }
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

  /// As where an administrator has turned hugepages off, for this process alone.
  @Test func onHugePagesIsASlowerHeap() async {
    await #expect(processExitsWith: .success) {
      typealias Prctl = @convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32
      let prctl = unsafeBitCast(try #require(dlsym(nil, "prctl")), to: Prctl.self)
      try #require(prctl(41, 1, 0, 0, 0) == 0)  // PR_SET_THP_DISABLE
      let kernel = LinuxKernel()
      #expect(!kernel.capabilities.contains(.hugePages) && !kernel.capabilities.contains(.hugePagesUnasked))
      var options = HeapOptions()
      options.policy = .immediate
      let heap = try PageHeapCore(kernel: kernel, options: options)
      let spans = try (0..<30).map { _ in try heap.allocate(SpanRequest(pageCount: 100)).span }
      for span in spans { memset(span.pointer, 1, 100 << 12) }
      let report = try heap.residencyPass()
      #expect(report.hugeBlocks == 0 && report.residentBytes == 3000 << 12)
      #expect(heap.statistics().usedOnHugePages == 0)
      for (index, span) in spans.enumerated() where index % 3 != 0 { heap.free(span) }
      #expect(heap.tick(at: 1, processCPU: 0).releasedPages >= 2000)
      heap.checkInvariants()
      #expect(try heap.observe().residentBytes == 1000 << 12)
      // There was no hugepage to lose.
      #expect(heap.statistics().phantomPages == 0)
    }
  }

  /// What strict overcommit refuses too: address space is to be had, memory in it is not. That one is a setting of the whole
  /// machine; this limit is the process' own, and the same call fails with the same error.
  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer needs mappings of its own"))
  func onMemoryThatMayBeWrittenIsAnError() async {
    await #expect(processExitsWith: .success) {
      let heap = try PageHeapCore(kernel: realKernel, options: HeapOptions())
      let text = try #require(contents(ofFile: "/proc/self/status"))
      let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("VmData:") })
      let data = try #require(Int(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1])) * 1024
      var limit = rlimit()
      limit.rlim_max = .max  // no limit
      limit.rlim_cur = rlim_t(data + (64 << 20))
      try #require(setrlimit(__rlimit_resource_t(RLIMIT_DATA.rawValue), &limit) == 0)
      var spans: [PageSpan] = []
      var refusal: HeapError? = nil
      while refusal == nil && spans.count < 1000 {
        do throws(HeapError) {
          spans.append(try heap.allocate(SpanRequest(pageCount: 500)).span)
        } catch { refusal = error }
      }
      #expect(refusal == .kernel(.outOfMemory))
      // The address space of a whole arena was no problem.
      #expect(spans.count >= 8 && heap.arenaCount == 1)
      #expect(throws: HeapError.kernel(.outOfMemory)) { try heap.allocate(SpanRequest(pageCount: 5000)) }
      heap.checkInvariants()
      for span in spans { heap.free(span) }
      let again = try heap.allocate(SpanRequest(pageCount: 500)).span
      memset(again.pointer, 1, 500 << 12)
      heap.checkInvariants()
    }
  }

  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer needs mappings of its own"))
  func onMappingsIsAnErrorAndReleasingStillWorks() async {
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

  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer makes mlock do nothing"))
  func onLockedMemoryKeepsOnlyThat() throws {
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
