// How far the simulated kernel's figures are from the real one's.
//
// Every run of the grid is made on both. Memory and counts are compared as they are; CPU time is a matter of the machine, so prices
// are fitted to what the real runs of the first half of the traces (by name) took, and judged on the other half alone. Where
// there is one trace only there is nothing to fit on, and the simulated kernel's own prices stand.

import HugeSpanCore

/// One figure of a pair of runs.
package struct FidelityCell: Codable, Equatable, Sendable {
  package var trace: String
  package var policy: String
  package var strategy: String
  package var column: String
  package var real: Double
  package var simulated: Double
  /// By the column's measure: points, or a share of the real figure.
  package var difference: Double
  /// What the column may differ by.
  package var allowed: Double

  package var isWithin: Bool { difference <= allowed }
}

/// The comparison of two kernels.
package struct Fidelity: Codable, Equatable, Sendable {
  /// Fitted microseconds by what they are of; empty if nothing was fitted.
  package var prices: [String: Double] = [:]
  package var fittedOn: [String] = []
  package var cells: [FidelityCell] = []
  package var worst: [FidelityCell] = []

  /// Pairs up the runs of `results`; nil if there is no pair.
  package init?(of results: [RunResult]) {
    let real = results.filter { $0.kernel == "real" }
    let pairs: [(real: RunResult, simulated: RunResult)] = real.compactMap { run in
      results.first {
        $0.kernel == "simulated" && $0.trace == run.trace && $0.policy == run.policy && $0.strategy == run.strategy
      }.map { (run, $0) }
    }
    if pairs.isEmpty { return nil }
    var traces: [String] = []
    for pair in pairs where !traces.contains(pair.real.trace) { traces.append(pair.real.trace) }
    traces.sort()
    fittedOn = traces.count > 1 ? Array(traces.prefix(traces.count / 2)) : []
    let fitting = pairs.filter { fittedOn.contains($0.real.trace) }
    if !fitting.isEmpty { prices = FittedPrices.fit(fitting) }
    let fitted = prices
    for (real, simulated) in pairs where !fittedOn.contains(real.trace) {
      for column in Self.columns {
        guard let a = column.value(real, [:]), let b = column.value(simulated, fitted) else { continue }
        let scale = column.isShare ? 1 : max(abs(a), column.floor)
        cells.append(
          FidelityCell(
            trace: real.trace, policy: real.policy, strategy: real.strategy, column: column.name, real: a, simulated: b,
            difference: abs(a - b) / scale, allowed: column.allowed))
      }
    }
    for column in Self.columns {
      if let cell = cells.filter({ $0.column == column.name }).max(by: { $0.difference < $1.difference }) {
        worst.append(cell)
      }
    }
  }

  private struct Measure: Sendable {
    var name: String
    /// Differences are points, not shares of the real figure.
    var isShare = false
    var allowed: Double
    /// Figures below it are compared as if the real one were this.
    var floor = 0.0
    var value: @Sendable (RunResult, [String: Double]) -> Double?
  }

  private static let mebibyte = 1_048_576.0

  /// The columns, and what they may differ by.
  private static let columns: [Measure] = [
    Measure(name: "coverage", isShare: true, allowed: 0.02) { run, _ in run.coverage },
    Measure(name: "charged", allowed: 0.03, floor: 4 * mebibyte) { run, _ in run.chargedBytes?.mean },
    Measure(name: "RSS", allowed: 0.03, floor: 4 * mebibyte) { run, _ in run.residentBytes?.mean },
    // What the kernel holds back in its batches per processor is not counted as lazily free yet: half a megabyte each.
    Measure(name: "LazyFree", allowed: 0.03, floor: 16 * mebibyte) { run, _ in run.lazyFreeBytes?.mean },
    Measure(name: "splits", allowed: 0.05, floor: 20) { run, _ in Double(run.splits) },
    Measure(name: "faults", allowed: 0.05, floor: 2000) { run, _ in run.faults.map(Double.init) },
    Measure(name: "CPU s", allowed: 0.25, floor: 0.02) { run, prices in
      if !prices.isEmpty { return FittedPrices.seconds(run, prices) }
      guard let release = run.releaseCPUSeconds, let fault = run.faultCPUSeconds else { return nil }
      return release + fault
    },
  ]

  /// Lines for a reader: the worst cell of each column, and how many were within.
  package func text(_ style: TableStyle) -> String {
    var rows: [[TextTable.Cell]] = []
    for cell in worst {
      let measure = Self.columns.first { $0.name == cell.column }!
      let all = cells.filter { $0.column == cell.column }
      let unit = measure.isShare ? " points" : " %"
      let isMemory = measure.floor >= Self.mebibyte
      func figure(_ value: Double) -> String {
        if isMemory { return fixed(value / Self.mebibyte, 1) + " MiB" }
        return measure.isShare ? fixed(value * 100, 1) + " %" : fixed(value, measure.floor < 1 ? 3 : 0)
      }
      let texts = [
        cell.column, "\(cell.trace) \(cell.policy)/\(cell.strategy)", fixed(cell.difference * 100, 1) + unit,
        fixed(cell.allowed * 100, 0) + unit, figure(cell.real), figure(cell.simulated),
        "\(all.count { $0.isWithin }) of \(all.count)",
      ]
      rows.append(texts.enumerated().map { TextTable.Cell($1, isMarked: $0 == 2 && !cell.isWithin) })
    }
    var text = "The simulated kernel against the real one, by the worst cell of each column (* more than is allowed).\n"
    if fittedOn.isEmpty {
      text += "One trace only, so the price list was not fitted.\n"
    } else {
      let list = prices.sorted { $0.key < $1.key }.map { "\($0.key) \(fixed($0.value, 2)) us" }.joined(separator: ", ")
      text += "Prices were fitted on \(fittedOn.joined(separator: ", ")) (\(list)); the other traces are shown.\n"
    }
    let heads = ["column", "worst in", "differs by", "allowed", "real", "simulated", "within"]
    return text + TextTable(heads: heads, rows: rows, labelCount: 2).text(style)
  }
}
