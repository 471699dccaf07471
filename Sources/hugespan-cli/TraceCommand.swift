// `hugespan trace info|dump|pack`: looks into traces, and makes them from text. (Tables: TraceTableCommands.swift.)

import Glibc
import HugeSpanLab
import OptionTable
import TraceFormat

let traceCommand = Command(
  "trace",
  abstract: "Look into a recorded trace, or make one from text or a table",
  subcommands: [traceInfoCommand, traceDumpCommand, tracePackCommand, traceImportCommand, traceExportCommand])

private let traceInfoCommand = Command(
  "info",
  abstract: "Sum up a trace: events, live bytes over time, the program's own memory",
  discussion: """
    Reads the whole trace and checks it. A trace that was cut off is summed up to its last whole chunk, and the report \
    says so; any other damage is refused with the place.
    """,
  options: [
    Option("json", .file(), help: "Write the figures as JSON to FILE; - for standard output, in place of the report")
  ],
  operands: [Operand("TRACE", help: "The traces to sum up", arity: .oneOrMore)],
  examples: [Example("hugespan trace info redis.hstrace", "See what a recording holds")],
  run: { invocation in
    if invocation.has("json") && invocation.operands.count > 1 { throw invocation.usageError("--json takes one trace") }
    let json = try invocation.output("json")
    for path in invocation.operands {
      let summary = try readingTrace(path) { () throws(TraceError) in
        try TraceSummary(of: TraceReader(path: path, tolerance: .upToLastWholeChunk))
      }
      try json?.write(summary.json(path: path))
      if invocation.text("json") == "-" { continue }
      printOutput(summary.text(path: path))
      if path != invocation.operands.last { printOutput("\n") }
    }
    return .success
  })

private let traceDumpCommand = Command(
  "dump",
  abstract: "Print a trace as text, one event a line",
  discussion: """
    Each line of an event is: seconds, thread, what. `hugespan trace pack` reads the same text back.
    """,
  options: [
    Option("limit", .count(), help: "Stop after N events", defaultText: "all"),
    Option(
      "json", .file(),
      help: "Write header, events and ending as JSON to FILE; - for standard output, in place of the text"),
  ],
  operands: [Operand("TRACE", help: "The trace to print")],
  examples: [Example("hugespan trace dump redis.hstrace | less", "Read a trace")],
  run: { invocation in
    let limit = invocation.count("limit") ?? .max
    let output = try TextOutput(invocation.text("json") ?? "-")
    try dump(invocation.operands[0], limit: limit, asJSON: invocation.has("json"), to: output)
    return .success
  })

private let tracePackCommand = Command(
  "pack",
  abstract: "Make a trace from its text form",
  discussion: """
    Reads what `hugespan trace dump` prints, or what was written by hand in the same form, and checks every event.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The trace to write (needed)"),
    Option("json", .file(), help: "Write how many events and objects it has as JSON to FILE; - for standard output"),
  ],
  operands: [Operand("TEXT", help: "The text")],
  examples: [Example("hugespan trace pack small.txt -o small.hstrace", "Make a trace by hand")],
  run: { invocation in
    guard let output = invocation.text("output") else {
      throw invocation.usageError("no trace to write: give --output")
    }
    let path = invocation.operands[0]
    let json = try invocation.output("json")
    let text = try readingTrace(path) { () throws(TraceError) in try TraceFile(path: path) }
    let packed = try writingWhole(output) { descriptor in
      try readingTrace(path) { () throws(TraceError) in try TraceText.pack(text, to: .descriptor(descriptor)) }
    }
    let fields = [
      ("schema", "\"hugespan.trace-pack/1\""), ("trace", JSONText.quoted(output)), ("events", "\(packed.events)"),
      ("objects", "\(packed.objects)"),
    ]
    try json?.write(JSONText.document(fields))
    return .success
  })

/// Runs `body` and gives what a trace is refused for the file's name and its exit status.
func readingTrace<Result: ~Copyable>(_ path: String, _ body: () throws(TraceError) -> Result) throws -> Result {
  do { return try body() } catch {
    if case .system = error.problem { throw CommandFailure("\(path): \(error)", status: .missingInput) }
    throw CommandFailure("\(path): \(error)", status: .malformedInput)
  }
}

private func dump(_ path: String, limit: Int, asJSON: Bool, to output: TextOutput) throws {
  var reader = try readingTrace(path) { () throws(TraceError) in
    try TraceReader(path: path, tolerance: .upToLastWholeChunk)
  }
  var text = asJSON ? TraceDump.opening(reader.header) : TraceText.lines(of: reader.header)
  while reader.eventCount < limit {
    let isFirst = reader.eventCount == 0
    let next: TraceEvent?
    do { next = try reader.next() } catch {
      // What came before the damage is good, and helps to see what happened.
      try output.write(text)
      throw CommandFailure("\(path): \(error)", status: .malformedInput)
    }
    guard let event = next else { break }
    text += asJSON ? TraceDump.event(event, isFirst: isFirst) : TraceText.line(of: event)
    if text.utf8.count > 1 << 16 {
      // The reader may be `head`: then there is nobody to write for.
      if try !output.write(text) { return }
      text = ""
    }
  }
  if asJSON {
    text += TraceDump.closing(reader.ending)
  } else if let ending = reader.ending {
    text += TraceText.line(of: ending)
  }
  try output.write(text)
}
