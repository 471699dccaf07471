// Which runs are made again, on a command in place of `hugespan` whose results are told to it.

import Foundation
import TestSupport
import Testing

@testable import HugeSpanLab

@Suite struct TheRunnerOfAComparison {
  /// Runs one cell on a command that prints `results` one after the other, the last of them for ever; returns what came of it and how
  /// often it was made. An empty result is a run that fails.
  private func run(_ results: [RunResult?], retries: Int) throws -> (outcome: ComparisonOutcome, runs: Int) {
    let folder = try TemporaryFolder()
    for (number, result) in results.enumerated() {
      try folder.write(try result.map { try jsonText($0) } ?? "", "\(number + 1)")
    }
    try folder.write(
      """
      #!/bin/sh
      cd '\(folder.path)'
      echo run >> runs
      number=$(wc -l < runs)
      [ $number -gt \(results.count) ] && number=\(results.count)
      [ -s $number ] || { echo 'hugespan: no result' >&2; exit 70; }
      cat $number
      """, "command")
    chmod(folder.path + "/command", 0o700)
    let plan = ComparisonPlan(
      executable: folder.path + "/command", commonArguments: [], retriesOfDisturbed: retries,
      runs: [PlannedRun(trace: "t", policy: "seed", strategy: "free", row: 0)], jobs: 2, budget: nil)
    let outcome = ComparisonRunner(plan, progress: ProgressLine()).run()
    return (outcome, (contents(ofFile: folder.path + "/runs") ?? "").count { $0 == "\n" })
  }

  private func result(collapses: Int?) -> RunResult {
    var result = RunResult()
    (result.trace, result.policy, result.strategy) = ("t", "seed", "free")
    result.khugepagedCollapses = collapses
    return result
  }

  @Test("makes a run again that khugepaged disturbed, until one is not or it was told to stop")
  func again() throws {
    let (disturbed, clean) = (result(collapses: 8), result(collapses: 0))
    let third = try run([disturbed, disturbed, clean], retries: 5)
    #expect(third.runs == 3 && third.outcome.results.count == 3)
    #expect(leastDisturbed(third.outcome.results, byKhugepaged: true) == [clean])
    let never = try run([disturbed], retries: 2)
    #expect(never.runs == 3 && never.outcome.leftOut.isEmpty && never.outcome.failureStatus == 0)
    #expect(try run([disturbed], retries: 0).runs == 1)
    #expect(try run([clean], retries: 5).runs == 1)
    #expect(try run([result(collapses: nil)], retries: 5).runs == 1)
  }

  @Test("keeps a result whose second attempt fails, and tells of a first one that does")
  func failures() throws {
    let disturbed = result(collapses: 8)
    let second = try run([disturbed, nil], retries: 5)
    #expect(second.runs == 2 && second.outcome.results == [disturbed])
    #expect(second.outcome.leftOut.isEmpty && second.outcome.failureStatus == 0)
    let first = try run([nil], retries: 5)
    #expect(first.runs == 1 && first.outcome.results.isEmpty && first.outcome.failureStatus == 70)
    #expect(first.outcome.leftOut.map(\.reason) == ["no result"])
  }
}
