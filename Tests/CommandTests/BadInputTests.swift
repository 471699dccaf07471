import Foundation
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("Bad input is one line and the right exit status")
struct BadInputTests {
  private func expect(
    _ arguments: [String], _ status: Int32, _ part: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try hugespan(arguments)
    #expect(outcome.status == status, "\(outcome.errors)", sourceLocation: sourceLocation)
    #expect(outcome.errors.contains(part), "\(outcome.errors)", sourceLocation: sourceLocation)
    #expect(outcome.errors.hasPrefix("hugespan: ") && outcome.output.isEmpty, sourceLocation: sourceLocation)
    let lines = outcome.errors.split(separator: "\n").filter { !$0.hasPrefix("Try '") }
    #expect(lines.count == 1, sourceLocation: sourceLocation)
  }

  @Test("usage", arguments: ["replay", "compare"])
  func usage(_ command: String) throws {
    try expect([command, "x", "--policy", "lazy"], 64, "--policy: unknown policy 'lazy' (known: never, immediate")
    try expect([command, "x", "--strategy", "zap"], 64, "--strategy: unknown strategy 'zap' (known: keep, dontneed")
    try expect([command, "x", "--touch", "som"], 64, "unknown value 'som'")
    try expect([command, "x", "--speed", "0"], 64, "neither a positive number nor 'max'")
    try expect([command, "x", "--polcy", "never"], 64, "did you mean '--policy'?")
    try expect([command, "x", "--cost-model", "/nonexistent.json"], 66, "/nonexistent.json: no such file")
    try expect(["relay", "x"], 64, "did you mean 'replay'?")
    try expect(["replay"], 64, "missing TRACE")
    try expect(["generate"], 64, "missing --output FILE")
  }

  @Test("a trace that is missing, foreign, damaged or a folder", arguments: ["replay", "compare"])
  func traces(_ command: String) throws {
    let folder = try TemporaryFolder()
    try expect([command, folder.path + "/none.hstrace"], 66, "No such file")
    try expect([command, folder.path], 66, folder.path)
    let garbage = folder.path + "/garbage.hstrace"
    try Data("not a trace at all, really".utf8).write(to: URL(fileURLWithPath: garbage))
    try expect([command, garbage], 65, "at byte 0")
    let trace = try generatedTrace(folder, seconds: 1)
    var bytes = try Data(contentsOf: URL(fileURLWithPath: trace))
    bytes[bytes.count / 2] ^= 0x40
    try bytes.write(to: URL(fileURLWithPath: trace))
    try expect([command, trace, "--policy", "never"], 65, "\(trace): the checksum of")
  }

