// A program made up from a profile: it allocates as a fleet's program does, under a load of one's choice.
//
// Births of a size are a Poisson process at the profile's rate, times the load at that time; an object lives for an exponential
// time whose mean is the profile's (Little's law), so that the live objects follow the load with the lag that they really have. All sizes
// together are one Poisson process: when the next birth is, and of which size, are two draws, the second from a table of cumulated
// rates. Deaths wait in a heap by time. Live memory is scaled to a peak by scaling all rates; lifetimes stay.
//
// A program that has run for long begins with what lives at load 1: that comes over the start-up (the first twentieth of the
// trace, if nothing else is asked for), in which the load rises in a straight line; the two together make live objects of each size rise in a straight line too.

import TraceFormat

/// A program made up from a profile.
package struct FleetProgram: Sendable {
  package var profile: FleetProfile
  /// How the load goes over time.
  package var shape: TraceShape
  package var seed: UInt64
  /// Live bytes in the mean at load 1.
  package var peakBytes: Int
  package var nanoseconds: UInt64
  /// What the profile is called.
  package var name: String
  /// How long the program starts up; nil for a twentieth of its time.
  package var startUpNanoseconds: UInt64?

  package init(
    _ profile: FleetProfile, name: String, shape: TraceShape, seed: UInt64, peakBytes: Int, nanoseconds: UInt64,
    startUpNanoseconds: UInt64? = nil
  ) {
    self.profile = profile
    self.name = name
    self.shape = shape
    self.seed = seed
    self.peakBytes = peakBytes
    self.nanoseconds = nanoseconds
    self.startUpNanoseconds = startUpNanoseconds
  }

  fileprivate var startUpShare: Double { startUpNanoseconds.map { Double($0) / Double(nanoseconds) } ?? 0.05 }

  fileprivate func load(at position: Double) -> Double { shape.level(at: position, startUp: startUpShare) }

  /// Sizes that are too large for the peak: one object of them would be more than a quarter of it.
  package var omittedSizes: Int { profile.sizes.count { $0.bytes > peakBytes / 4 } }

  /// Writes the trace to an open file. Equal parameters give equal bytes.
  package func write(to descriptor: Int32) throws(TraceError) {
    let header = TraceHeader(
      program: "fleet-\(name)-\(shape.rawValue)",
      arguments: ["seed=\(seed)", "peak=\(peakBytes)"] + (startUpNanoseconds.map { ["start-up=\($0)"] } ?? []),
      system: "generated", pageBytes: 4096, timeUnitNanoseconds: 1000, startNanoseconds: 0)
    var writer = try TraceWriter(header: header, output: .descriptor(descriptor))
    var life = FleetLife(self)
    while let event = life.next() { try writer.append(event) }
    try writer.finish(.exited(status: 0))
  }
}

/// An object's end.
private struct Death {
  var time: Double
  var object: Int
  var bytes: Int
}

/// The program as it runs. Times are seconds.
private struct FleetLife {
  private let program: FleetProgram
  private let sizes: [FleetProfile.Size]
  /// Births a second at load 1, cumulated over the sizes.
  private var cumulated: [Double] = []
  /// What lives at load 1, of each size, cumulated: from this the start-up draws.
  private var standing: [Double] = []
  private let length: Double
  private var random: SeededRandom
  private var deaths: [Death] = []
  private var objects = 0
  private var liveBytes = 0
  private var nextBirth: Double
  private var nextSample = 0.0
  private var births = 0
  /// CPU time of the program so far.
  private var busySeconds = 0.0
  /// Objects that the start-up has yet to bring.
  private var starting: Int
  private let startEnd: Double
  private var nextStart: Double

  init(_ program: FleetProgram) {
    self.program = program
    random = SeededRandom(seed: program.seed)
    length = Double(program.nanoseconds) / 1e9
    sizes = program.profile.sizes.filter { $0.bytes <= program.peakBytes / 4 }
    let scale = Double(program.peakBytes) / Swift.max(FleetProfile(sizes).liveBytes, 1)
    var rate = 0.0
    var live = 0.0
    for size in sizes {
      rate += size.birthsPerSecond * scale
      live += size.live * scale
      cumulated.append(rate)
      standing.append(live)
    }
    starting = sizes.isEmpty ? 0 : Int(live)
    startEnd = program.startUpNanoseconds.map { Double($0) / 1e9 } ?? length / 20
    nextStart = 0
    nextBirth = .infinity
    if rate > 0 { nextBirth = 0 }
  }

