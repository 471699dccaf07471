// `hugespan replay`: one run of one trace.

import CHugeSpanShims
import Glibc
import HugeSpanCore
import HugeSpanLab
import OptionTable
import TraceFormat

/// What memory is worth.
let memoryPriceOption = Option(
  "memory-price",
  .text("PRICE", check: { memoryPrice($0) == nil ? "'\($0)' is not a number of CPU-seconds in 0...1e9" : nil }),
  help: "What memory is worth, in CPU-seconds per GiB-hour: for costs, and for rent-or-buy unless it has its own",
  defaultText: "400")

/// The memory price that a command is told.
func memoryPrice(of invocation: Invocation) -> Double? { invocation.text("memory-price").flatMap(memoryPrice) }

/// Options of a run that `replay` and `compare` share.
let runOptions: [Option] = [
  Option(
    "touch",
    .choice([
      Choice("all", "every page of every object, when it is allocated"),
      Choice("recorded", "of large objects only as much as the recorded program had in memory"),
      Choice("none", "nothing: the heap's own work alone, no faults, no coverage"),
    ]), help: "How much memory is written to", defaultText: "all"),
  Option(
    "speed", .text("N|max", check: { speed($0) == nil ? "'\($0)' is neither a positive number nor 'max'" : nil }),
    help: "Trace seconds per real second; the kernel's own clock (khugepaged, reclaim) runs in real time",
    defaultText: "max"),
  Option(
    "residency-every", .durationOrOff(),
    help: "Trace time between passes in which the heap learns from the kernel what is resident and huge",
    defaultText: "5s"),
  Option(
    "samples", .count(in: 0...1_000_000), help: "Measurements per trace, besides one at each tick", defaultText: "500"),
  memoryPriceOption,
  Option(
    "tax-weight",
    .text("WEIGHT", check: { number($0, in: 0...100) == nil ? "'\($0)' is not a number in 0...100" : nil }),
    help: "How much TLB misses count, in costs and for rent-or-buy; they are reckoned, not measured", defaultText: "1"),
  Option(
    "lazy-weight",
    .text("WEIGHT", check: { number($0, in: 0...1) == nil ? "'\($0)' is not a number in 0...1" : nil }),
    help: "How much lazily freed memory counts in costs: charged, and to be had for the asking", defaultText: "1"),
  costModelOption,
  Option(
    "kernel",
    .choice([
      Choice("real", "this machine's"),
      Choice("simulated", "a model of one: heaps of any size, the same figures each time, costs by the cost model"),
    ]), help: "Which kernel the heap is on", defaultText: "real"),
  Option(
    "machine",
    .text(
      "SWITCHES",
      check: { text in
        do throws(NotationError) { _ = try SimulationOptions(notation: text) } catch { return error.message }
        return nil
      }),
    help: "The simulated machine: name=value,... of \(SimulationOptions.names.joined(separator: ", "))"),
  Option(
    "moving",
    .choice([
      Choice("on", "free hugepages are moved under spans of several blocks"),
      Choice("off", "what such a span lacks is faulted in"),
    ]), help: "Whether the heap moves hugepages", defaultText: "on"),
  Option("soft-limit", .size(), help: "Release before the heap grows beyond this many resident bytes"),
  Option("hard-limit", .size(), help: "Fail the run when the heap would grow beyond this many resident bytes"),
]

/// The value of `--speed`: nil if it is wrong, a nil speed for `max`.
private func speed(_ text: String) -> Double?? {
  if text == "max" { return .some(nil) }
  guard let number = Double(text), number > 0, number.isFinite else { return nil }
  return .some(number)
}

/// A number within bounds, or nil.
private func number(_ text: String, in bounds: ClosedRange<Double>) -> Double? {
  guard let number = Double(text), bounds.contains(number) else { return nil }
  return number
}

/// The value of `--memory-price`.
private func memoryPrice(_ text: String) -> Double? { number(text, in: 0...1e9) }

/// A policy as it is written, at the command's memory price unless it names one, and by the command's cost model.
func policy(_ notation: String, _ invocation: Invocation) throws -> PolicyChoice {
  let choice = try PolicyChoice(notation: notation)
  guard case .rentOrBuy(var options) = choice else { return choice }
  options.costs = try costModel(invocation)
  // Whoever says what TLB misses count says it to the policy as well as to the reckoning.
  if let weight = invocation.text("tax-weight").flatMap(Double.init) {
    options.costs.taxShare = min(options.costs.taxShare * weight, 1)
  }
  if !notation.contains("price="), let price = invocation.text("memory-price").flatMap(memoryPrice) {
    options.memoryPrice = price
  }
  return .rentOrBuy(options)
}

