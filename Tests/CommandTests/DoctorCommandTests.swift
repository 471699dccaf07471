// `hugespan doctor`, as it is typed.

import Foundation
import TestSupport
import Testing

@testable import HugeSpanLab

/// A tree of a machine in mode `mode`.
private func machine(mode: String) throws -> TemporaryFolder {
  let folder = try TemporaryFolder()
  let huge = folder.path + "/sys/kernel/mm/transparent_hugepage"
  try FileManager.default.createDirectory(atPath: huge, withIntermediateDirectories: true)
  let line = ["always", "madvise", "never"].map { $0 == mode ? "[\($0)]" : $0 }.joined(separator: " ")
  try (line + "\n").write(toFile: huge + "/enabled", atomically: false, encoding: .utf8)
  try "2097152\n".write(toFile: huge + "/hpage_pmd_size", atomically: false, encoding: .utf8)
  return folder
}

private func record(_ outcome: CommandOutcome) throws -> DoctorRecord {
  try JSONDecoder().decode(DoctorRecord.self, from: Data(outcome.output.utf8))
}

@Suite("hugespan doctor, as it is typed")
struct DoctorCommandTests {
  @Test("of this machine it says the same for people and for programs, and by its status")
  func here() throws {
    let text = try hugespan("doctor")
    #expect(text.errors.isEmpty && text.output.contains("strategy split-dontneed"))
    let json = try hugespan("doctor", "--json", "-")
    let found = try record(json)
    #expect(found.schema == "hugespan.doctor/1" && found.facts.kernelRelease != nil)
    #expect(json.status == (found.isPossible ? 0 : 1) && text.status == json.status)
    #expect(text.output.contains(found.isPossible ? "Hugepages are possible" : "Hugepages are impossible"))
    #expect(found.counts.values.reduce(0, +) == found.findings.count)
  }

  @Test("of a recorded machine it judges settings, and its status says whether there are hugepages")
  func recorded() throws {
    for (mode, status) in [("always", Int32(0)), ("madvise", 0), ("never", 1)] {
      let folder = try machine(mode: mode)
      let file = folder.path + "/out.json"
      let outcome = try hugespan("doctor", "--root", folder.path, "--json", file, "--brief")
      #expect(outcome.status == status && outcome.errors.isEmpty, "\(outcome)")
      #expect(!outcome.output.contains("\nfine "))
      let found = try JSONDecoder().decode(DoctorRecord.self, from: Data(contents(ofFile: file)!.utf8))
      #expect(found.isPossible == (status == 0) && found.facts.hugePages?.enabled?.selected == mode)
      #expect(found.findings.contains { $0.key == "tried" } && found.disabled == nil)
    }
  }

  @Test("what is wrong is one line that names it")
  func refusals() throws {
    let nowhere = try hugespan("doctor", "--root", "/nowhere")
    #expect(nowhere.status == 66 && nowhere.output.isEmpty && nowhere.errors.contains("/nowhere"))
    let folder = try TemporaryFolder()
    #expect(try hugespan("doctor", "--root", folder.path).status == 66)
    #expect(try hugespan("doctor", "4711").status == 64)
    #expect(try hugespan("doctor", "--json", "/nowhere/a.json").status == 64)
  }
}
