// Heaps of a process that forks: the handlers that the library registers, threads that were in the middle of something, and
// the scavenger that does not come along. Each in a process of its own.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import Synchronization
import TestKernels
import Testing

private typealias Heap = UnsafeMutablePointer<LinuxHeap>

private func eager(_ strategy: StrategyKind) -> HeapOptions {
  var options = HeapOptions()
  options.policy = .immediate
  options.strategy = StrategyChoice(strategy)
  options.firstArenaBytes = 64 << 21
  return options
}

/// Writes a word to each page.
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

/// What a child does with a heap of its own: every kind of operation, and the invariants; false if something is wrong.
private func exercise<K: Kernel>(_ heap: borrowing PageHeapCore<K>, steps: Int) -> Bool {
  heap.checkInvariants()
  var spans: [PageSpan] = []
  for step in 0..<steps {
    guard let span = try? heap.allocate(SpanRequest(pageCount: [1, 7, 100, 512, 700][step % 5])).span else {
      return false
    }
    fill(span)
    spans.append(span)
    if step % 3 == 2 { heap.free(spans.remove(at: step % spans.count)) }
    if step % 16 == 15 { _ = heap.tick(at: UInt64(step) * 1_000_000_000, processCPU: 0) }
  }
  if !spans.allSatisfy(isIntact) { return false }
  for span in spans { heap.free(span) }
  _ = heap.releaseNow(byteCount: 1 << 22)
  guard (try? heap.residencyPass()) != nil else { return false }
  heap.checkInvariants()
  return true
}

private func threadCount() -> Int {
  (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count) ?? -1
}

@Suite struct AForkDuringARelease {
  static let strategies: [StrategyKind] = [.dontneed, .free, .splitDontneed]

  /// Nor does the thread that moves hugepages; what it moved, or was about to, is free in the child.
  @Test(.enabled(if: realKernel.capabilities.contains(.move), "this kernel moves no hugepages"))
  func leavesTheChildWhatWasMoving() async {
    await #expect(processExitsWith: .success) {
      let kernel = FaultInjectingKernel(realKernel)
      let heap = UnsafeMutablePointer<PageHeapCore<FaultInjectingKernel<LinuxKernel>>>.allocate(capacity: 1)
      heap.initialize(to: try PageHeapCore(kernel: kernel, options: eager(.splitDontneed)))
      nonisolated(unsafe) let place = heap
      let spans = try (0..<5).map { _ in try place.pointee.allocate(SpanRequest(pageCount: 512)).span }
      for span in spans { fill(span) }
      place.pointee.free(spans[1])
      place.pointee.free(spans[3])
      let gate = Gate()
      kernel.faults.block(.move, at: gate)
      let done = DispatchSemaphore(value: 0)
      Thread {
        if let span = try? place.pointee.allocate(SpanRequest(pageCount: 1024)).span { fill(span) }
        done.signal()
      }.start()
      #expect(gate.waitForArrival())

      place.pointee.prepareForFork()
      let child = ForkedChild {
        place.pointee.resumeInChild()
        place.pointee.checkInvariants()
        guard place.pointee.statistics().usedPages == 3 * 512,
          let again = try? place.pointee.allocate(SpanRequest(pageCount: 1024)).span
        else { return false }
        fill(again)
        let isThere = isIntact(again) && spans.indices.allSatisfy { $0 % 2 == 1 || isIntact(spans[$0]) }
        place.pointee.free(again)
        return isThere && exercise(place.pointee, steps: 100) && isIntact(spans[0])
      } last: {
        place.deinitialize(count: 1)
        return kernel.faults.isBalanced
      }
      place.pointee.resumeInParent()
      gate.open()
      done.wait()
      place.pointee.checkInvariants()
      #expect(place.pointee.statistics().usedPages == 5 * 512)
      #expect(child.end() == 0)
      for index in [0, 2, 4] { #expect(isIntact(spans[index])) }
    }
  }

