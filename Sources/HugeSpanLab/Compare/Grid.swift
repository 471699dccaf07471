// Which runs make a comparison, in which order, and how long each will take.
//
// The order is by importance, across traces: when the time is up, every trace has its most telling rows. `never` is one row,
// because without releases a strategy has nothing to do. How long a run takes is learned from the runs before it.

import HugeSpanCore

/// A run that is to be made.
package struct PlannedRun: Equatable, Sendable {
  package var trace: String
  package var policy: String
  package var strategy: String
  /// Place in the order in which rows are shown.
  package var row: Int
  /// On which kernel: `real` or `simulated`.
  package var kernel: String
  /// How often it was made before.
  package var earlierAttempts = 0

  package init(trace: String, policy: String, strategy: String, row: Int, kernel: String = "real") {
    self.trace = trace
    self.policy = policy
    self.strategy = strategy
    self.row = row
    self.kernel = kernel
  }

  package var title: String {
    "\(traceName(trace)) \(policy)/\(strategy)" + (kernel == "real" ? "" : " (\(kernel))")
  }
}

/// Planning of a comparison.
package enum Grid {
  package static let defaultPolicies = [
    "never", "immediate", "gperftools", "demand-window", "decay", "paced", "seed", "rent-or-buy",
  ]
  package static let defaultStrategies = ["dontneed", "free", "split-dontneed"]

  /// All runs over `traces`, the most important first; rows of a trace count up in the order of policies and strategies.
  package static func runs(
    traces: [String], policies: [String], strategies: [String], kernels: [String] = ["real"]
  ) -> [PlannedRun] {
    var rows: [(policy: String, strategy: String)] = []
    // Rounds: in each every policy has one row, with another strategy than its neighbours. After the first every policy was seen.
    var rounds = [[Int]](repeating: [], count: max(strategies.count, 1))
    for (place, policy) in policies.enumerated() {
      if policy == "never" {
        rounds[0].append(rows.count)
        rows.append((policy, "keep"))
      } else {
        for (index, strategy) in strategies.enumerated() {
          // The last strategy, the honest one by default, is the first of the first policy that releases.
          rounds[(index + strategies.count * (place + 1) - place - 1) % strategies.count].append(rows.count)
          rows.append((policy, strategy))
        }
      }
    }
    let order = rounds.flatMap { $0 }
    return order.flatMap { row in
      traces.flatMap { trace in
        kernels.map {
          PlannedRun(trace: trace, policy: rows[row].policy, strategy: rows[row].strategy, row: row, kernel: $0)
        }
      }
    }
  }
}

/// Expects how long runs take, from how long others took.
package struct RunEstimator: Sendable {
  /// Seconds per byte of a trace file, before any run is known; measured on a slow virtual machine.
  private static let secondsPerByte = 1.2e-6
  private var byTrace: [String: Mean] = [:]
  private var byRow: [Int: Mean] = [:]
  private var simulated = Mean()
  private var known: (actual: Double, guessed: Double) = (0, 0)
  private let sizes: [String: Int]

  /// `sizes` has the bytes of each trace's file.
  package init(sizes: [String: Int]) { self.sizes = sizes }

  private func guess(_ trace: String) -> Double { 0.5 + Double(sizes[trace] ?? 0) * Self.secondsPerByte }

  /// What runs of `trace` take on average: as they did, or by its size, corrected by what other sizes led to.
  private func average(_ trace: String) -> Double {
    byTrace[trace]?.value ?? guess(trace) * (known.guessed > 0 ? known.actual / known.guessed : 1)
  }

  /// Seconds that `run` will take: its trace's average, times how its row compares with the average on other traces.
  package func seconds(_ run: PlannedRun) -> Double {
    if run.kernel != "real" { return simulated.value }
    return average(run.trace) * (byRow[run.row]?.value ?? 1)
  }

  /// Learns from a run that took `seconds`.
  package mutating func record(_ run: PlannedRun, seconds: Double) {
    if run.kernel != "real" {
      simulated.add(seconds)
      return
    }
    byRow[run.row, default: Mean()].add(seconds / max(average(run.trace), 0.01))
    byTrace[run.trace, default: Mean()].add(seconds)
    known.actual += seconds
    known.guessed += guess(run.trace)
  }
}

private struct Mean: Sendable {
  private var sum = 0.0
  private var count = 0.0

  var value: Double { count > 0 ? sum / count : 0 }

  mutating func add(_ value: Double) {
    sum += value
    count += 1
  }
}
