// How often to look: as often as was asked, unless a look would take too much of the time between two.

/// The interval between looks, in nanoseconds.
package struct WatchPace: Equatable, Sendable {
  package static let least: UInt64 = 10_000_000
  private static let steps: [UInt64] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000]
    .map { $0 * 1_000_000 }

  /// What was asked for.
  package private(set) var wanted: UInt64
  /// CPU time of a look with its drawing; a single dear one is forgotten after some cheap ones.
  package private(set) var cost: UInt64 = 0

  package init(wanted: UInt64) { self.wanted = max(wanted, Self.least) }

  /// A tenth of the time at most goes into looking.
  package var interval: UInt64 { max(wanted, cost * 10) }
  package var isLengthened: Bool { interval > wanted }

  package mutating func note(cost taken: UInt64) {
    cost = taken > cost ? (cost == 0 ? taken : (cost + taken) / 2) : (3 * cost + taken) / 4
  }

  package mutating func lengthen() { wanted = Self.steps.first { $0 > wanted } ?? wanted }
  package mutating func shorten() { wanted = Self.steps.last { $0 < wanted } ?? wanted }
}
