// `hugespan run -- PROGRAM ARGUMENTS…`: an unchanged program on the heap.

import CHugeSpan
import HugeSpanABI
import HugeSpanCore
import HugeSpanLab
import OptionTable

let runCommand = Command(
  "run",
  abstract: "Run a program on the heap",
  discussion: """
    Runs PROGRAM without changing or recompiling anything, and says at the end, on standard error, what the heap saw. \
    Processes that the program starts run on heaps of their own.

    With --frontend jemalloc the system's jemalloc is the program's malloc, and the heap is under jemalloc. The program \
    must be dynamically linked against glibc and not be set-user-id, and libjemalloc.so.2 must be installed. With \
    --frontend python PROGRAM is a Python interpreter (CPython 3.8 or later) with a script, -m MODULE or -c CODE, or a \
    script that names one in its first line, and its arenas, the memory of objects of at most 512 bytes, are on the heap; \
    so are those of its multiprocessing children, but not of other interpreters that it starts.

    Settings that the environment variable HUGESPAN_CONF holds are used too; options given here come after them. \
    MALLOC_CONF is the program's own: what it says comes after what the heap needs. Signals sent to this command are \
    passed on, and its exit status is the program's (128 and the signal's number if a signal ended it).
    """,
  options: [
    Option(
      "frontend",
      .choice([
        Choice("jemalloc", "malloc and its family, by the system's libjemalloc.so.2"),
        Choice("python", "CPython's arenas"),
      ]),
      help: "What stands between the program and the heap", defaultText: "jemalloc"),
    policyOption(help: "What to release, and when", defaultText: "rent-or-buy", isRepeatable: false),
    strategyOption(help: "How to release", defaultText: "split-dontneed", isRepeatable: false),
    Option(
      "memory-price", .number("PRICE", in: 0...1e9),
      help: "What memory is worth to policy rent-or-buy (chosen by this), in CPU-seconds per GiB-hour",
      defaultText: "400"),
    costModelOption,
    Option("soft-limit", .size(), help: "Release before the heap grows beyond this many resident bytes"),
    Option("hard-limit", .size(), help: "Refuse allocations that would grow the heap beyond this many resident bytes"),
    Option(
      "conf",
      .text(
        "SETTINGS",
        check: { text in
          do throws(SettingsError) { try checkSettings(text) } catch { return error.message }
          return nil
        }), help: "More settings, KEY:VALUE,KEY:VALUE as in HUGESPAN_CONF", isRepeatable: true),
    Option("json", .file(), help: "Write what the heap saw as JSON to FILE; - for standard output"),
    Option("quiet", short: "q", help: "Print no table"),
  ],
  operands: [Operand("PROGRAM", help: "The program, looked up in PATH, and its arguments", arity: .any)],
  examples: [
    Example(
      "hugespan run -- redis-server --port 7777 --disable-thp no",
      "A server on the heap (in mode always it refuses hugepages, unless told)"),
    Example(
      "hugespan run --policy immediate --strategy dontneed-whole --json run.json -- sqlite3 test.db .dump",
      "Another policy, figures to a file"),
    Example("hugespan run --frontend python -- python3 script.py", "A Python program, its small objects on the heap"),
  ],
  endsOptionsAtFirstOperand: true,
  run: { invocation in
    guard let name = invocation.operands.first else { throw invocation.usageError("no program to run is named") }
    let frontEnd = invocation.text("frontend").flatMap(HeapFrontEnd.init(rawValue:)) ?? .jemalloc
    let request = HeapRunRequest(
      frontEnd: frontEnd, command: invocation.operands, configuration: try settings(invocation))
    let json = try invocation.output("json")
    let result: HeapRunResult
    do { result = try runOnHeap(request) { printError("hugespan: \($0)") } } catch let error as ProgramError {
      throw CommandFailure(error.description, status: ExitCode(error.kind.rawValue))
    }
    if !invocation.has("quiet") {
      let conf = request.configuration.isEmpty ? "default settings" : request.configuration
      printError(String(result.table(title: "hugespan: \(frontEnd.title(of: name)), \(conf)").dropLast()))
    }
    for warning in result.warnings { printError("hugespan: warning: \(warning)") }
    try json?.write(result.json(command: request.command, frontEnd: frontEnd.rawValue))
    return switch result.ending {
    case .exited(let status): ExitCode(status)
    case .signalled(let signal): ExitCode(128 + signal)
    }
  })

/// The heap's settings: those of the environment, then what the options say.
private func settings(_ invocation: Invocation) throws -> String {
  var parts: [String] = []
  if let own = Environment()["HUGESPAN_CONF"], !own.isEmpty {
    do throws(SettingsError) { try checkSettings(own) } catch {
      throw CommandFailure("HUGESPAN_CONF: \(error.message)", status: .usage)
    }
    parts.append(own)
  }
  if let text = invocation.text("policy") { parts.append(try PolicyChoice(notation: text).settings) }
  if let text = invocation.text("strategy") { parts.append(try StrategyChoice(notation: text).settings) }
  if let price = invocation.number("memory-price") {
    switch invocation.text("policy") {
    case nil: parts.append("policy:rent-or-buy")
    case let name? where name.prefix(while: { $0 != ":" }) == "rent-or-buy": break
    default: throw invocation.usageError("--memory-price is for --policy rent-or-buy")
    }
    parts.append("memory-price:\(price)")
  }
  if let costs = try costModel(invocation).setting { parts.append(costs) }
  if let bytes = invocation.bytes("soft-limit") { parts.append("soft-limit:\(bytes)") }
  if let bytes = invocation.bytes("hard-limit") { parts.append("hard-limit:\(bytes)") }
  return (parts + invocation.texts("conf")).joined(separator: ",")
}

/// What is wrong with settings, in words for the user.
private struct SettingsError: Error {
  var message: String
}

/// Settings as the heap would read them.
private func checkSettings(_ text: String) throws(SettingsError) {
  var options = hs_options()
  hs_options_init(&options, MemoryLayout<hs_options>.size)
  var process = hs_process_options()
  hs_process_options_init(&process, MemoryLayout<hs_process_options>.size)
  var error = hs_options_error()
  if hs_options_parse(text, &options, &process, &error) != HS_OK {
    let message = withUnsafeBytes(of: error.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    throw SettingsError(message: message)
  }
  if options.soft_limit_bytes > options.hard_limit_bytes && options.hard_limit_bytes > 0 {
    throw SettingsError(
      message:
        "soft-limit: \(options.soft_limit_bytes) bytes are more than the hard limit's \(options.hard_limit_bytes); it must be below"
    )
  }
  if process.statistics_path_length > 0 {
    throw SettingsError(message: "statistics: with 'hugespan run' they go to --json FILE")
  }
}
