import Foundation
import Glibc
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("hugespan compare and replay, as they are typed", .serialized)
struct CompareCommandTests {
  @Test("a small grid: a row per run, JSON and CSV with the same runs, no group left")
  func grid() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let json = folder.path + "/r.json"
    let csvPath = folder.path + "/r.csv"
    let outcome = try hugespan(
      "compare", trace, "--policy", "never", "--policy", "immediate", "--policy", "seed", "--strategy", "dontneed",
      "--strategy", "split-dontneed", "--json", json, "--csv", csvPath)
    #expect(outcome.status == 0, "\(outcome.errors)")
    for name in ["never ", "immediate ", "seed ", "keep", "dontneed", "split-dontneed", "Least ", "coverage"] {
      #expect(outcome.output.contains(name), "\(name)")
    }
    // Progress, a line per run.
    #expect(outcome.errors.split(separator: "\n").count == 5 && outcome.errors.contains("[5/5]"))
    let data = try Data(contentsOf: URL(fileURLWithPath: json))
    let comparison = try JSONDecoder().decode(Comparison.self, from: data)
    #expect(comparison.schema == "hugespan.compare/1" && comparison.leftOut.isEmpty)
    #expect(
      comparison.runs.map { "\($0.policy)/\($0.strategy)" } == [
        "never/keep", "immediate/dontneed", "immediate/split-dontneed", "seed/dontneed", "seed/split-dontneed",
      ])
    for run in comparison.runs {
      #expect(run.trace == "small" && run.samples >= 500 && run.usedBytes!.peak > 20_000_000, "\(run.title)")
      #expect((run.chargedBytes != nil) == canMakeGroup, "\(run.title)")
      #expect((run.chargeUnknownReason == nil) == canMakeGroup, "\(run.title)")
    }
    #expect(contents(ofFile: csvPath)!.split(separator: "\n").count == 6)
    let immediate = comparison.runs[1]
    #expect(immediate.releasedPages > 0 && immediate.releaseCalls > 0)
  }

  @Test("what does not fit into the budget is left out, and said")
  func budget() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let outcome = try hugespan("compare", trace, "--budget", "1ms", "--json", "-")
    #expect(outcome.status == 0)
    let comparison = try JSONDecoder().decode(Comparison.self, from: Data(outcome.output.utf8))
    #expect(comparison.runs.isEmpty && comparison.leftOut.count == 22)
    #expect(outcome.errors.contains("left out: small seed/free: about "))
  }

  @Test("without a memory cgroup the charge is unknown, and the reason is told")
  func noGroup() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 1)
    let outcome = try hugespan("replay", trace, "--no-cgroup", "it is a test")
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("charge unknown     it is a test"))
    #expect(outcome.output.contains("charged            -"))
  }

  @Test(
    "a run that keeps everything shows a phantom under 1 MB",
    .enabled(if: canMakeGroup, "no memory cgroup can be made here"),
    .enabled(if: !hasAddressSanitizer, "the address sanitizer's shadow memory is charged too"))
  func keepHasNoPhantom() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 5, peak: "96MiB")
    let outcome = try hugespan("replay", trace, "--policy", "never", "--strategy", "keep", "--json", "-")
    let result = try JSONDecoder().decode(RunResult.self, from: Data(outcome.output.utf8))
    let phantom = try #require(result.phantomBytes)
    #expect(phantom.mean < 1_000_000 && phantom.peak < 1_000_000)
    let charged = try #require(result.chargedBytes)
    #expect(abs(charged.peak - result.residentBytes!.peak) < 1_500_000)
  }

  @Test(
    "the halves of a trace have a cost each: what is kept and never touched again costs rent, twice as long twice as much",
    .enabled(if: canMakeGroup, "no memory cgroup can be made here"),
    .enabled(if: !hasAddressSanitizer, "the address sanitizer's shadow memory is charged too"))
  func halves() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/flat.hstrace"
    // Everything at the beginning: 64 MiB, 10 seconds, no program time, so that nothing is taxed.
    var events = (0..<64).map {
      TraceEvent(time: 0, thread: 0, body: .allocate(object: $0, bytes: 1 << 20, alignment: 1, kind: .plain))
    }
    events.append(TraceEvent(time: 10_000_000_000, thread: 0, body: .free(object: 0)))
    try writeTrace(events, path)
    let outcome = try hugespan(
      "replay", path, "--policy", "never", "--strategy", "keep", "--json", "-", "--residency-every", "off")
    let result = try JSONDecoder().decode(RunResult.self, from: Data(outcome.output.utf8))
    let first = try #require(result.firstHalfCost)
    let second = try #require(result.cost) - first
    let rent = 64.0 / 1024 * 5 / 3600 * 400
    #expect(abs(second - rent) < 0.05 * rent, "\(second) for \(rent)")
    #expect(abs(first - (second + result.modelledCPUSeconds!)) < 0.02 * rent, "the faults are in the first half")
  }

  @Test(
    "half of each hugepage released: the other half of the charge is phantom, within 2 %",
    .enabled(if: canMakeGroup && hasHugePages, "needs a memory cgroup and transparent hugepages"),
    .enabled(if: !hasAddressSanitizer, "the address sanitizer's shadow memory is charged too"))
  func halfReleased() throws {
    // 128 hugepages in pairs of 1 MiB; the second of each pair goes, and nothing else happens for ten seconds.
    let folder = try TemporaryFolder()
    let path = folder.path + "/half.hstrace"
    let pairs = 128
    var events: [TraceEvent] = []
    for object in 0..<(2 * pairs) {
      events.append(
        TraceEvent(time: 0, thread: 0, body: .allocate(object: object, bytes: 1 << 20, alignment: 1, kind: .plain)))
    }
    for pair in 0..<pairs {
      events.append(TraceEvent(time: 1_000_000, thread: 0, body: .free(object: 2 * pair + 1)))
    }
    events.append(TraceEvent(time: 10_000_000_000, thread: 0, body: .free(object: 0)))
    try writeTrace(events, path)
    func phantom(_ strategy: String) throws -> Double {
      let outcome = try hugespan(
        "replay", path, "--policy", "immediate", "--strategy", strategy, "--json", "-", "--residency-every", "off")
      let result = try JSONDecoder().decode(RunResult.self, from: Data(outcome.output.utf8))
      #expect(result.releasedPages >= pairs * 256)
      return try #require(result.phantomBytes).peak
    }
    let expected = Double(pairs << 20)
    let found = try phantom("dontneed")
    #expect(abs(found - expected) < 0.02 * expected, "\(found) of \(expected)")
    #expect(try phantom("split-dontneed") < 0.02 * expected)
  }

  @Test("the residency answers of a run are written, and read back to the same decisions")
  func residencyLog() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 6)
    let log = folder.path + "/answers"
    func decisions(_ options: [String]) throws -> [String: Int] {
      let outcome = try hugespan(
        ["replay", trace, "--strategy", "dontneed", "--residency-every", "1s", "--json", "-"] + options)
      #expect(outcome.status == 0, "\(outcome.errors)")
      return try JSONDecoder().decode(RunResult.self, from: Data(outcome.output.utf8)).decisions
    }
    let written = try decisions(["--residency-log", log])
    #expect(try decisions(["--residency-from", log]) == written)
  }
}

