// A thread that ticks a heap.
//
// It sleeps on a condition with a deadline, so that stopping does not wait for the rest of a sleep, and it reads the two
// clocks that the core does not: monotonic time and the CPU time of the process. A policy that names no deadline is
// asked once a second; a tick that could not finish its work is followed by another at once.

import CHugeSpanShims
import Glibc
import HugeSpanCore

/// What the thread and its owner share. Owned by the scavenger; the thread is joined before it goes.
private final class ScavengerLoop: @unchecked Sendable {
  var mutex = pthread_mutex_t()
  var condition = pthread_cond_t()
  var isStopping = false
  let tick: @Sendable (UInt64, UInt64) -> TickReport

  init(_ tick: @escaping @Sendable (UInt64, UInt64) -> TickReport) {
    self.tick = tick
    pthread_mutex_init(&mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(&condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(&condition)
    pthread_mutex_destroy(&mutex)
  }

  func run() {
    pthread_mutex_lock(&mutex)
    while !isStopping {
      pthread_mutex_unlock(&mutex)
      let now = hs_shim_monotonic_nanoseconds()
      let report = tick(now, hs_shim_process_cpu_nanoseconds())
      // Even unfinished work leaves the processor to others for a moment.
      let pause = report.isUnfinished ? 1_000_000 : max(min(report.nextTickNanoseconds, 1_000_000_000), 1_000_000)
      let deadline = now + pause
      var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
      pthread_mutex_lock(&mutex)
      while !isStopping, pthread_cond_timedwait(&condition, &mutex, &time) == 0 {}
    }
    pthread_mutex_unlock(&mutex)
  }

  func stop() {
    pthread_mutex_lock(&mutex)
    isStopping = true
    pthread_cond_signal(&condition)
    pthread_mutex_unlock(&mutex)
  }
}

/// Starts and stops the thread. Safe from several threads.
final class BackgroundScavenger: @unchecked Sendable {
  private var mutex = pthread_mutex_t()
  private var running: (thread: pthread_t, loop: ScavengerLoop)?

  init() { pthread_mutex_init(&mutex, nil) }

  deinit { pthread_mutex_destroy(&mutex) }

  /// Starts the thread unless it runs. False if none could be had.
  func start(_ tick: @escaping @Sendable (UInt64, UInt64) -> TickReport) -> Bool {
    pthread_mutex_lock(&mutex)
    defer { pthread_mutex_unlock(&mutex) }
    if running != nil { return true }
    let loop = ScavengerLoop(tick)
    var thread = pthread_t()
    let argument = Unmanaged.passRetained(loop)
    // Signals belong to the program's own threads.
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    let status = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<ScavengerLoop>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, argument.toOpaque())
    pthread_sigmask(SIG_SETMASK, &before, nil)
    if status != 0 {
      argument.release()
      return false
    }
    running = (thread, loop)
    return true
  }

  /// Stops the thread, if it runs, and waits for it.
  func stop() {
    pthread_mutex_lock(&mutex)
    defer { pthread_mutex_unlock(&mutex) }
    guard let (thread, loop) = running else { return }
    loop.stop()
    pthread_join(thread, nil)
    running = nil
  }
}