  /// The thread that stands in madvise does not come along; what it had in flight is free in the child.
  @Test(arguments: strategies, [true, false])
  func leavesTheChildAWholeHeap(strategy: StrategyKind, isWhole: Bool) async {
    let number = Int(strategy.rawValue)
    await #expect(processExitsWith: .success) { [number = number as Int, isWhole = isWhole as Bool] in
      let strategy = StrategyKind(rawValue: UInt8(number))!
      let kernel = FaultInjectingKernel(realKernel)
      let heap = UnsafeMutablePointer<PageHeapCore<FaultInjectingKernel<LinuxKernel>>>.allocate(capacity: 1)
      heap.initialize(to: try PageHeapCore(kernel: kernel, options: eager(strategy)))
      nonisolated(unsafe) let place = heap
      let kept = try place.pointee.allocate(SpanRequest(pageCount: 200)).span
      let freed = try place.pointee.allocate(SpanRequest(pageCount: isWhole ? 1024 : 200)).span
      for span in [kept, freed] { fill(span) }
      place.pointee.free(freed)
      let gate = Gate()
      kernel.faults.block(.advise(strategy == .free ? .free : .dontneed), at: gate)
      let done = DispatchSemaphore(value: 0)
      Thread {
        _ = place.pointee.tick(at: 1, processCPU: 0)
        done.signal()
      }.start()
      #expect(gate.waitForArrival())

      place.pointee.prepareForFork()
      let child = ForkedChild {
        place.pointee.resumeInChild()
        place.pointee.checkInvariants()
        let statistics = place.pointee.statistics()
        let isAllFree = statistics.usedPages == 200 && statistics.releasedPages + statistics.lazyPages == 0
        // What was in flight can be had again, without the heap having to grow.
        let blocks = statistics.blocks
        guard isAllFree, let again = try? place.pointee.allocate(SpanRequest(pageCount: freed.pageCount)).span else {
          return false
        }
        fill(again)
        let isThere = isIntact(again) && isIntact(kept) && place.pointee.statistics().blocks == blocks
        place.pointee.free(again)
        return isThere && exercise(place.pointee, steps: 100) && isIntact(kept)
      } last: {
        // Waits for operations that are pending: nobody's are.
        place.deinitialize(count: 1)
        return kernel.faults.isBalanced
      }
      place.pointee.resumeInParent()
      gate.open()
      done.wait()
      place.pointee.checkInvariants()
      // The parent was in the middle of MADV_FREE when everything became shared: it had no effect and is not believed.
      #expect(place.pointee.statistics().lazyPages == 0)
      #expect(isIntact(kept))
      #expect(exercise(place.pointee, steps: 100) && isIntact(kept))
      #expect(child.end() == 0)
    }
  }
}

@Suite struct AForkedProcess {
  @Test func forksWhileFourThreadsAllocateAndTheScavengerRuns() async {
    await #expect(processExitsWith: .success) {
      nonisolated(unsafe) let heap = try LinuxHeap.create(eager(.splitDontneed))
      nonisolated(unsafe) let other = try LinuxHeap.create(eager(.free))
      // What a child does is done once before: what the Swift runtime looks up at a first use it looks up under a lock, and a child that
      // is forked while another thread has that lock waits for it for ever.
      #expect(exercise(heap.pointee.core, steps: 30) && exercise(other.pointee.core, steps: 10))
      #expect(LinuxHeap.startScavenger(heap) && LinuxHeap.startScavenger(other))
      let isOver = Atomic<Bool>(false)
      let damaged = Atomic<Int>(0)
      let threads = (0..<4).map { number in
        let done = DispatchSemaphore(value: 0)
        Thread {
          var random = SeededGenerator(seed: UInt64(number + 1))
          var spans: [PageSpan] = []
          let mine = number % 2 == 0 ? heap : other
          while !isOver.load(ordering: .relaxed) {
            if spans.count < 40,
              let span = try? mine.pointee.core.allocate(
                SpanRequest(pageCount: Int.random(in: 1...300, using: &random))
              ).span
            {
              fill(span)
              spans.append(span)
            } else if !spans.isEmpty {
              let span = spans.remove(at: Int.random(in: 0..<spans.count, using: &random))
              if !isIntact(span) { damaged.add(1, ordering: .relaxed) }
              mine.pointee.free(span)
            }
          }
          for span in spans {
            if !isIntact(span) { damaged.add(1, ordering: .relaxed) }
            mine.pointee.free(span)
          }
          done.signal()
        }.start()
        return done
      }
      for round in 0..<40 {
        let child = forkProcess()
        if child == 0 {
          endByAlarm(after: 20)
          _exit(exercise(heap.pointee.core, steps: 30) && exercise(other.pointee.core, steps: 10) ? 0 : 1)
        }
        try #require(child > 0)
        // Heaps come and go meanwhile.
        let passing = try LinuxHeap.create(eager(.dontneed))
        _ = try passing.pointee.core.allocate(SpanRequest(pageCount: round + 1))
        LinuxHeap.destroy(passing)
        var status: Int32 = -1
        try #require(waitpid(child, &status, 0) == child)
        try #require(status == 0, "child \(round) ended with status \(status)")
      }
      isOver.store(true, ordering: .relaxed)
      for thread in threads { thread.wait() }
      #expect(damaged.load(ordering: .relaxed) == 0)
      heap.pointee.core.checkInvariants()
      other.pointee.core.checkInvariants()
      LinuxHeap.destroy(heap)
      LinuxHeap.destroy(other)
    }
  }

  @Test func forksAgainInTheChild() async {
    await #expect(processExitsWith: .success) {
      let heap = try LinuxHeap.create(eager(.dontneed))
      #expect(LinuxHeap.startScavenger(heap))
      let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 1000)).span
      fill(span)
      let child = ForkedChild {
        let grandchild = ForkedChild { exercise(heap.pointee.core, steps: 50) && isIntact(span) }
        return exercise(heap.pointee.core, steps: 50) && isIntact(span) && grandchild.end() == 0
      }
      #expect(exercise(heap.pointee.core, steps: 50) && isIntact(span))
      #expect(child.end() == 0)
      LinuxHeap.destroy(heap)
    }
  }
}

