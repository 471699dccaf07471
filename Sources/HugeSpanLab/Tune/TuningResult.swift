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

  /// Of the slices of `run` with numbers `numbers`; nil if the run did not get so far, or has figures missing.
  package init?(_ run: RunResult, slices numbers: some Collection<Int>) {
    guard let marks = run.slices, let last = numbers.max(), last < marks.count else { return nil }
    var (cost, bound, work, tax) = (0.0, 0.0, 0.0, 0.0)
    var (seconds, charged, used, covered) = (0.0, 0.0, 0.0, 0.0)
    for number in numbers {
      let end = marks[number]
      let start = number > 0 ? marks[number - 1] : SliceMark(seconds: 0, work: 0, bound: 0)
      guard let costEnd = end.cost, let chargedEnd = end.chargedByteSeconds else { return nil }
      cost += costEnd - (start.cost ?? 0)
      charged += chargedEnd - (start.chargedByteSeconds ?? 0)
      bound += end.bound - start.bound
      work += end.work - start.work
      tax += (end.tax ?? 0) - (start.tax ?? 0)
      seconds += end.seconds - start.seconds
      used += end.usedByteSeconds - start.usedByteSeconds
      covered += end.coveredByteSeconds - start.coveredByteSeconds
    }
    trace = run.trace
    self.cost = cost
    costToBound = bound > 0 ? cost / bound : nil
    chargedBytes = seconds > 0 ? charged / seconds : 0
    coverage = used > 0 ? min(max(covered / used, 0), 1) : 0
    modelledCPUSeconds = work
    taxCPUSeconds = tax
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
    text += "Not beaten in memory, coverage and CPU time at once, on the slices that were tuned on:\n"
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
    return TextTable(heads: heads, rows: rows, labelCount: 2).text(style)
      + "* recommended. Means over traces; costs are sums.\n"
  }

  private var recommendation: String {
    if isStandard {
      return "Recommended: the default, \(recommended.candidate.name). Nothing that was tried is better by "
        + "\(fixed(Self.leastGain * 100, 0)) % and more on the slices that it was tuned on, and less than that a trace cannot tell from chance.\n"
    }
    let (tuned, rest) = (ratio(\.tuned), ratio(\.heldOut))
    var text = "Recommended: \(recommended.candidate.name).\n"
    text +=
      "It costs \(percent(tuned)) \(tuned <= 1 ? "less" : "more") than the default on the slices that it was tuned on, and "
    text += "\(percent(rest)) \(rest <= 1 ? "less" : "more") on the others, which it had not seen.\n"
    let memory = (sum(recommended.heldOut) { $0.chargedBytes } - sum(standard.heldOut) { $0.chargedBytes }) / 1_048_576
    let points = (sum(recommended.heldOut) { $0.coverage } - sum(standard.heldOut) { $0.coverage }) * 100
    let work = sum(recommended.heldOut) { $0.modelledCPUSeconds } - sum(standard.heldOut) { $0.modelledCPUSeconds }
    var gains: [String] = []
    var losses: [String] = []
    func note(_ value: Double, _ least: Double, _ text: (String) -> String, isGain: Bool) {
      if abs(value) < least { return }
      if isGain { gains.append(text("")) } else { losses.append(text("")) }
    }
    note(
      memory, 0.5, { _ in "\(fixed(abs(memory), 1)) MiB \(memory < 0 ? "less" : "more") charged" }, isGain: memory < 0)
    note(
      points, 0.5, { _ in "\(fixed(abs(points), 1)) points of coverage \(points > 0 ? "more" : "less")" },
      isGain: points > 0)
    note(
      work, 0.001, { _ in "\(fixed(abs(work), 3)) CPU-seconds \(work < 0 ? "less" : "more") of kernel work" },
      isGain: work < 0)
    if !gains.isEmpty { text += "It wins " + gains.joined(separator: ", ") + ".\n" }
    text +=
      losses.isEmpty
      ? "It gives up nothing that is to be seen here.\n" : "It gives up: " + losses.joined(separator: ", ") + ".\n"
    if let own = recommended.heldOutRealCost, let usual = standard.heldOutRealCost {
      let (a, b) = (own.values.reduce(0, +), usual.values.reduce(0, +))
      if b > 0 {
        text +=
          "On the real kernel the others cost \(percent(a / b)) \(a <= b ? "less" : "more") than with the default.\n"
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
        text +=
          "  " + names[change]! + String(repeating: " ", count: 14 - names[change]!.count)
          + parts.joined(separator: "   ") + "\n"
      }
    }
    return text
  }

  /// The file that HUGESPAN_CONF and the libraries read.
  package var configurationFile: String {
    var text =
      "# Made by hugespan tune from \(traces.joined(separator: ", ")), goal \(goal), memory price \(plain(memoryPrice)).\n"
    text += "# Use: HUGESPAN_CONF=@FILE, or hugespan run --conf @FILE -- PROGRAM\n"
    return text + settings.split(separator: ",").joined(separator: "\n") + "\n"
  }
}