  @Test("a cost model that is none", arguments: ["replay", "compare"])
  func costModel(_ command: String) throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 1)
    let file = folder.path + "/prices.json"
    try Data(#"{"schema": "hugespan.cost-model/1", "prices": {"slit": 1}}"#.utf8).write(to: URL(fileURLWithPath: file))
    try expect([command, trace, "--cost-model", file], 65, "\(file): unknown price 'slit' (known: releaseCall,")
  }

  @Test("a table that is malformed, with line and column")
  func tables() throws {
    let folder = try TemporaryFolder()
    let table = folder.path + "/requests.csv"
    let trace = folder.path + "/t.hstrace"
    try Data("shard_ind,operation,size_or_alloc_index\n0,0,4096\n0,1,4\n".utf8).write(to: URL(fileURLWithPath: table))
    try expect(["trace", "import", table, "-o", trace], 65, "requests.csv: allocation 4 is given back, only 1 were")
    try expect(["trace", "import", table, "-o", trace], 65, ", in line 3, column 3")
    try expect(["trace", "import", folder.path + "/none", "-o", trace], 66, "No such file")
    try expect(["trace", "import", table], 64, "give --output")
    try expect(["trace", "import", table, "-o", trace, "--format", "xml"], 64, "unknown value 'xml'")
    #expect(
      !FileManager.default.fileExists(atPath: trace) && !FileManager.default.fileExists(atPath: trace + ".partial"))
    try expect(
      ["trace", "export", try generatedTrace(folder, seconds: 1), "-o", table], 65, "record with --level span")
  }

  @Test("a log that is malformed, with line and column, and what is no table")
  func logs() throws {
    let folder = try TemporaryFolder()
    let trace = folder.path + "/t.hstrace"
    func file(_ name: String, _ text: String) throws -> String {
      try Data(text.utf8).write(to: URL(fileURLWithPath: folder.path + "/" + name))
      return folder.path + "/" + name
    }
    let android = try file("android.log", "1: malloc 0x10 5\n1: free 10\n")
    try expect(["trace", "import", android, "-o", trace], 65, "android.log: '10' is no address: 0x and hexa")
    try expect(["trace", "import", android, "-o", trace], 65, ", in line 2, column 9")
    let mtrace = try file("m.log", "= Start\n@ [0x4] ? 0x10\n")
    try expect(["trace", "import", mtrace, "-o", trace], 65, "m.log: '?' is no operation")
    try expect(["trace", "import", mtrace, "-o", trace, "--format", "memory-replay"], 65, "'=' is no thread")
    let profile = try file("p.csv", "8,1000,500\n64,3,70\n")
    try expect(["trace", "import", profile, "-o", trace], 65, "'hugespan generate --profile' makes traces of profiles")
    #expect(!FileManager.default.fileExists(atPath: trace))
  }

  @Test("options that a pathology has no use for, or that leave no room for it")
  func pathologies() throws {
    let folder = try TemporaryFolder()
    let trace = folder.path + "/t.hstrace"
    let generate = ["generate", "-o", trace, "--pathology"]
    try expect(generate + ["wear"], 64, "unknown value 'wear'")
    try expect(generate + ["survivors", "--shape", "spiky"], 64, "--shape: a pathology has its own")
    try expect(generate + ["survivors", "--churn", "5"], 64, "--churn: a pathology has its own")
    try expect(generate + ["survivors", "--break-even", "1s"], 64, "--break-even: survivors does not go by it")
    try expect(["generate", "-o", trace, "--break-even", "1s"], 64, "--break-even: only a --pathology goes by it")
    try expect(generate + ["survivors", "--peak", "8MiB"], 64, "--peak: a pathology takes at least 16MiB")
    try expect(
      generate + ["refault-storm", "--length", "3s", "--break-even", "500ms"], 64,
      "--length: refault-storm takes at least 4000ms")
    try expect(
      ["generate", "-o", trace, "--length", "3s", "--start-up", "4s"], 64, "--start-up: the trace ends before")
    #expect(!FileManager.default.fileExists(atPath: trace))
  }

  @Test("an output that cannot be made, or not be written")
  func output() throws {
    let folder = try TemporaryFolder()
    let nowhere = folder.path + "/no/where"
    try expect(["generate", "-o", nowhere], 64, "\(nowhere): cannot be made: No such file")
    try expect(["record", "-o", nowhere, "--", "/bin/true"], 64, "cannot be made: No such file")
    let trace = try generatedTrace(folder, seconds: 1)
    // Before the runs, which say what they do.
    try expect(["compare", trace, "--json", nowhere], 64, "\(nowhere): cannot be made: No such file")
    try expect(["compare", trace, "--csv", folder.path], 64, "\(folder.path): cannot be made: Is a directory")
    try expect(["replay", trace, "--json", nowhere], 64, "\(nowhere): cannot be made: No such file")
    try expect(["trace", "info", trace, "--json", nowhere], 64, "\(nowhere): cannot be made: No such file")
    try expect(["replay", trace, "--json", "/dev/full"], 69, "/dev/full: cannot be written: No space left")
    try expect(["generate", "-o", "/dev/full"], 69, "/dev/full: write failed: No space left")
  }

  @Test("what a file held before goes when there is something new to write")
  func earlierOutput() throws {
    let folder = try TemporaryFolder()
    let json = folder.path + "/out.json"
    try Data(repeating: 0x20, count: 100_000).write(to: URL(fileURLWithPath: json))
    try expect(["replay", folder.path + "/none.hstrace", "--json", json], 66, "No such file")
    #expect(try Data(contentsOf: URL(fileURLWithPath: json)).count == 100_000)
    #expect(try hugespan("replay", try generatedTrace(folder, seconds: 1), "--json", json).status == 0)
    let text = try String(contentsOfFile: json, encoding: .utf8)
    #expect(text.hasPrefix("{") && text.count < 100_000)
  }

  @Test("a program that maps more than the machine has is not touched as a whole")
  func tooLarge() throws {
    let folder = try TemporaryFolder()
    let trace = folder.path + "/vast.hstrace"
    try writeTrace(
      [
        TraceEvent(time: 0, thread: 0, body: .allocate(object: 0, bytes: 1 << 40, alignment: 1, kind: .mapped)),
        TraceEvent(time: 1_000_000, thread: 0, body: .free(object: 0)),
      ], trace)
    try expect(["replay", trace], 69, "the program has up to 1048576 MiB live")
    #expect(try hugespan("replay", trace, "--touch", "none").status == 0)
  }

  @Test("a hard limit that is too small is a failed check, with the time")
  func hardLimit() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 1)
    try expect(["replay", trace, "--hard-limit", "4MiB"], 1, "the hard limit is too small")
  }
}
