// Results as people read them: a table per trace with a few words under it, CSV, and the report of a single run.

/// The table of the runs of one trace, with its head line and overview.
package func report(of results: [RunResult], style: TableStyle) -> String {
  guard let first = results.first else { return "" }
  let columns = Column.all
  let isClocked = first.speed == 1
  let best = columns.map { $0.best(of: results) }
  var rows: [[TextTable.Cell]] = []
  for (index, result) in results.enumerated() {
    var row = [TextTable.Cell(result.policy), TextTable.Cell(result.strategy)]
    for (column, winners) in zip(columns, best) {
      row.append(TextTable.Cell(column.cell(result), isMarked: winners.contains(index)))
    }
    rows.append(row)
  }
  let heads = ["policy", "strategy"] + columns.map { $0.title + ($0.dependsOnKernelClock && !isClocked ? "~" : "") }
  var text = "\(first.trace): \(fixed(first.seconds, 1)) s of program time, \(grouped(Double(first.events))) events"
  text += ", touch \(first.touch)"
  if let recorded = first.recordedPeakResidentBytes, let peak = results.compactMap({ $0.residentBytes?.peak }).max() {
    text += "; peak RSS of the recorded program \(mebibytes(Double(recorded))), of the replay \(mebibytes(peak))"
  }
  text += "\n" + TextTable(heads: heads, rows: rows, labelCount: 2).text(style)
  for line in overview(of: results) { text += style.wrapped(line) }
  if let note = first.traceNote { text += "Note: \(note).\n" }
  if let reason = results.compactMap(\.chargeUnknownReason).first { text += "The charge is unknown: \(reason).\n" }
  return text
}

/// Of several runs of the same, the one whose calls and faults took the least CPU time: what others do on the machine only adds to it.
/// - Parameter byKhugepaged: Those beside which khugepaged put fewer hugepages together come before all others.
package func leastDisturbed(_ results: [RunResult], byKhugepaged: Bool = false) -> [RunResult] {
  func disturbance(_ run: RunResult) -> (collapses: Int, seconds: Double) {
    (byKhugepaged ? run.khugepagedCollapses ?? 0 : 0, (run.releaseCPUSeconds ?? 0) + (run.faultCPUSeconds ?? 0))
  }
  var kept: [RunResult] = []
  for run in results {
    let place = kept.firstIndex {
      $0.trace == run.trace && $0.policy == run.policy && $0.strategy == run.strategy && $0.kernel == run.kernel
    }
    guard let place else {
      kept.append(run)
      continue
    }
    if disturbance(run) < disturbance(kept[place]) { kept[place] = run }
  }
  return kept
}

/// What the signs in a table mean.
package func legend(isClocked: Bool) -> String {
  var text = "Memory in MiB: mean by trace time, and peak. * best of the column; - unknown."
  if !isClocked { text += " ~ depends on the kernel's own clock: different at --speed 1." }
  return text + "\n"
}

private func mebibytes(_ bytes: Double) -> String { "\(fixed(bytes / 1_048_576, 0)) MiB" }

