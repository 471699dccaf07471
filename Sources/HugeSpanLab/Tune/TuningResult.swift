// What tuning found, in words, as a table, as a file of settings and as JSON.
//
// A recommendation that only says what is better is an advertisement; so this one says by how much, on what, what it gives up, and how far
// it would be from the best if the load, the busy share or the memory price were another. Where the gain is smaller than a
// trace can tell, the default is what is recommended.

import HugeSpanCore

/// A configuration's figures on one part of one trace.
package struct TunedFigures: Codable, Equatable, Sendable {
  package var trace: String
  package var cost: Double
  package var costToBound: Double?
  package var chargedBytes: Double
  package var coverage: Double
  package var modelledCPUSeconds: Double
  package var taxCPUSeconds: Double

  /// Of a run up to the end of a part.
  package init?(_ run: RunResult) {
    guard let cost = run.cost, let charged = run.chargedBytes, let coverage = run.coverage,
      let work = run.modelledCPUSeconds
    else { return nil }
    trace = run.trace
    self.cost = cost
    costToBound = run.costToBound
    chargedBytes = charged.mean
    self.coverage = coverage
    modelledCPUSeconds = work
    taxCPUSeconds = run.taxCPUSeconds ?? 0
  }

  /// Of what a run on a whole trace did after its first part.
  package init?(_ whole: RunResult, without part: RunResult) {
    guard let all = TunedFigures(whole), let first = TunedFigures(part), let used = whole.usedBytes,
      let usedFirst = part.usedBytes, whole.seconds > part.seconds
    else { return nil }
    self = all
    let seconds = whole.seconds - part.seconds
    cost = all.cost - first.cost
    if let bound = whole.bound, let boundFirst = part.bound, bound > boundFirst { costToBound = cost / (bound - boundFirst) }
    chargedBytes = (all.chargedBytes * whole.seconds - first.chargedBytes * part.seconds) / seconds
    let usedRest = used.mean * whole.seconds - usedFirst.mean * part.seconds
    let hugeRest = all.coverage * used.mean * whole.seconds - first.coverage * usedFirst.mean * part.seconds
    coverage = usedRest > 0 ? min(max(hugeRest / usedRest, 0), 1) : 0
    modelledCPUSeconds = all.modelledCPUSeconds - first.modelledCPUSeconds
    taxCPUSeconds = all.taxCPUSeconds - first.taxCPUSeconds
  }
}

/// A configuration with what it did on the part that it was tuned on and on the other.
package struct TunedConfiguration: Codable, Equatable, Sendable {
  package var policy: String
  package var strategy: String
  package var tuned: [TunedFigures]
  package var heldOut: [TunedFigures]
  /// On the real kernel, the cost of the other part; null where it was not run.
  package var heldOutRealCost: [String: Double]?

  package init(_ candidate: Candidate, tuned: [TunedFigures], heldOut: [TunedFigures]) {
    policy = candidate.policy
    strategy = candidate.strategy
    self.tuned = tuned
    self.heldOut = heldOut
  }

  package var candidate: Candidate { Candidate(policy: policy, strategy: strategy) }

  package static func total(_ figures: [TunedFigures]) -> Double { figures.reduce(0) { $0 + $1.cost } }
}

