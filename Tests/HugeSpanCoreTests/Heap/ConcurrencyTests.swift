// Many threads on one heap, and a kernel that takes its time. The thread sanitizer runs the suites whose names begin with
// "Concurrency".

import Foundation
import HugeSpanCore
import Synchronization
import TestKernels
import Testing

/// A heap at a fixed place, so that it can be destroyed while a thread is inside it, as a C program can.
private final class HeapPlace<K: Kernel>: @unchecked Sendable {
  let pointer: UnsafeMutablePointer<PageHeapCore<K>>

  init(_ kernel: K, _ options: HeapOptions) throws {
    pointer = .allocate(capacity: 1)
    pointer.initialize(to: try PageHeapCore(kernel: kernel, options: options))
  }

  func destroy() { pointer.deinitialize(count: 1) }

  deinit { pointer.deallocate() }
}

private func inThread(_ body: @escaping @Sendable () -> Void) -> DispatchSemaphore {
  let done = DispatchSemaphore(value: 0)
  Thread {
    body()
    done.signal()
  }.start()
  return done
}

private func eagerOptions(_ strategy: StrategyKind) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 16 << 21
  options.policy = .immediate
  options.strategy = StrategyChoice(strategy)
  return options
}

@Suite struct ConcurrencyWithAKernelThatBlocks {
  /// One block: 200 pages used, 200 free and on their way to the kernel, 112 free behind them.
  @Test(arguments: [
    (StrategyKind.dontneed, Advice.dontneed), (.splitDontneed, .cold), (.splitDontneed, .dontneed), (.free, .free),
    (.freeThenDontneed, .free), (.cold, .cold), (.pageout, .pageout),
  ])
  func leavesTheRestOfTheBlockInUse(strategy: StrategyKind, advice: Advice) throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let place = try HeapPlace(kernel, eagerOptions(strategy))
    let first = try place.pointer.pointee.allocate(SpanRequest(pageCount: 200)).span
    let second = try place.pointer.pointee.allocate(SpanRequest(pageCount: 200)).span
    kernel.base.touch(first.range)
    kernel.base.touch(second.range)
    place.pointer.pointee.free(second)
    let gate = Gate()
    kernel.faults.startRecording()
    kernel.faults.block(.advise(advice), at: gate)
    let ticking = inThread { _ = place.pointer.pointee.tick(at: 1, processCPU: 0) }
    #expect(gate.waitForArrival())

