// Programs on the heap under jemalloc, with the library that was built beside this test: in a debug build every hook holds
// its arguments against jemalloc's manual.

import Foundation
import Testing

@testable import HugeSpanLab

/// The two libraries as LD_PRELOAD has them; nil where there is no compiler, jemalloc, or library that can be loaded.
let jemallocPreload: String? = {
  guard hasCompiler, let frontEnd = try? PreloadedLibrary.jemalloc.locate(say: { _ in }),
    let jemalloc = try? JemallocLibrary.locate()
  else { return nil }
  let preload = "\(frontEnd) \(jemalloc)"
  return (try? Child(["/usr/bin/env", "LD_PRELOAD=\(preload)", "/bin/true"]).wait()) == 0 ? preload : nil
}()

/// Whether programs can be run under jemalloc on the heap here.
let canRunOnHeap = jemallocPreload != nil

/// Why tests are skipped where they cannot.
let cannotRunOnHeap: Comment = "needs a C compiler, libjemalloc.so.2, and a front end built without a sanitizer"

/// Whether memory that asks for hugepages gets them.
let hasHugePages: Bool = {
  let modes = (try? String(contentsOfFile: "/sys/kernel/mm/transparent_hugepage/enabled", encoding: .utf8)) ?? ""
  return modes.contains("[always]") || modes.contains("[madvise]")
}()

/// How a program on the heap ended.
struct HeapOutcome {
  var status: Int32
  var output: String
  var errors: String
  var report: HeapReport?
}

extension Workshop {
  /// Runs a program on the heap, with settings as in HUGESPAN_CONF.
  func runOnHeap(
    _ command: [String], configuration: String = "", environment: [String] = [], before: [String] = []
  ) throws -> HeapOutcome {
    let preload = (before + [try #require(jemallocPreload)]).joined(separator: " ")
    let name = "\(path)/run\(Int.random(in: 0..<1_000_000))"
    let settings = [configuration, "statistics:\(name).json"].filter { !$0.isEmpty }.joined(separator: ",")
    // The shell only opens files; what it executes is the program.
    let shell = ["/bin/sh", "-c", "exec env \"$@\" >\(name).out 2>\(name).err", "sh"]
    let status = try Child(
      shell + environment + ["LD_PRELOAD=\(preload)", "HUGESPAN_CONF=\(settings)"] + command
    ).wait()
    func text(_ end: String) -> String { (try? String(contentsOfFile: "\(name).\(end)", encoding: .utf8)) ?? "" }
    return HeapOutcome(
      status: status, output: text("out"), errors: text("err"), report: HeapReport(json: text("json")))
  }
}
