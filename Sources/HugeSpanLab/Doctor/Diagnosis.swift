// What the facts mean for hugepages: a list of findings, each with a value, a meaning, and advice where it is not good.
//
// A finding is `impossible` if with it no memory of the heap gets a hugepage on first touch, whatever else is set; then
// and only then hugepages are impossible. Everything softer is a matter of degree: `warning` costs coverage or memory on
// a usual machine, `note` is worth knowing. Findings come in the order in which one would look: kernel, process, machine.

/// How good a setting is for hugepages.
package enum Verdict: String, Codable, CaseIterable, Comparable, Sendable {
  case fine, note, warning, impossible

  private var rank: Int { Self.allCases.firstIndex(of: self)! }
  package static func < (left: Verdict, right: Verdict) -> Bool { left.rank < right.rank }
}

/// One setting, judged.
package struct Finding: Equatable, Sendable, Codable {
  /// A word for programs, such as `thp.defrag`.
  package var key: String
  /// The same for people.
  package var name: String
  package var value: String
  package var verdict: Verdict
  /// What this value means for hugepages.
  package var meaning: String
  /// What would be better, and the command for it; where the value is fine there is none.
  package var advice: String?

  package init(
    _ key: String, _ name: String, _ value: String, _ verdict: Verdict, _ meaning: String, advice: String? = nil
  ) {
    self.key = key
    self.name = name
    self.value = value
    self.verdict = verdict
    self.meaning = meaning
    self.advice = advice
  }
}

/// All findings of a machine and a process.
package struct Diagnosis: Equatable, Sendable {
  package let system: SystemFacts
  package let process: ProcessFacts
  package let rights: HugePageRights
  package private(set) var findings: [Finding] = []

  package init(_ system: SystemFacts, _ process: ProcessFacts) {
    self.system = system
    self.process = process
    rights = HugePageRights(system.hugePages, process.disabled)
    judgeKernel()
    judgeHugePages()
    judgeProcess()
    judgeGroup()
    judgeSwap()
    judgeHost()
    judgeLimits()
    judgeCapabilities()
    for (path, text) in system.unreadable.sorted(by: { $0.key < $1.key }) {
      add(
        Finding(
          "unreadable", path, text.isEmpty ? "(empty)" : text, .note,
          "says nothing that is known; the rest was judged without it"))
    }
  }

  /// Whether memory of the heap can be on hugepages at all.
  package var isPossible: Bool { !findings.contains { $0.verdict == .impossible } }

  package mutating func add(_ finding: Finding) { findings.append(finding) }

  private mutating func judgeKernel() {
    guard let release = system.kernelRelease else {
      add(Finding("kernel", "kernel", "unknown", .note, "its version cannot be read"))
      return
    }
    // Compared as numbers: 6.18 is after 6.9. What follows the second number is the distribution's.
    let numbers = release.split(whereSeparator: { !$0.isNumber }).prefix(2).map { Int($0) ?? 0 }
    let version = (numbers.first ?? 0, numbers.dropFirst().first ?? 0)
    if version < (5, 4) {
      add(
        Finding(
          "kernel", "kernel", release, .warning,
          "has no MADV_COLD: a hugepage cannot be split before a part of it is released",
          advice: "use strategy dontneed-whole, or Linux 6.1 or later"))
    } else if version < (6, 1) {
      add(
        Finding(
          "kernel", "kernel", release, .note, "has no MADV_COLLAPSE: only khugepaged puts broken hugepages together",
          advice: "Linux 6.1 or later, for rebuilds"))
    } else {
      add(Finding("kernel", "kernel", release, .fine, "has what the heap asks for, unless a line below says otherwise"))
    }
  }
}

extension Int {
  /// Bytes for people: `2 MiB`, `1.5 GiB`.
  package var asBytes: String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] where self >= 1 << shift {
      let tenths = ((self >> (shift - 4)) * 10) >> 4
      return tenths % 10 == 0 || tenths >= 1000 ? "\(tenths / 10) \(unit)" : "\(tenths / 10).\(tenths % 10) \(unit)"
    }
    return "\(self) bytes"
  }
}