    // What is in flight cannot be had and is nobody's span; a tick finds another at work.
    #expect(place.pointer.pointee.span(containing: second.address) == nil)
    #expect(place.pointer.pointee.grow(first, by: 1) == nil)
    #expect(place.pointer.pointee.tick(at: 2, processCPU: 0).isUnfinished)
    // The rest of the block is in use as ever: shrink, free, allocate, grow.
    let shorter = place.pointer.pointee.shrink(first, toPages: 100)
    place.pointer.pointee.free(PageSpan(address: shorter.address + 50 * 4096, pageCount: 50))
    let inside = try place.pointer.pointee.allocate(SpanRequest(pageCount: 150)).span
    #expect(inside.address == first.address + 50 * 4096)
    let others = try (0..<50).map { _ in try place.pointer.pointee.allocate(SpanRequest(pageCount: 90)).span }
    let inFlight = kernel.faults.records.last { $0.call == .advise(advice) }!.ranges
    for span in others + [inside] { for range in inFlight { #expect(!span.range.overlaps(range)) } }
    place.pointer.pointee.checkInvariants()
    _ = place.pointer.pointee.statistics()

    gate.open()
    ticking.wait()
    place.pointer.pointee.checkInvariants()
    #expect(place.pointer.pointee.statistics().pagesReleased > 0)
    place.destroy()
    #expect(kernel.faults.isBalanced && kernel.base.violations == [])
  }

  /// A block in which only little is used was broken, and is made huge again while others work in it.
  @Test func leavesABlockInUseWhileItIsRebuilt() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    var options = eagerOptions(.splitDontneed)
    var choice = RentOrBuyOptions()
    choice.memoryPrice = 30_000
    choice.costs.taxShare = 20
    choice.costs.collapse = 10
    options.policy = .rentOrBuy(choice)
    let place = try HeapPlace(kernel, options)
    let spans = try (0..<8).map { _ in try place.pointer.pointee.allocate(SpanRequest(pageCount: 64)).span }
    for span in spans { kernel.base.touch(span.range) }
    place.pointer.pointee.free(spans[7])
    // An idle program lets the block be broken; a busy one pays for that until it is worth a hugepage again.
    var time: UInt64 = 0
    while place.pointer.pointee.statistics().pagesReleased == 0 && time < 1_000_000_000_000 {
      time += 50_000_000
      _ = place.pointer.pointee.tick(at: time, processCPU: 0)
    }
    try #require(place.pointer.pointee.statistics().pagesReleased == 64)
    let gate = Gate()
    kernel.faults.startRecording()
    kernel.faults.block(.advise(.collapse), at: gate)
    let isOver = Locked(false)
    let ticking = inThread { [time] in
      for step in 1...20_000 where !isOver.withLock({ $0 }) {
        let elapsed = UInt64(step) * 50_000_000
        _ = place.pointer.pointee.tick(at: time + elapsed, processCPU: elapsed)
      }
    }
    defer { isOver.withLock { $0 = true } }
    #expect(gate.waitForArrival())
    let rebuilt = try #require(kernel.faults.records.last { $0.call == .advise(.collapse) }).ranges
    #expect(rebuilt.contains { $0.overlaps(spans[0].range) })
    place.pointer.pointee.free(spans[1])
    let shorter = place.pointer.pointee.shrink(spans[2], toPages: 10)
    #expect(place.pointer.pointee.grow(shorter, by: 1) != nil)
    _ = try place.pointer.pointee.allocate(SpanRequest(pageCount: 30))
    place.pointer.pointee.checkInvariants()
    isOver.withLock { $0 = true }
    gate.open()
    ticking.wait()
    place.pointer.pointee.checkInvariants()
    place.destroy()
    #expect(kernel.faults.isBalanced && kernel.base.violations == [])
  }

