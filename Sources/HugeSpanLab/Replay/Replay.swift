// The replay loop: events of a trace into a heap on a kernel, the real one or a simulated one, by the clock of the trace.
//
// Between events the loop does what is due by trace time, in this order: sleep (when a speed was asked for), residency pass, tick,
// sample. A tick is due when the heap said so, but at least every second and at most every 100 ms, in gaps without
// events too; its clock is the trace's, and the CPU time that it is told is the recorded program's. So what the heap
// decides depends on the trace alone (and on residency answers, see ReplayKernel.swift).
//
// CPU time is counted over the stretches between measurements; what measuring costs is in none of the figures.

import CHugeSpanShims
import Glibc
import HugeSpanCore

/// One run. Make it, call `run` once.
package struct Replay<K: ReplayableKernel>: ~Copyable {
  private let options: ReplayOptions
  private let log: ResidencyLog
  private var frontEnd: FrontEnd<K>
  private let simulated: SimulatedKernel?
  /// Nanoseconds of trace time that are replayed.
  private let duration: UInt64
  private var samples: SampleCursor
  private var observer: Observer
  /// The bounds by the pages of this front end's spans, and by the bytes of the program's objects.
  private let spanBound: LevelBound
  private let objectBound: LevelBound
  private var clock = StretchClock()
  /// What `deferred` is told of pressure; the group's limits are those that others have set.
  private var watcher = PressureWatcher()

  private var nextTick: UInt64 = 100_000_000
  private var nextSample: UInt64 = 0
  private var nextResidency = UInt64.max
  private var nextPause = UInt64.max
  /// When the next slice of the trace is over, and what it had come to at the end of each.
  private var nextMark = UInt64.max
  private var marks: [SliceMark] = []
  private let slice: UInt64
  private var samplePeriod: UInt64 = 1
  private var tickCPU: UInt64 = 0
  private var startedAt: UInt64 = 0
  private var busy: Double = 0
  private var busySince: (time: UInt64, cpu: UInt64) = (0, 0)
  /// A sample is taken when the used pages exceed this: the next peak.
  private var samplePages = 0

  /// Makes the heap and every table, all of them in memory, and reads the charge that they begin with.
  ///
  /// - Parameters:
  ///   - program: The decoded trace; not kept.
  ///   - group: The memory group that the calling process is in alone, if there is one.
  fileprivate init(
    _ program: borrowing TraceProgram, options: ReplayOptions, group: MemoryCgroup?, kernel: K, log: ResidencyLog
  ) throws(ReplayFailure) {
    let heap = try Self.makeHeap(options, kernel)
    self.options = options
    self.log = log
    duration = min(program.summary.nanoseconds, options.until ?? .max)
    simulated = kernel as? SimulatedKernel
    slice = max(program.summary.nanoseconds / UInt64(max(options.slices, 1)), 1)
    frontEnd = FrontEnd(
      heap: heap, program: program, touch: options.touch, logsPlacement: options.reference && options.touch != .none,
      isTimed: options.isTimed)
    samples = SampleCursor(program)
    let prices = PagePrices(options.costs, memoryPrice: options.memoryPrice, lazyWeight: options.weights.lazy)
    spanBound = LevelBound(prices, changes: program.steps.count)
    objectBound = LevelBound(prices, changes: program.steps.count)
    observer = Observer(
      group: group, isLazy: options.strategy.isLazy, isUntouched: options.touch == .none,
      keepsSeries: options.series, duration: duration, simulated: simulated)
  }

  private static func makeHeap(
    _ options: ReplayOptions, _ kernel: K
  ) throws(ReplayFailure) -> PageHeapCore<K> {
    var heapOptions = options.heap
    heapOptions.policy = options.policy
    heapOptions.strategy = options.strategy
    do throws(HeapError) {
      return try PageHeapCore(kernel: kernel, options: heapOptions)
    } catch { throw .heap(error, nanoseconds: 0) }
  }

  /// Replays all events and reports.
  package mutating func run(_ program: borrowing TraceProgram) throws(ReplayFailure) -> RunResult {
    begin(program)
    let steps = program.steps.base
    let count = program.steps.count
    let isSpanLevel = program.header.level == .span
    var due = min(nextTick, nextSample, nextResidency, nextPause, nextMark)
    var index = 0
    while index < count {
      let step = steps[index]
      if step.time > duration { break }
      if step.time >= due {
        due = catchUp(to: step.time)
        if let simulated, simulated.isOutOfMemory {
          throw .outOfMemory(nanoseconds: step.time, chargedBytes: simulated.totals.charged * 4096)
        }
      }
      frontEnd.placement.time = step.time
      do throws(HeapError) {
        let slot = Int(truncatingIfNeeded: step.slot)
        if isSpanLevel {
          try frontEnd.perform(step)
        } else if step.kind == StepKind.allocate.rawValue {
          try frontEnd.allocate(
            slot: slot, bytes: step.bytes, alignmentShift: step.alignmentShift, isMapped: step.isMapped)
        } else if step.kind == StepKind.free.rawValue {
          frontEnd.free(slot: slot)
        } else {
          try frontEnd.resize(slot: slot, bytes: step.bytes)
        }
      } catch { throw .heap(error, nanoseconds: step.time) }
      spanBound.need(frontEnd.demand.touchedPages, at: step.time)
      objectBound.need(frontEnd.demand.packedPages, at: step.time)
      if frontEnd.meter.usedPages > samplePages { sampleAtPeak(step.time) }
      index += 1
    }
    frontEnd.flushFree()
    _ = catchUp(to: duration)
    if options.samples > 0 { sample(duration) }
    return try finish(program)
  }

  private mutating func begin(_ program: borrowing TraceProgram) {
    if options.touch != .none && K.hasMemory { MemoryWarming.warm(byteCount: program.summary.peakLiveBytes) }
    samplePeriod = options.samples > 0 ? max(duration / UInt64(options.samples), 1) : UInt64.max
    nextSample = options.samples > 0 ? 0 : UInt64.max
    samplePages = options.samples > 0 ? 0 : Int.max
    nextMark = slice
    if let period = options.residencyEvery { nextResidency = max(period, 1) }
    if options.speed != nil { nextPause = 0 }
    if options.strategy.kind == .deferred && K.hasMemory {
      watcher = PressureWatcher(ownLimit: options.heap.pressureLimitBytes ?? 0, hasEvents: false)
    }
    observer.begin()
    startedAt = hs_shim_monotonic_nanoseconds()
    clock.start()
  }

  // MARK: - What is due

  /// Does everything that is due up to `time`, in order of time; returns when the next thing is.
  @inline(never)
  private mutating func catchUp(to time: UInt64) -> UInt64 {
    while true {
      let now = min(nextTick, nextSample, nextResidency, nextPause, nextMark)
      if now > time { return now }
      simulated?.advance(to: now)
      if now == nextMark { endSlice(now) }
      if now == nextPause { pause(now) }
      if now == nextResidency { residencyPass(now) }
      if now == nextTick {
        tick(now)
        if options.samples > 0 { sample(now) }
      } else if now == nextSample {
        sample(now)
      }
      while nextSample <= now { nextSample += samplePeriod }
      frontEnd.touchedFraction = options.touch == .recorded ? samples.touchedFraction(at: now) : 1
    }
  }

  private mutating func endSlice(_ now: UInt64) {
    clock.stop()
    mark(now)
    // What the division leaves over belongs to the last slice, which ends with the run.
    nextMark = marks.count < options.slices - 1 ? now + slice : .max
    clock.start()
  }

  private mutating func mark(_ now: UInt64) {
    if options.touch == .none { return }
    let cost = cost(frontEnd.heap.statistics(), until: now)
    let seconds = Double(now) / 1e9
    var mark = SliceMark(seconds: seconds, work: cost.work, bound: spanBound.parts(until: now).total)
    mark.cost = cost.total
    mark.tax = cost.tax
    observer.add(to: &mark, until: now)
    marks.append(mark)
  }

  /// What the run has cost until `time`, which is now.
  private func cost(_ heap: HeapStatistics, until time: UInt64) -> RunCost {
    let held = observer.heldBytes(until: time)
    return RunCost(
      heap, costs: options.costs, memoryPrice: options.memoryPrice, seconds: Double(time) / 1e9,
      taxedCPUSeconds: observer.taxedCPUSeconds(until: time), chargedBytes: held.charged, lazyFreeBytes: held.lazy,
      weights: options.weights)
  }

  private mutating func tick(_ now: UInt64) {
    let cpu = processCPU(now)
    let faults = StretchClock.faultCount()
    let start = hs_shim_thread_cpu_nanoseconds()
    let report = frontEnd.heap.tick(at: now, processCPU: cpu)
    if options.strategy.kind == .deferred, let simulated {
      if let headroom = simulated.headroom {
        let reserve = PressureWatcher.reserve(limit: options.simulation?.limitBytes ?? headroom, rate: 0)
        _ = frontEnd.heap.relieve(headroom: headroom, reserve: reserve, isStalled: false)
      }
    } else if options.strategy.kind == .deferred {
      let pressure = watcher.look(now: hs_shim_monotonic_nanoseconds())
      _ = frontEnd.heap.relieve(
        headroom: pressure.headroom, reserve: pressure.reserve, isStalled: pressure.isStalled)
    }
    tickCPU += hs_shim_thread_cpu_nanoseconds() - start
    clock.leaveOutFaults(since: faults)
    let least: UInt64 = report.isUnfinished ? 10_000_000 : 50_000_000
    nextTick = now + min(max(report.nextTickNanoseconds, least), 1_000_000_000)
  }

  private mutating func processCPU(_ now: UInt64) -> UInt64 {
    let recorded = samples.processCPU(at: now)
    return options.busyScale == 1 ? recorded : UInt64(Double(recorded) * options.busyScale)
  }

  private mutating func residencyPass(_ now: UInt64) {
    let faults = StretchClock.faultCount()
    // A kernel that cannot answer leaves the heap's beliefs as they are.
    _ = try? frontEnd.heap.residencyPass()
    clock.leaveOutFaults(since: faults)
    nextResidency = now + max(options.residencyEvery ?? 1, 1)
  }

  /// Sleeps until real time is where the trace's time should be.
  private mutating func pause(_ now: UInt64) {
    guard let speed = options.speed else { return }
    clock.stop()
    let target = startedAt + UInt64(Double(now) / speed)
    let real = hs_shim_monotonic_nanoseconds()
    if target > real { hs_shim_sleep_nanoseconds(target - real) }
    nextPause = now + UInt64(max(10_000_000 * speed, 1))
    clock.start()
  }

  private mutating func sample(_ now: UInt64) {
    clock.stop()
    log.isObserving = true
    observer.observe(
      frontEnd.heap, usedBytes: frontEnd.meter.usedPages * SizeClasses.pageBytes, busyCPUs: busyCPUs(now), at: now)
    log.isObserving = false
    frontEnd.placement.addBusy(busy, at: now)
    clock.start()
  }

  /// CPUs that the recorded program kept busy, over half a second at least: its clock has a resolution of its own.
  private mutating func busyCPUs(_ now: UInt64) -> Double {
    if now >= busySince.time + 500_000_000 {
      let cpu = processCPU(now)
      busy = cpu > busySince.cpu ? Double(cpu - busySince.cpu) / Double(now - busySince.time) : 0
      busySince = (now, cpu)
    }
    return busy
  }

  @inline(never)
  private mutating func sampleAtPeak(_ now: UInt64) {
    sample(now)
    // Peaks of less than a fiftieth more are not worth a look at all of memory.
    samplePages = frontEnd.meter.usedPages + max(frontEnd.meter.usedPages / 50, 256)
  }

  // MARK: - The report

  private mutating func finish(_ program: borrowing TraceProgram) throws(ReplayFailure) -> RunResult {
    clock.stop()
    let end = hs_shim_monotonic_nanoseconds()
    watcher.close()
    do throws(ResidencyLogFailure) {
      try log.finish()
    } catch { throw .residencyLog(error) }
    let heap = frontEnd.heap.statistics()
    let meter = frontEnd.meter

    var result = RunResult()
    result.policy = options.policy.notation
    result.strategy = options.strategy.notation
    result.seconds = Double(duration) / 1e9
    result.speed = options.speed
    result.touch = options.touch.rawValue
    result.memoryPrice = options.memoryPrice
    result.taxWeight = options.weights.tax
    result.lazyWeight = options.weights.lazy
    result.residencyEverySeconds = options.residencyEvery.map { Double($0) / 1e9 }
    observer.report(until: duration, into: &result)
    if var used = result.usedBytes {
      used.peak = Double(meter.peakUsedPages * SizeClasses.pageBytes)
      result.usedBytes = used
    }
    if let charged = result.chargedBytes, let used = result.usedBytes, used.mean > 0 {
      result.overhead = (charged.mean - used.mean) / used.mean
    }

    result.releasedPages = heap.pagesReleased
    result.refaultedPages = heap.pagesRefaulted
    result.releaseCalls = heap.releaseCalls
    result.splits = heap.splits
    result.collapses = heap.collapses
    result.movedBlocks = heap.blocksMoved
    result.reinflatedBlocks = heap.reinflatedBlocks
    result.lostBlocks = heap.lostBlocks
    result.lazyTakenPages = heap.lazyPagesTaken
    result.heapMetadataBytes = heap.metadataBytes
    result.residencyPasses = heap.residencyPasses
    result.ticks = heap.ticks
    result.events = program.summary.events

    reportTimes(heap, meter, into: &result)
    result.wallSeconds = Double(end - startedAt) / 1e9
    if program.summary.peakAnonymousBytes > 0 { result.recordedPeakResidentBytes = program.summary.peakAnonymousBytes }
    result.decisions = decisions(heap)
    if options.touch != .none {
      let cost = cost(heap, until: duration)
      if options.slices % 2 == 0 && marks.count >= options.slices / 2 {
        result.firstHalfCost = marks[options.slices / 2 - 1].cost
      }
      if options.slices != 2 {
        if nextMark == .max { mark(duration) }
        result.slices = marks
      }
      result.modelledCPUSeconds = cost.work
      result.taxCPUSeconds = cost.tax
      result.cost = cost.total
      result.bound = spanBound.parts(until: duration).total
      result.objectBound = objectBound.parts(until: duration).total
      if options.reference {
        var reference = Reference(options.costs, memoryPrice: options.memoryPrice, taxWeight: options.weights.tax)
        result.reference = reference.cost(of: frontEnd.placement, until: duration)
      }
      result.compareWithBound()
    }
    if case .cut = program.ending { result.traceNote = "the trace is \(program.ending)" }
    return result
  }

  /// What took how long: by the clock, or by the simulated kernel's word.
  private func reportTimes(_ heap: HeapStatistics, _ meter: Meter, into result: inout RunResult) {
    let runShare = clock.runShare
    let worked = Double(meter.heapNanoseconds) / 1e9 * runShare + Double(tickCPU) / 1e9
    result.replayCPUSeconds = Double(clock.cpuNanoseconds) / 1e9
    if let simulated {
      let totals = simulated.totals
      result.kernel = "simulated"
      result.releaseCPUSeconds = Double(heap.releaseNanoseconds) / 1e9
      // The clock has seen the simulation, not a kernel; of the heap's own work it is right.
      result.heapCPUSeconds = options.isTimed ? worked : nil
      result.faultCPUSeconds = (totals.faultNanoseconds + totals.reclaimNanoseconds) / 1e9
      result.longestStallSeconds = Double(heap.longestReleaseNanoseconds) / 1e9
      result.faults = totals.faults
      result.kernelTableBytes = simulated.tableBytes
      result.hugeFaults = totals.hugeFaults
      result.lazyWrites = totals.lazyWrites
      result.faultRuns = totals.faultRuns
      return
    }
    let released = min(Double(heap.releaseNanoseconds) / 1e9, Double(tickCPU) / 1e9)
    result.releaseCPUSeconds = released
    result.heapCPUSeconds = worked - released
    result.faultCPUSeconds = options.touch == .none ? 0 : Double(meter.touchNanoseconds) / 1e9 * runShare
    result.longestStallSeconds = Double(max(heap.longestReleaseNanoseconds, meter.longestHeapCall)) / 1e9
    result.faults = clock.faults
  }

  /// Counters that are equal from run to run when no residency answer differs.
  private func decisions(_ heap: HeapStatistics) -> [String: Int] {
    let counters = frontEnd.counters
    return [
      "allocations": heap.allocations, "frees": heap.frees, "usedPages": heap.usedPages, "blocks": heap.blocks,
      "absentBlocks": heap.absentBlocks, "freeResidentPages": heap.freeResidentPages,
      "pagesReleased": heap.pagesReleased, "pagesReleasedInParts": heap.pagesReleasedInParts,
      "pagesRefaulted": heap.pagesRefaulted,
      "pagesRefaultedWhole": heap.pagesRefaultedWhole, "lazyPagesReused": heap.lazyPagesReused, "splits": heap.splits,
      "cures": heap.cures, "releaseRanges": heap.releaseRanges, "ticks": heap.ticks,
      "metadataBytes": heap.metadataBytes, "peakUsedPages": frontEnd.meter.peakUsedPages,
      "spansCarved": counters.spansCarved, "spansReturned": counters.spansReturned,
      "largeAllocations": counters.largeAllocations, "grownInPlace": counters.grownInPlace,
      "shrunkInPlace": counters.shrunkInPlace, "moved": counters.moved, "cut": counters.cut,
      "joined": counters.joined,
    ]
  }
}

/// Replays `program` on the kernel that `options` name.
package func replay(
  _ program: borrowing TraceProgram, options: ReplayOptions, group: MemoryCgroup?
) throws(ReplayFailure) -> RunResult {
  if let simulation = options.simulation {
    let log: ResidencyLog
    do throws(ResidencyLogFailure) { log = try ResidencyLog(.off) } catch { throw .residencyLog(error) }
    var run = try Replay(
      program, options: options, group: nil, kernel: SimulatedKernel(simulation, costs: options.costs), log: log)
    return try run.run(program)
  }
  let log: ResidencyLog
  do throws(ResidencyLogFailure) { log = try ResidencyLog(options.residencyLog) } catch { throw .residencyLog(error) }
  var run = try Replay(
    program, options: options, group: group, kernel: ReplayKernel(LinuxKernel(), log: log), log: log)
  return try run.run(program)
}
