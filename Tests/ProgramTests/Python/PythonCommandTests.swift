// `hugespan run --frontend python`: which command lines are Python programs, and what becomes of them.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("A Python command line") struct PythonCommandTests {
  @Test(
    "has its program behind the interpreter's options",
    arguments: [
      (["python3", "script.py", "-u"], 1), (["python3", "-u", "-m", "x"], 2), (["python3", "-c", "print(1)"], 1),
      (["python3", "-Wd", "-X", "dev", "script.py"], 4), (["python3", "-W", "error", "-OO", "-"], 4),
      (["python3", "-uW", "error", "s"], 3), (["python3", "-Xdev", "--", "script.py"], 2),
      (["python3", "-cprint(1)"], 1),
      (["python3", "--check-hash-based-pycs", "never", "-bB", "s.py"], 4), (["python3", "-"], 1),
    ])
  func place(words: [String], place: Int) throws {
    #expect(try PythonCommand.placeOfProgram(in: words) == place)
  }

  @Test(
    "without a program is refused",
    arguments: [
      ["python3"], ["python3", "-u"], ["python3", "-V"], ["python3", "--version"], ["python3", "-um", "x"],
      ["python3", "-x", "s"], ["python3", "-W"],
    ])
  func noProgram(words: [String]) {
    let error = #expect(throws: ProgramError.self) { try PythonCommand.placeOfProgram(in: words) }
    #expect(error?.kind == .usage)
  }

  @Test("is known by the interpreter's name") func names() {
    for name in ["python", "python3", "/usr/bin/python3.12", "python3.13t", "python3d", "pypy3"] {
      #expect(PythonCommand.isInterpreterName(name), "\(name)")
    }
    for name in ["pythonize", "ls", "/usr/bin/python3-config", "ipython", ""] {
      #expect(!PythonCommand.isInterpreterName(name), "\(name)")
    }
  }

  @Test("may be a script that names the interpreter in its first line") func firstLines() throws {
    let workshop = try Workshop()
    for (line, words) in [
      ("#!/usr/bin/python3 -u", ["/usr/bin/python3", "-u"]), ("#! /usr/bin/env python3", ["python3"]),
      ("#!/usr/bin/env -S python3 -X dev", ["python3", "-X", "dev"]), ("#!/bin/sh", nil), ("print(1)", nil),
    ] as [(String, [String]?)] {
      #expect(PythonCommand.interpreterLine(of: try workshop.script(line + "\n")) == words, "\(line)")
    }
  }

  @Test("of an interpreter that is too old, or none, is refused") func versions() throws {
    let workshop = try Workshop()
    func kind(_ text: String) throws -> ProgramError? {
      // Written by a process of its own: a child that another test starts meanwhile would hold the file open for writing, and
      // such a file cannot be executed.
      let name = workshop.path + "/python3.7"
      let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod +x \"$0\""
      #expect(try Child(["/bin/sh", "-c", write, name, text]).wait() == 0)
      do {
        _ = try PythonCommand([name, "x.py"], directory: "/d", searchPath: nil)
        return nil
      } catch { return error }
    }
    #expect(
      try kind("echo 3 7")?.description.hasSuffix("is Python 3.7, and '--frontend python' needs 3.8 or later") == true)
    #expect(try kind("exit 1")?.kind == .unavailable)
    #expect(try kind("echo 3 8") == nil)
  }
}

@Suite("hugespan run --frontend python", .enabled(if: canRunPython && commandPath() != nil, cannotRunPython))
struct PythonRunTests {
  private func hugespanRun(_ arguments: [String], _ workshop: Workshop) throws -> HeapOutcome {
    try workshop.outcome(of: [try #require(commandPath()), "run", "--frontend", "python"] + arguments)
  }

  @Test("ends as the program does, and reports what the heap saw") func report() throws {
    let workshop = try Workshop()
    let script = try workshop.script(
      "import sys, time\nkept = [[n] for n in range(500000)]\ntime.sleep(0.3)\nprint(sys.argv[1:])\nsys.exit(42)\n")
    let found = try hugespanRun(
      ["--json", "run.json", "--policy", "immediate", "--", try #require(pythonInterpreter), "-u", script, "-q", "x"],
      workshop)
    #expect(found.status == 42 && found.output == "['-q', 'x']\n", "\(found.errors)")
    #expect(found.errors.contains("with its arenas on the heap, policy:immediate"))
    let rows = found.errors.split(separator: "\n").filter { $0.hasPrefix("  ") }
    #expect(rows.count > 10 && Set(rows.map(\.count)).count == 1, "\(found.errors)")
    let text = try Data(contentsOf: URL(fileURLWithPath: workshop.path + "/run.json"))
    let object = try #require(JSONSerialization.jsonObject(with: text) as? [String: Any])
    #expect(object["frontEnd"] as? String == "python")
    let heap = (object["report"] as? [String: Any])?["heap"] as? [String: Any]
    #expect(heap?["peakUsedBytes"] as? Int ?? 0 > 40_000_000)
    if hasHugePages { #expect(object["coverageAtExit"] as? Double ?? 0 > 0.5) }
    #expect(try hugespanRun(["-q", "--", try #require(pythonInterpreter), "-c", "pass"], workshop).errors.isEmpty)
  }

  @Test("runs a script by its first line, and any python3 of PATH") func scripts() throws {
    let workshop = try Workshop()
    let script = try workshop.script(
      "#!/usr/bin/env python3\nimport hugespan\nprint(hugespan.is_installed(), __name__)\n", name: "tool")
    #expect(chmod(script, 0o755) == 0)
    for command in [[script], ["./tool"], ["python3", "tool"]] {
      let found = try hugespanRun(["-q", "--"] + command, workshop)
      #expect(found.status == 0 && found.output == "True __main__\n", "\(command): \(found.errors)")
    }
  }

  @Test("refuses other programs, in a line that says what would be right") func refusals() throws {
    let workshop = try Workshop()
    let other = try hugespanRun(["--", "/bin/ls"], workshop)
    #expect(other.status == 64 && other.errors.contains("/bin/ls: neither a Python interpreter nor a script"))
    #expect(other.errors.contains("--frontend jemalloc") && other.errors.split(separator: "\n").count == 1)
    #expect(try hugespanRun(["--", "no-such-python"], workshop).status == 66)
    #expect(try hugespanRun(["--", "python3"], workshop).status == 64)
    #expect(try hugespanRun(["--conf", "polcy:x", "--", "python3", "x"], workshop).status == 64)
  }

  @Test("says so when most of the program's memory is elsewhere") func elsewhere() throws {
    let workshop = try Workshop()
    let found = try hugespanRun(
      ["-q", "--", try #require(pythonInterpreter), "-c", "import time; kept = b'x' * 100000000; time.sleep(0.3)"],
      workshop)
    #expect(found.status == 0 && found.errors.contains("--frontend jemalloc"), "\(found.errors)")
  }
}
