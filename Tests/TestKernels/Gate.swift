// Where a call of a kernel waits until the test lets it go on.

import Foundation

/// Closed until opened. Waiting gives up after a minute, so that a broken test fails instead of hanging.
package final class Gate: @unchecked Sendable {
  private let condition = NSCondition()
  private var isOpen = false
  private var arrivals = 0

  package init() {}

  /// Lets everybody through, from now on.
  package func open() {
    condition.withLock {
      isOpen = true
      condition.broadcast()
    }
  }

  /// Arrives, and returns when the gate is open.
  package func pass() {
    condition.withLock {
      arrivals += 1
      condition.broadcast()
      let limit = Date(timeIntervalSinceNow: 60)
      while !isOpen && condition.wait(until: limit) {}
    }
  }

  /// Waits until somebody stands before the gate, or has passed it; false if nobody comes for a minute.
  package func waitForArrival() -> Bool {
    condition.withLock {
      let limit = Date(timeIntervalSinceNow: 60)
      while arrivals == 0 {
        if !condition.wait(until: limit) { return false }
      }
      return true
    }
  }
}
