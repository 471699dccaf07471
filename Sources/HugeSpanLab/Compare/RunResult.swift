// What one run found, with the names that scripts rely on.
//
// Unknown is `null`, never 0 and never left out: a charge without a cgroup, a coverage of an empty heap, a cost while there is no
// cost model. So the encoding is written out by hand; decoding takes `null` and a missing key as the same.

import Foundation

/// One run of one trace under one policy and strategy. Sizes in bytes, times in seconds.
package struct RunResult: Codable, Equatable, Sendable {
  package var trace = ""
  package var policy = ""
  package var strategy = ""
  /// `real` or `simulated`.
  package var kernel = "real"
  /// Length of the trace in its own time.
  package var seconds = 0.0
  /// How many times faster than the recorded program the run was; null for as fast as possible.
  package var speed: Double?
  package var touch = "all"
  package var residencyEverySeconds: Double?

  package var usedBytes: Extent?
  package var residentBytes: Extent?
  package var chargedBytes: Extent?
  package var lazyFreeBytes: Extent?
  package var phantomBytes: Extent?
  package var coverage: Double?
  /// (charged − used) / used, of the means.
  package var overhead: Double?

  package var releasedPages = 0
  package var refaultedPages = 0
  package var releaseCalls = 0
  package var splits = 0
  package var collapses = 0
  /// Free hugepages that were moved under a span.
  package var movedBlocks = 0
  package var reinflatedBlocks = 0
  package var lostBlocks = 0
  /// Lazily freed pages that the kernel had taken when the heap looked.
  package var lazyTakenPages = 0
  package var faults: Int?
  /// Hugepages that khugepaged put together meanwhile, for whichever process of the machine.
  package var khugepagedCollapses: Int?

  package var heapCPUSeconds: Double?
  package var releaseCPUSeconds: Double?
  package var faultCPUSeconds: Double?
  package var longestStallSeconds: Double?
  /// Everything that this thread did between measurements, the front end included.
  package var replayCPUSeconds: Double?
  /// From the first event to the last, measurements included.
  package var wallSeconds = 0.0

  package var modelledCPUSeconds: Double?
  package var taxCPUSeconds: Double?
  /// CPU-seconds: modelled work, tax by its weight, and the charged memory at the memory price.
  package var cost: Double?
  /// The part of the cost that falls into the first half of the trace; the rest into the second. Who tunes on the one may be judged on
  /// the other.
  package var firstHalfCost: Double?
  /// What it had come to at the end of each slice, if it was asked for more than two.
  package var slices: [SliceMark]?
  /// What nothing under this front end could go below, in CPU-seconds; and nothing at all.
  package var bound: Double?
  package var objectBound: Double?
  /// Cost above the bound, and cost by the bound; unknown where the bound does not hold.
  package var excessCost: Double?
  package var costToBound: Double?
  package var reference: Double?
  package var memoryPrice = 400.0
  package var taxWeight = 1.0
  package var lazyWeight = 1.0
  /// Memory of the process that was in swap.
  package var swappedBytes: Extent?

  package var events = 0
  package var ticks = 0
  package var samples = 0
  package var residencyPasses = 0
  /// Largest anonymous resident size of the recorded program, and of the heap in this run.
  package var recordedPeakResidentBytes: Int?
  package var heapMetadataBytes = 0
  /// Of a simulated kernel, the bytes of its own tables.
  package var kernelTableBytes: Int?
  /// And the faults of it that brought a hugepage.
  package var hugeFaults: Int?
  /// And the base pages that were lazily free, and that a write took back without a fault.
  package var lazyWrites: Int?
  /// And the touches of a block that brought base pages in, however many at once.
  package var faultRuns: Int?
  /// What is odd about the trace, if anything is.
  package var traceNote: String?
  /// Why the charge is not known, if it is not.
  package var chargeUnknownReason: String?
  /// Counters of the heap and the front end that do not depend on the kernel: equal in every run with the same input.
  package var decisions: [String: Int] = [:]
  /// The run over time; left out unless it was asked for, for it is longer than all the rest.
  package var series: RunSeries?
  package var blocks: BlockFilm?

  package init() {}

  /// Compares the cost with the bound, where that holds: memory that is swapped out is not charged, and not free either.
  package mutating func compareWithBound() {
    guard let cost, let bound, bound > 0, swappedBytes?.peak ?? 0 == 0 else { return }
    excessCost = cost - bound
    costToBound = cost / bound
  }

  /// The cost, had the tax another weight.
  package func cost(taxWeight weight: Double) -> Double? {
    guard let cost else { return nil }
    if weight == taxWeight { return cost }
    guard let taxCPUSeconds else { return nil }
    return cost + (weight - taxWeight) * taxCPUSeconds
  }

  /// The run's name in progress lines and messages.
  package var title: String { "\(trace) \(policy)/\(strategy)" }

  package func encode(to encoder: any Encoder) throws {
    var box = encoder.container(keyedBy: CodingKeys.self)
    try box.encode(trace, forKey: .trace)
    try box.encode(policy, forKey: .policy)
    try box.encode(strategy, forKey: .strategy)
    try box.encode(kernel, forKey: .kernel)
    try box.encode(seconds, forKey: .seconds)
    try box.encode(speed, forKey: .speed)
    try box.encode(touch, forKey: .touch)
    try box.encode(residencyEverySeconds, forKey: .residencyEverySeconds)
    try box.encode(usedBytes, forKey: .usedBytes)
    try box.encode(residentBytes, forKey: .residentBytes)
    try box.encode(chargedBytes, forKey: .chargedBytes)
    try box.encode(lazyFreeBytes, forKey: .lazyFreeBytes)
    try box.encode(phantomBytes, forKey: .phantomBytes)
    try box.encode(coverage, forKey: .coverage)
    try box.encode(overhead, forKey: .overhead)
    try box.encode(releasedPages, forKey: .releasedPages)
    try box.encode(refaultedPages, forKey: .refaultedPages)
    try box.encode(releaseCalls, forKey: .releaseCalls)
    try box.encode(splits, forKey: .splits)
    try box.encode(collapses, forKey: .collapses)
    try box.encode(movedBlocks, forKey: .movedBlocks)
    try box.encode(reinflatedBlocks, forKey: .reinflatedBlocks)
    try box.encode(lostBlocks, forKey: .lostBlocks)
    try box.encode(lazyTakenPages, forKey: .lazyTakenPages)
    try box.encode(faults, forKey: .faults)
    try box.encode(khugepagedCollapses, forKey: .khugepagedCollapses)
    try box.encode(heapCPUSeconds, forKey: .heapCPUSeconds)
    try box.encode(releaseCPUSeconds, forKey: .releaseCPUSeconds)
    try box.encode(faultCPUSeconds, forKey: .faultCPUSeconds)
    try box.encode(longestStallSeconds, forKey: .longestStallSeconds)
    try box.encode(replayCPUSeconds, forKey: .replayCPUSeconds)
    try box.encode(wallSeconds, forKey: .wallSeconds)
    try box.encode(modelledCPUSeconds, forKey: .modelledCPUSeconds)
    try box.encode(taxCPUSeconds, forKey: .taxCPUSeconds)
    try box.encode(cost, forKey: .cost)
    try box.encodeIfPresent(slices, forKey: .slices)
    try box.encode(firstHalfCost, forKey: .firstHalfCost)
    try box.encode(excessCost, forKey: .excessCost)
    try box.encode(bound, forKey: .bound)
    try box.encode(objectBound, forKey: .objectBound)
    try box.encode(costToBound, forKey: .costToBound)
    try box.encode(reference, forKey: .reference)
    try box.encode(memoryPrice, forKey: .memoryPrice)
    try box.encode(taxWeight, forKey: .taxWeight)
    try box.encode(lazyWeight, forKey: .lazyWeight)
    try box.encode(swappedBytes, forKey: .swappedBytes)
    try box.encode(events, forKey: .events)
    try box.encode(ticks, forKey: .ticks)
    try box.encode(samples, forKey: .samples)
    try box.encode(residencyPasses, forKey: .residencyPasses)
    try box.encode(recordedPeakResidentBytes, forKey: .recordedPeakResidentBytes)
    try box.encode(heapMetadataBytes, forKey: .heapMetadataBytes)
    try box.encodeIfPresent(kernelTableBytes, forKey: .kernelTableBytes)
    try box.encodeIfPresent(hugeFaults, forKey: .hugeFaults)
    try box.encodeIfPresent(lazyWrites, forKey: .lazyWrites)
    try box.encodeIfPresent(faultRuns, forKey: .faultRuns)
    try box.encode(traceNote, forKey: .traceNote)
    try box.encode(chargeUnknownReason, forKey: .chargeUnknownReason)
    try box.encode(decisions, forKey: .decisions)
    try box.encodeIfPresent(series, forKey: .series)
    try box.encodeIfPresent(blocks, forKey: .blocks)
  }
}

