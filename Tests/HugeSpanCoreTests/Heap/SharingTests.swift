// A live child shares the parent's memory: what the parent's releases do to its own hugepages, to the child's data and to
// the charge, on the real kernel. Each in a process of its own, since a fork takes only one thread along.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

private func fill(_ span: PageSpan) {
  for address in stride(from: span.address, to: span.end, by: 4096) {
    UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
  }
}

private func isIntact(_ span: PageSpan) -> Bool {
  stride(from: span.address, to: span.end, by: 4096).allSatisfy {
    UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
  }
}

/// Bytes of the whole process that a line of smaps_rollup says.
private func rollup(_ name: String) -> Int {
  let text = contents(ofFile: "/proc/self/smaps_rollup") ?? ""
  let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
  return line.flatMap { Int($0.split(separator: " ")[1]) }.map { $0 * 1024 } ?? -1
}

/// Sixteen blocks in use, eight of which a half is free, eight that are free as a whole.
private final class Program {
  let heap: PageHeapCore<LinuxKernel>
  var used: [PageSpan] = []

  init(_ strategy: StrategyKind, firstArenaBytes: Int = 256 << 21) throws {
    var options = HeapOptions()
    options.policy = .immediate
    options.strategy = StrategyChoice(strategy)
    options.firstArenaBytes = firstArenaBytes
    heap = try PageHeapCore(kernel: realKernel, options: options)
    var freed: [PageSpan] = []
    for _ in 0..<16 { used.append(try heap.allocate(SpanRequest(pageCount: 512)).span) }
    for _ in 0..<8 {
      used.append(try heap.allocate(SpanRequest(pageCount: 256)).span)
      freed.append(try heap.allocate(SpanRequest(pageCount: 256)).span)
    }
    for _ in 0..<8 { freed.append(try heap.allocate(SpanRequest(pageCount: 512)).span) }
    for span in used + freed { fill(span) }
    _ = try heap.residencyPass()
    for span in freed { heap.free(span) }
  }

  /// Forks a child that keeps what is in use until it is told to go, and finds it as it was.
  func fork() -> ForkedChild {
    heap.prepareForFork()
    let used = used
    let child = ForkedChild(last: { used.allSatisfy(isIntact) })
    heap.resumeInParent()
    return child
  }

  func tick(_ times: ClosedRange<Int>) {
    for time in times { _ = heap.tick(at: UInt64(time) * 1_000_000_000, processCPU: 0) }
  }

  var areUsedIntact: Bool { used.allSatisfy(isIntact) }
  var usedOnHuge: Int { (try? heap.observe().usedPagesOnHuge) ?? -1 }
  var resident: Int { (try? heap.observe().residentBytes) ?? -1 }
}

@Suite(.enabled(if: canSplit, "this kernel gives no hugepages, or does not split them"))
struct AParentWithALiveChild {
  static let strategies: [StrategyKind] = [.dontneed, .free, .freeThenDontneed, .splitDontneed]

  @Test(arguments: strategies)
  func keepsItsCoverageThroughReleasesAndItsChildTheData(strategy: StrategyKind) async {
    let number = Int(strategy.rawValue)
    await #expect(processExitsWith: .success) { [number = number as Int] in
      let strategy = StrategyKind(rawValue: UInt8(number))!
      let program = try Program(strategy)
      let covered = program.usedOnHuge
      try #require(covered == 16 * 512 + 8 * 256, "\(covered) used pages on hugepages")
      let huge = rollup("AnonHugePages")
      let child = program.fork()

      program.tick(1...20)
      #expect(program.usedOnHuge == covered, "a release cost a hugepage")
      #expect(rollup("AnonHugePages") == huge - 8 << 21)
      #expect(program.resident == 24 << 21, "the free blocks were not dropped, or more was")
      #expect(rollup("LazyFree") == 0 && program.heap.statistics().lazyPages == 0)
      #expect(program.heap.statistics().splits == 0)
      #expect(program.areUsedIntact)
      program.heap.checkInvariants()

      // What was dropped comes back huge, and is the parent's alone: it can be given up lazily, and is.
      let fresh = try (0..<8).map { _ in try program.heap.allocate(SpanRequest(pageCount: 512)).span }
      for span in fresh { fill(span) }
      #expect(rollup("AnonHugePages") == huge)
      for span in fresh { program.heap.free(span) }
      program.tick(21...21)
      let isLazy = strategy == .free || strategy == .freeThenDontneed
      #expect(program.heap.statistics().lazyPages == (isLazy ? rollup("LazyFree") >> 12 : 0))
      #expect(!isLazy || rollup("LazyFree") >= 7 << 21)
      #expect(program.heap.statistics().effectsMissing == 0)
      program.heap.checkInvariants()

      #expect(child.end() == 0, "the child found other data than its own")
      // Nobody shares any more: the halves go as they do without a fork.
      program.tick(22...40)
      program.heap.checkInvariants()
      #expect(program.areUsedIntact)
      #expect(program.usedOnHuge == 16 * 512)
      if !isLazy { #expect(program.resident == 20 << 21) }
      #expect(program.heap.statistics().splits == 8)
    }
  }

