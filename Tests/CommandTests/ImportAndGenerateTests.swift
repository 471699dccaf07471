// Logs in and traces out by the command line: kinds told by the first line, and pathologies by name.

import Foundation
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("Traces made of logs and out of nothing") struct ImportAndGenerateTests {
  private func document(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test("a log's kind is told by its first line, and what came of it is said")
  func imports() throws {
    let folder = try TemporaryFolder()
    let trace = folder.path + "/t.hstrace"
    for (name, log) in [
      ("mtrace", "= Start\n@ [0x4] + 0x10 0x5\n@ [0x4] - 0x10\n@ [0x4] ! 0x10 0x5\n= End\n"),
      ("memory-replay", "5: malloc 0x10 5\n6: free 0x10\n5: malloc 0x0 1\n"),
    ] {
      let path = folder.path + "/log"
      try Data(log.utf8).write(to: URL(fileURLWithPath: path))
      let outcome = try hugespan("trace", "import", path, "-o", trace, "--rate", "10", "--json", "-")
      #expect(outcome.status == 0)
      #expect(outcome.errors.contains("2 events, 1 objects"))
      #expect(outcome.errors.contains("warning: the log has no times; they are made up (--rate)"))
      let report = try document(outcome.output)
      #expect(report["schema"] as? String == "hugespan.trace-import/1" && report["format"] as? String == name)
      #expect(report["objects"] as? Int == 1 && report["failedCalls"] as? Int == 1)
      let program = try TraceProgram(path: trace)
      #expect(program.summary.nanoseconds == 100_000_000 && program.header.level == .malloc)
      let forced = try hugespan("trace", "import", path, "-o", trace, "--format", name)
      #expect(forced.status == 0)
    }
  }

  @Test("every pathology has a name, and a description that says what it is", arguments: Pathology.allCases)
  func pathologies(_ pathology: Pathology) throws {
    let folder = try TemporaryFolder()
    let trace = folder.path + "/t.hstrace"
    let outcome = try hugespan(
      "generate", "-o", trace, "--pathology", pathology.rawValue, "--peak", "16MiB", "--length", "8s", "--seed", "5",
      "--json", "-")
    #expect(outcome.status == 0, "\(outcome.errors)")
    let description = try document(outcome.output)
    #expect(description["pathology"] as? String == pathology.rawValue && description["shape"] == nil)
    #expect(description["seed"] as? Int == 5 && description["churnPerSecond"] == nil)
    #expect((description["breakEvenSeconds"] != nil) == pathology.usesBreakEven)
    #expect(try TraceProgram(path: trace).header.program == "pathology-\(pathology.rawValue)")
    let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Docs/Generators.md")
    #expect(contents(ofFile: page.path)?.contains("\n**`\(pathology.rawValue)`**: ") == true)
  }
}