/// What a reader should see first, in words.
package func overview(of results: [RunResult]) -> [String] {
  func name(_ result: RunResult) -> String { "\(result.policy)/\(result.strategy)" }
  // Charged and resident sizes are not compared with each other.
  let word = results.contains { $0.chargedBytes != nil } ? "charged" : "resident"
  func memory(_ result: RunResult) -> Double? {
    (word == "charged" ? result.chargedBytes : result.residentBytes)?.mean
  }
  guard results.count > 1, let least = results.filter({ memory($0) != nil }).min(by: { memory($0)! < memory($1)! })
  else { return [] }
  var lines = [
    "Least \(word): \(name(least)), \(mebibytes(memory(least)!)) on average"
      + (least.coverage.map { " at \(fixed($0 * 100, 1))% coverage." } ?? ".")
  ]
  if let widest = results.filter({ $0.coverage != nil }).max(by: { $0.coverage! < $1.coverage! }) {
    // Of those that cover as much, the one that costs the least memory.
    let equals = results.filter { ($0.coverage ?? 0) >= widest.coverage! - 0.005 }
    let cheapest = equals.min { memory($0) ?? .infinity < memory($1) ?? .infinity } ?? widest
    lines.append(
      "Best coverage: \(name(cheapest)), \(fixed(cheapest.coverage! * 100, 1))%"
        + (memory(cheapest).map { " for \(mebibytes($0)) \(word)." } ?? "."))
  }
  if let best = results.filter({ $0.cost != nil }).min(by: { $0.cost! < $1.cost! }) {
    lines.append(
      "Least cost: \(name(best)), \(fixed(best.cost!, 3)) CPU-seconds, memory and TLB misses reckoned in"
        + (memory(best).map { ", at \(mebibytes($0)) \(word)" } ?? "")
        + (best.coverage.map { " and \(fixed($0 * 100, 1))% coverage." } ?? "."))
  }
  // A ranking that turns with the weight of what is modelled and not measured deserves a second look.
  let ranked = results.filter { $0.cost(taxWeight: 0) != nil }
  let winners = [0.0, 1, 2].compactMap { weight -> String? in
    guard let best = ranked.min(by: { $0.cost(taxWeight: weight)! < $1.cost(taxWeight: weight)! }) else { return nil }
    return "\(plain(weight)): \(name(best)), \(fixed(best.cost(taxWeight: weight)!, 3))"
  }
  if ranked.count > 1 { lines.append("Least cost by the weight of TLB misses: \(winners.joined(separator: "; ")).") }
  if let worst = results.max(by: { $0.phantomBytes?.mean ?? 0 < $1.phantomBytes?.mean ?? 0 }),
    let phantom = worst.phantomBytes, phantom.mean > 4 * 1_048_576
  {
    lines.append(
      "RSS hides \(mebibytes(phantom.mean)) on average (\(mebibytes(phantom.peak)) at most) with \(name(worst)): "
        + "charged, and in no page table.")
  }
  return lines
}

/// One row per run, all fields, RFC 4180.
package func csv(of results: [RunResult]) -> String {
  func quoted(_ text: String) -> String {
    guard text.contains(where: { ",\"\n".contains($0) }) else { return text }
    return "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
  }
  let labels = ["trace", "policy", "strategy", "kernel", "seconds", "speed", "touch", "events"]
  var text = (labels + Column.all.map(\.field)).joined(separator: ",") + "\n"
  for result in results {
    var cells = [
      result.trace, result.policy, result.strategy, result.kernel, fixed(result.seconds, 6),
      result.speed.map { plain($0) } ?? "max", result.touch, String(result.events),
    ].map(quoted)
    // An unknown value is an empty cell.
    cells += Column.all.map { column in
      column.value(result).map { fixed($0, 6) } ?? ""
    }
    text += cells.joined(separator: ",") + "\n"
  }
  return text
}

/// The report of a single run: a figure per line.
package func describe(_ result: RunResult) -> String {
  var lines: [(String, String)] = [
    ("trace", "\(result.trace), \(fixed(result.seconds, 1)) s, \(grouped(Double(result.events))) events"),
    ("policy / strategy", "\(result.policy) / \(result.strategy)"),
    (
      "replay",
      "touch \(result.touch), speed \(result.speed.map { plain($0) } ?? "max"), took \(fixed(result.wallSeconds, 2)) s, "
        + "\(fixed(result.replayCPUSeconds ?? 0, 2)) s CPU besides measuring, \(result.samples) samples"
    ),
  ]
  for index in stride(from: 0, to: 10, by: 2) {
    let mean = Column.memoryColumns[index]
    let peak = Column.memoryColumns[index + 1]
    lines.append(
      (
        mean.title,
        mean.value(result) == nil ? "-" : "\(mean.cell(result)) MiB on average, \(peak.cell(result)) at peak"
      ))
  }
  for column in Column.memoryColumns.dropFirst(10) + Column.workColumns + Column.costColumns {
    let mark = column.dependsOnKernelClock && result.speed != 1 ? " (depends on the kernel's own clock)" : ""
    lines.append((column.title, column.cell(result) + mark))
  }
  if let recorded = result.recordedPeakResidentBytes, let peak = result.residentBytes?.peak {
    lines.append(
      ("peak RSS", "\(mebibytes(peak)) in the replay, \(mebibytes(Double(recorded))) of the recorded program"))
  }
  if let note = result.traceNote { lines.append(("note", note)) }
  if result.chargedBytes == nil, let reason = result.chargeUnknownReason {
    lines.append(("charge unknown", reason))
  }
  let width = lines.map(\.0.count).max() ?? 0
  return lines.map { $0.0 + String(repeating: " ", count: width + 2 - $0.0.count) + $0.1 + "\n" }.joined()
}
