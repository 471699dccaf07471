// `hugespan trace import|export`: traces of spans from and to the tables of other tools.

import Glibc
import HugeSpanLab
import OptionTable
import TraceFormat

private let formatOption = Option(
  "format",
  .choice([Choice("jemalloc-csv", "what the stress program of jemalloc's page allocator (test/stress/pa) replays")]),
  help: "The kind of table", defaultText: "jemalloc-csv")

let traceImportCommand = Command(
  "import",
  abstract: "Make a trace of spans from a table of another tool",
  discussion: """
    The first line names the columns. Known are the tables that jemalloc's stress program for its page allocator replays \
    (shard_ind, operation, size_or_alloc_index, nsecs, is_frequent; the last two may be missing) and the captures that \
    they are made of, of the page allocator (shard_ind, addr, nsecs, probe, size) and of its cache of extents. Shards \
    become threads.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The trace to write (needed)"), formatOption,
    Option(
      "rate", .count(in: 1...1_000_000_000), help: "Requests a second, for a table without times", defaultText: "5000"),
    Option("json", .file(), help: "Write what came of it as JSON to FILE; - for standard output"),
  ],
  operands: [Operand("TABLE", help: "The table")],
  examples: [
    Example("hugespan trace import requests.csv -o requests.hstrace", "Replay what jemalloc's users recorded")
  ],
  run: { invocation in
    guard let output = invocation.text("output") else {
      throw invocation.usageError("no trace to write: give --output")
    }
    let path = invocation.operands[0]
    let json = try invocation.output("json")
    let table = try readingTrace(path) { () throws(TraceError) in try TraceFile(path: path) }
    let report = try writingWhole(output) { descriptor in
      try readingTrace(path) { () throws(TraceError) in
        try JemallocImport.run(
          table, program: path, requestsPerSecond: invocation.count("rate") ?? 5000, to: .descriptor(descriptor))
      }
    }
    printError("hugespan: \(output): \(report.events) events, \(report.spans) spans")
    for line in report.remarks { printError("hugespan: warning: \(line)") }
    try json?.write(
      JSONText.document([
        ("schema", "\"hugespan.trace-import/1\""), ("trace", JSONText.quoted(output)),
        ("events", "\(report.events)"), ("spans", "\(report.spans)"), ("hasTimes", "\(report.hasTimes)"),
        ("earlierRows", "\(report.earlierRows)"), ("unknownReleases", "\(report.unknownReleases)"),
        ("unseenReleases", "\(report.unseenReleases)"),
      ]))
    return .success
  })

let traceExportCommand = Command(
  "export",
  abstract: "Write a trace of spans as a table for another tool",
  discussion: """
    A table for jemalloc's stress program knows spans that are handed out and given back whole. Where a span's length \
    changes, the table has a release and an allocation instead, so that the pages in use are those of the trace at any \
    time. What a table cannot say is left out and counted in a warning.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The table to write (needed); - for standard output"), formatOption,
    Option("no-times", help: "Leave out the column of times, which older versions of the stress program do not expect"),
    Option("json", .file(), help: "Write what came of it as JSON to FILE; - for standard output"),
  ],
  operands: [Operand("TRACE", help: "A trace made by 'hugespan record --level span'")],
  examples: [Example("hugespan trace export spans.hstrace -o spans.csv", "Hand a trace to jemalloc's stress program")],
  run: { invocation in
    guard let output = invocation.text("output") else {
      throw invocation.usageError("no table to write: give --output")
    }
    let path = invocation.operands[0]
    let json = try invocation.output("json")
    func export(to descriptor: Int32) throws -> JemallocExport {
      try readingTrace(path) { () throws(TraceError) in
        try JemallocExport.run(
          TraceReader(path: path), hasTimes: !invocation.has("no-times"), to: .descriptor(descriptor))
      }
    }
    let report = try output == "-" ? export(to: STDOUT_FILENO) : writingWhole(output, export)
    for line in report.losses { printError("hugespan: warning: \(line)") }
    try json?.write(
      JSONText.document([
        ("schema", "\"hugespan.trace-export/1\""), ("table", JSONText.quoted(output)), ("rows", "\(report.rows)"),
        ("spans", "\(report.spans)"), ("losses", JSONText.array(report.losses.map(JSONText.quoted))),
      ]))
    return .success
  })

extension JemallocImport {
  /// What the user should know, a line each.
  fileprivate var remarks: [String] {
    var result: [String] = []
    if !hasTimes { result.append("the table has no times; they are made up (--rate)") }
    if earlierRows > 0 { result.append("\(earlierRows) rows have an earlier time than one before, and got that") }
    if unknownReleases > 0 {
      result.append("\(unknownReleases) releases of what was allocated before the capture are left out")
    }
    if unseenReleases > 0 {
      result.append("\(unseenReleases) allocations are where something lives; its release is put in before")
    }
    return result
  }
}

/// Calls `body` with a file that gets the name `path` when it is complete: nobody sees half a file under that name.
func writingWhole<Result>(_ path: String, _ body: (Int32) throws -> Result) throws -> Result {
  let partial = "\(path).partial"
  let file = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  guard file >= 0 else {
    throw CommandFailure("\(partial): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
  }
  defer { close(file) }
  let result: Result
  do { result = try body(file) } catch {
    unlink(partial)
    throw error
  }
  if rename(partial, path) != 0 {
    throw CommandFailure("\(path): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
  }
  return result
}
