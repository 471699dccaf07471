// The Python package's settings, its report, and what it says when something is missing or wrong.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("The Python package", .enabled(if: canRunPython, cannotRunPython)) struct PythonSettingsTests {
  @Test("ends with one line that names a wrong setting and the right ones") func wrongSettings() throws {
    let workshop = try Workshop()
    let unknown = try workshop.runPython(["-c", "print(1)"], configuration: "polcy:seed")
    #expect(unknown.status == 64 && unknown.output.isEmpty)
    #expect(unknown.errors.hasPrefix("hugespan: HUGESPAN_CONF: unknown key 'polcy' (known: policy, rate, "))
    #expect(unknown.errors.split(separator: "\n").count == 1)
    let value = try workshop.runPython(["-c", "print(1)"], options: ["--conf", "soft-limit:much"])
    #expect(value.status == 64 && value.errors.hasPrefix("hugespan: --conf: soft-limit: 'much' is not a size"))
    for options in [["--confused"], ["--conf"], []] {
      let outcome = try workshop.runPython([], options: options)
      #expect(outcome.status == 64 && outcome.errors.contains("Try 'python3 -m hugespan --help'"), "\(options)")
    }
    let program = try workshop.runPython(
      ["-c", "import hugespan\ntry: hugespan.install(polcy=1)\nexcept ValueError as error: print(error)"])
    // It is installed already.
    #expect(program.status == 0 && program.output.isEmpty)
    let parent = (try PreloadedLibrary.pythonPackage() as NSString).deletingLastPathComponent
    let own = try workshop.outcome(
      of: [
        try #require(pythonInterpreter), "-c",
        """
        import hugespan
        for settings in ({"polcy": 1}, {"scavenger": 7}):
          try: hugespan.install(**settings)
          except ValueError as error: print(error)
        try: hugespan.statistics()
        except hugespan.HugeSpanError as error: print(error)
        """,
      ], environment: ["PYTHONPATH=\(parent)", "HUGESPAN_LIBRARY=\(try PreloadedLibrary.heap.locate(say: { _ in }))"])
    let lines = own.output.split(separator: "\n")
    #expect(lines.count == 3 && lines[0].hasPrefix("install: unknown key 'polcy'"), "\(own.output)\(own.errors)")
    #expect(lines.count == 3 && lines[1].contains("scavenger: '7' is not") && lines[2].contains("install()"))
  }

  @Test("says what is missing, and how to get it") func missing() throws {
    let workshop = try Workshop()
    let named = try workshop.runPython(["-c", "print(1)"], environment: ["HUGESPAN_LIBRARY=/no/such/library.so"])
    #expect(named.status == 69 && named.output.isEmpty)
    #expect(named.errors.hasPrefix("hugespan: HUGESPAN_LIBRARY: /no/such/library.so: cannot open"), "\(named.errors)")
    // A copy that stands alone.
    let copy = workshop.path + "/alone/a/b/hugespan"
    try FileManager.default.createDirectory(atPath: workshop.path + "/alone/a/b", withIntermediateDirectories: true)
    try FileManager.default.copyItem(atPath: try PreloadedLibrary.pythonPackage(), toPath: copy)
    let alone = try workshop.outcome(of: [try #require(pythonInterpreter), copy, "-c", "print(1)"])
    #expect(alone.status == 69 && alone.errors.contains("build-c-library"), "\(alone.errors)")
    let other = try workshop.runPython(["-c", "print(1)"], environment: ["HUGESPAN_LIBRARY=libc.so.6"])
    #expect(other.status == 69 && other.errors.contains("another version's library"), "\(other.errors)")
    let malloc = try workshop.runPython(["-c", "print(1)"], environment: ["PYTHONMALLOC=malloc"])
    #expect(malloc.status == 69 && malloc.errors.contains("PYTHONMALLOC"), "\(malloc.errors)")
  }

  @Test("prints nothing unless asked, then a table that lines up") func table() throws {
    let workshop = try Workshop()
    let silent = try workshop.runPython(["-c", "kept = [[n] for n in range(300000)]"])
    #expect(silent.status == 0 && silent.errors.isEmpty && silent.output.isEmpty)
    let asked = try workshop.runPython(
      ["-c", "kept = [[n] for n in range(300000)]; import sys; sys.exit(5)"], options: ["--report"])
    let rows = asked.errors.split(separator: "\n").dropFirst()
    #expect(asked.status == 5 && asked.errors.hasPrefix("hugespan: arenas of Python 3."))
    #expect(rows.count > 8 && Set(rows.map(\.count)).count == 1, "\(asked.errors)")
    let help = try workshop.runPython([], options: ["--help"])
    #expect(
      help.status == 0 && help.output.contains("Usage: python3 -m hugespan") && help.output.contains("HUGESPAN_CONF"))
    #expect(try workshop.runPython([], options: ["--version"]).output.hasPrefix("HugeSpan 0."))
  }

  @Test("names a file for each process; a forked child leaves its parent's alone") func reports() throws {
    let workshop = try Workshop()
    let script = try workshop.script(
      """
      import multiprocessing, os, sys
      def work(): kept = [[n] for n in range(200000)]
      if __name__ == "__main__":
        kept = [[n] for n in range(500000)]
        for method in ("fork", "spawn"):
          process = multiprocessing.get_context(method).Process(target=work)
          process.start()
          process.join()
        if os.fork() == 0: sys.exit(0)
        os.wait()
      """)
    // The plain name: the last word is the parent's.
    let outcome = try workshop.runPython([script])
    #expect(outcome.status == 0, "\(outcome.errors)")
    #expect(try #require(outcome.report).heap.peakUsedBytes > 40_000_000)
    let folder = workshop.path + "/reports"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let many = try workshop.runPython([script], configuration: "", options: ["--json", "x"], folder: folder)
    #expect(many.status == 0, "\(many.errors)")
    let names = try FileManager.default.contentsOfDirectory(atPath: folder)
    #expect(names.count == 4, "the program, two children of multiprocessing and a forked one: \(names)")
    for name in names {
      let text = try String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)
      #expect(HeapReport(json: text)?.process == Int(name.dropLast(2)))
    }
  }

  @Test("declares the library's structures as the header does") func structures() throws {
    let package = try PreloadedLibrary.pythonPackage()
    let header = try String(
      contentsOfFile: package + "/../../CHugeSpan/include/hugespan.h", encoding: .utf8)
    let workshop = try Workshop()
    let outcome = try workshop.outcome(
      of: [
        try #require(pythonInterpreter), "-c",
        """
        from hugespan import _library
        for kind in (_library.Statistics, _library.Residency, _library.ArenaStatistics):
          print(" ".join(name for name, _ in kind._fields_[1:]))
        print(*_library.VERSION)
        """,
      ], environment: ["PYTHONPATH=\((package as NSString).deletingLastPathComponent)"])
    let lines = outcome.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 4, "\(outcome.errors)")
    for (line, name) in zip(lines, ["hs_statistics", "hs_residency", "hs_arena_statistics"]) {
      let start = try #require(header.range(of: "typedef struct \(name) {")).upperBound
      let end = try #require(header.range(of: "} \(name);")).lowerBound
      let fields = header[start..<end].split(separator: "\n").filter { $0.contains("uint64_t ") }
        .flatMap { field in
          field.prefix { $0 != ";" }.drop { $0 == " " }.dropFirst("uint64_t ".count).split(separator: ",")
        }
        .map { $0.trimmingCharacters(in: .whitespaces) }
      #expect(line == fields.joined(separator: " "))
    }
    #expect(header.contains("#define HS_VERSION_MAJOR \(lines[3].prefix { $0 != " " })\n"))
    #expect(header.contains("#define HS_VERSION_MINOR \(lines[3].drop { $0 != " " }.dropFirst())\n"))
  }
}

extension Workshop {
  /// As `runPython`, with a report for each process in `folder`.
  fileprivate func runPython(
    _ arguments: [String], configuration: String, options: [String], folder: String
  ) throws -> HeapOutcome {
    // What comes later wins: the option over the environment.
    try runPython(arguments, options: ["--conf", "statistics:\(folder)/%p.%%"], configuration: configuration)
  }
}
