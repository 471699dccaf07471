import Foundation
import Testing

@testable import HugeSpanLab

private func run(_ policy: String, trace: String = "t", charged: Double? = 100, cost: Double? = 2) -> RunResult {
  var run = RunResult()
  run.trace = trace
  run.policy = policy
  run.strategy = "free"
  run.seconds = 60
  run.usedBytes = Extent(mean: 90 * 1_048_576, peak: 95 * 1_048_576)
  run.chargedBytes = charged.map { Extent(mean: $0 * 1_048_576, peak: $0 * 1_048_576) }
  run.coverage = 0.5
  run.taxCPUSeconds = 0.25
  run.modelledCPUSeconds = 0.1
  run.cost = cost
  run.bound = 1.5
  run.compareWithBound()
  run.series = RunSeries()
  run.series!.seconds = [0, 30]
  run.series!.usedBytes = [1, 2]
  run.series!.residentBytes = [1, nil]
  run.series!.chargedBytes = [nil, nil]
  run.series!.coverage = [nil, 0.5]
  run.blocks = BlockFilm()
  run.blocks!.seconds = [0, 30]
  run.blocks!.blocks = [0, 3]
  run.blocks!.frames = ["", "Fr."]
  return run
}

private func comparison(_ runs: [RunResult]) -> Comparison {
  Comparison(machine: Machine.current(), runs: runs, leftOut: [])
}

@Suite("Results that are read")
struct ComparisonFileTests {
  private func failure(_ text: String) -> String {
    do throws(ComparisonFileError) {
      _ = try HugeSpanLab.comparison(fromJSON: Data(text.utf8))
      return "none"
    } catch { return error.description }
  }

  @Test("what was written is what is read, with a series and without")
  func roundTrip() throws {
    var plain = run("never")
    plain.series = nil
    plain.blocks = nil
    let written = comparison([run("seed"), plain])
    let text = try jsonText(written)
    #expect(text.components(separatedBy: "\"series\"").count == 2, "not null where there is none")
    #expect(try HugeSpanLab.comparison(fromJSON: Data(text.utf8)).runs == written.runs)
  }

  @Test("what is no comparison is told from what is a damaged one")
  func failures() throws {
    #expect(failure("") == "is no JSON" && failure("{\"schema\": ") == "is no JSON")
    #expect(failure("[1]").hasPrefix("the top is of another type"))
    #expect(failure("{}").hasPrefix("has no 'schema'; 'hugespan.compare/1'"))
    #expect(failure(#"{"schema": "hugespan.coverage/1"}"#).hasPrefix("its schema is 'hugespan.coverage/1'; "))
    #expect(failure(#"{"schema": "hugespan.compare/1"}"#) == "'machine' is missing at the top")
    let text = try jsonText(comparison([run("never")]))
    func changed(_ part: String, _ other: String) -> String {
      #expect(text.contains(part))
      return failure(text.replacingOccurrences(of: part, with: other))
    }
    #expect(
      changed("\"splits\" : 0", "\"splits\" : true") == "runs[0].splits is of another type than a comparison has there")
    #expect(changed("\"Fr.\"", "\"Fx.\"") == "runs[0].blocks: 'x' in a frame is none of '.lrbosdF'")
    #expect(changed("\"every\" : 1", "\"every\" : 0") == "runs[0].blocks: 'every' is 0, not a positive number")
    #expect(changed("\"Fr.\"", "\"Fr.\", \"F\"").hasPrefix("runs[0].blocks: 3 frames have 2 times"))
    let cut = failure(try jsonText(comparison([damaged])))
    #expect(cut.hasPrefix("runs[0].series: as many values"))
  }

  private var damaged: RunResult {
    var damaged = run("never")
    damaged.series!.coverage.removeLast()
    return damaged
  }

  @Test("bytes that are changed at random are refused or make a page, and never a crash")
  func mutations() throws {
    let original = Array(try jsonText(comparison([run("never"), run("seed", cost: nil)])).utf8)
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    func random(_ bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    let digits = Array("0123456789-eE.,:{}[]\"nul".utf8)
    var accepted = 0
    for _ in 0..<1500 {
      var bytes = original
      for _ in 0...random(3) { bytes[random(bytes.count)] = digits[random(digits.count)] }
      guard let read = try? HugeSpanLab.comparison(fromJSON: Data(bytes)) else { continue }
      accepted += 1
      #expect(reportPage(of: [NamedComparison(name: "a", comparison: read)]).contains("</html>"))
    }
    #expect(accepted > 20 && accepted < 1450, "\(accepted)")
  }
}

