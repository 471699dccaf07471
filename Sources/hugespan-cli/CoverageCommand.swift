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
    Option("map", help: "Show what is in each pageblock of 2 MiB as well, of one process"),
    Option("interval", .duration(), help: "Look again after this long"),
    Option(
      "effort",
      .text(
        "PERCENT|full",
        check: { effortShare($0) == nil ? "'\($0)' is neither a number in 0.1...100 nor 'full'" : nil }),
      help: """
        With --interval, percent of a core that looking may take: hugepages are looked at in parts, and each look says \
        how old its oldest part is; 'full' looks at everything each time
        """, defaultText: "1"),
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

/// The share of a core of `--effort`: nil if it is wrong, a nil share for `full`.
private func effortShare(_ text: String) -> Double?? {
  if text == "full" { return .some(nil) }
  guard let percent = Double(text), percent >= 0.1, percent <= 100 else { return nil }
  return .some(percent / 100)
}

/// Those who look at processes again and again.
private final class CoverageSamplers {
  private var byProcess: [Int: CoverageSampler] = [:]

  func sampler(_ reader: CoverageReader, _ process: Int, effort: Double?) -> CoverageSampler {
    if let known = byProcess[process] { return known }
    let made = CoverageSampler(reader, process: process, effort: effort)
    byProcess[process] = made
    return made
  }
}

/// What the command was asked for.
private struct CoverageRequest {
  private let samplers = CoverageSamplers()
  let reader = CoverageReader()
  let processes: [Int]
  /// Named one by one, so that one that cannot be looked at is an error.
  let areNamed: Bool
  let interval: UInt64?
  let count: Int
  /// Share of a core, nil for complete looks.
  let effort: Double?
  let isCSV: Bool
  let hasMap: Bool
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
    if interval == nil && invocation.has("effort") { throw invocation.usageError("--effort needs --interval") }
    effort = effortShare(invocation.text("effort") ?? "1") ?? nil
    isCSV = invocation.has("csv")
    hasMap = invocation.has("map")
    if hasMap && (interval != nil || isCSV) { throw invocation.usageError("--map is for one look at one process") }
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
    if hasMap && processes.count != 1 { throw invocation.usageError("--map: one process at a time") }
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

  private func look() throws -> [CoverageSample] {
    var seen: [CoverageSample] = []
    var refused: CoverageError?
    for process in processes {
      do throws(CoverageError) { seen.append(try look(at: process)) } catch {
        refused = refused ?? error
        if areNamed && interval == nil { throw failure(error) }
      }
    }
    if seen.isEmpty, let refused, !(interval != nil && refused.isVanished) { throw failure(refused) }
    return seen
  }

  private func look(at process: Int) throws(CoverageError) -> CoverageSample {
    if interval != nil {
      return try samplers.sampler(reader, process, effort: effort.map { $0 / Double(processes.count) }).look(at: now())
    }
    var coverage = try reader.look(at: process, mappings: isDetailed)
    if isDetailed { reader.guessNames(of: process, &coverage.mappings) }
    return CoverageSample(coverage: coverage)
  }

  private func failure(_ error: CoverageError) -> CommandFailure {
    CommandFailure("\(error)", status: error.isVanished ? .missingInput : .unavailable)
  }

  /// False if standard output has no reader any more.
  private func show(_ samples: [CoverageSample], seconds: Double) throws -> Bool {
    let seen = samples.map(\.coverage)
    var split: [UInt: Int] = [:]
    let folios =
      isDetailed
      ? seen.first.flatMap { one in
        reader.folios(of: one.process, one.mappings) { split[$0 & ~0x1f_ffff, default: 0] += 1 }
      }
      : nil
    var blocks: [MappedBlocks] = []
    if hasMap, let one = seen.first {
      guard
        let found = reader.blocks(
          of: one.process, one.largest.sorted { $0.start < $1.start }, split: folios == nil ? nil : split)
      else {
        throw CommandFailure(
          "--map: this kernel does not tell what is in a process' pageblocks (PAGEMAP_SCAN, Linux 6.7)",
          status: .unavailable)
      }
      blocks = found
    }
    let records = samples.map { sample in
      var record = CoverageRecord(sample.coverage, folios: folios, seconds: seconds, blocks: blocks)
      if interval != nil {
        record.oldestSeconds = sample.oldestSeconds
        record.lazyFreeSeconds = sample.lazyFreeSeconds
      }
      return record
    }
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
      let table = CoverageText.process(only, folios: folios, limit: limit, style)
      return printOutput(hasMap ? table + "\n" + AddressMapText.text(blocks, style) : table)
    }
    if interval != nil && seen.count == 1 { return printOutput(CoverageText.line(seen[0], seconds: seconds)) }
    return printOutput(CoverageText.processes(seen, style))
  }
}
