// `hugespan compare`: the main job. A grid of policies and strategies over traces, and what each costs.

import CHugeSpanShims
import Glibc
import HugeSpanCore
import HugeSpanLab
import OptionTable
import TraceFormat

let compareCommand = Command(
  "compare",
  abstract: "Compare scavenge policies and release strategies on recorded programs",
  discussion: """
    Replays each trace under each policy and strategy, every run in a process and, where one may be made, a memory \
    cgroup of its own, and prints a table per trace: memory used, resident, charged, lazily free and phantom (charged, \
    but in no page table), coverage with hugepages, releases and refaults, CPU time, stalls.

    Without TRACE all bundled traces are taken, within two minutes; what did not fit is said.
    """,
  options: [
    policyOption(
      help: "A policy of the grid", defaultText: Grid.defaultPolicies.joined(separator: ", "), isRepeatable: true),
    strategyOption(
      help: "A strategy of the grid", defaultText: Grid.defaultStrategies.joined(separator: ", "), isRepeatable: true),
  ] + runOptions + [
    Option(
      "jobs", short: "j", .count(in: 1...256), help: "Runs at the same time", defaultText: "2, or the cores if fewer"),
    Option(
      "budget", .durationOrOff(), help: "Leave out runs that would end later than this",
      defaultText: "2m without TRACE, off with"),
    Option(
      "repeat", .count(in: 1...100),
      help: "Make every run so many times, and keep the one whose calls and faults took the least CPU time",
      defaultText: "1"),
    Option(
      "both",
      help: "Make every run on the real and on the simulated kernel, and show how far the second is from the first; "
        + "what khugepaged disturbs is made again, up to five times, unless --speed or --machine wants it"),
    Option("json", .file(), help: "Write all results as JSON; '-' for standard output in place of the tables"),
    Option("csv", .file(), help: "Write a row per run as CSV; '-' for standard output in place of the tables"),
    Option("html", .file(), help: "Write a page with plots, as 'hugespan report' makes it; '-' for standard output"),
    Option("series", help: "Keep what was measured over time for --json, as --html does by itself"),
  ],
  operands: [Operand("TRACE", help: "Traces made by 'hugespan record' or 'hugespan generate'", arity: .any)],
  examples: [
    Example("hugespan compare", "All bundled traces, eight policies, three strategies, two minutes"),
    Example(
      "hugespan compare service.hstrace --policy gperftools --policy gperftools:rate=10 --strategy dontneed",
      "Two settings on a trace of one's own"),
    Example("hugespan compare service.hstrace --kernel simulated --machine limit=2GiB,swap=1GiB", "On another machine"),
    Example("hugespan compare service.hstrace --speed 1 --jobs 1 --json result.json", "In real time, for scripts"),
    Example("hugespan compare service.hstrace --html report.html", "A page to look at"),
  ],
  run: compare)

