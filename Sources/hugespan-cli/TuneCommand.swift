// `hugespan tune`: which policy, strategy and parameters serve a program, with the evidence.

import CHugeSpanShims
import Foundation
import Glibc
import HugeSpanCore
import HugeSpanLab
import OptionTable

let tuneCommand = Command(
  "tune",
  abstract: "Find the configuration that serves a program best",
  discussion: """
    Searches policies, strategies and their parameters on a simulated kernel, by successive halving on all processors. \
    Each trace is cut into eight slices: four are tuned on, the four between them are what the report judges by, and the best run on \
    the real kernel as well. Prints which \
    configurations no other beats in memory, coverage and CPU time at once, recommends one in words that say why and what it gives \
    up, and how far it would be from the best if load, busy share or memory price were 30 % off. Of several traces each counts the same.

    The file that it writes is read by HUGESPAN_CONF=@FILE, by 'hugespan run --conf @FILE' and by hs_options_parse.

    Ctrl-C ends the search and shows the best so far; the file is not written then.
    """,
  options: [
    Option(
      "goal",
      .choice([
        Choice("cost", "the least sum of memory at its price, CPU time and TLB misses"),
        Choice(
          "coverage",
          "the most on hugepages, with at most a quarter more memory than the default holds, or within --limit"),
        Choice("memory", "the least memory charged"),
      ]), help: "What is looked for", defaultText: "cost"),
    memoryPriceOption, costModelOption,
    Option(
      "budget", .duration(), help: "How long the search may take, the runs on the real kernel included",
      defaultText: "60s"),
    Option("limit", .size(), help: "What may be charged at most, as in a memory group with this limit"),
    Option(
      "machine", .text("SWITCHES", check: machineMistake),
      help: "The simulated machine: name=value,... of \(SimulationOptions.names.joined(separator: ", "))"),
    Option("seed", .count(in: 0...1_000_000_000), help: "Seed of the search", defaultText: "1"),
    Option("rounds", .count(in: 1...100), help: "Rounds of the search", defaultText: "6"),
    Option("jobs", short: "j", .count(in: 1...256), help: "Runs at the same time", defaultText: "the processors"),
    Option("no-real", help: "Do not run the best on the real kernel"),
    Option("output", short: "o", .file(), help: "Write the settings to FILE, for HUGESPAN_CONF=@FILE"),
    Option("json", .file(), help: "Write everything as JSON; '-' for standard output in place of the text"),
  ],
  operands: [Operand("TRACE", help: "Traces made by 'hugespan record' or 'hugespan generate'", arity: .oneOrMore)],
  examples: [
    Example("hugespan tune service.hstrace -o service.conf", "A minute, then a recommendation and the file"),
    Example(
      "hugespan tune day.hstrace night.hstrace --goal memory --limit 2GiB", "The least memory, never above 2 GiB"),
  ],
  run: tune)

private func machineMistake(_ text: String) -> String? {
  do throws(NotationError) { _ = try SimulationOptions(notation: text) } catch { return error.message }
  return nil
}