/// Sums from the start of a run to the end of a slice of it.
package struct SliceMark: Codable, Equatable, Sendable {
  package var seconds: Double
  package var cost: Double?
  package var bound: Double
  package var work: Double
  package var tax: Double?
  package var chargedByteSeconds: Double?
  package var usedByteSeconds = 0.0
  /// Of the used bytes those on hugepages.
  package var coveredByteSeconds = 0.0

  package init(seconds: Double, work: Double, bound: Double) {
    self.seconds = seconds
    self.work = work
    self.bound = bound
  }
}

/// A whole comparison, as `compare --json` writes it.
package struct Comparison: Codable, Sendable {
  package static let schemaName = "hugespan.compare/1"

  package var schema = Comparison.schemaName
  package var machine: Machine
  package var costModel: [String: Double]?
  package var runs: [RunResult]
  /// How far the simulated kernel is from the real one, if both were asked.
  package var fidelity: Fidelity?
  /// Runs that were in the grid and did not take place, with the reason.
  package var leftOut: [LeftOut]

  package init(machine: Machine, costModel: [String: Double]? = nil, runs: [RunResult], leftOut: [LeftOut]) {
    self.machine = machine
    self.costModel = costModel
    self.runs = runs
    fidelity = Fidelity(of: runs)
    self.leftOut = leftOut
  }

  package func encode(to encoder: any Encoder) throws {
    var box = encoder.container(keyedBy: CodingKeys.self)
    try box.encode(schema, forKey: .schema)
    try box.encode(machine, forKey: .machine)
    try box.encode(costModel, forKey: .costModel)
    try box.encode(runs, forKey: .runs)
    try box.encodeIfPresent(fidelity, forKey: .fidelity)
    try box.encode(leftOut, forKey: .leftOut)
  }
}

/// A run that did not take place.
package struct LeftOut: Codable, Equatable, Sendable {
  package var trace: String
  package var policy: String
  package var strategy: String
  package var reason: String

  package init(trace: String, policy: String, strategy: String, reason: String) {
    self.trace = trace
    self.policy = policy
    self.strategy = strategy
    self.reason = reason
  }
}

/// JSON as all commands write it: keys in order, numbers as they are, a newline at the end.
package func jsonText(_ value: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
}
