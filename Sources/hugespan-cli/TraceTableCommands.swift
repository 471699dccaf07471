// `hugespan trace import|export`: traces from and to the tables and logs of other tools.

import Glibc
import HugeSpanLab
import OptionTable
import TraceFormat

private let jemallocChoice = Choice(
  ImportFormat.jemallocTable.rawValue, "what the stress program of jemalloc's page allocator (test/stress/pa) replays")

let traceImportCommand = Command(
  "import",
  abstract: "Make a trace from a table or a log of another tool",
  discussion: """
    Tables of jemalloc's page allocator make traces of spans. Their first line names the columns. Known are the tables that \
    jemalloc's stress program for its page allocator replays (shard_ind, operation, size_or_alloc_index, nsecs, is_frequent; \
    the last two may be missing) and the captures that they are made of, of the page allocator (shard_ind, addr, nsecs, \
    probe, size) and of its cache of extents. Shards become threads.

    Logs of malloc make traces of malloc: those of Android's memory_replay ('186: malloc 0xb6038060 20', with times or \
    without), and those of glibc's mtrace ('@ caller + 0x1f3a6b0 0x64'). mtrace writes no times, no threads and no \
    alignments; its calls get times at the pace of --rate, one after another by one thread.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The trace to write (needed)"),
    Option(
      "format",
      .choice([
        jemallocChoice,
        Choice(ImportFormat.memoryReplay.rawValue, "what Android's malloc debugging records and memory_replay replays"),
        Choice(ImportFormat.mtrace.rawValue, "what glibc's mtrace writes (MALLOC_TRACE)"),
      ]),
      help: "What kind of input it is", defaultText: "what its first line looks like"),
    Option(
      "rate", .count(in: 1...1_000_000_000), help: "Events a second, for an input without times", defaultText: "5000"),
    Option("json", .file(), help: "Write what came of it as JSON to FILE; - for standard output"),
  ],
  operands: [Operand("INPUT", help: "The table or log")],
  examples: [
    Example("hugespan trace import requests.csv -o requests.hstrace", "Replay what jemalloc's users recorded"),
    Example("hugespan trace import mtrace.log -o program.hstrace --rate 100000", "Replay a log of glibc's mtrace"),
  ],
  run: { invocation in
    guard let output = invocation.text("output") else {
      throw invocation.usageError("no trace to write: give --output")
    }
    let path = invocation.operands[0]
    let json = try invocation.output("json")
    let rate = invocation.count("rate") ?? 5000
    let input = try readingTrace(path) { () throws(TraceError) in try TraceFile(path: path) }
    let format = invocation.text("format").flatMap(ImportFormat.init) ?? ImportFormat.detect(input)
    if format == .jemallocTable, (try? FleetProfile(parsing: input)) != nil {
      throw CommandFailure(
        "\(path): a profile and no table; 'hugespan generate --profile' makes traces of profiles",
        status: .malformedInput)
    }
    let report = try writingWhole(output) { descriptor in
      try readingTrace(path) { () throws(TraceError) -> any ImportReport in
        if format == .jemallocTable {
          return try JemallocImport.run(
            input, program: path, requestsPerSecond: rate, to: .descriptor(descriptor))
        }
        return try LogImport.run(
          input, format: format, program: path, eventsPerSecond: rate, to: .descriptor(descriptor))
      }
    }
    printError("hugespan: \(output): \(report.summary)")
    for line in report.remarks { printError("hugespan: warning: \(line)") }
    try json?.write(
      JSONText.document(
        [
          ("schema", "\"hugespan.trace-import/1\""), ("trace", JSONText.quoted(output)),
          ("format", JSONText.quoted(format.rawValue)),
        ] + report.fields))
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
    Option("output", short: "o", .file(), help: "The table to write (needed); - for standard output"),
    Option("format", .choice([jemallocChoice]), help: "The kind of table", defaultText: "jemalloc-csv"),
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

/// What an import has to say to the user.
private protocol ImportReport {
  /// What the trace has.
  var summary: String { get }
  /// What the user should know, a line each.
  var remarks: [String] { get }
  /// Of the JSON document, what only this kind of import has.
  var fields: [(String, String)] { get }
}

extension JemallocImport: ImportReport {
  fileprivate var summary: String { "\(events) events, \(spans) spans" }

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

  fileprivate var fields: [(String, String)] {
    [
      ("events", "\(events)"), ("spans", "\(spans)"), ("hasTimes", "\(hasTimes)"), ("earlierRows", "\(earlierRows)"),
      ("unknownReleases", "\(unknownReleases)"), ("unseenReleases", "\(unseenReleases)"),
    ]
  }
}

extension LogImport: ImportReport {
  fileprivate var summary: String { "\(events) events, \(objects) objects" }

  fileprivate var remarks: [String] {
    var result: [String] = []
    if !hasTimes { result.append("the log has no times; they are made up (--rate)") }
    if isCut { result.append("the log ends in the middle of a call, which is left out") }
    if earlierLines > 0 { result.append("\(earlierLines) lines have an earlier time than one before, and got that") }
    if failedCalls > 0 { result.append("\(failedCalls) calls got no memory and are left out") }
    if unknownReleases > 0 {
      result.append("\(unknownReleases) releases of what was allocated before the log are left out")
    }
    if unseenReleases > 0 {
      result.append("\(unseenReleases) allocations are where something lives; its release is put in before")
    }
    return result
  }

  fileprivate var fields: [(String, String)] {
    [
      ("events", "\(events)"), ("objects", "\(objects)"), ("hasTimes", "\(hasTimes)"),
      ("earlierLines", "\(earlierLines)"), ("unknownReleases", "\(unknownReleases)"),
      ("unseenReleases", "\(unseenReleases)"), ("failedCalls", "\(failedCalls)"), ("isCut", "\(isCut)"),
    ]
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