private func tune(_ invocation: Invocation) throws -> ExitCode {
  let began = DispatchTime.now().uptimeNanoseconds
  let request = try request(invocation)
  var names: [(name: String, path: String)] = []
  for path in invocation.operands {
    if names.contains(where: { $0.name == traceName(path) }) {
      throw invocation.usageError("two traces are called '\(traceName(path))'; rows could not be told apart")
    }
    names.append((traceName(path), path))
  }
  var decoded: [TuningTraces] = []
  // One after the other, so that an error has its file's name.
  for trace in names { decoded.append(try explainingFailures(of: trace.path) { try TuningTraces([trace]) }) }
  for (traces, trace) in zip(decoded, names) { try checkLimit(request, traces, trace.path) }
  let traces = names.count == 1 ? decoded[0] : try TuningTraces(names)
  decoded = []
  let jsonOutput = try invocation.output("json")
  // Checked now, written at the end and only then.
  if let path = invocation.text("output"), path != "-" {
    var isDirectory: ObjCBool = false
    let folder = (path as NSString).deletingLastPathComponent
    if FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), isDirectory.boolValue {
      throw CommandFailure("\(path): cannot be made: it is a directory", status: .usage)
    }
    if access(folder.isEmpty ? "." : folder, W_OK) != 0 {
      throw CommandFailure("\(path): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
  }
  let progress = ProgressLine()
  Interrupts.note()
  let tuner = Tuner(request, traces, progress: progress)
  try explainingFailures(of: invocation.operands[0]) { try tuner.search() }
  progress.clear()
  if tuner.evaluations == 0 {
    throw CommandFailure(
      "--budget: nothing could be tried in this time; reading and one run of the traces take longer (a debug build takes ten "
        + "times as long)", status: .checkFailed)
  }
  guard let best = tuner.field.first, best.score.isFinite else {
    throw CommandFailure(
      "no configuration stays within \((request.limitBytes ?? 0) >> 20) MiB; "
        + "the default needs \(Int(tuner.field.first?.runs.map { $0.chargedBytes?.peak ?? 0 }.max() ?? 0) >> 20) MiB at its peak",
      status: .checkFailed)
  }
  let result = try finish(
    invocation, tuner, request, names, seconds: { Double(DispatchTime.now().uptimeNanoseconds - began) / 1e9 })
  if invocation.text("json") != "-" && invocation.text("output") != "-" { printOutput(result.text(terminalStyle())) }
  try jsonOutput?.write(jsonText(result))
  if let signal = Interrupts.noted { return ExitCode(128 + signal) }
  if let path = invocation.text("output") {
    if path == "-" {
      printOutput(result.configurationFile)
    } else {
      do { try result.configurationFile.write(toFile: path, atomically: true, encoding: .utf8) } catch {
        throw CommandFailure("\(path): cannot be written: \(error.localizedDescription)", status: .unavailable)
      }
    }
  }
  return .success
}

private func request(_ invocation: Invocation) throws -> TuningRequest {
  var request = TuningRequest()
  request.options = try tuningOptions(invocation)
  if let goal = invocation.text("goal") { request.goal = TuningGoal(rawValue: goal)! }
  let budget = invocation.nanoseconds("budget").map { Double($0) / 1e9 } ?? 60
  if budget < 1 { throw invocation.usageError("--budget: at least 1s") }
  // What is left is for the held-out part, the sensitivity and the real kernel.
  request.seconds = budget * 0.6
  request.limitBytes = invocation.bytes("limit")
  request.seed = UInt64(invocation.count("seed") ?? 1)
  request.rounds = invocation.count("rounds") ?? 6
  request.jobs = invocation.count("jobs") ?? max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
  return request
}

private func tuningOptions(_ invocation: Invocation) throws -> ReplayOptions {
  var options = ReplayOptions()
  options.costs = try costModel(invocation)
  options.samples = 200
  if let price = memoryPrice(of: invocation) { options.memoryPrice = price }
  var machine = SimulationOptions()
  if let text = invocation.text("machine") { machine = try SimulationOptions(notation: text) }
  options.simulation = machine
  return options
}

/// A limit below what the program has live can be met by nobody.
private func checkLimit(_ request: TuningRequest, _ traces: TuningTraces, _ path: String) throws {
  guard let limit = request.limitBytes else { return }
  let live = traces.summary(0).peakLiveBytes
  if limit < live {
    throw CommandFailure(
      "--limit: \(limit >> 20) MiB is less than the \((live + 1 << 20 - 1) >> 20) MiB that the program of \(path) has live at its peak; "
        + "no heap can do with less", status: .usage)
  }
}

/// Held-out parts, sensitivity, the real kernel: what is known of the recommendation besides that it won.
private func finish(
  _ invocation: Invocation, _ tuner: Tuner, _ request: TuningRequest, _ names: [(name: String, path: String)],
  seconds: () -> Double
) throws -> TuningResult {
  func configuration(_ standing: Standing) -> TunedConfiguration {
    TunedConfiguration(
      standing.candidate, tuned: standing.runs.compactMap { TunedFigures($0, slices: Tuner.tuned) },
      heldOut: standing.runs.compactMap { TunedFigures($0, slices: Tuner.heldOut) })
  }
  let usual = tuner.field.first { $0.candidate == tuner.standard }!
  var best = tuner.field[0]
  // Less than a trace can tell from chance is no reason to leave the default.
  if request.goal == .cost && usual.score.isFinite && best.score > usual.score * (1 - TuningResult.leastGain) {
    best = usual
  }
  var recommended = configuration(best)
  var standard = best.candidate == usual.candidate ? recommended : configuration(usual)
  let front = tuner.front.prefix(12).map(configuration)
  let rivals = Array(Set(tuner.field.prefix(8).map(\.candidate) + [tuner.standard]))
  let sensitivity =
    Interrupts.noted == nil ? try tuner.sensitivity(of: best.candidate, rivals: rivals) : []
  if !invocation.has("no-real") && Interrupts.noted == nil {
    let costs = realCosts(invocation, names, [best.candidate, usual.candidate])
    recommended.heldOutRealCost = costs[best.candidate]
    standard.heldOutRealCost = costs[usual.candidate]
  }
  var settings = try best.candidate.settings
  if let costs = request.options.costs.setting { settings += "," + costs }
  if let limit = request.limitBytes { settings += ",soft-limit:\(limit - limit / 16)" }
  return TuningResult(
    goal: request.goal, memoryPrice: request.options.memoryPrice, traces: names.map(\.name),
    evaluations: tuner.evaluations, seconds: seconds(), isInterrupted: Interrupts.noted != nil,
    recommended: recommended,
    standard: standard, front: front, sensitivity: sensitivity, settings: settings)
}

/// The cost of the held-out slices of each trace, on the real kernel, each run in a process and a group of its own.
private func realCosts(
  _ invocation: Invocation, _ names: [(name: String, path: String)], _ candidates: [Candidate]
) -> [Candidate: [String: Double]] {
  var runs: [PlannedRun] = []
  for (row, candidate) in Set(candidates).enumerated() {
    for name in names {
      runs.append(PlannedRun(trace: name.path, policy: candidate.policy, strategy: candidate.strategy, row: row))
    }
  }
  var common: [String] = ["memory-price", "cost-model"].flatMap { name in
    invocation.texts(name).map { "--\(name)=\($0)" }
  }
  common += ["--samples=200", "--slices=\(Tuner.slices)"]
  let plan = ComparisonPlan(
    executable: "/proc/self/exe", commonArguments: common, runs: runs, jobs: 1, budget: nil)
  let outcome = ComparisonRunner(plan, progress: ProgressLine()).run()
  var costs: [Candidate: [String: Double]] = [:]
  for result in outcome.results {
    guard let figures = TunedFigures(result, slices: Tuner.heldOut) else { continue }
    costs[Candidate(policy: result.policy, strategy: result.strategy), default: [:]][result.trace] = figures.cost
  }
  return costs.filter { $0.value.count == names.count }
}
