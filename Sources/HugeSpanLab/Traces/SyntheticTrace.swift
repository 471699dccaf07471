// Traces from a seed: programs whose live memory follows a curve, with sizes and lifetimes as allocators see them.
//
// They are for tests, first steps and questions like "what if it were diurnal". A recorded program is always the better
// judge. The generator steps through time in slices of a millisecond; in each it frees and allocates so that live bytes follow the
// curve of its shape, on top of a steady churn of young objects. Everything is drawn from one 64-bit xorshift state.

import TraceFormat

/// How live memory goes over time.
package enum TraceShape: String, CaseIterable, Sendable {
  case steady, dropAndRise = "drop-and-rise", diurnal, spiky

  /// One line for help texts.
  package var help: String {
    switch self {
    case .steady: "constant after the start, with churn"
    case .dropAndRise: "full, down to 30 % for the middle third, full again"
    case .diurnal: "three slow waves between 25 % and full"
    case .spiky: "40 %, with short peaks to full"
    }
  }

  /// Share of the peak that lives at `position`, 0 to 1, of the trace.
  ///
  /// - Parameter startUp: The share of the trace in which the program starts: its load rises in a straight line.
  func level(at position: Double, startUp: Double = 0.05) -> Double {
    let start = position < startUp ? position / startUp : 1
    switch self {
    case .steady: return start
    case .dropAndRise: return position > 0.35 && position < 0.7 ? min(start, 0.3) : start
    case .diurnal:
      let wave = abs((position * 3).truncatingRemainder(dividingBy: 1) * 2 - 1)  // 1 at the ends, 0 in the middle
      return min(start, 0.25 + 0.75 * (1 - wave * wave * (3 - 2 * wave)))
    case .spiky:
      let phase = (position * 8).truncatingRemainder(dividingBy: 1)
      return min(start, phase > 0.45 && phase < 0.55 ? 1 : 0.4)
    }
  }
}

/// What a generated program is like.
package struct SyntheticTrace: Sendable {
  package var shape: TraceShape = .dropAndRise
  package var seed: UInt64 = 1
  package var peakBytes = 256 << 20
  package var nanoseconds: UInt64 = 60_000_000_000
  /// Objects that are born and die within about 100 ms, per second.
  package var churnPerSecond = 5_000
  /// How long the program starts up; nil for a twentieth of its time.
  package var startUpNanoseconds: UInt64?

  package init() {}

  /// Writes the trace to an open file. Equal parameters give equal bytes.
  package func write(to descriptor: Int32) throws(TraceError) {
    var writer = try TraceWriter(header: header, output: .descriptor(descriptor))
    var state = GeneratorState(self)
    while let event = state.next() { try writer.append(event) }
    try writer.finish(.exited(status: 0))
  }

  /// A size as allocators see them.
  static func drawSize(_ random: inout SeededRandom) -> Int {
    let kind = Int.random(in: 0..<1000, using: &random)
    // Most objects are small, most bytes are not.
    if kind < 700 { return Int.random(in: 16...128, using: &random) }
    if kind < 930 { return Int.random(in: 129...2048, using: &random) }
    if kind < 990 { return Int.random(in: 2049...32768, using: &random) }
    if kind < 999 { return Int.random(in: 32769...262_144, using: &random) }
    return Int.random(in: 262_145...2_097_152, using: &random)
  }

  fileprivate var startUpShare: Double { startUpNanoseconds.map { Double($0) / Double(nanoseconds) } ?? 0.05 }

  private var header: TraceHeader {
    TraceHeader(
      program: "synthetic-\(shape.rawValue)",
      arguments: ["seed=\(seed)", "peak=\(peakBytes)", "churn=\(churnPerSecond)"]
        + (startUpNanoseconds.map { ["start-up=\($0)"] } ?? []), system: "generated", pageBytes: 4096,
      timeUnitNanoseconds: 1000, startNanoseconds: 0)
  }
}

