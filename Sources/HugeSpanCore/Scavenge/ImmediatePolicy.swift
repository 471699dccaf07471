// `immediate`: everything that is free, at each tick. The lower end of memory, the upper end of faults; a yardstick.

/// Releases all free memory at each tick, ten ticks a second.
package struct ImmediatePolicy: ScavengePolicy {
  /// A policy without state.
  package init() {}

  package mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    ScavengePlan(
      pages: input.releasablePages, order: ReleaseOrder(preferBroken: true, length: .longest), cures: 0,
      nextTick: 100_000_000)
  }

  package mutating func booked(wanted: Int, released: Int) {}
}