  @Test func takesWholeFreeBlocksBackAsHugePages() async {
    await #expect(processExitsWith: .success) {
      let program = try Program(.splitDontneed)
      let child = program.fork()
      let huge = rollup("AnonHugePages")
      // One by one, as one run that is longer than what is free in one piece, and as parts of blocks.
      var spans = [try program.heap.allocate(SpanRequest(pageCount: 512)).span]
      spans.append(try program.heap.allocate(SpanRequest(pageCount: 6 * 512)).span)
      for span in spans { fill(span) }
      #expect(rollup("AnonHugePages") == huge, "a write copied single pages")
      program.heap.checkInvariants()
      #expect(spans.allSatisfy(isIntact) && program.areUsedIntact)
      #expect(child.end() == 0)
    }
  }

  @Test func whoseChildIsGoneHasItsFreeBlocksAsTheyWere() async {
    await #expect(processExitsWith: .success) {
      let program = try Program(.splitDontneed)
      let child = program.fork()
      #expect(child.end() == 0)
      let before = program.resident
      let span = try program.heap.allocate(SpanRequest(pageCount: 512)).span
      #expect(program.resident == before, "a block was dropped for nothing")
      program.heap.free(span)
      _ = try program.heap.residencyPass()
      let large = try program.heap.allocate(SpanRequest(pageCount: 8 * 512)).span
      #expect(program.resident == before, "blocks were dropped for nothing")
      program.heap.free(large)
      #expect(program.heap.statistics().pagesRefaulted == 0)
      program.heap.checkInvariants()
    }
  }

  @Test func answersReleaseNowWithWhatIsItsAlone() async {
    await #expect(processExitsWith: .success) {
      let program = try Program(.keep)
      let child = program.fork()
      #expect(program.heap.releaseNow(byteCount: 1 << 30) == 0)
      #expect(program.usedOnHuge == 16 * 512 + 8 * 256)
      program.heap.checkInvariants()
      #expect(child.end() == 0)
      #expect(program.heap.releaseNow(byteCount: 1 << 30) >= 8 << 20)
      program.heap.checkInvariants()
    }
  }

  @Test(
    .enabled(if: canBeCharged, "no memory group of one's own can be made here"),
    .enabled(if: !hasAddressSanitizer, "the address sanitizer's own memory is charged too"))
  func isChargedForWhatTheChildKeepsAndNotLonger() async {
    await #expect(processExitsWith: .success) {
      let group = try MemoryCgroup.make(under: try CgroupMembership.find(), number: 951)
      try group.enter()
      defer { group.leaveAndRemove() }
      let reader = try ChargeReader(version: group.version, directory: group.directory)
      let start = reader.read() ?? 0
      func charge() -> Int { (reader.read() ?? 0) - start }
      func isNear(_ bytes: Int, _ expected: Int) -> Bool { abs(bytes - expected) < 2 << 20 }
      let program = try Program(.splitDontneed)
      #expect(isNear(charge(), 32 << 21), "\(charge()) charged when full")
      let child = program.fork()
      program.tick(1...10)
      #expect(program.resident == 24 << 21)
      #expect(isNear(charge(), 32 << 21), "\(charge()) charged under the child")
      #expect(child.end() == 0)
      #expect(isNear(charge(), 24 << 21), "\(charge()) charged without the child")
      program.tick(11...30)
      #expect(isNear(charge(), 20 << 21), "\(charge()) charged at last")
      #expect(program.heap.statistics().phantomPages == 0)
    }
  }

  /// Parts of blocks in base pages that a child shares are unmapped; that they are charged on is known.
  @Test func countsThePartsOfBrokenBlocksThatItReleasesAsPhantom() async {
    await #expect(processExitsWith: .success) {
      let program = try Program(.dontneed)
      // One write each costs the hugepage; that the heap learns from the kernel.
      let child = program.fork()
      for span in program.used[16...] {
        UnsafeMutablePointer<UInt>(bitPattern: span.address)!.pointee = ~span.address
      }
      _ = try program.heap.residencyPass()
      program.tick(1...10)
      #expect(program.heap.statistics().phantomPages == 8 * 256)
      #expect(program.resident == 20 << 21)
      #expect(program.heap.curePhantom(blocks: 8) == 0, "no advice splits what a child shares")
      #expect(child.end() == 0)
      #expect(program.heap.curePhantom(blocks: 8) == 8 * 256)
      #expect(program.areUsedIntact)
      program.heap.checkInvariants()
    }
  }
}