/// A 64-bit xorshift generator.
package struct SeededRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

  package mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state &* 0x2545_F491_4F6C_DD1D
  }
}

/// The generated program as it runs.
private struct GeneratorState {
  private struct Live {
    var object: Int
    var bytes: Int
  }
  private struct Young {
    var object: Int
    var dies: UInt64
  }

  private let description: SyntheticTrace
  private var random: SeededRandom
  private var time: UInt64 = 0
  private var nextSample: UInt64 = 0
  private var live: [Live] = []
  private var young: [Young] = []
  private var liveBytes = 0
  private var objects = 0
  private var births = 0
  private var queue: [TraceEventBody] = []
  private var taken = 0

  init(_ description: SyntheticTrace) {
    self.description = description
    random = SeededRandom(seed: description.seed)
  }

  mutating func next() -> TraceEvent? {
    while taken == queue.count {
      if time >= description.nanoseconds { return nil }
      queue.removeAll(keepingCapacity: true)
      taken = 0
      time += 1_000_000
      fillSlice()
    }
    taken += 1
    return TraceEvent(time: time, thread: 0, body: queue[taken - 1])
  }

  private mutating func fillSlice() {
    let position = Double(time) / Double(description.nanoseconds)
    let level = description.shape.level(at: position, startUp: description.startUpShare)
    let target = Int(level * Double(description.peakBytes))
    // At most a 300th of the peak per slice: even a sudden drop takes the program a third of a second.
    var budget = max(description.peakBytes / 300, 64 << 10)
    while liveBytes < target - (256 << 10), budget > 0 { budget -= grow() }
    while liveBytes > target + (256 << 10), budget > 0, !live.isEmpty { budget -= shrink() }
    churn()
    if time >= nextSample { appendSample() }
  }

  private mutating func drawSize() -> Int { SyntheticTrace.drawSize(&random) }

  private mutating func birth(_ bytes: Int) -> Int {
    let kind: AllocationKind = bytes > 32768 && births % 5 == 0 ? .zeroed : .plain
    queue.append(.allocate(object: objects, bytes: bytes, alignment: 1, kind: kind))
    objects += 1
    births += 1
    return objects - 1
  }

  private mutating func grow() -> Int {
    let bytes = drawSize()
    live.append(Live(object: birth(bytes), bytes: bytes))
    liveBytes += bytes
    // Now and then a buffer grows, as vectors and strings do.
    if births % 40 == 0 {
      let index = Int.random(in: 0..<live.count, using: &random)
      let larger = min(live[index].bytes * 2, 4 << 20)
      liveBytes += larger - live[index].bytes
      live[index].bytes = larger
      queue.append(.resize(object: live[index].object, bytes: larger))
    }
    return bytes
  }

  private mutating func shrink() -> Int {
    let index = Int.random(in: 0..<live.count, using: &random)
    let victim = live[index]
    live[index] = live[live.count - 1]
    live.removeLast()
    queue.append(.free(object: victim.object))
    liveBytes -= victim.bytes
    return victim.bytes
  }

  private mutating func churn() {
    for _ in 0..<max(description.churnPerSecond / 1000, 0) {
      let lifetime = UInt64.random(in: 1_000_000...200_000_000, using: &random)
      young.append(Young(object: birth(drawSize() / 4 + 16), dies: time + lifetime))
    }
    var kept = 0
    for index in young.indices {
      if young[index].dies <= time {
        queue.append(.free(object: young[index].object))
      } else {
        young[kept] = young[index]
        kept += 1
      }
    }
    young.removeLast(young.count - kept)
  }

  private mutating func appendSample() {
    nextSample = time + 100_000_000
    // A busy program: half a CPU, and all that lives is in memory.
    queue.append(
      .sample(
        ProgramSample(
          cpuNanoseconds: time / 2, anonymousBytes: liveBytes, hugeBytes: 0, minorFaults: UInt64(births / 8),
          majorFaults: 0)))
  }
}
