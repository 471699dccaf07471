// HUGESPAN_CONF and the report: what is said, by whom, and who stays silent.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("Under jemalloc, HUGESPAN_CONF", .enabled(if: canRunOnHeap, cannotRunOnHeap)) struct SettingsTests {
  @Test("that is wrong ends the program before it begins, naming what is wrong") func wrong() throws {
    let workshop = try Workshop()
    let outcome = try workshop.runOnHeap(["/bin/echo", "here"], configuration: "polcy:seed")
    #expect(outcome.status == 64 && outcome.output.isEmpty)
    #expect(outcome.errors.hasPrefix("hugespan: HUGESPAN_CONF: unknown key 'polcy' (known: policy, "))
    let value = try workshop.runOnHeap(["/bin/echo", "here"], configuration: "soft-limit:much")
    #expect(value.status == 64 && value.errors.contains("soft-limit: 'much' is not a size"))
  }

  @Test("limits what a program may have") func limits() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(void) {
        int count = 0;
        while (count < 1000) {
          void *p = malloc(1 << 20);
          if (!p) break;
          memset(p, 1, 1 << 20);
          count++;
        }
        printf("%d\\n", count);
        return 0;
      }
      """)
    let outcome = try workshop.runOnHeap([program], configuration: "hard-limit:64MiB")
    let count = try #require(Int(outcome.output.dropLast()))
    #expect(outcome.status == 0 && count > 40 && count < 64, "\(outcome.errors)")
    #expect(try #require(outcome.report?.hooks).refusedAllocations > 0)
  }

  @Test("names a file for each process; a forked child leaves its parent's alone") func reports() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(void) {
        sink = malloc(5000000);
        if (fork() == 0) exit(0);
        wait(NULL);
        sink = malloc(70000000);
        if (fork() == 0) exit(0);
        wait(NULL);
        return system("true");
      }
      """)
    // The plain name: the last word is the parent's.
    let outcome = try workshop.runOnHeap([program])
    #expect(try #require(outcome.report).heap.peakUsedBytes > 75_000_000)
    // A name for each: the program and its two children at least. (Some shells end by _exit.)
    let folder = workshop.path + "/reports"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let many = try workshop.runOnHeap([program], environment: [], configurationAfter: "statistics:\(folder)/%p.%%")
    #expect(many.status == 0)
    let names = try FileManager.default.contentsOfDirectory(atPath: folder)
    #expect(names.count >= 3 && names.allSatisfy { $0.hasSuffix(".%") && Int($0.dropLast(2)) != nil }, "\(names)")
    for name in names {
      let text = try String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)
      #expect(HeapReport(json: text)?.process == Int(name.dropLast(2)))
    }
  }

  @Test("cannot be honoured without jemalloc, which is said") func withoutJemalloc() throws {
    let workshop = try Workshop()
    let frontEnd = try #require(jemallocPreload).split(separator: " ")[0]
    let file = workshop.path + "/err"
    let status = try Child(["/bin/sh", "-c", "exec env LD_PRELOAD=\(frontEnd) /bin/true 2>\(file)"]).wait()
    #expect(status == 69)
    #expect(try String(contentsOfFile: file, encoding: .utf8).contains("libjemalloc2"))
  }
}

extension Workshop {
  /// As `runOnHeap`, with settings after those that name the report.
  fileprivate func runOnHeap(
    _ command: [String], environment: [String], configurationAfter: String
  ) throws -> HeapOutcome {
    try runOnHeap(["/usr/bin/env", "HUGESPAN_CONF=\(configurationAfter)"] + command)
  }
}
