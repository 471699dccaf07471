// The heap's lock.
//
// Critical sections are a few hundred nanoseconds and contain no system call but the growth of an arena, so waiting by
// spinning is right as long as the holder runs, and wrong when it was preempted: then the waiter gives the processor
// away, and at last sleeps. Releasing is a plain store: a futex lock has to exchange there, to learn of waiters, and on
// x86 that second locked operation is a third of what an uncontended pair costs.

import CHugeSpanShims
import Synchronization

struct SpinLock: ~Copyable {
  private let word = Atomic<UInt32>(0)

  @inline(__always)
  func lock() {
    if word.exchange(1, ordering: .acquiring) != 0 { lockSlow() }
  }

  @inline(__always)
  func unlock() { word.store(0, ordering: .releasing) }

  @inline(never)
  private func lockSlow() {
    var rounds = 0
    while true {
      while word.load(ordering: .relaxed) != 0 {
        rounds &+= 1
        if rounds < 200 {
          hs_shim_pause()
        } else if rounds < 264 {
          hs_shim_yield()
        } else {
          hs_shim_sleep_nanoseconds(50_000)
        }
      }
      if word.exchange(1, ordering: .acquiring) == 0 { return }
    }
  }
}
