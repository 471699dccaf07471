// A diagnosis for people, and as JSON.

/// What `doctor --json` writes.
package struct DoctorRecord: Codable, Equatable, Sendable {
  package var schema = "hugespan.doctor/1"
  /// False if a finding is `impossible`.
  package var isPossible: Bool
  package var rights: HugePageRights
  /// How many findings have each verdict.
  package var counts: [String: Int]
  package var findings: [Finding]
  /// The raw facts, for a later reader.
  package var facts: SystemFacts
  package var disabled: ProcessFacts.Disabled?

  package init(_ diagnosis: Diagnosis) {
    isPossible = diagnosis.isPossible
    rights = diagnosis.rights
    counts = [:]
    for verdict in Verdict.allCases {
      counts[verdict.rawValue] = diagnosis.findings.count { $0.verdict == verdict }
    }
    findings = diagnosis.findings
    facts = diagnosis.system
    disabled = diagnosis.process.disabled
  }
}

/// The lines of `hugespan doctor`.
package enum DoctorText {
  /// Each finding in two lines or three: value, meaning, advice.
  ///
  /// - Parameter least: What is better than this is left out.
  package static func lines(_ diagnosis: Diagnosis, least: Verdict = .fine, _ style: TableStyle) -> String {
    let shown = diagnosis.findings.filter { $0.verdict >= least }
    let width = shown.map(\.name.count).max() ?? 0
    var text = ""
    for finding in shown {
      text += verdict(finding.verdict, style) + "  " + padded(finding.name, width) + "  " + finding.value + "\n"
      text += style.wrapped(finding.meaning, indent: 12, usual: 100)
      if let advice = finding.advice { text += style.wrapped("better: " + advice, indent: 12, usual: 100) }
    }
    if !text.isEmpty { text += "\n" }
    return text + summary(diagnosis)
  }

  /// The end: possible or not, and why not.
  package static func summary(_ diagnosis: Diagnosis) -> String {
    let bars = diagnosis.findings.filter { $0.verdict == .impossible }
    let notes = diagnosis.findings.count { $0.verdict == .note }
    let warnings = diagnosis.findings.count { $0.verdict == .warning }
    if bars.isEmpty {
      let whose = diagnosis.rights.isAnyHuge ? "for all memory" : "for memory that asks for them, as the heap's does"
      return "Hugepages are possible, \(whose): \(counted(warnings, "warning")), \(counted(notes, "note")).\n"
    }
    let names = bars.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
    let collapse =
      diagnosis.rights.mayCollapse ? " MADV_COLLAPSE, by which the heap rebuilds them, is not barred by that." : ""
    return "Hugepages are impossible on first touch: \(names).\(collapse)\n"
  }

  private static func counted(_ count: Int, _ word: String) -> String {
    count == 0 ? "no \(word)s" : "\(count) \(word)\(count == 1 ? "" : "s")"
  }

  private static func verdict(_ verdict: Verdict, _ style: TableStyle) -> String {
    let word = padded(verdict.rawValue, 10)
    guard style.isTerminal else { return word }
    switch verdict {
    case .fine, .note: return word
    case .warning: return "\u{1B}[1m\(word)\u{1B}[0m"
    case .impossible: return "\u{1B}[1;31m\(word)\u{1B}[0m"
    }
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(width - text.count, 0))
  }
}