/// Reads the shared options.
func replayOptions(_ invocation: Invocation) throws -> ReplayOptions {
  var options = ReplayOptions()
  options.costs = try costModel(invocation)
  if let touch = invocation.text("touch") { options.touch = TouchMode(rawValue: touch)! }
  if let text = invocation.text("speed"), let value = speed(text) { options.speed = value }
  if let period = invocation.nanoseconds("residency-every") { options.residencyEvery = period == 0 ? nil : period }
  if let samples = invocation.count("samples") { options.samples = samples }
  if let price = invocation.text("memory-price").flatMap(memoryPrice) { options.memoryPrice = price }
  if let weight = invocation.text("tax-weight").flatMap(Double.init) { options.weights.tax = weight }
  if let weight = invocation.text("lazy-weight").flatMap(Double.init) { options.weights.lazy = weight }
  if invocation.text("kernel") == "simulated" {
    options.simulation = SimulationOptions()
    if let text = invocation.text("machine") { options.simulation = try SimulationOptions(notation: text) }
    if options.speed != nil {
      throw invocation.usageError("--speed: a simulated kernel has no other clock than the trace's")
    }
  }
  options.heap.movesBlocks = invocation.text("moving") != "off"
  options.heap.softLimitBytes = invocation.bytes("soft-limit")
  options.heap.hardLimitBytes = invocation.bytes("hard-limit")
  return options
}

/// An option whose value is a policy.
func policyOption(help: String, defaultText: String, isRepeatable: Bool) -> Option {
  Option(
    "policy",
    .text(
      "POLICY", known: PolicyChoice.knownNames.map { Choice($0.name, $0.help) },
      check: { text in
        do throws(NotationError) { _ = try PolicyChoice(notation: text) } catch { return error.message }
        return nil
      }), help: help, defaultText: defaultText, isRepeatable: isRepeatable)
}

/// An option whose value is a strategy.
func strategyOption(help: String, defaultText: String, isRepeatable: Bool) -> Option {
  Option(
    "strategy",
    .text(
      "STRATEGY", known: StrategyChoice.knownNames.map { Choice($0.name, $0.help) },
      check: { text in
        do throws(NotationError) { _ = try StrategyChoice(notation: text) } catch { return error.message }
        return nil
      }), help: help + "; with '-whole' appended only wholly free pageblocks are released",
    defaultText: defaultText, isRepeatable: isRepeatable)
}

let replayCommand = Command(
  "replay",
  abstract: "Replay a trace on the heap, once",
  discussion: """
    Allocates and frees what the recorded program did, touches the memory as it would, and lets a scavenge policy and a \
    release strategy work by the clock of the trace. Prints what that cost; 'hugespan compare' does it for many at once.
    """,
  options: [
    policyOption(help: "What to release, and when", defaultText: "rent-or-buy", isRepeatable: false),
    strategyOption(help: "How to release", defaultText: "split-dontneed", isRepeatable: false),
  ] + runOptions + [
    Option("residency-log", .file(), help: "Write down what the kernel said of residency"),
    Option("residency-from", .file(), help: "Give the heap these answers again, so that it decides as in that run"),
    Option("json", .file(), help: "Write the result as JSON; '-' for standard output in place of the table"),
    Option(
      "slices", .count(in: 2...64), help: "Internal: note what it came to at the end of so many parts", isHidden: true),
    Option("series", help: "With --json, what was measured over time too, and pictures of the pageblocks"),
    Option("cgroup", .file("DIR"), help: "Internal: the memory group to run in", isHidden: true),
    Option("no-cgroup", .text("REASON"), help: "Internal: run in no group of its own", isHidden: true),
  ],
  operands: [Operand("TRACE", help: "A trace made by 'hugespan record' or 'hugespan generate'")],
  examples: [
    Example(
      "hugespan replay redis.hstrace --policy seed --strategy split-dontneed", "One run, as fast as the machine can"),
    Example(
      "hugespan replay redis.hstrace --policy gperftools:rate=10 --strategy dontneed --speed 1",
      "In real time, with khugepaged working beside it"),
  ],
  run: { invocation in
    var options = try replayOptions(invocation)
    if invocation.has("machine") && options.simulation == nil { throw machineWithoutSimulation(invocation) }
    if let slices = invocation.count("slices") { options.slices = slices }
    options.policy = try policy(invocation.text("policy") ?? options.policy.notation, invocation)
    if let text = invocation.text("strategy") { options.strategy = try StrategyChoice(notation: text) }
    switch (invocation.text("residency-log"), invocation.text("residency-from")) {
    case (.some, .some): throw invocation.usageError("--residency-log and --residency-from exclude each other")
    case (let path?, nil): options.residencyLog = .writing(path: path)
    case (nil, let path?): options.residencyLog = .reading(path: path)
    case (nil, nil): break
    }
    options.series = invocation.has("series")
    if options.series && !invocation.has("json") { throw invocation.usageError("--series needs --json") }
    var group = GroupChoice.own
    if let directory = invocation.text("cgroup") {
      group = .given(try givenGroup(directory))
      hs_shim_die_with_parent()  // a comparison that is killed takes its runs along
    }
    if let reason = invocation.text("no-cgroup") { group = .none(reason: reason) }

    let json = try invocation.output("json")
    let result = try explainingFailures(of: invocation.operands[0]) {
      try replayTrace(path: invocation.operands[0], options: options, group: group)
    }
    try json?.write(jsonText(result))
    if invocation.text("json") != "-" { printOutput(describe(result)) }
    return .success
  })

