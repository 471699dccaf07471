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
  /// The scavenger's phase: `idle`, `running`, `stopping`, or `changing` while a thread starts or is waited for.
  private let phase: UnsafeMutablePointer<UInt32>
  /// The thread, valid while running or stopping.
  private let thread: UnsafeMutablePointer<UInt64>
  /// The errno of the last error of the kernel's that was told to the embedder.
  private let error: UnsafeMutablePointer<UInt32>
  private let mappedBytes: Int

  private static var idle: UInt32 { 0 }
  private static var running: UInt32 { 1 }
  private static var stopping: UInt32 { 2 }
  private static var changing: UInt32 { 3 }

  /// Makes a heap.
  ///
  /// - Throws: what `PageHeapCore.init` throws.
  package static func create(_ options: HeapOptions) throws(HeapError) -> UnsafeMutablePointer<LinuxHeap> {
    let kernel = LinuxKernel()
    let core = try PageHeapCore(kernel: kernel, options: options)
    let controlOffset = (MemoryLayout<LinuxHeap>.size + 15) & ~15
    let bytes = (controlOffset + 16 + 4095) & ~4095
    let memory: UnsafeMutableRawPointer
    do throws(KernelError) {
      memory = try kernel.mapMetadata(byteCount: bytes)
    } catch { throw .kernel(error) }
    let heap = memory.assumingMemoryBound(to: LinuxHeap.self)
    let control = memory + controlOffset
    heap.initialize(
      to: LinuxHeap(
        core: core, phase: (control + 8).assumingMemoryBound(to: UInt32.self),
        thread: control.assumingMemoryBound(to: UInt64.self),
        error: (control + 12).assumingMemoryBound(to: UInt32.self), mappedBytes: bytes))
    return heap
  }

  private init(
    core: consuming PageHeapCore<LinuxKernel>, phase: UnsafeMutablePointer<UInt32>,
    thread: UnsafeMutablePointer<UInt64>, error: UnsafeMutablePointer<UInt32>, mappedBytes: Int
  ) {
    self.core = core
    self.phase = phase
    self.thread = thread
    self.error = error
    self.mappedBytes = mappedBytes
  }

  /// Stops the scavenger and gives everything back. Nobody may use the heap any more.
  package static func destroy(_ heap: UnsafeMutablePointer<LinuxHeap>) {
    heap.pointee.stopScavenger()
    let bytes = heap.pointee.mappedBytes
    let kernel = heap.pointee.core.kernel
    heap.deinitialize(count: 1)
    kernel.unmapMetadata(UnsafeMutableRawPointer(heap), byteCount: bytes)
  }

  /// Notes an error of the kernel's, for an interface that has no room for it in its answer.
  package borrowing func note(_ error: KernelError) { hs_shim_word_store(self.error, UInt32(error.code)) }

  /// The errno that was noted last; 0 if none was.
  package var lastKernelError: Int32 { Int32(hs_shim_word_load(error)) }

  // MARK: The scavenger

  /// Starts the thread unless it runs. False if none could be had.
  package static func startScavenger(_ heap: UnsafeMutablePointer<LinuxHeap>) -> Bool {
    let phase = heap.pointee.phase
    while !hs_shim_word_exchange(phase, idle, changing) {
      if hs_shim_word_load(phase) == running { return true }
      hs_shim_sleep_nanoseconds(20_000)
    }
    let status = hs_shim_thread_start({ scavenge($0) }, UnsafeMutableRawPointer(heap), heap.pointee.thread)
    // Running only when the thread's name is known to whoever will wait for it.
    hs_shim_word_store(phase, status == 0 ? running : idle)
    return status == 0
  }

  /// Stops the thread, if it runs, and waits for the tick that it is in.
  package borrowing func stopScavenger() {
    while !hs_shim_word_exchange(phase, LinuxHeap.running, LinuxHeap.stopping) {
      if hs_shim_word_load(phase) == LinuxHeap.idle { return }
      hs_shim_sleep_nanoseconds(20_000)
    }
    hs_shim_word_wake(phase)
    hs_shim_thread_join(thread.pointee)
    hs_shim_word_store(phase, LinuxHeap.idle)
  }

  /// Ticks until it is told to stop.
  fileprivate borrowing func scavengeUntilStopped() {
    while hs_shim_word_load(phase) != LinuxHeap.stopping {
      let report = core.tick(at: hs_shim_monotonic_nanoseconds(), processCPU: hs_shim_process_cpu_nanoseconds())
      // Even unfinished work leaves the processor to others for a moment; and a second is the longest that a policy
      // without a deadline is left alone.
      let pause = report.isUnfinished ? 1_000_000 : max(min(report.nextTickNanoseconds, 1_000_000_000), 1_000_000)
      hs_shim_word_wait(phase, LinuxHeap.running, pause)
    }
  }
}

// The core is safe from many threads, and the rest is atomic words.
extension LinuxHeap: @unchecked Sendable {}

private func scavenge(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  argument!.assumingMemoryBound(to: LinuxHeap.self).pointee.scavengeUntilStopped()
  return nil
}
