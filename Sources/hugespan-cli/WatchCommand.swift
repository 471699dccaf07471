// `hugespan watch`: a process' memory and hugepages, live.

import Glibc
import HugeSpanLab
import OptionTable

let watchCommand = Command(
  "watch",
  abstract: "Watch a process' memory and hugepages live",
  discussion: """
    Shows on a terminal what a process has in memory, what its memory group is charged and what of it is on hugepages, as \
    curves with their least, most and present value, and under them a map of its pageblocks: on a hugepage, sparse, \
    released, on base pages, lazily free. Any process will do, by number or by name; one's own need no root.

    With -- PROGRAM it starts the program and watches it. Its output would disturb the screen and is discarded, or kept by \
    --output; the exit status is the program's if it ends by itself.

    Keys: q quits (and ends a program that watch started, never another), space or p pauses the view while the process goes \
    on, v or tab shows the next view (curves, map, mappings, numbers), + and - change the interval, ? helps.

    Where standard output is no terminal there is a line for each look instead.
    """,
  options: [
    Option(
      "interval", .duration(), help: "Look again after this long; later if a look takes a tenth of it",
      defaultText: "500ms"),
    Option("count", .count(in: 1...1_000_000_000), help: "Stop after this many looks"),
    Option("plain", help: "A line for each look, also on a terminal"),
    Option(
      "output", .file(),
      help: "Write what PROGRAM prints to FILE; with --plain '-' leaves it where this command's own goes",
      defaultText: "/dev/null"),
    Option(
      "json", .file(),
      help: "Write a JSON object a line for each look to FILE; '-' for standard output, and nothing else"),
  ],
  operands: [
    Operand(
      "PROCESS", help: "A process' number or name; or -- and a program with its arguments", arity: .any, isFile: false)
  ],
  examples: [
    Example("hugespan watch redis-server", "A server, live"),
    Example("hugespan watch 4711 --interval 100ms --count 600 --json minute.jsonl", "A minute, kept as well"),
    Example("hugespan watch --output build.log -- make -j8", "A program from its beginning"),
  ],
  run: { invocation in
    // A reader that goes is noticed by the write.
    signal(SIGPIPE, SIG_IGN)
    let interval = invocation.nanoseconds("interval") ?? 500_000_000
    if interval < WatchPace.least { throw invocation.usageError("--interval: at least 10ms") }
    let arguments = invocation.operandsAfterTerminator
    let isSilent = invocation.text("json") == "-"
    let environment = Environment()
    let terminal =
      !invocation.has("plain") && !isSilent && WatchTerminal.isUsable { environment[$0] } ? WatchTerminal() : nil
    if arguments.isEmpty && invocation.has("output") { throw invocation.usageError("--output is for -- PROGRAM") }
    let process = arguments.isEmpty ? try watchedProcess(invocation) : 0
    let json = try invocation.output("json")
    let remark = !arguments.isEmpty && !invocation.has("output") ? "The program's output is discarded." : nil
    let output = try programOutput(invocation, isPlain: terminal == nil)
    var caught = WatchSignals.ending + [SIGWINCH]
    if !arguments.isEmpty { caught += [SIGCHLD, SIGUSR1, SIGUSR2] }
    if !arguments.isEmpty || terminal != nil { caught += [SIGTSTP, SIGCONT] }
    let signals = try WatchSignals.catching(caught)
    let program =
      arguments.isEmpty ? nil : try WatchedProgram(arguments, output: output, isAlone: terminal != nil)
    if let output { close(output) }
    if terminal == nil && !isSilent, let remark { printError("hugespan: \(remark) --output FILE keeps it.") }
    var session = WatchSession(
      source: HeapWatchSource(process: program.map { Int($0.process) } ?? process), program: program,
      terminal: terminal, signals: signals, glyphs: WatchGlyphs { environment[$0] },
      limit: invocation.count("count") ?? .max, json: json, isSilent: isSilent,
      display: WatchDisplay(pace: WatchPace(wanted: interval), remark: remark))
    return try session.run()
  })

/// The process that is named. A name that several have is not for this command to choose from.
private func watchedProcess(_ invocation: Invocation) throws -> Int {
  guard let name = invocation.operands.first else {
    throw invocation.usageError("name a process by its number or name, or a program behind --")
  }
  if invocation.operands.count > 1 { throw invocation.usageError("one process at a time") }
  let found: [Int]
  do throws(CoverageError) {
    found = try CoverageReader().processes(named: name).filter { Int(name) != nil || $0 != Int(getpid()) }
    if found.isEmpty { throw CoverageError.noName(name) }
  } catch { throw CommandFailure("\(error)", status: .missingInput) }
  if found.count > 1 {
    let numbers = found.prefix(8).map(String.init).joined(separator: ", ") + (found.count > 8 ? ", …" : "")
    throw invocation.usageError("\(name): \(found.count) processes are called that (\(numbers)); give a number")
  }
  return found[0]
}

/// Where the program's output goes; nil for where ours goes.
private func programOutput(_ invocation: Invocation, isPlain: Bool) throws -> Int32? {
  let path = invocation.text("output") ?? "/dev/null"
  if path == "-" {
    if isPlain { return nil }
    throw invocation.usageError("--output -: the program's output would disturb the screen; add --plain or name a file")
  }
  let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  if file < 0 {
    throw CommandFailure("\(path): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
  }
  return file
}
