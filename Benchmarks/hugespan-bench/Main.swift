// `hugespan-bench`: what the page heap's operations cost, beside others, in one run.

import Foundation
import Harness
import OptionTable

private let command = Command(
  "hugespan-bench",
  abstract: "Time the page heap's operations, and the same jobs by other allocators",
  discussion: """
    Each job keeps a number of spans alive; an operation frees one at random and allocates one in its place, memory \
    untouched. Figures are nanoseconds of CPU time for the pair, peers sampled in turns. Build with '-c release'. \
    gperftools and jemalloc are compared where their libraries (Debian: libtcmalloc-minimal4, libjemalloc2) are installed.
    """,
  options: [
    Option("filter", short: "f", .text("TEXT"), help: "Only jobs and peers whose 'JOB / PEER' contains TEXT"),
    Option(
      "count", .count(),
      help: "Run exactly this many pairs of each case, untimed: for counting instructions with callgrind"),
    Option("samples", .count(in: 1...10_000), help: "Samples of each case", defaultText: "25"),
    Option("json", .file(), help: "Write the results as JSON to FILE, '-' for standard output"),
  ],
  examples: [
    Example("hugespan-bench --filter '1 page'", "The commonest job alone"),
    Example(
      "valgrind --tool=callgrind hugespan-bench --filter hugespan --count 100000", "Instructions instead of time"),
  ],
  run: run)

private func run(_ invocation: Invocation) throws -> ExitCode {
  let filter = invocation.text("filter") ?? ""
  var results: [BenchmarkResult] = []
  var found = false
  for job in spanJobs {
    let cases = ([heapCase(job)] + peerCases(job)).filter {
      filter.isEmpty || "\($0.name) / \($0.peer)".contains(filter)
    }
    if cases.isEmpty { continue }
    found = true
    if let count = invocation.count("count") {
      for each in cases { each.prepare()?(count) }
    } else {
      let measured = measure(cases, samples: invocation.count("samples") ?? 25)
      results += measured
      if invocation.text("json") != "-" { show(measured) }
    }
  }
  guard found else { throw invocation.usageError("--filter \(filter): no job and peer is called so") }
  if let path = invocation.text("json"), invocation.count("count") == nil { try write(results, to: path) }
  return .success
}

private func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
  let fill = String(repeating: " ", count: max(0, width - text.count))
  return right ? fill + text : text + fill
}

private func show(_ results: [BenchmarkResult]) {
  guard let first = results.first else { return }
  var text = "\(first.name)\n"
  for result in results {
    func number(_ value: Double) -> String { pad(String(format: "%.1f", value), 9, right: true) }
    text +=
      "  \(pad(result.peer, 12)) median \(number(result.median)) ns   min \(number(result.minimum))   "
      + "p90 \(number(result.ninetieth))   spread \(String(format: "%2.0f %%", result.spread * 100))   "
      + "x \(String(format: "%.2f", result.median / first.median))\n"
  }
  printOutput(text)
}

private func write(_ results: [BenchmarkResult], to path: String) throws {
  let objects: [[String: Any]] = results.map {
    ["name": $0.name, "peer": $0.peer, "nanoseconds": $0.median, "samples": $0.samples]
  }
  let data = try JSONSerialization.data(
    withJSONObject: ["schema": "hugespan.bench/1", "results": objects], options: [.prettyPrinted, .sortedKeys])
  if path == "-" {
    printOutput(String(decoding: data, as: UTF8.self) + "\n")
  } else if !FileManager.default.createFile(atPath: path, contents: data) {
    throw CommandFailure("\(path) cannot be written", status: .missingInput)
  }
}

/// jemalloc's thread-local storage only fits into a process that was started with more room for it.
private func restartWithStaticStorage() {
  if getenv("HUGESPAN_BENCH_RESTARTED") != nil { return }
  setenv("HUGESPAN_BENCH_RESTARTED", "1", 1)
  setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384", 1)
  var arguments: [UnsafeMutablePointer<CChar>?] = CommandLine.arguments.map { strdup($0) }
  arguments.append(nil)
  execv("/proc/self/exe", arguments)
}

@main
struct Main {
  static func main() {
    restartWithStaticStorage()
    exit(runProgram(command, version: "0.1.0", arguments: Array(CommandLine.arguments.dropFirst())).value)
  }
}
