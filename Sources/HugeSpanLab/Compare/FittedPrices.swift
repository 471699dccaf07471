// Prices of the kernel's operations, fitted to what runs on the real kernel took.
//
// The simulated kernel counts what a run does; the real one took so long for the same. Two small least-squares problems, one for calls and
// one for faults, with prices that may not be negative. Each run counts by its relative error, so that short runs count as well. What two
// operations always do together the runs cannot tell apart; so each price is also held to the built-in one, as firmly as one run holds it
// (ridge regression): without that a rebuild took the price of the splits before it.

import HugeSpanCore

enum FittedPrices {
  private struct Operation: Sendable {
    var name: String
    /// Microseconds, where the runs say nothing.
    var usual: Double
    var count: @Sendable (RunResult) -> Double
  }

  private static let built = CostModel()

  private static let calls: [Operation] = [
    Operation(name: "whole block released", usual: built.releaseBlock) {
      Double($0.releasedPages - ($0.decisions["pagesReleasedInParts"] ?? 0)) / 512
    },
    Operation(name: "page released", usual: built.releasePage) {
      isLazy($0) ? 0 : Double($0.decisions["pagesReleasedInParts"] ?? 0)
    },
    Operation(name: "range released", usual: built.releaseRange) { Double($0.decisions["releaseRanges"] ?? 0) },
    // Where a part of a hugepage is only unmapped, page tables are filled in and the folio stays whole: a tenth of a split.
    Operation(name: "hugepage unmapped in part", usual: 20) { splitsFolios($0) ? 0 : Double($0.splits) },
    // MADV_FREE of a part of a hugepage splits it as well, at a price of its own.
    Operation(name: "split", usual: built.split) {
      (isLazy($0) || !splitsFolios($0) ? 0 : Double($0.splits)) + Double($0.decisions["cures"] ?? 0)
    },
    Operation(name: "lazy split", usual: built.split) { isLazy($0) ? Double($0.splits) : 0 },
    // Of a whole block one entry changes, not 512.
    Operation(name: "page freed lazily", usual: built.releasePage) {
      isLazy($0) ? Double($0.decisions["pagesReleasedInParts"] ?? 0) : 0
    },
    Operation(name: "rebuild", usual: built.collapse) { Double($0.collapses) },
  ]

  private static func splitsFolios(_ run: RunResult) -> Bool {
    (try? StrategyChoice(notation: run.strategy))?.kind != .dontneed
  }

  private static func isLazy(_ run: RunResult) -> Bool {
    (try? StrategyChoice(notation: run.strategy))?.isLazy ?? false
  }

  private static let faults: [Operation] = [
    Operation(name: "huge fault", usual: built.blockFault) { Double($0.hugeFaults ?? 0) },
    Operation(name: "base fault", usual: built.pageFault) { baseFaults($0) },
    // The first fault of a touch finds the page table's line and the processor's tables cold: spans of a page or two (redis, sqlite) took
    // 0.4 us a fault more than long ones (compiler, images), whichever half of the traces the others were fitted on.
    Operation(name: "touch that faults", usual: 0.4) { Double($0.faultRuns ?? 0) },
    // No fault, but a walk of the page table that sets its dirty bit. With a price for all base faults of a lazy run instead, 200,000
    // of them (sqlite) went to 23,000 faults.
    Operation(name: "lazily freed page written again", usual: 0.3) { Double($0.lazyWrites ?? 0) },
  ]

  private static func baseFaults(_ run: RunResult) -> Double { Double((run.faults ?? 0) - (run.hugeFaults ?? 0)) }

  /// Microseconds by operation.
  static func fit(_ pairs: [(real: RunResult, simulated: RunResult)]) -> [String: Double] {
    var prices: [String: Double] = [:]
    for (operations, measured) in [(calls, \RunResult.releaseCPUSeconds), (faults, \RunResult.faultCPUSeconds)] {
      var rows: [[Double]] = []
      var goals: [Double] = []
      for pair in pairs {
        guard let seconds = pair.real[keyPath: measured] else { continue }
        let weight = 1 / max(seconds, 0.005)
        rows.append(operations.map { $0.count(pair.simulated) / 1e6 * weight })
        goals.append(seconds * weight)
      }
      if rows.isEmpty { continue }
      for index in operations.indices {
        var row = [Double](repeating: 0, count: operations.count)
        row[index] = 1 / operations[index].usual
        rows.append(row)
        goals.append(1)
      }
      for (operation, price) in zip(operations, nonNegativeLeastSquares(rows, goals)) { prices[operation.name] = price }
    }
    return prices
  }

  /// What a run's calls and faults take at these prices.
  static func seconds(_ run: RunResult, _ prices: [String: Double]) -> Double? {
    // Of a real run the clock has the word.
    if run.kernel == "real" {
      guard let release = run.releaseCPUSeconds, let fault = run.faultCPUSeconds else { return nil }
      return release + fault
    }
    return (calls + faults).reduce(0) { $0 + $1.count(run) * (prices[$1.name] ?? 0) / 1e6 }
  }

  /// The x ≥ 0 that makes |rows · x − goals| least, by descent along one coordinate at a time: convex, so it gets there.
  static func nonNegativeLeastSquares(_ rows: [[Double]], _ goals: [Double]) -> [Double] {
    guard let width = rows.first?.count else { return [] }
    var solution = [Double](repeating: 0, count: width)
    var residual = goals
    let squares = (0..<width).map { column in rows.reduce(0) { $0 + $1[column] * $1[column] } }
    for _ in 0..<2000 {
      for column in 0..<width where squares[column] > 0 {
        var slope = 0.0
        for (row, rest) in zip(rows, residual) { slope += row[column] * rest }
        let next = max(0, solution[column] + slope / squares[column])
        let step = next - solution[column]
        if step == 0 { continue }
        for index in rows.indices { residual[index] -= step * rows[index][column] }
        solution[column] = next
      }
    }
    return solution
  }
}
