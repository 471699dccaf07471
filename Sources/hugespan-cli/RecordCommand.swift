// `hugespan record -o FILE -- PROGRAM ARGUMENTS…`: runs a program and writes the trace of its memory.

import HugeSpanLab
import OptionTable
import TraceFormat

let recordCommand = Command(
  "record",
  abstract: "Run a program and record its allocations, or those of its allocator, to a trace",
  discussion: """
    Runs PROGRAM with a small library preloaded that logs every malloc, calloc, realloc, aligned allocation and free, \
    and every anonymous mmap, munmap and mremap that the program makes itself. Several times a second the program's \
    CPU time, memory, faults and hugepages are noted. When the program has ended, the log becomes FILE.

    While the program runs, the raw log lies in FILE.raw. If this command is interrupted before it could convert it, \
    --convert does that later. Signals sent to this command are passed on, and its exit status is the program's \
    (128 and the signal's number if a signal ended it).

    With --level span the program runs on the heap, as with 'hugespan run', and what its allocator asks of the heap is \
    recorded: spans of pages, parts and neighbours that are given back, growth in place. Such a trace is replayed without \
    size classes in between. HUGESPAN_CONF may hold settings of the heap.

    The program must be dynamically linked against glibc and not be set-user-id. Its threads are recorded; processes \
    that it starts are not. If it replaces itself by exec, recording goes on in the new image.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The trace to write", defaultText: "NAME-OF-PROGRAM.hstrace"),
    Option(
      "level",
      .choice([
        Choice("malloc", "what the program asks of malloc, whatever its allocator is"),
        Choice("span", "what the allocator asks of the page heap; runs the program on the heap"),
      ]), help: "What is recorded", defaultText: "malloc"),
    Option(
      "frontend", .choice([Choice("jemalloc", "malloc and its family, by the system's libjemalloc.so.2")]),
      help: "With --level span, what stands between the program and the heap", defaultText: "jemalloc"),
    Option("convert", .file("DIRECTORY"), help: "Run nothing: convert the raw log that an interrupted recording left"),
    Option("keep-raw", help: "Keep the raw log beside the trace"),
    Option("json", .file(), help: "Write what was recorded as JSON to FILE; - for standard output"),
  ],
  operands: [
    Operand("PROGRAM", help: "The program, looked up in PATH, and its arguments", arity: .any)
  ],
  examples: [
    Example("hugespan record -o redis.hstrace -- redis-server --port 7777 --disable-thp no", "Record a server"),
    Example(
      "hugespan record --level span -o spans.hstrace -- python3 script.py", "What jemalloc asks of the page heap"),
    Example("hugespan record --convert redis.hstrace.raw -o redis.hstrace", "Rescue an interrupted recording"),
  ],
  endsOptionsAtFirstOperand: true,
  run: { invocation in
    do {
      if let directory = invocation.text("convert") {
        if !invocation.operands.isEmpty { throw invocation.usageError("--convert runs no program") }
        if invocation.has("level") { throw invocation.usageError("--convert finds the level in the raw log") }
        return try convert(directory, to: invocation.text("output"), invocation)
      }
      guard let name = invocation.operands.first else { throw invocation.usageError("no program to record is named") }
      let level = invocation.text("level").flatMap { text in TraceLevel.allCases.first { "\($0)" == text } } ?? .malloc
      if level == .malloc && invocation.has("frontend") {
        throw invocation.usageError("--frontend is for --level span")
      }
      let base = name.split(separator: "/").last.map(String.init) ?? name
      let request = RecordingRequest(
        output: invocation.text("output") ?? "\(base).hstrace", command: invocation.operands,
        keepsRaw: invocation.has("keep-raw"), level: level)
      let json = try invocation.output("json")
      let (ending, report) = try record(request) { printError("hugespan: \($0)") }
      printReport(report, request.output)
      try json?.write(report.json(output: request.output, command: request.command, ending: ending))
      return switch ending {
      case .exited(let status): ExitCode(status)
      case .signalled(let signal): ExitCode(128 + signal)
      }
    } catch let error as ProgramError {
      throw CommandFailure(error.description, status: ExitCode(error.kind.rawValue))
    }
  })

private func convert(_ directory: String, to output: String?, _ invocation: Invocation) throws -> ExitCode {
  var directory = directory
  while directory.count > 1 && directory.hasSuffix("/") { directory.removeLast() }
  guard let output = output ?? (directory.hasSuffix(".raw") ? String(directory.dropLast(4)) : nil) else {
    throw invocation.usageError("--convert needs --output for a directory whose name does not end in .raw")
  }
  let json = try invocation.output("json")
  let report = try LogConversion.convert(RawRecording(directory: directory), to: output, ending: .stopped)
  printReport(report, output)
  try json?.write(report.json(output: output, command: [], ending: nil))
  return .success
}

private func printReport(_ report: ConversionReport, _ output: String) {
  var text =
    "hugespan: \(output): \(report.events) events, \(report.objects) \(report.level == .malloc ? "objects" : "spans"), \(report.samples) samples"
  if report.replacedImages > 0 { text += ", \(report.replacedImages) times replaced by exec" }
  printError(text)
  for warning in report.warnings { printError("hugespan: warning: \(warning)") }
}
