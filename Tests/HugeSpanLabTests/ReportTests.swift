import Foundation
import Testing

@testable import HugeSpanLab

private func result(_ policy: String, charged: Double?, coverage: Double? = 0.5, refaulted: Int = 0) -> RunResult {
  var result = RunResult()
  result.trace = "t"
  result.policy = policy
  result.strategy = "s"
  result.usedBytes = Extent(mean: 1_048_576, peak: 2_097_152)
  result.residentBytes = Extent(mean: 2_097_152, peak: 2_097_152)
  result.chargedBytes = charged.map { Extent(mean: $0 * 1_048_576, peak: $0 * 2_097_152) }
  result.coverage = coverage
  result.refaultedPages = refaulted
  return result
}

@Suite("Reports")
struct ReportTests {
  @Test("numbers are rounded and grouped for people")
  func numbers() {
    #expect(fixed(1.005, 2) == "1.01" || fixed(1.005, 2) == "1.00")
    #expect(fixed(0.0004, 3) == "0.000" && fixed(-0.0004, 3) == "0.000")
    #expect(fixed(-1.26, 1) == "-1.3" && fixed(12.999, 2) == "13.00" && fixed(7, 0) == "7")
    #expect(fixed(.infinity, 1) == "-")
    #expect(grouped(0) == "0" && grouped(999) == "999" && grouped(1000) == "1,000")
    #expect(grouped(1_234_567) == "1,234,567" && grouped(-12_345) == "-12,345")
  }

  @Test("the best of a column is marked, ties too, but not where all are equal or unknown")
  func best() {
    let results = [
      result("a", charged: 5), result("b", charged: 3), result("c", charged: 3.2), result("d", charged: nil),
    ]
    let charged = Column.memoryColumns.first { $0.title == "charged" }!
    #expect(charged.best(of: results) == [1, 2])  // both are shown as 3
    #expect(charged.cell(results[3]) == "-")
    #expect(Column.memoryColumns.first { $0.title == "coverage" }!.best(of: results) == [])
    #expect(Column.memoryColumns.first { $0.title == "used" }!.best(of: results) == [])
  }