private func compare(_ invocation: Invocation) throws -> ExitCode {
  let printed = ["json", "csv", "html"].filter { invocation.text($0) == "-" }
  if printed.count > 1 {
    throw invocation.usageError("--\(printed[0]) and --\(printed[1]) cannot both be written to standard output")
  }
  let keepsSeries = invocation.has("series") || invocation.has("html")
  if keepsSeries && !invocation.has("html") && !invocation.has("json") {
    throw invocation.usageError("--series needs --json or --html")
  }
  let options = try replayOptions(invocation)
  if invocation.has("machine") && options.simulation == nil && !invocation.has("both") {
    throw machineWithoutSimulation(invocation)
  }
  var traces = invocation.operands
  if traces.isEmpty {
    traces = TraceCatalog.bundled()
    if traces.isEmpty {
      throw CommandFailure(
        "no bundled traces (Benchmarks/Traces/*.\(TraceCatalog.fileExtension)) are to be found; name a trace, or make one "
          + "with 'hugespan record' or 'hugespan generate'", status: .missingInput)
    }
  }
  var names = Set<String>()
  for trace in traces {
    // What is wrong with a file is said at once and once, not by each of its runs.
    try readingTrace(trace) { () throws(TraceError) in
      var reader = try TraceReader(path: trace, tolerance: .upToLastWholeChunk)
      while try reader.next() != nil {}
    }
    if !names.insert(traceName(trace)).inserted {
      throw invocation.usageError("two traces are called '\(traceName(trace))'; rows could not be told apart")
    }
  }
  func notations(_ option: String, _ fallback: [String], _ notation: (String) throws -> String) rethrows -> [String] {
    let given = try invocation.texts(option).map(notation)
    var unique: [String] = []
    for text in given where !unique.contains(text) { unique.append(text) }
    return unique.isEmpty ? fallback : unique
  }
  let policies = try notations("policy", Grid.defaultPolicies) {
    try policy($0, invocation).notation
  }
  let strategies = try notations("strategy", Grid.defaultStrategies) { try StrategyChoice(notation: $0).notation }

  let jsonOutput = try invocation.output("json")
  let csvOutput = try invocation.output("csv")
  let htmlOutput = try invocation.output("html")

  let cores = sysconf(Int32(_SC_NPROCESSORS_ONLN))
  var budget: Double? = invocation.operands.isEmpty ? 120 : nil
  if let given = invocation.nanoseconds("budget") { budget = given == 0 ? nil : Double(given) / 1e9 }
  // The runs are told the same as this command was.
  let ofOneKernel = ["kernel", "machine", "speed"]
  func told(_ names: [String]) -> [String] {
    names.flatMap { name in invocation.texts(name).map { "--\(name)=\($0)" } }
  }
  let kernels = invocation.has("both") ? ["real", "simulated"] : [invocation.text("kernel") ?? "real"]
  if invocation.has("both") && invocation.has("kernel") {
    throw invocation.usageError("--both is both kernels: leave --kernel out")
  }
  // At the trace's full speed khugepaged's doing is chance, and the simulated one, unless it was asked for, does nothing.
  let avoidsKhugepaged = invocation.has("both") && !invocation.has("machine") && options.speed == nil
  let plan = ComparisonPlan(
    executable: "/proc/self/exe",
    commonArguments: told(runOptions.map(\.name).filter { !ofOneKernel.contains($0) })
      + (keepsSeries ? ["--series"] : []),
    machineArguments: told(["speed"]), simulationArguments: told(["machine"]),
    retriesOfDisturbed: avoidsKhugepaged ? 5 : 0,
    runs: (0..<(invocation.count("repeat") ?? 1)).flatMap { round in
      // What is simulated comes out the same each time.
      Grid.runs(
        traces: traces, policies: policies, strategies: strategies,
        kernels: round == 0 ? kernels : kernels.filter { $0 == "real" })
    },
    jobs: invocation.count("jobs") ?? max(1, min(2, cores)), budget: budget)
  let outcome = ComparisonRunner(plan, progress: ProgressLine()).run()

  let machine = Machine.current()
  let comparison = Comparison(
    machine: machine, costModel: options.costs.dictionary(memoryPrice: options.memoryPrice),
    runs: leastDisturbed(outcome.results, byKhugepaged: avoidsKhugepaged), leftOut: outcome.leftOut)
  if printed.isEmpty { printTables(comparison) }
  try jsonOutput?.write(jsonText(comparison))
  try csvOutput?.write(csv(of: comparison.runs))
  try htmlOutput?.write(reportPage(of: [NamedComparison(name: "result", comparison: comparison)]))
  for run in outcome.leftOut { printError("left out: \(run.trace) \(run.policy)/\(run.strategy): \(run.reason)") }
  if let signal = outcome.signal { return ExitCode(128 + signal) }
  return ExitCode(outcome.failureStatus)
}

/// How tables are drawn on standard output: in the width of the terminal, if it is one.
func terminalStyle() -> TableStyle {
  let columns = Int(hs_shim_terminal_columns(STDOUT_FILENO))
  return TableStyle(isTerminal: columns > 0, width: columns > 0 ? max(columns, 80) : nil)
}

private func printTables(_ comparison: Comparison) {
  guard let first = comparison.runs.first else { return }
  let style = terminalStyle()
  printOutput(comparison.machine.summary + "\n" + legend(isClocked: first.speed == 1))
  var traces: [String] = []
  for run in comparison.runs where !traces.contains(run.trace) { traces.append(run.trace) }
  for trace in traces {
    let runs = comparison.runs.filter { $0.trace == trace && (comparison.fidelity == nil || $0.kernel == "real") }
    printOutput("\n" + report(of: runs, style: style))
  }
  if let fidelity = comparison.fidelity { printOutput("\n" + fidelity.text(style)) }
}