@Suite("Nothing is left behind", .serialized, .enabled(if: canMakeGroup, "no memory cgroup can be made here"))
struct InterruptTests {
  /// Starts a comparison in real time, which would take a minute, and waits for its first group.
  private func started(_ folder: TemporaryFolder, _ errors: Pipe = Pipe()) throws -> Process {
    let trace = try generatedTrace(folder, seconds: 60, peak: "8MiB")
    let process = try start(
      ["compare", trace, "--speed", "1", "--policy", "never", "--policy", "seed", "--strategy", "free"], errors: errors)
    let identifier = process.processIdentifier
    #expect(wait { groups(of: identifier).count == 2 && !members(of: identifier).isEmpty })
    return process
  }

  private func members(of owner: Int32) -> [Int32] {
    guard let membership = try? CgroupMembership.find() else { return [] }
    return groups(of: owner).flatMap { name in
      (contents(ofFile: "\(membership.directory)/\(name)/cgroup.procs") ?? "").split(separator: "\n").compactMap {
        Int32($0)
      }
    }
  }

  @Test(
    "a comparison that is interrupted ends its runs, removes their groups and says what was left out",
    arguments: [SIGINT, SIGTERM])
  func interrupted(_ signal: Int32) throws {
    let folder = try TemporaryFolder()
    let errors = Pipe()
    let process = try started(folder, errors)
    let runs = members(of: process.processIdentifier)
    kill(process.processIdentifier, signal)
    process.waitUntilExit()
    #expect(process.terminationReason == .exit && process.terminationStatus == 128 + signal)
    #expect(groups(of: process.processIdentifier) == [])
    for run in runs { #expect(kill(run, 0) != 0, "a run is still there") }
    let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    #expect(text.contains("left out: small seed/free: interrupted"))
  }

  @Test("a run that is killed is left out with the reason, its group is removed, the others go on")
  func killedRun() throws {
    let folder = try TemporaryFolder()
    let errors = Pipe()
    let process = try started(folder, errors)
    let runs = members(of: process.processIdentifier)
    try kill(#require(runs.first), SIGKILL)
    #expect(wait { groups(of: process.processIdentifier).count == 1 })
    kill(process.processIdentifier, SIGINT)
    process.waitUntilExit()
    let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    #expect(text.contains("ended by signal 9"))
    #expect(groups(of: process.processIdentifier) == [])
  }

  @Test("a comparison that is killed takes its runs along; the next one removes its groups")
  func killedComparison() throws {
    let folder = try TemporaryFolder()
    let process = try started(folder)
    let identifier = process.processIdentifier
    let runs = members(of: identifier)
    kill(identifier, SIGKILL)
    process.waitUntilExit()
    #expect(wait { runs.allSatisfy { kill($0, 0) != 0 } || members(of: identifier).isEmpty })
    // The groups are still there, unless a command of another test came by in the meantime.
    let trace = try generatedTrace(folder, seconds: 1)
    #expect(try hugespan("compare", trace, "--policy", "never").status == 0)
    #expect(groups(of: identifier) == [])
  }

  @Test("a single replay that is interrupted removes its group", arguments: [SIGINT, SIGTERM])
  func interruptedReplay(_ signal: Int32) throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder, seconds: 60, peak: "8MiB")
    let process = try start(["replay", trace, "--speed", "1"])
    #expect(wait { !members(of: process.processIdentifier).isEmpty })
    kill(process.processIdentifier, signal)
    process.waitUntilExit()
    #expect(process.terminationReason == .uncaughtSignal && process.terminationStatus == signal)
    #expect(groups(of: process.processIdentifier) == [])
  }
}