  @Test("a table is aligned, marked, and split when the terminal is narrow")
  func table() {
    let table = TextTable(
      heads: ["name", "x", "long head"],
      rows: [
        [.init("a"), .init("1", isMarked: true), .init("10")],
        [.init("bcdef"), .init("200"), .init("3", isMarked: true)],
      ], labelCount: 1)
    #expect(
      table.text(TableStyle()) == """
        name    x  long head
        a       1*        10
        bcdef 200          3*

        """)
    let narrow = table.text(TableStyle(width: 16))
    #expect(narrow == "name    x\na       1*\nbcdef 200\n\nname  long head\na            10\nbcdef         3*\n")
    #expect(table.text(TableStyle(isTerminal: true)).contains("\u{1B}[1m1*\u{1B}[0m"))
  }

  @Test("the report of a trace has a row per run, the overview and the reason of an unknown charge")
  func report() {
    var unknown = result("b", charged: nil, coverage: 0.9)
    unknown.chargeUnknownReason = "no controller"
    let text = HugeSpanLab.report(of: [result("a", charged: 5), unknown], style: TableStyle())
    #expect(text.contains("Least charged: a/s, 5 MiB on average at 50.0% coverage."))
    #expect(text.contains("Best coverage: b/s, 90.0%"))
    #expect(text.contains("The charge is unknown: no controller."))
    #expect(text.contains("fault s~") && legend(isClocked: false).contains("~"))
    var clocked = result("a", charged: 1)
    clocked.speed = 1
    #expect(!HugeSpanLab.report(of: [clocked], style: TableStyle()).contains("~"))
  }

  @Test("CSV has a field per column, quotes what needs it and leaves the unknown empty")
  func commaSeparated() {
    let lines = csv(of: [result("seed:rate=1,prefer-long=off", charged: nil)]).split(separator: "\n")
    #expect(lines.count == 2)
    let heads = lines[0].split(separator: ",", omittingEmptySubsequences: false)
    #expect(heads.count == 8 + Column.all.count && Set(heads).count == heads.count)
    #expect(lines[1].hasPrefix("t,\"seed:rate=1,prefer-long=off\",s,real,"))
    let charged = heads.firstIndex(of: "charged_mean_mib")!
    // One comma is within the quotes.
    #expect(lines[1].split(separator: ",", omittingEmptySubsequences: false)[charged + 1] == "")
  }

  @Test("JSON has every name that scripts rely on, null where nothing is known, and reads back")
  func json() throws {
    let comparison = Comparison(
      machine: .current(), runs: [result("a", charged: nil)],
      leftOut: [LeftOut(trace: "t", policy: "p", strategy: "s", reason: "r")])
    let text = try jsonText(comparison)
    let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(object["schema"] as? String == "hugespan.compare/1")
    #expect(object["costModel"] is NSNull)
    #expect((object["machine"] as? [String: Any])?["kernelRelease"] is String)
    let run = try #require((object["runs"] as? [[String: Any]])?.first)
    for name in [
      "trace", "policy", "strategy", "kernel", "seconds", "usedBytes", "residentBytes", "chargedBytes", "lazyFreeBytes",
      "phantomBytes", "coverage", "overhead", "releasedPages", "refaultedPages", "releaseCalls", "splits", "collapses",
      "faults", "heapCPUSeconds", "releaseCPUSeconds", "faultCPUSeconds", "longestStallSeconds", "modelledCPUSeconds",
      "taxCPUSeconds", "cost", "firstHalfCost", "excessCost", "bound", "reference",
      "objectBound", "costToBound", "taxWeight", "lazyWeight", "memoryPrice", "swappedBytes",
    ] { #expect(run[name] != nil, "\(name)") }
    #expect(run["chargedBytes"] is NSNull && run["cost"] is NSNull)
    #expect((run["usedBytes"] as? [String: Double])?["peak"] == 2_097_152)
    let back = try JSONDecoder().decode(Comparison.self, from: Data(text.utf8))
    #expect(back.runs == comparison.runs && back.leftOut == comparison.leftOut)
  }
}

@Suite("Planning a comparison")
struct GridTests {
  @Test("never is one row; the first runs show every policy and strategy, for every trace")
  func order() {
    let runs = Grid.runs(traces: ["x", "y"], policies: Grid.defaultPolicies, strategies: Grid.defaultStrategies)
    #expect(runs.count == 2 * 22)
    #expect(runs.filter { $0.policy == "never" }.map(\.strategy) == ["keep", "keep"])
    let first = runs.prefix(2 * 8)
    #expect(Set(first.map(\.policy)) == Set(Grid.defaultPolicies))
    #expect(Set(first.map(\.strategy)).isSuperset(of: Grid.defaultStrategies))
    #expect(first.filter { $0.trace == "x" }.count == 8)
    #expect(Set(runs.map { "\($0.trace) \($0.row)" }).count == 44)
  }

  @Test("expected times follow what runs took")
  func estimates() {
    var estimator = RunEstimator(sizes: ["x": 1_000_000, "y": 1_000_000])
    let plain = PlannedRun(trace: "x", policy: "never", strategy: "keep", row: 0)
    let slow = PlannedRun(trace: "x", policy: "p", strategy: "s", row: 1)
    let before = estimator.seconds(plain)
    estimator.record(plain, seconds: before * 4)
    #expect(estimator.seconds(PlannedRun(trace: "y", policy: "never", strategy: "keep", row: 0)) > before * 3)
    estimator.record(slow, seconds: before * 12)
    let other = PlannedRun(trace: "y", policy: "p", strategy: "s", row: 1)
    #expect(estimator.seconds(other) > estimator.seconds(PlannedRun(trace: "y", policy: "q", strategy: "s", row: 2)))
  }
}