  @Test func leavesTheHeapInUseWhileItLooksAtItsResidency() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let place = try HeapPlace(kernel, eagerOptions(.dontneed))
    let span = try place.pointer.pointee.allocate(SpanRequest(pageCount: 300)).span
    kernel.base.touch(span.range)
    let gate = Gate()
    kernel.faults.block(.residency, at: gate)
    let looking = inThread { _ = try? place.pointer.pointee.residencyPass() }
    #expect(gate.waitForArrival())
    place.pointer.pointee.free(PageSpan(address: span.address, pageCount: 100))
    let other = try place.pointer.pointee.allocate(SpanRequest(pageCount: 400)).span
    place.pointer.pointee.free(other)
    place.pointer.pointee.checkInvariants()
    gate.open()
    looking.wait()
    place.pointer.pointee.checkInvariants()
    place.destroy()
    #expect(kernel.faults.isBalanced && kernel.base.violations == [])
  }

  @Test func holdsUpTheHeapsDestruction() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let place = try HeapPlace(kernel, eagerOptions(.dontneed))
    let span = try place.pointer.pointee.allocate(SpanRequest(pageCount: 512)).span
    kernel.base.touch(span.range)
    place.pointer.pointee.free(span)
    let gate = Gate()
    kernel.faults.block(.advise(.dontneed), at: gate)
    let ticking = inThread { _ = place.pointer.pointee.tick(at: 1, processCPU: 0) }
    #expect(gate.waitForArrival())
    let destroying = inThread { place.destroy() }
    // Nothing tells that a thread has begun to wait, so it is given a moment to do the wrong thing.
    #expect(destroying.wait(timeout: .now() + 0.2) == .timedOut)
    #expect(kernel.faults.count(of: .unreserve) == 0 && kernel.faults.count(of: .unmapMetadata) == 0)
    gate.open()
    ticking.wait()
    destroying.wait()
    #expect(kernel.faults.isBalanced && kernel.base.violations == [])
  }

  /// A span of two blocks waits for the hugepages that move under it; meanwhile nobody can have them, and nobody else waits but
  /// whoever destroys the heap.
  @Test func leavesTheHeapInUseWhileItMovesHugepages() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let place = try HeapPlace(kernel, eagerOptions(.dontneed))
    let spans = try (0..<5).map { _ in try place.pointer.pointee.allocate(SpanRequest(pageCount: 512)).span }
    for span in spans { kernel.base.touch(span.range) }
    place.pointer.pointee.free(spans[1])
    place.pointer.pointee.free(spans[3])
    let gate = Gate()
    kernel.faults.startRecording()
    kernel.faults.block(.move, at: gate)
    let found = Locked(PageSpan(address: 0, pageCount: 1))
    let allocating = inThread {
      guard let span = try? place.pointer.pointee.allocate(SpanRequest(pageCount: 1024)).span else { return }
      found.withLock { $0 = span }
    }
    #expect(gate.waitForArrival())
    let inFlight = kernel.faults.records.last { $0.call == .move }!.ranges
    place.pointer.pointee.checkInvariants()
    let others = try (0..<3).map { _ in try place.pointer.pointee.allocate(SpanRequest(pageCount: 512)).span }
    for span in others { for range in inFlight { #expect(!span.range.overlaps(range)) } }
    _ = place.pointer.pointee.tick(at: 1, processCPU: 0)
    _ = try? place.pointer.pointee.residencyPass()
    #expect(place.pointer.pointee.statistics().blocks >= 10)
    place.pointer.pointee.checkInvariants()
    gate.open()
    allocating.wait()
    place.pointer.pointee.checkInvariants()
    kernel.base.touch(found.withLock { $0 }.range)
    #expect(place.pointer.pointee.statistics().blocksMoved == 2)
    place.destroy()
    #expect(kernel.faults.isBalanced && kernel.base.violations == [])
  }

  @Test func makesReleaseNowWaitForItsTurn() throws {
    let kernel = FaultInjectingKernel(ModelKernel())
    let place = try HeapPlace(kernel, eagerOptions(.dontneed))
    let spans = try (0..<4).map { _ in try place.pointer.pointee.allocate(SpanRequest(pageCount: 512)).span }
    for span in spans { kernel.base.touch(span.range) }
    place.pointer.pointee.free(spans[0])
    let gate = Gate()
    kernel.faults.block(.advise(.dontneed), at: gate)
    let ticking = inThread { _ = place.pointer.pointee.tick(at: 1, processCPU: 0) }
    #expect(gate.waitForArrival())
    place.pointer.pointee.free(spans[2])
    let answer = Locked(0)
    let releasing = inThread {
      let bytes = place.pointer.pointee.releaseNow(byteCount: 1 << 21)
      answer.withLock { $0 = bytes }
    }
    gate.open()
    ticking.wait()
    releasing.wait()
    // The tick may have taken both; then nothing was left.
    #expect([0, 1 << 21].contains(answer.withLock { $0 }))
    #expect(kernel.base.presentBytes == 2 << 21)
    place.pointer.pointee.checkInvariants()
    place.destroy()
    #expect(kernel.faults.isBalanced)
  }
}

@Suite struct ConcurrencyOfFourThreads {
  static let steps = 4_000

  @Test(arguments: [StrategyKind.dontneed, .freeThenDontneed, .splitDontneed, .cold, .decommit])
  func shareAHeapOnTheModel(strategy: StrategyKind) throws {
    let kernel = ModelKernel()
    try share(kernel, strategy, steps: Self.steps / 4) { span, isUsed in
      if isUsed { kernel.touch(span.range) }
      kernel.setUsed(span.range, isUsed)
    } isIntact: { _ in
      true
    }
    #expect(kernel.isEmpty && kernel.violations == [])
  }

  /// As much of a fork as a thread sanitizer bears: all but the child.
  @Test(arguments: [StrategyKind.dontneed, .freeThenDontneed, .splitDontneed, .cold, .decommit])
  func shareAHeapThatIsForkedMeanwhile(strategy: StrategyKind) throws {
    let kernel = ModelKernel()
    try share(kernel, strategy, steps: Self.steps / 4) { span, isUsed in
      if isUsed { kernel.touch(span.range) }
      kernel.setUsed(span.range, isUsed)
    } isIntact: { _ in
      true
    } meanwhile: { heap in
      heap.pointee.prepareForFork()
      kernel.fork()
      heap.pointee.resumeInParent()
      usleep(2_000)
      kernel.endChildren()
      usleep(2_000)
    }
    #expect(kernel.isEmpty && kernel.violations == [])
  }