/// Everything that `tune` says.
package struct TuningResult: Codable, Sendable {
  package var schema = "hugespan.tune/1"
  package var goal: String
  package var memoryPrice: Double
  package var traces: [String]
  package var evaluations: Int
  package var seconds: Double
  package var isInterrupted: Bool
  package var recommended: TunedConfiguration
  package var standard: TunedConfiguration
  /// The recommendation is the default, because nothing was better by enough.
  package var isStandard: Bool
  package var front: [TunedConfiguration]
  package var sensitivity: [Sensitivity]
  /// As HUGESPAN_CONF reads it.
  package var settings: String

  /// Gains below it are not told from chance.
  package static let leastGain = 0.03

  package init(
    goal: TuningGoal, memoryPrice: Double, traces: [String], evaluations: Int, seconds: Double, isInterrupted: Bool,
    recommended: TunedConfiguration, standard: TunedConfiguration, front: [TunedConfiguration],
    sensitivity: [Sensitivity], settings: String
  ) {
    self.goal = goal.rawValue
    self.memoryPrice = memoryPrice
    self.traces = traces
    self.evaluations = evaluations
    self.seconds = seconds
    self.isInterrupted = isInterrupted
    self.recommended = recommended
    self.standard = standard
    isStandard = recommended.candidate == standard.candidate
    self.front = front
    self.sensitivity = sensitivity
    self.settings = settings
  }

  // MARK: Words

  private func percent(_ ratio: Double) -> String { fixed(abs(ratio - 1) * 100, 1) + " %" }

  private func ratio(_ part: KeyPath<TunedConfiguration, [TunedFigures]>) -> Double {
    TunedConfiguration.total(recommended[keyPath: part]) / max(TunedConfiguration.total(standard[keyPath: part]), 1e-9)
  }

  private func sum(_ figures: [TunedFigures], _ value: (TunedFigures) -> Double) -> Double {
    figures.reduce(0) { $0 + value($1) } / Double(max(figures.count, 1))
  }

  /// The whole answer for a terminal.
  package func text(_ style: TableStyle) -> String {
    var text = isInterrupted ? "Interrupted: the best so far.\n" : ""
    text += "\(evaluations) runs on the simulated kernel in \(fixed(seconds, 0)) s, goal \(goal), "
    text += "memory price \(plain(memoryPrice)).\n\n"
    text += "Not beaten in memory, coverage and CPU time at once, on the part that was tuned on:\n"
    text += frontTable(style) + "\n" + recommendation
    if !sensitivity.isEmpty { text += "\n" + sensitivityText }
    return text + "\nSettings: \(settings)\n"
  }

  private func frontTable(_ style: TableStyle) -> String {
    let heads = ["policy", "strategy", "charged MiB", "coverage", "CPU s", "cost", "cost/bound", "held-out cost"]
    let rows = front.map { entry -> [TextTable.Cell] in
      let isChosen = entry.candidate == recommended.candidate
      let bound = sum(entry.tuned) { $0.costToBound ?? 0 }
      let texts = [
        entry.policy, entry.strategy, fixed(sum(entry.tuned) { $0.chargedBytes } / 1_048_576, 1),
        fixed(sum(entry.tuned) { $0.coverage } * 100, 1) + "%", fixed(sum(entry.tuned) { $0.modelledCPUSeconds }, 3),
        fixed(TunedConfiguration.total(entry.tuned), 3), bound > 0 ? fixed(bound, 3) : "-",
        entry.heldOut.isEmpty ? "-" : fixed(TunedConfiguration.total(entry.heldOut), 3),
      ]
      return texts.enumerated().map { TextTable.Cell($1, isMarked: isChosen && $0 == 5) }
    }
    return TextTable(heads: heads, rows: rows, labelCount: 2).text(style) + "* recommended. Means over traces; costs are sums.\n"
  }

  private var recommendation: String {
    if isStandard {
      return "Recommended: the default, \(recommended.candidate.name). Nothing that was tried is better by "
        + "\(fixed(Self.leastGain * 100, 0)) % and more on the part that was tuned on, and less than that a trace cannot tell from chance.\n"
    }
    let (tuned, rest) = (ratio(\.tuned), ratio(\.heldOut))
    var text = "Recommended: \(recommended.candidate.name).\n"
    text += "It costs \(percent(tuned)) \(tuned <= 1 ? "less" : "more") than the default on the part that was tuned on, and "
    text += "\(percent(rest)) \(rest <= 1 ? "less" : "more") on the other, which it had not seen.\n"
    let memory = (sum(recommended.heldOut) { $0.chargedBytes } - sum(standard.heldOut) { $0.chargedBytes }) / 1_048_576
    let points = (sum(recommended.heldOut) { $0.coverage } - sum(standard.heldOut) { $0.coverage }) * 100
    let work = sum(recommended.heldOut) { $0.modelledCPUSeconds } - sum(standard.heldOut) { $0.modelledCPUSeconds }
    var gains: [String] = []
    var losses: [String] = []
    func note(_ value: Double, _ least: Double, _ text: (String) -> String, isGain: Bool) {
      if abs(value) < least { return }
      if isGain { gains.append(text("")) } else { losses.append(text("")) }
    }
    note(memory, 0.5, { _ in "\(fixed(abs(memory), 1)) MiB \(memory < 0 ? "less" : "more") charged" }, isGain: memory < 0)
    note(points, 0.5, { _ in "\(fixed(abs(points), 1)) points of coverage \(points > 0 ? "more" : "less")" }, isGain: points > 0)
    note(
      work, 0.001, { _ in "\(fixed(abs(work), 3)) CPU-seconds \(work < 0 ? "less" : "more") of kernel work" }, isGain: work < 0)
    if !gains.isEmpty { text += "It wins " + gains.joined(separator: ", ") + ".\n" }
    text += losses.isEmpty ? "It gives up nothing that is to be seen here.\n" : "It gives up: " + losses.joined(separator: ", ") + ".\n"
    if let own = recommended.heldOutRealCost, let usual = standard.heldOutRealCost {
      let (a, b) = (own.values.reduce(0, +), usual.values.reduce(0, +))
      if b > 0 {
        text += "On the real kernel the other part costs \(percent(a / b)) \(a <= b ? "less" : "more") than with the default.\n"
      }
    }
    return text
  }

  private var sensitivityText: String {
    let names: [Sensitivity.Change: String] = [.load: "load", .busyShare: "busy share", .memoryPrice: "memory price"]
    var text = "If the world were another, it would cost so much more than the best of the front there:\n"
    for change in Sensitivity.Change.allCases {
      let parts = sensitivity.filter { $0.change == change }.map {
        "\($0.factor < 1 ? "-30" : "+30") %: \(fixed(($0.costToBest - 1) * 100, 1)) %"
      }
      if !parts.isEmpty {
        text += "  " + names[change]! + String(repeating: " ", count: 14 - names[change]!.count) + parts.joined(separator: "   ") + "\n"
      }
    }
    return text
  }

  /// The file that HUGESPAN_CONF and the libraries read.
  package var configurationFile: String {
    var text = "# Made by hugespan tune from \(traces.joined(separator: ", ")), goal \(goal), memory price \(plain(memoryPrice)).\n"
    text += "# Use: HUGESPAN_CONF=@FILE, or hugespan run --conf @FILE -- PROGRAM\n"
    return text + settings.split(separator: ",").joined(separator: "\n") + "\n"
  }
}
