// Giving back what was deferred, because others need memory.
//
// The heap reads no file and no clock: it is told how many bytes are left until somebody is in trouble, and how many there should be.
// What goes first is what costs least (`releaseHonestly`), and it goes by the honest strategy, since phantom helps nobody.

extension PageHeapCore {
  /// Strategy `deferred`: gives free memory back until there are twice `reserve` bytes left, if there are less than
  /// `reserve`; a quarter of what is free, at least 16 MiB, if tasks are stalled for want of memory. Nothing with other strategies.
  ///
  /// - Parameters:
  ///   - headroom: Bytes that others can take before a limit is reached; may be below zero.
  ///   - reserve: Bytes that should be left.
  /// - Returns: bytes given back, as far as the heap knows what was charged.
  package func relieve(headroom: Int, reserve: Int, isStalled: Bool = false) -> Int {
    let missing = headroom < reserve ? 2 * reserve - headroom : 0
    if missing <= 0 && !isStalled { return 0 }
    lock.lock()
    let available = state.pointee.freeResidentPages + state.pointee.lazyPages
    if state.pointee.options.strategy.kind != .deferred || available == 0 {
      lock.unlock()
      return 0
    }
    var wanted = (missing + 1 << pageShift - 1) >> pageShift
    if isStalled { wanted = max(wanted, max(available / 4, Self.leastRelief)) }
    awaitScavenging()
    state.pointee.releaseCause = .pressure
    let pages = releaseHonestly(pages: wanted, measured: false)
    if pages > 0 { state.pointee.totals.drains += 1 }
    state.pointee.totals.pagesDrained += pages
    endScavenging()
    lock.unlock()
    return pages << pageShift
  }

  /// Pages: 16 MiB.
  private static var leastRelief: Int { 4096 }

  /// The configured strategy.
  package var strategy: StrategyChoice {
    lock.lock()
    defer { lock.unlock() }
    return state.pointee.options.strategy
  }

  /// What the process may have resident before deferred memory goes, in bytes; 0 is no limit.
  package var pressureLimitBytes: Int {
    lock.lock()
    defer { lock.unlock() }
    return state.pointee.options.pressureLimitBytes ?? 0
  }
}