  /// On the real kernel each thread writes its spans and finds them as it left them.
  @Test(arguments: [StrategyKind.dontneed, .freeThenDontneed, .splitDontneed, .cold, .decommit])
  func shareAHeapOnTheRealKernel(strategy: StrategyKind) throws {
    try share(realKernel, strategy, steps: Self.steps) { span, isUsed in
      guard isUsed else { return }
      for address in stride(from: span.address, to: span.end, by: 4096) {
        UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
      }
    } isIntact: { span in
      stride(from: span.address, to: span.end, by: 4096).allSatisfy {
        UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
      }
    }
  }

  /// Memory so dear that blocks are broken at once, and a program so busy that they are rebuilt at once.
  @Test func shareAHeapThatReleasesAndRebuildsByPrice() throws {
    var choice = RentOrBuyOptions()
    choice.memoryPrice = 30_000
    choice.costs.taxShare = 20
    choice.costs.collapse = 10
    try share(realKernel, .splitDontneed, policy: .rentOrBuy(choice), steps: Self.steps) { span, isUsed in
      guard isUsed else { return }
      for address in stride(from: span.address, to: span.end, by: 4096) {
        UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
      }
    } isIntact: { span in
      stride(from: span.address, to: span.end, by: 4096).allSatisfy {
        UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
      }
    } done: { statistics in
      #expect(statistics.pagesReleased > 0)
      if realKernel.capabilities.contains(.collapse) { #expect(statistics.collapses > 0) }
    }
  }

  private func share<K: Kernel>(
    _ kernel: K, _ strategy: StrategyKind, policy: PolicyChoice = .immediate, steps: Int,
    use: @escaping @Sendable (PageSpan, Bool) -> Void, isIntact: @escaping @Sendable (PageSpan) -> Bool,
    meanwhile: (UnsafeMutablePointer<PageHeapCore<K>>) -> Void = { _ in }, done: (HeapStatistics) -> Void = { _ in }
  ) throws {
    var options = eagerOptions(strategy)
    options.policy = policy
    options.firstArenaBytes = 2 << 21
    options.userData = true
    options.strategy.secondStageNanoseconds = 1_000_000
    let place = try HeapPlace(kernel, options)
    let clock = Atomic<UInt64>(0)
    let damaged = Atomic<Int>(0)
    let threads = (0..<4).map { number in
      inThread {
        let failures = Self.work(
          place, number: number, steps: steps, now: { clock.add(10_000_000, ordering: .relaxed).newValue }, use,
          isIntact)
        damaged.add(failures, ordering: .relaxed)
      }
    }
    for thread in threads {
      while thread.wait(timeout: .now() + 0.001) == .timedOut { meanwhile(place.pointer) }
    }
    #expect(damaged.load(ordering: .relaxed) == 0)
    place.pointer.pointee.checkInvariants()
    #expect(place.pointer.pointee.statistics().usedPages == 0)
    done(place.pointer.pointee.statistics())
    place.destroy()
  }

  /// What one thread does; the number of times that a span was not as it should be.
  private static func work<K: Kernel>(
    _ place: HeapPlace<K>, number: Int, steps: Int, now: () -> UInt64, _ use: (PageSpan, Bool) -> Void,
    _ isIntact: (PageSpan) -> Bool
  ) -> Int {
    var random = SeededGenerator(seed: UInt64(number + 1))
    var spans: [PageSpan] = []
    var failures = 0
    func free(_ span: PageSpan) {
      if !isIntact(span) { failures += 1 }
      use(span, false)
      place.pointer.pointee.free(span)
    }
    for _ in 0..<steps {
      let dice = Int.random(in: 0..<100, using: &random)
      let slot = spans.isEmpty ? nil : Int.random(in: 0..<spans.count, using: &random)
      switch dice {
      case 0..<45:
        if spans.count > 60 { continue }
        let large = Int.random(in: 0..<20, using: &random) == 0
        var request = SpanRequest(pageCount: Int.random(in: 1...(large ? 1200 : 40), using: &random))
        request.lifetime = dice % 2 == 0 ? .short : .unknown
        guard let span = try? place.pointer.pointee.allocate(request).span else { continue }
        use(span, true)
        place.pointer.pointee.setUserData(UInt(number), of: span.address)
        spans.append(span)
      case 45..<80:
        if let slot { free(spans.remove(at: slot)) }
      case 80..<85:
        guard let slot, let grown = place.pointer.pointee.grow(spans[slot], by: 3) else { continue }
        let end = spans[slot].end
        use(PageSpan(address: end, pageCount: 3), true)
        spans[slot] = grown
      case 85..<89:
        guard let slot, spans[slot].pageCount > 1 else { continue }
        let half = spans[slot].pageCount / 2
        use(PageSpan(address: spans[slot].address + UInt(half * 4096), pageCount: spans[slot].pageCount - half), false)
        spans[slot] = place.pointer.pointee.shrink(spans[slot], toPages: half)
      case 89..<93:
        guard let slot else { continue }
        let isFound = place.pointer.pointee.span(containing: spans[slot].end - 1) == spans[slot]
        if !isFound || place.pointer.pointee.userData(of: spans[slot].address) != UInt(number) { failures += 1 }
      case 93..<97:
        let time = now()
        _ = place.pointer.pointee.tick(at: time, processCPU: time / 100_000_000 % 2 == 0 ? 0 : time)
      case 97: _ = place.pointer.pointee.releaseNow(byteCount: 100 * 4096)
      case 98: _ = try? place.pointer.pointee.residencyPass()
      default:
        if dice % 2 == 0 { _ = place.pointer.pointee.statistics() } else { place.pointer.pointee.checkInvariants() }
      }
    }
    for span in spans { free(span) }
    return failures
  }
}

@Suite struct ConcurrencyOfDiscards {
  /// Two threads discard and undo neighbours in the same blocks, a third ticks and allocates between them, and the kernel takes what it
  /// may: nobody's marks end in another's page, and the maps agree afterwards.
  @Test func ofNeighboursStayApart() throws {
    let kernel = ModelKernel()
    let place = try HeapPlace(kernel, eagerOptions(.splitDontneed))
    let spans = try (0..<32).map { _ in try place.pointer.pointee.allocate(SpanRequest(pageCount: 40)).span }
    let wrong = Locked(0)
    let stillToGo = Atomic<Int>(2)
    let threads = (0..<2).map { half in
      inThread {
        var generator = SeededGenerator(seed: UInt64(half))
        for round in 1...150 {
          // Every second span is the other thread's.
          let span = spans[Int.random(in: 0..<16, using: &generator) * 2 + half]
          let pages = (0..<40).map { span.address + UInt($0 * 4096) }
          for (page, address) in pages.enumerated() { kernel.setWord(page % 3 == 0 ? 0 : UInt64(round), at: address) }
          var lost: UInt64 = 0
          guard (try? place.pointer.pointee.discard(span)) != nil,
            (try? place.pointer.pointee.undoDiscard(span, lostPages: &lost)) != nil
          else {
            wrong.withLock { $0 += 1 }
            continue
          }
          for (page, address) in pages.enumerated() {
            let expected = lost >> UInt64(page) & 1 != 0 || page % 3 == 0 ? 0 : UInt64(round)
            if kernel.word(at: address) != expected { wrong.withLock { $0 += 1 } }
          }
        }
        stillToGo.subtract(1, ordering: .relaxed)
      }
    }
    let disturbing = inThread {
      var time: UInt64 = 0
      while stillToGo.load(ordering: .relaxed) > 0 {
        time += 1_000_000_000
        _ = place.pointer.pointee.tick(at: time, processCPU: time)
        if let span = try? place.pointer.pointee.allocate(SpanRequest(pageCount: 30)).span {
          place.pointer.pointee.free(span)
        }
        kernel.reclaimLazy()
      }
    }
    for thread in threads + [disturbing] { thread.wait() }
    #expect(wrong.withLock { $0 } == 0)
    place.pointer.pointee.checkInvariants()
    #expect(place.pointer.pointee.statistics().discardedPages == 0)
    place.destroy()
    #expect(kernel.violations == [])
  }
}
