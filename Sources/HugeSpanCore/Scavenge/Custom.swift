// A policy or strategy of the embedder's own, as tables of C functions.
//
// The heap is compiled before its embedder is, and an existential would have to be allocated. A table of functions with a
// context serves both languages and costs an indirect call per tick. The functions get pointers to our own structures;
// the C library translates them, and so does the Swift class for values that conform to its protocols.

/// A policy behind two functions.
package struct CustomPolicy: Sendable, Equatable {
  /// `(context, ScavengeInput *, ScavengePlan *)`: decides, under the heap's lock.
  package typealias Plan =
    @convention(c) (
      UnsafeMutableRawPointer?, UnsafeRawPointer, UnsafeMutableRawPointer
    ) -> Void
  /// `(context, wanted pages, released pages)`.
  package typealias Booked = @convention(c) (UnsafeMutableRawPointer?, Int, Int) -> Void

  nonisolated(unsafe) package var context: UnsafeMutableRawPointer?
  package var plan: Plan
  package var booked: Booked

  /// A policy of these functions.
  package init(context: UnsafeMutableRawPointer?, plan: Plan, booked: Booked) {
    self.context = context
    self.plan = plan
    self.booked = booked
  }

  /// Equal if they share the context: functions cannot be compared, and a context belongs to one table.
  package static func == (a: Self, b: Self) -> Bool { a.context == b.context }
}

extension CustomPolicy: ScavengePolicy {
  package mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    var plan = ScavengePlan()
    var input = input
    withUnsafePointer(to: &input) { inputPointer in
      withUnsafeMutablePointer(to: &plan) { self.plan(context, inputPointer, $0) }
    }
    return plan
  }

  package mutating func booked(wanted: Int, released: Int) { booked(context, wanted, released) }
}

/// A strategy behind a function.
package struct CustomStrategy: Sendable, Equatable {
  /// `(context, ReleaseBatch *)`: releases with the lock open; answers the number of system calls.
  package typealias Release = @convention(c) (UnsafeMutableRawPointer?, UnsafeRawPointer) -> UInt32

  nonisolated(unsafe) package var context: UnsafeMutableRawPointer?
  package var release: Release

  /// A strategy of this function.
  package init(context: UnsafeMutableRawPointer?, release: Release) {
    self.context = context
    self.release = release
  }

  /// Equal if they share the context.
  package static func == (a: Self, b: Self) -> Bool { a.context == b.context }
}

extension CustomStrategy: ReleaseStrategy {
  package func release<K: Kernel>(_ batch: ReleaseBatch, on kernel: K) -> ReleaseCost {
    var cost = ReleaseCost()
    batch.learnSharing(on: kernel, ofWhole: true)
    batch.learnBacking(on: kernel)
    cost.calls = withUnsafePointer(to: batch) { Int(release(context, $0)) }
    for index in 0..<batch.count {
      if batch.known[index].effect > .refused { cost.ranges += 1 } else { cost.failures += 1 }
    }
    return cost
  }
}
