// How each pathology runs: a script of births, deaths and waits.
//
// A script says what happens in which stretch of time; events of a stretch are spread over it evenly. The program computes on
// what lives: half a CPU when that is the peak. Random numbers are for what a pattern leaves open (which survives, in which order
// things die), so that two seeds are two programs of the same kind.

import TraceFormat

/// A pathological program as it runs.
final class PathologicalProgram {
  private struct Object {
    var number: Int
    var bytes: Int
  }

  private let description: PathologicalTrace
  private let length: UInt64
  private let peak: Int
  private var writer: TraceWriter?
  private var random: SeededRandom
  private var time: UInt64 = 0
  private var nextSample: UInt64 = 0
  private var objects = 0
  private var liveBytes = 0
  private var bornBytes = 0
  private var cpuNanoseconds: UInt64 = 0

  init(_ description: PathologicalTrace, output: TraceOutput) throws(TraceError) {
    self.description = description
    length = description.nanoseconds
    peak = description.peakBytes
    random = SeededRandom(seed: description.seed)
    writer = try TraceWriter(header: description.header, output: output)
  }

  func run() throws(TraceError) {
    switch description.pathology {
    case .largeThenSmall: try largeThenSmall()
    case .alternating: try alternating()
    case .phases: try phases()
    case .justOverHugepage: try justOverHugepage()
    case .oneTimeDrop: try oneTimeDrop()
    case .survivors: try survivors()
    case .refaultStorm: try refaultStorm()
    case .justOverBreakEven: try justOverBreakEven()
    }
    try wait(until: length)
  }

  func finish() throws(TraceError) { try writer.take()!.finish(.exited(status: 0)) }

  // MARK: What scripts are made of

  /// Goes on to `time`, with samples on the way.
  private func wait(until time: UInt64) throws(TraceError) {
    while nextSample <= time {
      // Half a CPU for all of the peak.
      cpuNanoseconds += UInt64(50_000_000 * Double(min(liveBytes, peak)) / Double(peak))
      let sample = ProgramSample(
        cpuNanoseconds: cpuNanoseconds, anonymousBytes: liveBytes, hugeBytes: 0, minorFaults: UInt64(bornBytes >> 21),
        majorFaults: 0)
      try writer!.append(TraceEvent(time: nextSample, thread: 0, body: .sample(sample)))
      nextSample += 100_000_000
    }
    self.time = max(self.time, time)
  }

  private func wait(_ nanoseconds: UInt64) throws(TraceError) { try wait(until: time + nanoseconds) }

  /// Whole pages are asked for as pages: they are spans of the page heap's then, not carved from one.
  private func birth(_ bytes: Int) throws(TraceError) -> Object {
    let isPages = bytes % 4096 == 0
    try writer!.append(
      TraceEvent(
        time: time, thread: 0,
        body: .allocate(
          object: objects, bytes: bytes, alignment: isPages ? 4096 : 1, kind: isPages ? .mapped : .plain)))
    objects += 1
    liveBytes += bytes
    bornBytes += bytes
    return Object(number: objects - 1, bytes: bytes)
  }

  private func death(_ object: Object) throws(TraceError) {
    try writer!.append(TraceEvent(time: time, thread: 0, body: .free(object: object.number)))
    liveBytes -= object.bytes
  }

  /// Objects of these sizes are born, over `nanoseconds`.
  private func births(_ sizes: [Int], over nanoseconds: UInt64) throws(TraceError) -> [Object] {
    let start = time
    var result: [Object] = []
    result.reserveCapacity(sizes.count)
    for (index, bytes) in sizes.enumerated() {
      try wait(until: start + nanoseconds * UInt64(index) / UInt64(sizes.count))
      result.append(try birth(bytes))
    }
    try wait(until: start + nanoseconds)
    return result
  }

  /// These objects die, over `nanoseconds`.
  private func deaths(_ dying: [Object], over nanoseconds: UInt64) throws(TraceError) {
    let start = time
    for (index, object) in dying.enumerated() {
      try wait(until: start + nanoseconds * UInt64(index) / UInt64(dying.count))
      try death(object)
    }
    try wait(until: start + nanoseconds)
  }

  /// Sizes from `draw` until the next would make more than `bytes`.
  private func sizes(filling bytes: Int, _ draw: (inout SeededRandom) -> Int) -> [Int] {
    var result: [Int] = []
    var left = bytes
    while true {
      let next = draw(&random)
      if next > left { return result }
      left -= next
      result.append(next)
    }
  }

  // MARK: The scripts

  /// Larges and smalls are born in turn and all larges die. Larges of the next round are an eighth longer, so that no hole
  /// between two smalls takes one. Smalls live for three rounds.
  private func largeThenSmall() throws(TraceError) {
    let rounds: UInt64 = 12
    let round = length / rounds
    var smalls: [[Object]] = []
    var large = 1 << 20
    for index in 0..<rounds {
      try wait(until: index * round)
      if smalls.count == 3 { try deaths(smalls.removeFirst(), over: round / 10) }
      var pairs: [Int] = []
      for _ in 0..<(peak - liveBytes) / (large + 8 * 4096) {
        pairs += [large, Int.random(in: 1...8, using: &random) * 4096]
      }
      let born = try births(pairs, over: round * 3 / 10)
      smalls.append(stride(from: 1, to: born.count, by: 2).map { born[$0] })
      try wait(round / 10)
      try deaths(stride(from: 0, to: born.count, by: 2).map { born[$0] }.shuffled(using: &random), over: round / 10)
      large = (large + large / 8 + 4095) & ~4095
    }
  }

