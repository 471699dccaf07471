// `hugespan coverage`: what running processes have on hugepages.

import Foundation
import Glibc
import HugeSpanLab
import OptionTable

let coverageCommand = Command(
  "coverage",
  abstract: "Show what of a running process' memory is on hugepages",
  discussion: """
    Of a process, by number or by name: each mapping with anonymous memory, how much of it is mapped by hugepages, lazily \
    free, or swapped, and the sum. Of several processes: a line each. The figures are the kernel's own, from \
    /proc/PID/smaps. One's own processes need no root; what cannot be seen without is said.

    With --interval a line (or CSV, or JSON, an object a line) for each look, until the process ends.
    """,
  options: [
    Option("all", help: "Every process that may be looked at"),
    Option("cgroup", .file(), help: "The processes in the memory group with this directory"),
    Option("mappings", .count(in: 0...1_000_000), help: "Show this many mappings, the largest", defaultText: "20"),
    Option("interval", .duration(), help: "Look again after this long"),
    Option("count", .count(in: 1...1_000_000_000), help: "With --interval, stop after this many looks"),
    Option("csv", help: "A line of CSV for each process and look"),
    Option("json", .file(), help: "Write JSON to FILE, '-' for standard output; an object a line if there are several"),
  ],
  operands: [Operand("PROCESS", help: "A process' number, or its name", arity: .any)],
  examples: [
    Example("hugespan coverage redis-server", "Every mapping of a server"),
    Example("hugespan coverage --all", "Who on this machine has hugepages"),
    Example("hugespan coverage 4711 --interval 100ms --count 600 --csv", "A minute of a process, ten looks a second"),
  ],
  run: { invocation in
    let request = try CoverageRequest(invocation)
    return try request.run()
  })

/// What the command was asked for.
private struct CoverageRequest {
  let reader = CoverageReader()
  let processes: [Int]
  /// Named one by one, so that one that cannot be looked at is an error.
  let areNamed: Bool
  let interval: UInt64?
  let count: Int
  let isCSV: Bool
  let json: TextOutput?
  let isJSONOutput: Bool
  let limit: Int

  init(_ invocation: Invocation) throws {
    let ways = [invocation.has("all"), invocation.has("cgroup"), !invocation.operands.isEmpty].count { $0 }
    if ways == 0 { throw invocation.usageError("name a process by its number or name, or give --all or --cgroup") }
    if ways > 1 { throw invocation.usageError("PROCESS, --all and --cgroup exclude each other") }
    if invocation.has("csv") && invocation.text("json") == "-" {
      throw invocation.usageError("--csv and --json - both want standard output")
    }
    interval = invocation.nanoseconds("interval")
    if let interval, interval < 1_000_000 { throw invocation.usageError("--interval: at least 1ms") }
    if interval == nil && invocation.has("count") { throw invocation.usageError("--count needs --interval") }
    count = interval == nil ? 1 : invocation.count("count") ?? .max
    isCSV = invocation.has("csv")
    limit = invocation.count("mappings") ?? 20
    areNamed = !invocation.operands.isEmpty
    do throws(CoverageError) {
      var found: [Int] = []
      if invocation.has("all") {
        found = reader.processes()
      } else if let group = invocation.text("cgroup") {
        found = try reader.processes(inGroup: group)
      } else {
        for operand in invocation.operands { found += try reader.processes(named: operand) }
      }
      processes = found.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    } catch { throw CommandFailure("\(error)", status: .missingInput) }
    isJSONOutput = invocation.text("json") == "-"
    json = try invocation.output("json")
  }

  /// Without an interval everything of one process is shown; a series and a list have sums.
  private var isDetailed: Bool { interval == nil && processes.count == 1 && !isCSV }

  func run() throws -> ExitCode {
    if isCSV { printOutput(CoverageRecord.csvHead) }
    let start = now()
    var looks = 0
    while looks < count {
      let seconds = Double(now() - start) / 1e9
      let seen = try look()
      // The process that was watched has ended: that is the end of a series, and no error.
      if seen.isEmpty && looks > 0 { return .success }
      if !(try show(seen, seconds: seconds)) { return .success }
      looks += 1
      guard let interval, looks < count else { break }
      let due = start + interval * UInt64(looks)
      let time = now()
      if due > time { usleep(UInt32(clamping: (due - time) / 1000)) }
    }
    return .success
  }

  private func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }

  private func look() throws -> [ProcessCoverage] {
    var seen: [ProcessCoverage] = []
    var refused: CoverageError?
    for process in processes {
      do throws(CoverageError) { seen.append(try reader.look(at: process, mappings: isDetailed)) } catch {
        refused = refused ?? error
        if areNamed && interval == nil { throw failure(error) }
      }
    }
    if seen.isEmpty, let refused, !(interval != nil && refused.isVanished) { throw failure(refused) }
    return seen
  }

  private func failure(_ error: CoverageError) -> CommandFailure {
    CommandFailure("\(error)", status: error.isVanished ? .missingInput : .unavailable)
  }

  /// False if standard output has no reader any more.
  private func show(_ seen: [ProcessCoverage], seconds: Double) throws -> Bool {
    let folios = isDetailed ? seen.first.flatMap { reader.folios(of: $0.process, $0.mappings) } : nil
    let records = seen.map { CoverageRecord($0, folios: folios, seconds: seconds) }
    if let json {
      if isDetailed, let record = records.first {
        try json.write(jsonText(record))
      } else {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        for record in records { try json.write(String(decoding: try encoder.encode(record), as: UTF8.self) + "\n") }
      }
    }
    if isCSV { return printOutput(records.map(\.csvRow).joined()) }
    if isJSONOutput { return true }
    let style = terminalStyle()
    if isDetailed, let only = seen.first {
      return printOutput(CoverageText.process(only, folios: folios, limit: limit, style))
    }
    if interval != nil && seen.count == 1 { return printOutput(CoverageText.line(seen[0], seconds: seconds)) }
    return printOutput(CoverageText.processes(seen, style))
  }
}