@Suite("The page")
struct ReportPageTests {
  @Test("it loads nothing, and says so to the browser")
  func selfContained() {
    let page = reportPage(of: [NamedComparison(name: "a", comparison: comparison([run("never")]))])
    #expect(page.contains("default-src 'none'"))
    for part in ["src=", "@import", "url(http", "href=\"http", "fetch(", "XMLHttpRequest"] {
      #expect(!page.contains(part), "\(part)")
    }
    // The one address is the name of SVG elements.
    #expect(page.components(separatedBy: "http").count == 1 + 2, "http-equiv, and the name space")
  }

  @Test("names can end neither an element nor the data")
  func escaping() {
    let name = "</script><img src=x onerror=alert(1)>&\"'"
    let page = reportPage(of: [NamedComparison(name: name, comparison: comparison([run(name, trace: name)]))])
    #expect(!page.contains("<img") && page.components(separatedBy: "</script>").count == 3)
    #expect(page.contains("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;&quot;"))
    #expect(page.contains("\\u003c/script>"))
  }

  @Test("the table of runs has every column, its figures sort, the best are marked, the unknown is empty")
  func table() throws {
    let runs = [run("never", charged: 140, cost: 3), run("seed", charged: 120), run("decay", charged: nil, cost: nil)]
    let page = reportPage(of: [NamedComparison(name: "a", comparison: comparison(runs))])
    let rows = page.components(separatedBy: "<tr>").dropFirst(2)
    #expect(rows.count == 3)
    for row in rows { #expect(row.components(separatedBy: "<td").count == 1 + Column.all.count) }
    let seed = try #require(rows.first { $0.contains("seed / free") })
    #expect(seed.contains("<td class=\"best\" data-value=\"120.0\">120</td>"))
    #expect(try #require(rows.first { $0.contains("decay / free") }).contains("data-value=\"\">-</td>"))
    #expect(page.contains("<button type=\"button\">charged peak</button>"))
  }

  @Test("runs of one trace from two results stand side by side, each with its result's name")
  func severalResults() {
    let document = ReportDocument([
      NamedComparison(name: "before", comparison: comparison([run("never"), run("never", trace: "u")])),
      NamedComparison(name: "after", comparison: comparison([run("never")])),
      NamedComparison(name: "after", comparison: comparison([run("never")])),
    ])
    #expect(document.traces.map(\.name) == ["t", "u"])
    #expect(
      document.traces[0].runs.map(\.title) == [
        "never / free (before)", "never / free (after)", "never / free (after #2)",
      ])
    #expect(document.machines.count == 3 && document.machines[1].hasPrefix("after: "))
  }

  @Test("the line of the bound is drawn from the price of memory and the tax of a run without hugepages")
  func boundLine() {
    let trace = ReportDocument([NamedComparison(name: "a", comparison: comparison([run("never")]))]).traces[0]
    #expect(trace.bound == 1.5 && trace.fullTax == 0.5)
    #expect(abs(trace.rent - 400.0 / 60 / 1024) < 1e-12)
  }

  @Test("without a charge the resident size takes its place; without runs there is a page too")
  func lacking() {
    var resident = run("never", charged: nil, cost: nil)
    resident.residentBytes = Extent(mean: 1_048_576, peak: 1_048_576)
    let document = ReportDocument([NamedComparison(name: "a", comparison: comparison([resident]))])
    #expect(!document.traces[0].isCharged && document.traces[0].runs[0].memory == 1)
    #expect(reportPage(of: [NamedComparison(name: "a", comparison: comparison([]))]).contains("have no runs"))
  }
}