/// Switches of a machine that is not simulated.
func machineWithoutSimulation(_ invocation: Invocation) -> any Error {
  invocation.usageError("--machine is of the simulated kernel: give '--kernel simulated' too")
}

private func givenGroup(_ directory: String) throws -> MemoryCgroup {
  let membership = try CgroupMembership.find()
  return MemoryCgroup(version: membership.version, directory: directory, parent: membership.directory)
}

/// Turns the errors of a run into lines for the user.
func explainingFailures<T>(of path: String, _ body: () throws -> T) throws -> T {
  do {
    return try body()
  } catch let error as TraceError {
    throw CommandFailure("\(path): \(error)", status: error.isUnreadable ? .missingInput : .malformedInput)
  } catch ReplayFailure.residencyLog(let failure) {
    switch failure {
    case .system(let path, let code):
      throw CommandFailure("\(path): \(String(cString: strerror(code)))", status: .missingInput)
    case .malformed(let path, let line):
      throw CommandFailure("\(path): line \(line) is no residency answer", status: .malformedInput)
    case .differs(let line):
      throw CommandFailure(
        "the residency log is of another run: answer \(line) does not fit; use the trace, policy, strategy and limits "
          + "that it was written with", status: .malformedInput)
    }
  } catch ReplayFailure.memory(let needed, let available) {
    throw CommandFailure(
      "\(path): the program has up to \(needed >> 20) MiB live, and \(available >> 20) MiB are available; use "
        + "'--touch recorded' or '--touch none'", status: .unavailable)
  } catch ReplayFailure.outOfMemory(let time, let charged) {
    throw CommandFailure(
      "\(path): the program would have been killed \(Double(time / 1_000_000) / 1000) s into the trace, with "
        + "\(charged >> 20) MiB charged: the limit of the simulated machine is too low for it", status: .checkFailed)
  } catch ReplayFailure.heap(let error, let time) {
    let status: ExitCode = error == .limitExceeded ? .checkFailed : .unavailable
    throw CommandFailure(
      "\(path): the heap gave up \(Double(time / 1_000_000) / 1000) s into the trace: \(describe(error))",
      status: status)
  } catch let error as CgroupUnavailable {
    throw CommandFailure(error.reason, status: .unavailable)
  }
}

extension TraceError {
  /// The file could not be read at all.
  var isUnreadable: Bool {
    if case .system = problem { return true }
    return false
  }
}

private func describe(_ error: HeapError) -> String {
  switch error {
  case .unsupportedPageSize(let page, let huge):
    "pages of \(page) and hugepages of \(huge) bytes are not supported, only 4096 and 2097152 are"
  case .kernel(let error): String(cString: strerror(error.code))
  case .limitExceeded: "the hard limit is too small for this trace"
  case .addressNotFree: "an address was not free"
  case .invalidRequest: "an allocation makes no sense"
  case .strategyNotSupported: "this kernel lacks what the strategy needs"
  case .sharedWithChild: "a forked child shares the memory"
  }
}
