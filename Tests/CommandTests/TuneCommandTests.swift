// `hugespan tune`, and runs on the simulated kernel, as they are typed.

import Foundation
import TestSupport
import Testing

@testable import HugeSpanLab

@Suite("hugespan tune and simulated runs, as they are typed")
struct TuneCommandTests {
  @Test("a trace that is none is one line and the status that other commands give, before anything is tried")
  func unusableTraces() throws {
    let folder = try TemporaryFolder()
    try Data([1, 2, 3]).write(to: URL(fileURLWithPath: folder.path + "/foreign"))
    for (path, status) in [("/nowhere.hstrace", Int32(66)), ("/foreign", 65)] {
      let outcome = try hugespan("tune", folder.path + path)
      #expect(outcome.status == status && outcome.output.isEmpty, "\(outcome)")
      #expect(outcome.errors.split(separator: "\n").count == 1)
    }
    let trace = try generatedTrace(folder)
    #expect(try hugespan("tune", trace, "-o", folder.path).status == 64)
  }

  @Test("a search ends in words, a file of settings and JSON that agree")
  func tunes() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let (file, json) = (folder.path + "/small.conf", folder.path + "/small.json")
    let outcome = try hugespan(
      "tune", trace, "--rounds", "1", "--budget", "30s", "--no-real", "-o", file, "--json", json)
    #expect(outcome.status == 0, "\(outcome.errors)")
    #expect(outcome.output.contains("Recommended:") && outcome.output.contains("memory price  -30 %"))
    let result = try JSONDecoder().decode(TuningResult.self, from: Data(contentsOf: URL(fileURLWithPath: json)))
    #expect(result.schema == "hugespan.tune/1" && result.evaluations > 40 && !result.front.isEmpty)
    let text = try String(contentsOfFile: file, encoding: .utf8)
    let settings = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.joined(separator: ",")
    #expect(settings == result.settings && settings.contains("policy:") && settings.contains("strategy:"))
    #expect(outcome.output.contains(result.recommended.candidate.name))
  }

  @Test("a limit below what is live is refused with the figure that makes it impossible")
  func refusesAnImpossibleLimit() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let outcome = try hugespan("tune", trace, "--limit", "4MiB", "--no-real")
    #expect(outcome.status == 64 && outcome.output.isEmpty)
    #expect(outcome.errors.contains("4 MiB is less than the 2") && outcome.errors.contains("live at its peak"))
  }

  @Test("Ctrl-C prints the best so far, and writes no file")
  func isInterrupted() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 20, peak: "200MiB")
    let file = folder.path + "/never.conf"
    let output = Pipe()
    let child = try start(
      ["tune", trace, "--budget", "10m", "--rounds", "100", "--no-real", "-o", file], output: output)
    sleep(4)
    kill(child.processIdentifier, SIGINT)
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    child.waitUntilExit()
    #expect(child.terminationStatus == 130, "\(text)")
    #expect(text.contains("Interrupted: the best so far.") && text.contains("Recommended:"))
    #expect(!FileManager.default.fileExists(atPath: file))
  }

  @Test("a simulated run is the same each time, to the last digit of what it counts")
  func isDeterministic() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    func result() throws -> RunResult {
      let outcome = try hugespan(
        "replay", trace, "--kernel", "simulated", "--machine", "huge-failure=0.2,khugepaged=4000,max-ptes-none=300",
        "--json",
        "-")
      var result = try JSONDecoder().decode(RunResult.self, from: Data(outcome.output.utf8))
      // What the clock has measured of the simulation itself.
      (result.wallSeconds, result.replayCPUSeconds, result.heapCPUSeconds) = (0, nil, nil)
      return result
    }
    let first = try result()
    #expect(first.kernel == "simulated" && first.faults! > 0 && first.chargedBytes!.peak > 16_000_000)
    #expect(try result() == first)
  }

  @Test("a policy that is not named goes by the memory price as one that is")
  func pricesTheDefaultPolicy() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    func result(_ arguments: String...) throws -> RunResult {
      let outcome = try hugespan(["replay", trace, "--kernel", "simulated", "--json", "-"] + arguments)
      return try JSONDecoder().decode(RunResult.self, from: Data(outcome.output.utf8))
    }
    let dear = try result("--memory-price", "1600")
    #expect(dear.policy == "rent-or-buy:price=1600")
    #expect(dear.cost == (try result("--memory-price", "1600", "--policy", "rent-or-buy").cost))
  }

  @Test("a machine that is too small ends the run with what was charged")
  func runsOutOfMemory() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let outcome = try hugespan("replay", trace, "--kernel", "simulated", "--machine", "limit=10MiB")
    #expect(outcome.status == 1 && outcome.errors.contains("would have been killed"))
  }

  @Test("both kernels side by side agree on this trace")
  func both() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let outcome = try hugespan(
      "compare", trace, "--both", "--policy", "immediate", "--strategy", "split-dontneed", "--json",
      folder.path + "/x.json")
    #expect(outcome.status == 0 && outcome.output.contains("The simulated kernel against the real one"))
    let comparison = try JSONDecoder().decode(
      Comparison.self, from: Data(contentsOf: URL(fileURLWithPath: folder.path + "/x.json")))
    #expect(comparison.runs.map(\.kernel).sorted() == ["real", "simulated"])
    let cells = try #require(comparison.fidelity).cells.filter { $0.column == "RSS" || $0.column == "splits" }
    if hasHugePages && !hasAddressSanitizer {
      #expect(cells.allSatisfy { $0.isWithin } && cells.count == 2, "\(cells)")
    }
  }

  @Test(
    "what makes no sense of the simulated kernel is refused",
    arguments: [
      (["--machine", "limit=1GiB"], "give '--kernel simulated' too"),
      (["--kernel", "simulated", "--speed", "1"], "no other clock"),
      (["--kernel", "simulated", "--machine", "huge=1"], "'huge' is no switch"),
      (["--kernel", "imaginary"], "imaginary"),
    ])
  func refuses(arguments: [String], message: String) throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let outcome = try hugespan(["replay", trace] + arguments)
    #expect(outcome.status == 64 && outcome.errors.contains(message), "\(outcome)")
  }
}
