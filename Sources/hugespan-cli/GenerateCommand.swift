// `hugespan generate`: a synthetic trace from a seed.

import Glibc
import HugeSpanLab
import OptionTable
import TraceFormat

let generateCommand = Command(
  "generate",
  abstract: "Write a synthetic trace, drawn from a seed",
  discussion: """
    The live memory of the made-up program follows a shape; sizes and lifetimes are drawn as allocators see them, with a \
    churn of young objects on top. Equal options give equal files. A recorded program (see 'hugespan record') is the \
    better judge of a policy.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The trace to write (needed)"),
    Option(
      "shape", .choice(TraceShape.allCases.map { Choice($0.rawValue, $0.help) }),
      help: "How live memory goes over time",
      defaultText: "drop-and-rise"),
    Option("seed", .count(), help: "Where the random numbers begin", defaultText: "1"),
    Option("peak", .size(), help: "Most live bytes", defaultText: "256MiB"),
    Option("length", .duration(), help: "Length of the trace in its own time", defaultText: "60s"),
    Option("churn", .count(in: 0...10_000_000), help: "Short-lived objects per second", defaultText: "5000"),
    Option("json", .file(), help: "Describe the trace as JSON; '-' for standard output"),
  ],
  examples: [
    Example(
      "hugespan generate -o diurnal.hstrace --shape diurnal --peak 1GiB --length 2m",
      "Two minutes of a service with three slow waves of load")
  ],
  run: { invocation in
    guard let path = invocation.text("output") else { throw invocation.usageError("missing --output FILE") }
    var trace = SyntheticTrace()
    if let shape = invocation.text("shape") { trace.shape = TraceShape(rawValue: shape)! }
    if let seed = invocation.count("seed") { trace.seed = UInt64(seed) }
    if let peak = invocation.bytes("peak") { trace.peakBytes = peak }
    if let length = invocation.nanoseconds("length") { trace.nanoseconds = length }
    if let churn = invocation.count("churn") { trace.churnPerSecond = churn }
    guard trace.nanoseconds <= 86_400_000_000_000 else {
      throw invocation.usageError("--length: more than a day is not generated")
    }
    guard trace.peakBytes >= 1 << 20, trace.peakBytes <= 1 << 40 else {
      throw invocation.usageError("--peak: a peak is between 1MiB and 1TiB")
    }
    let json = try invocation.output("json")
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      throw CommandFailure("\(path): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
    defer { close(file) }
    do throws(TraceError) {
      try trace.write(to: file)
    } catch { throw CommandFailure("\(path): \(error)", status: .unavailable) }
    try json?.write(jsonText(GeneratedTrace(trace, path)))
    return .success
  })

/// What `--json` says of a generated trace.
private struct GeneratedTrace: Encodable {
  var schema = "hugespan.generate/1"
  var path: String
  var shape: String
  var seed: UInt64
  var peakBytes: Int
  var seconds: Double
  var churnPerSecond: Int

  init(_ trace: SyntheticTrace, _ path: String) {
    self.path = path
    shape = trace.shape.rawValue
    seed = trace.seed
    peakBytes = trace.peakBytes
    seconds = Double(trace.nanoseconds) / 1e9
    churnPerSecond = trace.churnPerSecond
  }
}
