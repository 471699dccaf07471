// The scavenger in a forked child: its thread did not come along.
//
// It is not started anew behind the program's back. A child is often about to execute another program, or to enter a name
// space that admits no second thread; and pthread_create allocates, which under an allocator is a deadlock in the fork
// handler (the allocator's own handler has not run yet) as well as inside an allocation. So until somebody starts
// the scavenger, or stops it, the child's own frees tick: every 64th looks at the clock, none in the first 100 ms, and a
// tick has at most as many ranges as one batch. The price is a load and a compare in each free.

import CHugeSpanShims

extension LinuxHeap {
  /// Frees `span` as the core does, and ticks in a child that has no scavenger of its own yet.
  @inline(__always)
  package borrowing func free(_ span: PageSpan) {
    core.free(span)
    if hs_shim_word_load(control.phase) == HeapControl.inherited { tickInChild() }
  }

  private static var freesPerLook: UInt32 { 64 }
  private static var rest: UInt64 { 100_000_000 }

  @inline(never)
  private borrowing func tickInChild() {
    if hs_shim_word_increment(control.frees) % Self.freesPerLook != 0 { return }
    guard hs_shim_word_exchange(control.isTicking, 0, 1) else { return }
    let now = hs_shim_monotonic_nanoseconds()
    if now >= control.nextTick.pointee {
      let report = core.tick(
        at: now, processCPU: hs_shim_process_cpu_nanoseconds(), ranges: ReleaseBatch.capacity)
      let pause = min(Self.pause(after: report), watchPressure())
      control.nextTick.pointee = now &+ pause
      publish(now: now, untilNextTick: pause, isTick: true)
    }
    hs_shim_word_store(control.isTicking, 0)
  }

  /// After a fork, in the child.
  borrowing func resumeInChild() {
    switch hs_shim_word_load(control.phase) {
    case HeapControl.running, HeapControl.changing:
      hs_shim_word_store(control.phase, HeapControl.inherited)
    case HeapControl.stopping: hs_shim_word_store(control.phase, HeapControl.idle)
    default: break
    }
    control.nextTick.pointee = hs_shim_monotonic_nanoseconds() &+ Self.rest
    hs_shim_word_store(control.frees, 1)
    hs_shim_word_store(control.isTicking, 0)
    forgetWatching()
    core.resumeInChild()
    resumePageInChild()
  }
}