@Suite(.enabled(if: canSplit, "this kernel gives no hugepages, or does not split them"))
struct AReleaseByFree {
  @Test func isReadBackAsThere() async {
    await #expect(processExitsWith: .success) {
      let program = try Program(.free)
      program.tick(1...1)
      let statistics = program.heap.statistics()
      #expect(statistics.effectsChecked == 1 && statistics.effectsMissing == 0)
      #expect(statistics.lazyPages > 8 * 512 && statistics.pagesReleased == 8 * 768)
      program.heap.checkInvariants()
    }
  }

  /// The fork came past the handlers: nothing tells the heap but the missing effect.
  @Test func underAChildThatNobodyToldOfIsReadBackAsMissingAndBookedAsNotLazy() async {
    await #expect(processExitsWith: .success) {
      let program = try Program(.free)
      let child = ForkedChild()
      program.tick(1...1)
      var statistics = program.heap.statistics()
      #expect(statistics.effectsChecked == 1 && statistics.effectsMissing == 1)
      #expect(statistics.lazyPages == 0, "believed lazily free, and the kernel did nothing")
      #expect(rollup("LazyFree") == 0)
      program.heap.checkInvariants()
      // From then on it is known, and what is wholly free is dropped when the refusals are forgotten.
      let covered = program.usedOnHuge
      program.tick(2...150)
      statistics = program.heap.statistics()
      #expect(statistics.lazyPages == 0 && statistics.effectsMissing == 1)
      #expect(program.resident == 24 << 21 && program.usedOnHuge == covered)
      program.heap.checkInvariants()
      #expect(child.end() == 0)
      program.tick(151...300)
      #expect(program.heap.statistics().lazyPages == 8 * 256 && rollup("LazyFree") > 0)
    }
  }

  /// In a block that had lost its hugepage before, each range is a few base pages.
  @Test func ofBasePagesIsReadBackToo() async {
    await #expect(processExitsWith: .success) {
      for hasChild in [false, true] {
        let program = try Program(.free)
        for span in program.used[16...] {
          let page = AddressRange(start: span.address, byteCount: 4096)
          #expect(realKernel.advise(.cold, [page]).error == nil)
        }
        _ = try program.heap.residencyPass()
        let child = hasChild ? ForkedChild() : nil
        #expect(
          program.heap.release(pages: 8 * 256, order: ReleaseOrder(preferBroken: true, length: .longest)) > 0
            || hasChild)
        let statistics = program.heap.statistics()
        #expect(statistics.effectsChecked > 0 && statistics.effectsMissing == (hasChild ? 1 : 0))
        #expect(hasChild ? statistics.lazyPages == 0 : statistics.lazyPages == 8 * 256)
        program.heap.checkInvariants()
        if let child { #expect(child.end() == 0) }
      }
    }
  }
}
