// What is told of a run: shares, errors, and what a call took.

import Foundation

struct Figures {
  private let tally: Tally
  private let seconds: Double
  private let splits: Int
  private let collapses: Int
  private let failures: [String]

  /// `splits` are the kernel's of that time, `collapses` those of the disturbing thread.
  init(_ tally: Tally, seconds: Double, splits: Int, collapses: Int, failures: [String]) {
    self.tally = tally
    self.seconds = seconds
    self.splits = splits
    self.collapses = collapses
    self.failures = failures
  }

  private var lostShare: Double { Double(tally.lost) / Double(max(tally.verdicts, 1)) }
  private var partlyShare: Double { Double(tally.partlyLost) / Double(max(tally.verdicts, 1)) }
  private var wrong: Int { tally.falseIntact + tally.falseLost + tally.unpinned }

  /// No verdict was wrong, and there were enough of each kind that it could have been.
  var isRight: Bool {
    failures.isEmpty && wrong == 0 && lostShare >= 0.1 && partlyShare >= 0.1 && tally.intact > 0
      && tally.splitBetween > 0
  }

  private func microseconds(_ nanoseconds: UInt64, _ count: Int) -> Double {
    count == 0 ? 0 : Double(nanoseconds) / 1000 / Double(count)
  }

  private var smallDiscard: Double { microseconds(tally.smallDiscard, tally.smallCalls) }
  private var smallUndo: Double { microseconds(tally.smallUndo, tally.smallCalls) }
  private var largeDiscard: Double { microseconds(tally.largeDiscard, tally.largePages / 512) }
  private var largeUndo: Double { microseconds(tally.largeUndo, tally.largePages / 512) }

  var text: String {
    func percent(_ count: Int) -> String {
      String(format: "%.1f %%", 100 * Double(count) / Double(max(tally.verdicts, 1)))
    }
    var lines = [
      "\(tally.verdicts) verdicts on \(tally.pages) pages in \(String(format: "%.0f", seconds)) s: "
        + "\(percent(tally.intact)) intact, \(percent(tally.lost)) lost, \(percent(tally.partlyLost)) partly lost; "
        + "\(tally.lostPages) pages lost",
      "\(tally.largeVerdicts) on 512 pages and more; hugepages were split between discard and undo in "
        + "\(tally.splitBetween) of them, rebuilt in \(tally.rebuiltBetween) (kernel: \(splits) splits; "
        + "forced rebuilds: \(collapses))",
      "wrong: \(tally.falseIntact) intact, \(tally.falseLost) lost, \(tally.unpinned) changed after their verdict",
      String(
        format: "a call, preemption and reclaim included: %.1f us discard, %.1f us undo for 1 to 16 pages (%.1f on "
          + "average); %.1f us discard, %.1f us undo for each 512 of the large ones", smallDiscard, smallUndo,
        Double(tally.smallPages) / Double(max(tally.smallCalls, 1)), largeDiscard, largeUndo),
    ]
    lines += failures.map { "failed: \($0)" }
    return lines.joined(separator: "\n")
  }

  func json() throws -> Data {
    let object: [String: Any] = [
      "schema": "hugespan.discard-verdicts/1", "verdicts": tally.verdicts, "pages": tally.pages, "seconds": seconds,
      "intact": tally.intact, "lost": tally.lost, "partlyLost": tally.partlyLost, "lostPages": tally.lostPages,
      "largeVerdicts": tally.largeVerdicts, "splitBetween": tally.splitBetween,
      "rebuiltBetween": tally.rebuiltBetween, "falseIntact": tally.falseIntact, "falseLost": tally.falseLost,
      "changedAfterwards": tally.unpinned, "failures": failures,
      "microseconds": [
        "smallDiscard": smallDiscard, "smallUndo": smallUndo, "hugePageDiscard": largeDiscard,
        "hugePageUndo": largeUndo,
      ],
    ]
    return try JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys])
  }
}
