// `hugespan trace info|dump|pack`: looks into traces, and makes them from text.

import Glibc
import HugeSpanLab
import OptionTable
import TraceFormat

let traceCommand = Command(
  "trace",
  abstract: "Look into a recorded trace, or make one from text",
  subcommands: [traceInfoCommand, traceDumpCommand, tracePackCommand])

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
    for path in invocation.operands {
      let summary = try readingTrace(path) { () throws(TraceError) in
        try TraceSummary(of: TraceReader(path: path, tolerance: .upToLastWholeChunk))
      }
      if let target = invocation.text("json") {
        try writeText(summary.json(path: path), to: target)
        if target == "-" { continue }
      }
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
  options: [Option("limit", .count(), help: "Stop after N events", defaultText: "all")],
  operands: [Operand("TRACE", help: "The trace to print")],
  examples: [Example("hugespan trace dump redis.hstrace | less", "Read a trace")],
  run: { invocation in
    let path = invocation.operands[0]
    try readingTrace(path) { () throws(TraceError) in
      try dump(path, limit: invocation.count("limit") ?? .max)
    }
    return .success
  })

private let tracePackCommand = Command(
  "pack",
  abstract: "Make a trace from its text form",
  discussion: """
    Reads what `hugespan trace dump` prints, or what was written by hand in the same form, and checks every event.
    """,
  options: [Option("output", short: "o", .file(), help: "The trace to write (needed)")],
  operands: [Operand("TEXT", help: "The text")],
  examples: [Example("hugespan trace pack small.txt -o small.hstrace", "Make a trace by hand")],
  run: { invocation in
    guard let output = invocation.text("output") else {
      throw invocation.usageError("no trace to write: give --output")
    }
    let path = invocation.operands[0]
    let text = try readingTrace(path) { () throws(TraceError) in try TraceFile(path: path) }
    let partial = "\(output).partial"
    let file = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      throw CommandFailure("\(partial): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
    defer { close(file) }
    do {
      try readingTrace(path) { () throws(TraceError) in try TraceText.pack(text, to: .descriptor(file)) }
    } catch {
      unlink(partial)
      throw error
    }
    if rename(partial, output) != 0 {
      throw CommandFailure("\(output): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
    return .success
  })

/// Runs `body` and gives what a trace is refused for the file's name and its exit status.
func readingTrace<Result>(_ path: String, _ body: () throws(TraceError) -> Result) throws -> Result {
  do { return try body() } catch {
    if case .system = error.problem { throw CommandFailure("\(path): \(error)", status: .missingInput) }
    throw CommandFailure("\(path): \(error)", status: .malformedInput)
  }
}

private func dump(_ path: String, limit: Int) throws(TraceError) {
  var reader = try TraceReader(path: path, tolerance: .upToLastWholeChunk)
  var text = TraceText.lines(of: reader.header)
  while reader.eventCount < limit, let event = try reader.next() {
    text += TraceText.line(of: event)
    if text.utf8.count > 1 << 16 {
      // The reader may be `head`: then there is nobody to write for.
      if !printOutput(text) { return }
      text = ""
    }
  }
  if let ending = reader.ending { text += TraceText.line(of: ending) }
  printOutput(text)
}

private func writeText(_ text: String, to target: String) throws {
  if target == "-" {
    printOutput(text)
    return
  }
  let file = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  guard file >= 0 else {
    throw CommandFailure("\(target): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
  }
  defer { close(file) }
  var bytes = Array(text.utf8)[...]
  while !bytes.isEmpty {
    let count = bytes.withUnsafeBytes { write(file, $0.baseAddress!, $0.count) }
    if count < 0 { throw CommandFailure("\(target): cannot be written", status: .usage) }
    bytes = bytes.dropFirst(count)
  }
}
