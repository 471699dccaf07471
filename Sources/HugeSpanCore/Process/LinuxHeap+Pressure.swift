// Strategy `deferred` in a process: somebody looks how much memory is left, and the heap gives back.
//
// The scavenger's thread does it between its ticks, or whoever ticks the heap by hand: `watchPressure` looks if that is due, gives back if that
// is necessary, and says when to look again. The watcher and its record lie behind the heap in its mapping; one word, taken by
// exchange, makes one thread at a time their user.

import CHugeSpanShims

/// What the watcher saw and did so far.
package struct PressureRecord: Equatable, Sendable {
  /// Looks, and the CPU time that they took, in nanoseconds.
  package var looks = 0
  package var lookNanoseconds: UInt64 = 0
  /// The headroom when it was looked at last, and the least that was seen; `Int.max` if there is no limit.
  package var headroom = Int.max
  package var leastHeadroom = Int.max
  /// The longest time from the last look that found no need until all was given back, in nanoseconds: what came between was noticed as late as
  /// that at most.
  package var longestReaction: UInt64 = 0
  /// The monotonic clock at the end of the last look.
  var lookedAt: UInt64 = 0

  /// Nothing seen.
  package init() {}
}

/// The watcher and its record.
struct PressureState {
  var watcher = PressureWatcher()
  var isOpen = false
  var record = PressureRecord()
}

extension LinuxHeap {
  /// Whether somebody has to look at all.
  var defersReleases: Bool { core.strategy.kind == .deferred }

  /// Looks if it is due, gives back what has to be, and answers after how many nanoseconds to look again. Nothing to do with other
  /// strategies. `isWoken`: an event said that something has changed.
  package borrowing func watchPressure(isWoken: Bool = false) -> UInt64 {
    if !defersReleases { return .max }
    guard takePressure() else { return PressureWatcher.shortestPeriod }
    defer { hs_shim_word_store(control.isWatching, 0) }
    let state = control.pressure
    if !state.pointee.isOpen { openPressure(hasEvents: false) }
    let before = hs_shim_monotonic_nanoseconds()
    let cpu = hs_shim_thread_cpu_nanoseconds()
    var reading = state.pointee.watcher.look(now: before, all: isWoken)
    state.pointee.record.looks += 1
    state.pointee.record.lookNanoseconds += hs_shim_thread_cpu_nanoseconds() &- cpu
    state.pointee.record.headroom = reading.headroom
    state.pointee.record.leastHeadroom = min(state.pointee.record.leastHeadroom, reading.headroom)
    if reading.isPressed {
      let given = core.relieve(headroom: reading.headroom, reserve: reading.reserve, isStalled: reading.isStalled)
      let now = hs_shim_monotonic_nanoseconds()
      if given > 0 {
        let since = state.pointee.record.lookedAt == 0 ? before : state.pointee.record.lookedAt
        state.pointee.record.longestReaction = max(state.pointee.record.longestReaction, now &- since)
      } else {
        // Nothing is left to give: no use in looking so often.
        reading.nextLook = max(reading.nextLook, PressureWatcher.longestPeriod / 4)
      }
    }
    state.pointee.record.lookedAt = hs_shim_monotonic_nanoseconds()
    return reading.nextLook
  }

  /// What was seen and done so far.
  package borrowing func pressureRecord() -> PressureRecord {
    while !takePressure() { hs_shim_sleep_nanoseconds(20_000) }
    defer { hs_shim_word_store(control.isWatching, 0) }
    return control.pressure.pointee.record
  }

  private borrowing func takePressure() -> Bool { hs_shim_word_exchange(control.isWatching, 0, 1) }

  private borrowing func openPressure(hasEvents: Bool) {
    control.pressure.pointee.watcher = PressureWatcher(ownLimit: core.pressureLimitBytes, hasEvents: hasEvents)
    control.pressure.pointee.isOpen = true
  }

  // MARK: In the scavenger's thread

  /// Opens the watcher with an event to wait for, if there is one to be had, and tells whoever will stop the thread of it.
  borrowing func beginWatching() {
    while !takePressure() { hs_shim_sleep_nanoseconds(20_000) }
    defer { hs_shim_word_store(control.isWatching, 0) }
    if control.pressure.pointee.isOpen { control.pressure.pointee.watcher.close() }
    openPressure(hasEvents: true)
    let event = control.pressure.pointee.watcher.event
    if event < 0 { return }
    // An exchange, since the phase is read next: one of the two, this thread or the one that stops it, sees the other's word.
    _ = hs_shim_word_exchange(control.wakeEvent, 0, UInt32(event) + 1)
  }

  /// Waits for an event, at most `nanoseconds`; true if there was one. Without events it is the time that is waited for.
  borrowing func waitForEvent(_ nanoseconds: UInt64) -> Bool {
    hs_shim_event_wait(Int32(hs_shim_word_load(control.wakeEvent)) - 1, nanoseconds)
  }

  /// Wakes the scavenger's thread if it waits for events.
  borrowing func wakeWatcher() {
    let event = hs_shim_word_load(control.wakeEvent)
    if event != 0 { hs_shim_event_signal(Int32(event) - 1) }
  }

  /// Closes everything, when the scavenger's thread does not look any more. Whoever looks next opens it again.
  borrowing func endWatching() {
    while !takePressure() { hs_shim_sleep_nanoseconds(20_000) }
    forgetWatching()
  }

  /// The same in a forked child: the files are its parent's, and whoever was looking is not there.
  borrowing func forgetWatching() {
    defer { hs_shim_word_store(control.isWatching, 0) }
    hs_shim_word_store(control.wakeEvent, 0)
    if control.pressure.pointee.isOpen { control.pressure.pointee.watcher.close() }
    control.pressure.pointee.isOpen = false
  }
}
