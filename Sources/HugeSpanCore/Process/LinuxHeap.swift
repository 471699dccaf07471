// A heap as a process has it: at a fixed place in memory, with a thread that ticks it.
//
// The core knows neither clock nor thread, and as a noncopyable value it has no address of its own. Both users of it on
// Linux, the Swift class and the C library, need the same three things on top: a stable pointer, the two clocks, and a
// scavenger that runs while the program is idle. They are here once, without a class and without malloc, since the C
// library sits under one.

import CHugeSpanShims

/// A heap on Linux and its scavenger. Made and destroyed through pointers; lives in a mapping of its own.
package struct LinuxHeap: ~Copyable {
  package let core: PageHeapCore<LinuxKernel>
  /// What changes, behind the heap in its mapping.
  let control: HeapControl
  private let mappedBytes: Int

  /// Makes a heap.
  ///
  /// - Throws: what `PageHeapCore.init` throws.
  package static func create(_ options: HeapOptions) throws(HeapError) -> UnsafeMutablePointer<LinuxHeap> {
    if let error = ForkHandlers.register() { throw .kernel(error) }
    let kernel = LinuxKernel()
    let core = try PageHeapCore(kernel: kernel, options: options)
    let controlOffset = (MemoryLayout<LinuxHeap>.size + 15) & ~15
    let bytes = (controlOffset + HeapControl.byteCount + 4095) & ~4095
    let memory: UnsafeMutableRawPointer
    do throws(KernelError) {
      memory = try kernel.mapMetadata(byteCount: bytes)
    } catch { throw .kernel(error) }
    let heap = memory.assumingMemoryBound(to: LinuxHeap.self)
    heap.initialize(
      to: LinuxHeap(core: core, control: HeapControl(memory: memory + controlOffset), mappedBytes: bytes))
    ForkHandlers.add(heap)
    return heap
  }

  private init(core: consuming PageHeapCore<LinuxKernel>, control: HeapControl, mappedBytes: Int) {
    self.core = core
    self.control = control
    self.mappedBytes = mappedBytes
  }

  /// Stops the scavenger and gives everything back. Nobody may use the heap any more.
  package static func destroy(_ heap: UnsafeMutablePointer<LinuxHeap>) {
    heap.pointee.stopScavenger()
    ForkHandlers.remove(heap)
    heap.pointee.endWatching()
    heap.pointee.closePage()
    let bytes = heap.pointee.mappedBytes
    let kernel = heap.pointee.core.kernel
    heap.deinitialize(count: 1)
    kernel.unmapMetadata(UnsafeMutableRawPointer(heap), byteCount: bytes)
  }

  /// `HeapControl.interfaceByteCount` bytes, zero at first and aligned to 8, for the interface that stands on this heap. They
  /// go with the heap.
  package var interfaceMemory: UnsafeMutableRawPointer { control.interfaceMemory }

  /// Notes an error of the kernel's, for an interface that has no room for it in its answer.
  package borrowing func note(_ error: KernelError) { hs_shim_word_store(control.error, UInt32(error.code)) }

  /// The errno that was noted last; 0 if none was.
  package var lastKernelError: Int32 { Int32(hs_shim_word_load(control.error)) }

  // MARK: The scavenger

  /// Starts the thread unless it runs. False if none could be had.
  ///
  /// - Parameter isBare: The C library is not told of it, where that can be (shims.h says why one would want that). Code of the
  ///   embedder's, which may ask the library anything, runs in a thread that the library knows.
  package static func startScavenger(_ heap: UnsafeMutablePointer<LinuxHeap>, isBare: Bool = false) -> Bool {
    let phase = heap.pointee.control.phase
    var before = HeapControl.idle
    while !hs_shim_word_exchange(phase, before, HeapControl.changing) {
      let seen = hs_shim_word_load(phase)
      if seen == HeapControl.running { return true }
      if seen == HeapControl.idle || seen == HeapControl.inherited {
        before = seen
      } else {
        hs_shim_sleep_nanoseconds(20_000)
      }
    }
    let (argument, thread) = (UnsafeMutableRawPointer(heap), heap.pointee.control.thread)
    var status = Int32(-1)
    if isBare && !heap.pointee.core.runsForeignCode {
      status = hs_shim_bare_thread_start({ scavenge($0) }, argument, thread)
    }
    if status != 0 { status = hs_shim_thread_start({ scavenge($0) }, argument, thread) }
    // Running only when the thread's name is known to whoever will wait for it.
    hs_shim_word_store(phase, status == 0 ? HeapControl.running : before)
    return status == 0
  }

  /// Stops the thread, if it runs, and waits for the tick that it is in.
  package borrowing func stopScavenger() {
    let phase = control.phase
    while !hs_shim_word_exchange(phase, HeapControl.running, HeapControl.stopping) {
      if hs_shim_word_exchange(phase, HeapControl.inherited, HeapControl.idle) { return }
      if hs_shim_word_load(phase) == HeapControl.idle { return }
      hs_shim_sleep_nanoseconds(20_000)
    }
    hs_shim_word_wake(phase)
    wakeWatcher()
    hs_shim_thread_join(control.thread.pointee)
    endWatching()
    hs_shim_word_store(phase, HeapControl.idle)
  }

  /// Takes turns until it is told to stop.
  fileprivate borrowing func scavengeUntilStopped() {
    var pacing = ResidencyPacing(
      now: hs_shim_monotonic_nanoseconds(), processCPU: hs_shim_process_cpu_nanoseconds())
    let watches = defersReleases
    if watches { beginWatching() }
    var nextTick: UInt64 = 0
    var isWoken = false
    while hs_shim_word_load(control.phase) != HeapControl.stopping {
      if watches {
        let nextLook = watchPressure(isWoken: isWoken)
        // Reclaim of file cache signals all the time; that is worth a hundred looks a second.
        if isWoken { hs_shim_sleep_nanoseconds(min(nextLook, 10_000_000)) }
        let now = hs_shim_monotonic_nanoseconds()
        // While memory is short nothing else matters that takes time.
        if now < nextTick || nextLook <= PressureWatcher.shortestPeriod {
          isWoken = waitForEvent(min(nextLook, nextTick > now ? nextTick &- now : nextLook))
          if now < nextTick &+ Self.longestDelay { continue }
        }
      }
      let pause = scavengeOnce(
        &pacing, now: hs_shim_monotonic_nanoseconds(), processCPU: hs_shim_process_cpu_nanoseconds())
      let now = hs_shim_monotonic_nanoseconds()
      publish(now: now, untilNextTick: pause, isTick: true)
      nextTick = now &+ pause
      if !watches { rest(until: nextTick) }
    }
  }

  /// Waits for the next tick, or to be stopped. A page that others read is written meanwhile.
  private borrowing func rest(until nextTick: UInt64) {
    while true {
      let now = hs_shim_monotonic_nanoseconds()
      if now >= nextTick || hs_shim_word_load(control.phase) != HeapControl.running { return }
      let rest = nextTick &- now
      hs_shim_word_wait(
        control.phase, HeapControl.running, hasPage ? min(rest, StatisticsPage.longestPeriod) : rest)
      if hasPage {
        let now = hs_shim_monotonic_nanoseconds()
        // After the tick it is written anyway.
        if nextTick > now { publish(now: now, untilNextTick: nextTick &- now, isTick: false) }
      }
    }
  }

  /// One turn of the scavenger's: asks the kernel what became of the heap's hugepages, if that is due, and ticks. Answers how
  /// long to pause, in nanoseconds. The clocks are told, so that a test may invent them.
  borrowing func scavengeOnce(_ pacing: inout ResidencyPacing, now: UInt64, processCPU: UInt64) -> UInt64 {
    if pacing.isDue(now: now, processCPU: processCPU) {
      let before = hs_shim_thread_cpu_nanoseconds()
      // A kernel that cannot be asked leaves the heap with what it believes.
      _ = try? core.residencyPass()
      pacing.note(now: now, cost: hs_shim_thread_cpu_nanoseconds() - before, processCPU: processCPU)
    }
    return Self.pause(after: core.tick(at: now, processCPU: processCPU))
  }

  /// How long a tick may be late because memory is short, in nanoseconds.
  private static var longestDelay: UInt64 { 100_000_000 }

  /// Even unfinished work leaves the processor to others for a moment; and a second is the longest that a policy without
  /// a deadline is left alone.
  static func pause(after report: TickReport) -> UInt64 {
    report.isUnfinished ? 1_000_000 : max(min(report.nextTickNanoseconds, 1_000_000_000), 1_000_000)
  }
}