@Suite struct TheScavengerOfAChild {
  /// A heap whose scavenger runs, and 8 MiB in it.
  private static func heapWithScavenger() throws -> (Heap, PageSpan) {
    let heap = try LinuxHeap.create(eager(.dontneed))
    #expect(LinuxHeap.startScavenger(heap))
    let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 2048)).span
    fill(span)
    return (heap, span)
  }

  @Test func isTheChildsOwnFreesUntilItStartsOne() async {
    await #expect(processExitsWith: .success) {
      let (heap, span) = try Self.heapWithScavenger()
      let child = ForkedChild {
        func free(_ pages: Range<Int>) {
          for page in pages { heap.pointee.free(PageSpan(address: span.address + UInt(page << 12), pageCount: 1)) }
        }
        let start = hs_shim_monotonic_nanoseconds()
        let ticks = heap.pointee.core.totals().ticks
        // No thread, and at first no tick: it might be about to execute another program. On a busy machine the frees
        // themselves may take longer than that.
        free(0..<500)
        let isEarly = heap.pointee.core.totals().ticks == ticks || hs_shim_monotonic_nanoseconds() - start > 50_000_000
        guard threadCount() == 1, isEarly else { return false }
        let early = heap.pointee.core.totals().ticks
        usleep(150_000)
        guard threadCount() == 1, heap.pointee.core.totals().ticks == early else { return false }
        // Then the frees tick; what the parent shares goes in whole blocks.
        for page in 500..<2048 {
          free(page..<page + 1)
          if heap.pointee.core.totals().ticks > early, heap.pointee.core.totals().pagesReleased >= 512 { return true }
          usleep(500)
        }
        return false
      }
      #expect(child.end() == 0)
      LinuxHeap.destroy(heap)
    }
  }

  @Test func runsOnceItIsStartedThere() async {
    await #expect(processExitsWith: .success) {
      let (heap, span) = try Self.heapWithScavenger()
      let child = ForkedChild {
        guard threadCount() == 1, LinuxHeap.startScavenger(heap), LinuxHeap.startScavenger(heap), threadCount() == 2
        else { return false }
        heap.pointee.free(span)
        // Released without another operation.
        for _ in 0..<200 {
          if heap.pointee.core.totals().freeResidentPages == 0 { break }
          usleep(10_000)
        }
        guard heap.pointee.core.totals().freeResidentPages == 0 else { return false }
        heap.pointee.stopScavenger()
        return threadCount() == 1
      } last: {
        LinuxHeap.destroy(heap)
        return true
      }
      #expect(child.end() == 0)
      // The parent's runs on.
      heap.pointee.free(span)
      for _ in 0..<200 {
        if heap.pointee.core.totals().freeResidentPages == 0 { break }
        usleep(10_000)
      }
      #expect(heap.pointee.core.totals().freeResidentPages == 0)
      LinuxHeap.destroy(heap)
    }
  }

  @Test func staysAwayWhenItIsStoppedOrNeverRan() async {
    await #expect(processExitsWith: .success) {
      let (heap, span) = try Self.heapWithScavenger()
      let idle = try LinuxHeap.create(eager(.dontneed))
      let other = try idle.pointee.core.allocate(SpanRequest(pageCount: 2048)).span
      let child = ForkedChild {
        heap.pointee.stopScavenger()
        let before = heap.pointee.core.totals().ticks
        usleep(150_000)
        for page in 0..<1000 {
          heap.pointee.free(PageSpan(address: span.address + UInt(page << 12), pageCount: 1))
          idle.pointee.free(PageSpan(address: other.address + UInt(page << 12), pageCount: 1))
        }
        return heap.pointee.core.totals().ticks == before && idle.pointee.core.totals().ticks == 0
          && threadCount() == 1
      } last: {
        LinuxHeap.destroy(idle)
        LinuxHeap.destroy(heap)
        return true
      }
      #expect(child.end() == 0)
      LinuxHeap.destroy(heap)
      LinuxHeap.destroy(idle)
    }
  }
}
