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
    churn of young objects on top. With --profile the program allocates as a profile says: births and lifetimes of each size are \
    drawn at the profile's rates, scaled to the peak, under the load of the shape. With --pathology it is the worst case of one \
    thing that a page heap does. Equal options give equal files. A recorded program (see 'hugespan record') is the better \
    judge of a policy.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The trace to write (needed)"),
    Option(
      "shape", .choice(TraceShape.allCases.map { Choice($0.rawValue, $0.help) }),
      help: "How live memory goes over time",
      defaultText: "drop-and-rise"),
    Option(
      "profile", .file(),
      help: "Allocate as this profile says: lines of size in bytes, births per second, objects alive"
    ),
    Option(
      "pathology",
      .text(
        "NAME", known: Pathology.allCases.map { Choice($0.rawValue, $0.help) },
        check: { text in
          let names = Pathology.allCases.map(\.rawValue)
          return names.contains(text) ? nil : "unknown value '\(text)' (known: \(names.joined(separator: ", ")))"
        }),
      help: "Be the worst case of one thing, in place of a shape"),
    Option("seed", .count(), help: "Where the random numbers begin", defaultText: "1"),
    Option("peak", .size(), help: "Most live bytes", defaultText: "256MiB"),
    Option("length", .duration(), help: "Length of the trace in its own time", defaultText: "60s"),
    Option("churn", .count(in: 0...10_000_000), help: "Short-lived objects per second", defaultText: "5000"),
    Option(
      "start-up", .duration(), help: "How long the load rises at first; 0s for not at all",
      defaultText: "a twentieth of the length"),
    Option(
      "break-even", .duration(),
      help: "Of refault-storm and just-over-break-even: the idle time after which holding a hugepage has cost as much "
        + "as releasing it and faulting it back",
      defaultText: "\(Pathology.usualBreakEven / 1_000_000)ms, that of the default prices"),
    Option("json", .file(), help: "Describe the trace as JSON; '-' for standard output"),
  ],
  examples: [
    Example(
      "hugespan generate -o diurnal.hstrace --shape diurnal --peak 1GiB --length 2m",
      "Two minutes of a service with three slow waves of load"),
    Example(
      "hugespan generate -o fleet.hstrace --profile TCMALLOC_5.csv --shape spiky --peak 512MiB",
      "A program of a fleet, under peaks of load"),
    Example(
      "hugespan generate -o worst.hstrace --pathology just-over-break-even --length 30s",
      "What a policy that waits is worst at"),
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
    trace.startUpNanoseconds = invocation.nanoseconds("start-up")
    if let startUp = trace.startUpNanoseconds, startUp > trace.nanoseconds {
      throw invocation.usageError("--start-up: the trace ends before")
    }
    let pathology = try pathologicalTrace(invocation, trace)
    let profile = try invocation.text("profile").map { path in
      if invocation.count("churn") != nil {
        throw invocation.usageError("--churn: with --profile the young objects are the profile's")
      }
      return try readProfile(path)
    }
    let fleet = profile.map {
      FleetProgram(
        $0.profile, name: $0.name, shape: trace.shape, seed: trace.seed, peakBytes: trace.peakBytes,
        nanoseconds: trace.nanoseconds, startUpNanoseconds: trace.startUpNanoseconds)
    }
    if let fleet, fleet.omittedSizes == fleet.profile.sizes.count {
      throw invocation.usageError("--peak: every size of the profile is more than a quarter of it; take a higher peak")
    }
    let json = try invocation.output("json")
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      throw CommandFailure("\(path): cannot be made: \(String(cString: strerror(errno)))", status: .usage)
    }
    defer { close(file) }
    do throws(TraceError) {
      if let pathology {
        try pathology.write(to: file)
      } else if let fleet {
        try fleet.write(to: file)
      } else {
        try trace.write(to: file)
      }
    } catch { throw CommandFailure("\(path): \(error)", status: .unavailable) }
    try json?.write(jsonText(GeneratedTrace(trace, fleet, pathology, path)))
    return .success
  })

/// The pathology that is asked for, with the seed, peak and length of `trace`.
private func pathologicalTrace(
  _ invocation: Invocation, _ trace: SyntheticTrace
) throws(UsageError) -> PathologicalTrace? {
  guard let name = invocation.text("pathology") else {
    if invocation.has("break-even") { throw invocation.usageError("--break-even: only a --pathology goes by it") }
    return nil
  }
  for other in ["shape", "profile", "churn", "start-up"] where invocation.has(other) {
    throw invocation.usageError("--\(other): a pathology has its own")
  }
  var result = PathologicalTrace(Pathology(rawValue: name)!)
  result.seed = trace.seed
  result.peakBytes = trace.peakBytes
  result.nanoseconds = trace.nanoseconds
  if let breakEven = invocation.nanoseconds("break-even") {
    if !result.pathology.usesBreakEven { throw invocation.usageError("--break-even: \(name) does not go by it") }
    if breakEven < 1_000_000 { throw invocation.usageError("--break-even: at least 1ms") }
    result.breakEven = breakEven
  }
  if result.peakBytes < PathologicalTrace.leastPeakBytes {
    throw invocation.usageError("--peak: a pathology takes at least \(PathologicalTrace.leastPeakBytes >> 20)MiB")
  }
  if result.nanoseconds < result.leastNanoseconds {
    throw invocation.usageError("--length: \(name) takes at least \(result.leastNanoseconds / 1_000_000)ms")
  }
  return result
}

/// A profile, and what it is called: its file's name without the end.
private func readProfile(_ path: String) throws(CommandFailure) -> (profile: FleetProfile, name: String) {
  let file = path.split(separator: "/").last.map(String.init) ?? path
  let name = file.split(separator: ".").first.map(String.init) ?? file
  do throws(TraceError) {
    return (try FleetProfile(parsing: try TraceFile(path: path)), name)
  } catch { throw CommandFailure("\(path): \(error)", status: .usage) }
}

/// What `--json` says of a generated trace.
private struct GeneratedTrace: Encodable {
  var schema = "hugespan.generate/1"
  var path: String
  /// Of the load; nil for a pathology.
  var shape: String?
  var pathology: String?
  var breakEvenSeconds: Double?
  var startUpSeconds: Double?
  var seed: UInt64
  var peakBytes: Int
  var seconds: Double
  var churnPerSecond: Int?
  var profile: String?
  /// Sizes of the profile that are too large for the peak.
  var omittedSizes: Int?

  init(_ trace: SyntheticTrace, _ fleet: FleetProgram?, _ pathology: PathologicalTrace?, _ path: String) {
    self.path = path
    shape = pathology == nil ? trace.shape.rawValue : nil
    self.pathology = pathology?.pathology.rawValue
    if let pathology, pathology.pathology.usesBreakEven { breakEvenSeconds = Double(pathology.breakEven) / 1e9 }
    startUpSeconds = trace.startUpNanoseconds.map { Double($0) / 1e9 }
    seed = trace.seed
    peakBytes = trace.peakBytes
    seconds = Double(trace.nanoseconds) / 1e9
    churnPerSecond = fleet == nil && pathology == nil ? trace.churnPerSecond : nil
    profile = fleet?.name
    omittedSizes = fleet?.omittedSizes
  }
}
