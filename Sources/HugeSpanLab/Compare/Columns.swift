// The columns of a comparison: what is shown of a run, how it is written, and which value of a column is the best.
//
// One table of columns serves the terminal, the CSV and the single run; a column that is added here is everywhere.

/// What a column shows, and how.
package struct Column: Sendable {
  /// Which value of a column deserves the mark.
  package enum Merit: Sendable {
    case none, low, high
  }

  /// The column's head, at most two words.
  package var title: String
  /// The name in CSV; the unit is part of it.
  package var field: String
  package var merit: Merit
  /// The figure depends on what the kernel does by its own clock: it is another one at another speed.
  package var dependsOnKernelClock: Bool
  /// The value in the unit of the column; nil is unknown.
  package var value: @Sendable (RunResult) -> Double?
  /// The value as it is shown.
  package var format: @Sendable (Double) -> String

  init(
    _ title: String, _ field: String, _ merit: Merit, dependsOnKernelClock: Bool = false,
    format: @escaping @Sendable (Double) -> String, value: @escaping @Sendable (RunResult) -> Double?
  ) {
    self.title = title
    self.field = field
    self.merit = merit
    self.dependsOnKernelClock = dependsOnKernelClock
    self.value = value
    self.format = format
  }

  /// The cell of a run.
  package func cell(_ result: RunResult) -> String { value(result).map(format) ?? "-" }
}

private let mebibyte = 1_048_576.0

/// `digits` digits after the point, without Foundation's formatter: it is called for each cell.
package func fixed(_ value: Double, _ digits: Int) -> String {
  guard value.isFinite else { return "-" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let rounded = (abs(value) * scale).rounded()
  guard rounded < 1e15 else { return String(value) }
  let whole = Int(rounded / scale)
  let sign = value < 0 && rounded > 0 ? "-" : ""
  if digits == 0 { return sign + String(whole) }
  let fraction = String(Int(rounded) - whole * Int(scale))
  return sign + "\(whole)." + String(repeating: "0", count: digits - fraction.count) + fraction
}

/// Counts with thousands in groups: `12,345`.
package func grouped(_ value: Double) -> String {
  var digits = fixed(abs(value), 0)
  var text = ""
  while digits.count > 3 {
    text = "," + digits.suffix(3) + text
    digits = String(digits.dropLast(3))
  }
  return (value < 0 ? "-" : "") + digits + text
}

private func whole(_ value: Double) -> String { fixed(value, 0) }
private func percent(_ value: Double) -> String { fixed(value * 100, 1) + "%" }
private func seconds(_ value: Double) -> String { fixed(value, 3) }

extension Column {
  private static func memory(
    _ title: String, _ field: String, _ merit: Merit, _ extent: @escaping @Sendable (RunResult) -> Extent?
  ) -> [Column] {
    [
      Column(title, field + "_mean_mib", merit, format: whole) { extent($0).map { $0.mean / mebibyte } },
      Column("peak", field + "_peak_mib", merit, format: whole) { extent($0).map { $0.peak / mebibyte } },
    ]
  }

  /// Memory in MiB (mean by trace time, and peak), coverage, overhead.
  package static let memoryColumns: [Column] =
    memory("used", "used", .none) { $0.usedBytes } + memory("RSS", "resident", .low) { $0.residentBytes }
    + memory("charged", "charged", .low) { $0.chargedBytes }
    + memory("LazyFree", "lazy_free", .none) { $0.lazyFreeBytes }
    + memory("phantom", "phantom", .low) { $0.phantomBytes } + [
      Column("coverage", "coverage", .high, format: percent) { $0.coverage },
      Column("overhead", "overhead", .low, format: percent) { $0.overhead },
    ]

  /// What was done, and what it took.
  package static let workColumns: [Column] = [
    Column("released", "released_pages", .none, format: grouped) { Double($0.releasedPages) },
    Column("refaulted", "refaulted_pages", .low, format: grouped) { Double($0.refaultedPages) },
    Column("splits", "splits", .low, format: grouped) { Double($0.splits) },
    Column("rebuilt", "collapses", .none, format: grouped) { Double($0.collapses) },
    Column("moved", "moved_blocks", .none, format: grouped) { Double($0.movedBlocks) },
    Column("calls", "release_calls", .low, format: grouped) { Double($0.releaseCalls) },
    Column("re-inflated", "reinflated_blocks", .low, dependsOnKernelClock: true, format: grouped) {
      Double($0.reinflatedBlocks)
    },
    Column("lost", "lost_blocks", .low, dependsOnKernelClock: true, format: grouped) { Double($0.lostBlocks) },
    Column("taken", "lazy_taken_pages", .none, dependsOnKernelClock: true, format: grouped) {
      Double($0.lazyTakenPages)
    },
    Column("faults", "faults", .low, dependsOnKernelClock: true, format: grouped) { $0.faults.map(Double.init) },
    Column("heap s", "heap_cpu_s", .low, format: seconds) { $0.heapCPUSeconds },
    Column("release s", "release_cpu_s", .low, format: seconds) { $0.releaseCPUSeconds },
    Column("fault s", "fault_cpu_s", .low, dependsOnKernelClock: true, format: seconds) { $0.faultCPUSeconds },
    Column("stall ms", "longest_stall_ms", .low, format: { fixed($0, 2) }) { $0.longestStallSeconds.map { $0 * 1000 } },
  ]

  /// What it comes to, in CPU-seconds: by the price list, the part of it that is TLB misses, and with memory at its price.
  package static let costColumns: [Column] = [
    Column("model s", "modelled_cpu_s", .low, format: seconds) { $0.modelledCPUSeconds },
    Column("tax s", "tax_cpu_s", .low, format: seconds) { $0.taxCPUSeconds },
    Column("cost", "cost_cpu_s", .low, format: seconds) { $0.cost },
    Column("bound", "bound_cpu_s", .none, format: seconds) { $0.bound },
    Column("any heap", "object_bound_cpu_s", .none, format: seconds) { $0.objectBound },
    Column("cost/bound", "cost_to_bound", .low, format: { fixed($0, 3) }) { $0.costToBound },
    Column("excess", "excess_cpu_s", .low, format: seconds) { $0.excessCost },
    Column("reference", "reference_cpu_s", .none, format: seconds) { $0.reference },
  ]

  package static let all = memoryColumns + workColumns + costColumns

  /// Indices of the runs whose cell is the best of the column. Empty where all are equal: then there is nothing to
  /// choose. What is shown alike counts as equal.
  package func best(of results: [RunResult]) -> Set<Int> {
    if merit == .none { return [] }
    var cells: [(index: Int, value: Double, cell: String)] = []
    for (index, result) in results.enumerated() {
      if let value = value(result) { cells.append((index, value, format(value))) }
    }
    guard let best = merit == .low ? cells.min(by: { $0.value < $1.value }) : cells.max(by: { $0.value < $1.value })
    else { return [] }
    let winners = cells.filter { $0.cell == best.cell }
    return winners.count == cells.count ? [] : Set(winners.map(\.index))
  }
}
