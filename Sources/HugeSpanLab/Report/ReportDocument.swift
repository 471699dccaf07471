// What the page's script is given: the runs of all results, by trace, in the units in which they are shown.
//
// Runs of one trace from several results stand side by side; each then has the name of its result in its title, which
// is also what the page's menus, legends and tables call it.

import Foundation

/// A result, and what it is called.
package struct NamedComparison: Sendable {
  package var name: String
  package var comparison: Comparison

  package init(name: String, comparison: Comparison) {
    self.name = name
    self.comparison = comparison
  }
}

/// The data of a page.
package struct ReportDocument: Encodable, Sendable {
  /// A run, as it is drawn.
  struct Run: Encodable, Sendable {
    var title: String
    var policy: String
    var strategy: String
    /// MiB; what is charged, or what is resident where the charge is unknown.
    var memory: Double?
    var used: Double?
    var coverage: Double?
    // CPU-seconds.
    var cost: Double?
    var excess: Double?
    var costToBound: Double?
    var work: Double?
    var tax: Double?
    var series: RunSeries?
    var blocks: BlockFilm?
  }

  /// A trace with its runs.
  struct Trace: Encodable, Sendable {
    var name: String
    var seconds: Double
    /// Whether `memory` of its runs is the charge.
    var isCharged: Bool
    var bound: Double?
    var objectBound: Double?
    /// CPU-seconds that a MiB costs which is held from the first event to the last.
    var rent: Double
    /// CPU-seconds of tax, weighted, with nothing on hugepages; null where no run had any tax.
    var fullTax: Double?
    var runs: [Run]
  }

  /// A trace's runs as they were read, for what is written by the page's maker and not by its script.
  struct Source: Sendable {
    var titles: [String]
    var results: [RunResult]
  }

  let schema = "hugespan.report/1"
  var traces: [Trace] = []
  var sources: [Source] = []
  var machines: [String] = []
  var leftOut: [String] = []
  var hasSeries: Bool { traces.contains { $0.runs.contains { $0.series != nil } } }

  private enum CodingKeys: CodingKey { case schema, traces }

  /// Orders the runs of `results` by trace, in the order in which traces first appear.
  package init(_ results: [NamedComparison]) {
    let names = Self.distinct(results.map(\.name))
    for (name, result) in zip(names, results) {
      let prefix = results.count > 1 ? name + ": " : ""
      machines.append(prefix + result.comparison.machine.summary)
      leftOut += result.comparison.leftOut.map { "\(prefix)\($0.trace) \($0.policy)/\($0.strategy): \($0.reason)" }
      for run in result.comparison.runs {
        var place = sources.firstIndex { $0.results[0].trace == run.trace }
        if place == nil {
          place = sources.count
          sources.append(Source(titles: [], results: []))
        }
        let suffix = results.count > 1 ? " (\(name))" : ""
        sources[place!].titles.append("\(run.policy) / \(run.strategy)\(suffix)")
        sources[place!].results.append(run)
      }
    }
    for index in sources.indices {
      sources[index].titles = Self.distinct(sources[index].titles)
      traces.append(Self.trace(sources[index]))
    }
  }

  /// `names`, with a number behind each that was there before.
  private static func distinct(_ names: [String]) -> [String] {
    var counts: [String: Int] = [:]
    return names.map { name in
      counts[name, default: 0] += 1
      return counts[name]! == 1 ? name : "\(name) #\(counts[name]!)"
    }
  }

  private static func trace(_ source: Source) -> Trace {
    let results = source.results
    let first = results[0]
    let isCharged = results.contains { $0.chargedBytes != nil }
    let mebibyte = 1_048_576.0
    let runs = zip(source.titles, results).map { title, result in
      Run(
        title: title, policy: result.policy, strategy: result.strategy,
        memory: (isCharged ? result.chargedBytes : result.residentBytes).map { $0.mean / mebibyte },
        used: result.usedBytes.map { $0.mean / mebibyte }, coverage: result.coverage, cost: result.cost,
        excess: result.excessCost, costToBound: result.costToBound, work: result.modelledCPUSeconds,
        tax: result.taxCPUSeconds.map { $0 * result.taxWeight }, series: result.series, blocks: result.blocks)
    }
    // Of the run that has the least on hugepages, for it tells the most.
    let barest = results.filter { ($0.taxCPUSeconds ?? 0) > 0 && $0.coverage ?? 1 < 0.99 }
      .min { $0.coverage! < $1.coverage! }
    return Trace(
      name: first.trace, seconds: results.map(\.seconds).max()!, isCharged: isCharged,
      bound: results.compactMap(\.bound).min(), objectBound: results.compactMap(\.objectBound).min(),
      rent: first.memoryPrice * first.seconds / 3600 / 1024,
      fullTax: barest.map { $0.taxCPUSeconds! * $0.taxWeight / (1 - $0.coverage!) }, runs: runs)
  }

  /// The data as it may stand in a script element: no `<` that could end that.
  var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "", negativeInfinity: "", nan: "")
    let data = (try? encoder.encode(self)) ?? Data("{\"traces\":[]}".utf8)
    return String(decoding: data, as: UTF8.self).replacingOccurrences(of: "<", with: "\\u003c")
  }
}
