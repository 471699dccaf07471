// The table of a trace's runs, complete without a script: the columns of the terminal's table, the best of each marked.

enum ReportTable {
  /// Columns that are shown before all are asked for.
  private static let main: Set<String> = [
    "used_mean_mib", "resident_mean_mib", "charged_mean_mib", "phantom_mean_mib", "coverage", "released_pages",
    "refaulted_pages", "splits", "release_calls", "longest_stall_ms", "cost_cpu_s", "cost_to_bound", "excess_cpu_s",
  ]

  static func html(_ source: ReportDocument.Source, index: Int) -> String {
    let results = source.results
    let isClocked = results[0].speed == 1
    let best = Column.all.map { $0.best(of: results) }
    var heads = "<th scope=\"col\"><button type=\"button\">run</button></th>"
    for (column, title) in zip(Column.all, titles) {
      let mark = column.dependsOnKernelClock && !isClocked ? "~" : ""
      heads += "<th scope=\"col\"\(kind(column))><button type=\"button\">\(escaped(title + mark))</button></th>"
    }
    var rows = ""
    for (row, result) in results.enumerated() {
      rows += "<tr><th scope=\"row\">\(escaped(source.titles[row]))</th>"
      for (column, winners) in zip(Column.all, best) {
        let value = column.value(result).map { String($0) } ?? ""
        rows += "<td\(kind(column, isBest: winners.contains(row))) data-value=\"\(value)\">\(column.cell(result))</td>"
      }
      rows += "</tr>\n"
    }
    let name = escaped(results[0].trace)
    let note = isClocked ? "" : " ~ depends on the kernel's own clock."
    return """
      <section class="card" aria-labelledby="runs-\(index)">
      <h3 id="runs-\(index)">Runs</h3>
      <div class="controls"><label><input type="checkbox" data-part="wide">all columns</label></div>
      <div class="scroll" tabindex="0" role="region" aria-labelledby="runs-\(index)">
      <table class="runs" data-part="runs">
      <caption>Runs of \(name); a head sorts. * best of the column; - unknown.\(note)</caption>
      <thead><tr>\(heads)</tr></thead>
      <tbody>
      \(rows)</tbody>
      </table>
      </div>
      </section>
      """
  }

  /// Titles that stand alone: a peak's says of what.
  private static var titles: [String] {
    var titles: [String] = []
    for column in Column.all {
      titles.append(column.title == "peak" ? (titles.last ?? "") + " peak" : column.title)
    }
    return titles
  }

  private static func kind(_ column: Column, isBest: Bool = false) -> String {
    let kinds = [main.contains(column.field) ? nil : "more", isBest ? "best" : nil].compactMap { $0 }
    return kinds.isEmpty ? "" : " class=\"\(kinds.joined(separator: " "))\""
  }
}