/// The words of a heap that change outside of its lock, at fixed places behind it.
package struct HeapControl {
  /// The scavenger's phase.
  let phase: UnsafeMutablePointer<UInt32>
  /// The errno of the last error of the kernel's that was told to the embedder.
  let error: UnsafeMutablePointer<UInt32>
  /// The thread, valid while running or stopping.
  let thread: UnsafeMutablePointer<UInt64>
  /// Frees in a child whose scavenger did not come along; whether one of them ticks; and when the next may.
  let frees: UnsafeMutablePointer<UInt32>
  let isTicking: UnsafeMutablePointer<UInt32>
  let nextTick: UnsafeMutablePointer<UInt64>
  /// Neighbours in the list of live heaps, guarded by the list's lock.
  let next: UnsafeMutablePointer<UnsafeMutablePointer<LinuxHeap>?>
  let previous: UnsafeMutablePointer<UnsafeMutablePointer<LinuxHeap>?>
  /// The event that wakes a thread that watches for pressure, plus one; whether one looks just now; and what it knows.
  let wakeEvent: UnsafeMutablePointer<UInt32>
  let isWatching: UnsafeMutablePointer<UInt32>
  let pressure: UnsafeMutablePointer<PressureState>
  /// The statistics page, and whether somebody writes, opens or closes it.
  let page: UnsafeMutablePointer<StatisticsPage>
  let isPublishing: UnsafeMutablePointer<UInt32>
  let pagePhase: UnsafeMutablePointer<UInt32>
  /// What the interface on top keeps with the heap.
  let interfaceMemory: UnsafeMutableRawPointer

  /// Bytes for the interface on top.
  package static var interfaceByteCount: Int { 128 }
  private static var pressureOffset: Int { 48 + interfaceByteCount + 16 }
  private static var pageOffset: Int { (pressureOffset + MemoryLayout<PressureState>.stride + 15) & ~15 }
  static var byteCount: Int { pageOffset + 16 + MemoryLayout<StatisticsPage>.stride }

  // Phases: no thread; one that runs; one that was told to stop; one that starts or is waited for; and after a fork, none
  // here but one in the parent.
  static var idle: UInt32 { 0 }
  static var running: UInt32 { 1 }
  static var stopping: UInt32 { 2 }
  static var changing: UInt32 { 3 }
  static var inherited: UInt32 { 4 }

  /// Words in zeroed memory, aligned to 8 bytes.
  init(memory: UnsafeMutableRawPointer) {
    phase = memory.assumingMemoryBound(to: UInt32.self)
    error = (memory + 4).assumingMemoryBound(to: UInt32.self)
    frees = (memory + 8).assumingMemoryBound(to: UInt32.self)
    isTicking = (memory + 12).assumingMemoryBound(to: UInt32.self)
    thread = (memory + 16).assumingMemoryBound(to: UInt64.self)
    nextTick = (memory + 24).assumingMemoryBound(to: UInt64.self)
    next = (memory + 32).assumingMemoryBound(to: UnsafeMutablePointer<LinuxHeap>?.self)
    previous = (memory + 40).assumingMemoryBound(to: UnsafeMutablePointer<LinuxHeap>?.self)
    interfaceMemory = memory + 48
    wakeEvent = (memory + 48 + Self.interfaceByteCount).assumingMemoryBound(to: UInt32.self)
    isWatching = wakeEvent + 1
    pressure = (memory + Self.pressureOffset).assumingMemoryBound(to: PressureState.self)
    pressure.initialize(to: PressureState())
    isPublishing = (memory + Self.pageOffset).assumingMemoryBound(to: UInt32.self)
    pagePhase = isPublishing + 1
    page = (memory + Self.pageOffset + 16).assumingMemoryBound(to: StatisticsPage.self)
    page.initialize(to: StatisticsPage())
  }
}

// The core is safe from many threads, and the rest is atomic words.
extension LinuxHeap: @unchecked Sendable {}

private func scavenge(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  argument!.assumingMemoryBound(to: LinuxHeap.self).pointee.scavengeUntilStopped()
  return nil
}