  private mutating func uniform() -> Double { Double(random.next() >> 11) * 0x1p-53 }
  private mutating func exponential(mean: Double) -> Double { -mean * Self.logarithm(1 - uniform()) }

  /// The natural logarithm for 0 < x <= 1. Written out, since a trace of a seed has to be the same with every C library.
  private static func logarithm(_ x: Double) -> Double {
    // x = m 2^e with m in [√½, √2); log m by the series of artanh((m - 1) / (m + 1)).
    var exponent = Double(x.exponent) + 1
    var m = x.significand / 2
    if m < 0.70710678118654752 {
      m *= 2
      exponent -= 1
    }
    let s = (m - 1) / (m + 1)
    let q = s * s
    let series = 1 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * (1.0 / 13))))))
    return exponent * 0.69314718055994531 + 2 * s * series
  }

  /// Index of the size at `value` of a table of cumulated weights.
  private static func index(of value: Double, in table: [Double]) -> Int {
    var low = 0
    var high = table.count - 1
    while low < high {
      let middle = (low + high) / 2
      if table[middle] <= value { low = middle + 1 } else { high = middle }
    }
    return low
  }

  mutating func next() -> TraceEvent? {
    while true {
      let death = deaths.first?.time ?? .infinity
      let start = starting > 0 ? nextStart : .infinity
      let time = Swift.min(Swift.min(death, start), Swift.min(nextBirth, nextSample))
      if time >= length { return nil }
      if time == nextSample {
        nextSample += 0.1
        return event(time, sample(time))
      }
      if time == death {
        let dead = removeFirstDeath()
        liveBytes -= dead.bytes
        return event(time, .free(object: dead.object))
      }
      if time == start {
        starting -= 1
        nextStart += startEnd / Double(standing.last!)
        return born(time, sizes[Self.index(of: uniform() * standing.last!, in: standing)])
      }
      // The process runs at the rate of the highest load; of its points as many are births as the load says.
      nextBirth = time + exponential(mean: 1 / cumulated.last!)
      if uniform() < program.load(at: time / length) {
        return born(time, sizes[Self.index(of: uniform() * cumulated.last!, in: cumulated)])
      }
    }
  }

  private func event(_ seconds: Double, _ body: TraceEventBody) -> TraceEvent {
    TraceEvent(time: UInt64(seconds * 1e6) * 1000, thread: 0, body: body)
  }

  private mutating func born(_ time: Double, _ size: FleetProfile.Size) -> TraceEvent {
    let object = objects
    objects += 1
    births += 1
    liveBytes += size.bytes
    insert(Death(time: time + exponential(mean: size.lifetime), object: object, bytes: size.bytes))
    return event(time, .allocate(object: object, bytes: size.bytes, alignment: 1, kind: .plain))
  }

  private mutating func sample(_ time: Double) -> TraceEventBody {
    // Half a CPU at load 1, and as busy as the load is; all that lives is in memory.
    busySeconds += 0.1 * 0.5 * program.load(at: time / length)
    return .sample(
      ProgramSample(
        cpuNanoseconds: UInt64(busySeconds * 1e9), anonymousBytes: liveBytes, hugeBytes: 0,
        minorFaults: UInt64(births / 8), majorFaults: 0))
  }

  private mutating func insert(_ death: Death) {
    deaths.append(death)
    var index = deaths.count - 1
    while index > 0 {
      let parent = (index - 1) / 2
      if deaths[parent].time <= death.time { break }
      deaths[index] = deaths[parent]
      index = parent
    }
    deaths[index] = death
  }

  private mutating func removeFirstDeath() -> Death {
    let first = deaths[0]
    let last = deaths.removeLast()
    if deaths.isEmpty { return first }
    var index = 0
    while true {
      var child = 2 * index + 1
      if child >= deaths.count { break }
      if child + 1 < deaths.count && deaths[child + 1].time < deaths[child].time { child += 1 }
      if deaths[child].time >= last.time { break }
      deaths[index] = deaths[child]
      index = child
    }
    deaths[index] = last
    return first
  }
}