  /// Every second one of a row dies and leaves holes of half the size of the next row's objects; from 32 KiB to 1 MiB, twice.
  private func alternating() throws(TraceError) {
    let steps = 6
    let step = length / UInt64(2 * (steps + 1))
    for cycle in 0..<2 {
      var kept: [Object] = []
      for index in 0..<steps {
        try wait(until: step * UInt64(cycle * (steps + 1) + index))
        let bytes = (32 << 10) << index
        let born = try births(Array(repeating: bytes, count: (peak - liveBytes) / bytes), over: step * 3 / 10)
        try wait(step / 10)
        let first = Int.random(in: 0..<2, using: &random)
        try deaths(stride(from: first, to: born.count, by: 2).map { born[$0] }, over: step / 10)
        kept += stride(from: 1 - first, to: born.count, by: 2).map { born[$0] }
      }
      try wait(until: step * UInt64(cycle * (steps + 1) + steps))
      try deaths(kept.shuffled(using: &random), over: step / 10)
    }
  }

  /// Small and large objects have all of the memory in turn.
  private func phases() throws(TraceError) {
    let count: UInt64 = 10
    let phase = length / count
    for index in 0..<count {
      try wait(until: index * phase)
      let isSmall = index % 2 == 0
      let born = try births(
        sizes(filling: peak) { random in
          isSmall ? Int.random(in: 1024...32768, using: &random) : Int.random(in: 64...256, using: &random) << 14
        }, over: phase / 5)
      try wait(phase / 2)
      try deaths(born.shuffled(using: &random), over: phase / 10)
    }
  }

  /// A set of objects that are just too long for a hugepage; one after another is replaced, ten times in all.
  private func justOverHugepage() throws(TraceError) {
    let draw: (inout SeededRandom) -> Int = { (2 << 20) + Int.random(in: 1...16, using: &$0) * 4096 }
    let largest = (2 << 20) + 16 * 4096
    var live = try births((0..<peak / largest).map { _ in draw(&random) }, over: length / 20)
    let replacements = live.count * 10
    let start = time
    for index in 0..<replacements {
      try wait(until: start + (length - start) * UInt64(index) / UInt64(replacements))
      let victim = Int.random(in: 0..<live.count, using: &random)
      try death(live[victim])
      // A moment passes, so that the hole is seen as one.
      try wait(until: time + min((length - start) / UInt64(replacements) / 2, 1_000_000))
      live[victim] = try birth(draw(&random))
    }
  }

  /// Nine bytes in ten die in a moment; what is left lives on to the end.
  private func oneTimeDrop() throws(TraceError) {
    var live = try births(sizes(filling: peak, SyntheticTrace.drawSize), over: length / 20)
    try wait(until: length * 4 / 10)
    live.shuffle(using: &random)
    var left = liveBytes
    var count = 0
    while count < live.count, left > peak / 10 {
      left -= live[count].bytes
      count += 1
    }
    try deaths(Array(live[0..<count]), over: length / 200)
  }

  /// Of each 64 neighbours, a hugepage together, one lives on while the next round comes and goes.
  private func survivors() throws(TraceError) {
    let rounds: UInt64 = 6
    let round = length / rounds
    let neighbours = 64
    var old: [Object] = []
    for index in 0..<rounds {
      try wait(until: index * round)
      let count = (peak - liveBytes) >> 21
      let born = try births(Array(repeating: (2 << 20) / neighbours, count: count * neighbours), over: round / 5)
      var kept: [Object] = []
      var dying: [Object] = []
      for block in 0..<count {
        let survivor = Int.random(in: 0..<neighbours, using: &random)
        for place in 0..<neighbours {
          let object = born[block * neighbours + place]
          if place == survivor { kept.append(object) } else { dying.append(object) }
        }
      }
      try wait(round / 10)
      try deaths(dying.shuffled(using: &random), over: round / 10)
      try deaths(old, over: round / 20)
      old = kept
    }
  }

  /// Nothing lives for three break-even times, and then everything does, within ten milliseconds.
  private func refaultStorm() throws(TraceError) {
    let breakEven = description.breakEven
    let storm = min(Self.storm, breakEven / 4)
    while time + 4 * breakEven <= length {
      let born = try births(
        sizes(filling: peak) { Int.random(in: 64...512, using: &$0) * 4096 }, over: storm)
      try wait(until: time + breakEven / 2)
      try deaths(born.shuffled(using: &random), over: storm)
      try wait(until: time + 3 * breakEven)
    }
  }

  private static let storm: UInt64 = 10_000_000

  /// Half of the memory stays. The other half, whole hugepages, is idle for 1.05 to 1.25 break-even times and busy for half of one.
  private func justOverBreakEven() throws(TraceError) {
    let breakEven = description.breakEven
    let burst = min(Self.storm, breakEven / 50)
    _ = try births(sizes(filling: peak / 2, SyntheticTrace.drawSize), over: breakEven / 2)
    while time + 2 * breakEven <= length {
      let born = try births(Array(repeating: 2 << 20, count: peak >> 22), over: burst)
      try wait(until: time + breakEven / 2)
      try deaths(born, over: burst)
      try wait(until: time + breakEven * UInt64.random(in: 1050...1220, using: &random) / 1000)
    }
  }
}
