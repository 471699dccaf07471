// Random traces that are valid, from a seed: what the tests of the format feed it.

import TraceFormat

/// A small repeatable generator of random numbers (xorshift64*).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed | 1 }

  mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_F491_4F6C_DD1D
  }
}

/// A trace of `count` events that a program could have caused, with every kind of event and all widths of numbers.
func randomTrace(seed: UInt64, count: Int, unit: UInt64 = 1000) -> [TraceEvent] {
  var random = SeededGenerator(seed: seed)
  var events: [TraceEvent] = []
  var live: [Int] = []
  var born = 0
  var time: UInt64 = 0
  var thread = 0
  for _ in 0..<count {
    let steps: UInt64 =
      switch UInt8.random(in: 0..<10, using: &random) {
      case 0..<7: .random(in: 0..<9, using: &random)
      case 7..<9: .random(in: 0..<3000, using: &random)
      default: .random(in: 0..<(1 << 33), using: &random)
      }
    time += steps * unit
    if UInt8.random(in: 0..<8, using: &random) == 0 { thread = .random(in: 0..<5, using: &random) }
    let body: TraceEventBody
    switch UInt8.random(in: 0..<100, using: &random) {
    case 0..<50:
      body = randomBirth(object: born, &random)
      live.append(born)
      born += 1
    case 50..<90 where !live.isEmpty:
      let position =
        switch UInt8.random(in: 0..<3, using: &random) {
        case 0: live.count - 1
        case 1: 0
        default: Int.random(in: 0..<live.count, using: &random)
        }
      body = .free(object: live.remove(at: position))
    case 90..<97 where !live.isEmpty:
      body = .resize(object: live.randomElement(using: &random)!, bytes: randomSize(&random))
    default:
      body = .sample(
        ProgramSample(
          cpuNanoseconds: random.next(), anonymousBytes: randomSize(&random), hugeBytes: randomSize(&random) - 1,
          minorFaults: random.next(), majorFaults: random.next() & 0xFF))
    }
    events.append(TraceEvent(time: time, thread: thread, body: body))
  }
  return events
}

private func randomSize(_ random: inout SeededGenerator) -> Int {
  if UInt8.random(in: 0..<2, using: &random) == 0 {
    return [16, 24, 32, 48, 64, 100, 4096].randomElement(using: &random)!
  }
  return Int.random(in: 1...(1 << Int.random(in: 0...47, using: &random)), using: &random)
}

private func randomBirth(object: Int, _ random: inout SeededGenerator) -> TraceEventBody {
  let bytes = randomSize(&random)
  let alignment = 1 << Int.random(in: 0...21, using: &random)
  return switch UInt8.random(in: 0..<8, using: &random) {
  case 0: .allocate(object: object, bytes: bytes, alignment: 1, kind: .zeroed)
  case 1: .allocate(object: object, bytes: bytes, alignment: alignment, kind: .aligned)
  case 2: .allocate(object: object, bytes: bytes, alignment: alignment, kind: .mapped)
  default: .allocate(object: object, bytes: bytes, alignment: 1, kind: .plain)
  }
}

/// The header of a trace of spans.
let spanHeader = TraceHeader(program: "test", level: .span)

/// A trace of spans of `count` events that an allocator could have caused, with every kind of event.
func randomSpanTrace(seed: UInt64, count: Int, unit: UInt64 = 1000) -> [TraceEvent] {
  var random = SeededGenerator(seed: seed)
  var events: [TraceEvent] = []
  // Spans that live, in no order, and the length of every span.
  var live: [Int] = []
  var lengths: [Int] = []
  var time: UInt64 = 0
  var thread = 0
  for _ in 0..<count {
    time += (UInt8.random(in: 0..<8, using: &random) == 0 ? .random(in: 0..<9000, using: &random) : 1) * unit
    if UInt8.random(in: 0..<8, using: &random) == 0 { thread = .random(in: 0..<5, using: &random) }
    let index = live.isEmpty ? 0 : Int.random(in: 0..<live.count, using: &random)
    let span = live.isEmpty ? nil : live[index]
    let body: TraceEventBody
    switch (UInt8.random(in: 0..<100, using: &random), span) {
    case (50..<70, let span?):
      live.swapAt(index, live.count - 1)
      live.removeLast()
      body = .free(object: span)
    case (70..<80, let span?):
      let pages = randomPages(&random)
      lengths[span] = pages
      body = .resizeSpan(span: span, pages: pages, isZeroed: .random(using: &random))
    case (80..<93, let span?):
      let length = lengths[span]
      let first = Int.random(in: 0..<length, using: &random)
      let pages = Int.random(in: 1...length - first, using: &random)
      lengths[span] = first
      if first == 0 {
        live.swapAt(index, live.count - 1)
        live.removeLast()
      }
      var tail: Int?
      if first + pages < length {
        tail = lengths.count
        live.append(lengths.count)
        lengths.append(length - first - pages)
      }
      body = .freePages(span: span, first: first, pages: pages, tail: tail, isJoined: .random(using: &random))
    case (93..<95, let span?):
      body = .refuseGrowth(span: span, pages: randomPages(&random), isZeroed: .random(using: &random))
    case (95..<97, _): body = .refuseSpan(pages: randomPages(&random), traits: randomTraits(&random))
    case (97..., _):
      body = .sample(
        ProgramSample(
          cpuNanoseconds: random.next(), anonymousBytes: randomSize(&random), hugeBytes: randomSize(&random) - 1,
          minorFaults: random.next(), majorFaults: random.next() & 0xFF))
    default:
      let pages = randomPages(&random)
      body = .allocateSpan(span: lengths.count, pages: pages, traits: randomTraits(&random))
      live.append(lengths.count)
      lengths.append(pages)
    }
    events.append(TraceEvent(time: time, thread: thread, body: body))
  }
  return events
}

private func randomPages(_ random: inout SeededGenerator) -> Int {
  Int.random(in: 1...(1 << Int.random(in: 0...35, using: &random)), using: &random)
}

private func randomTraits(_ random: inout SeededGenerator) -> SpanTraits {
  var traits = SpanTraits()
  if UInt8.random(in: 0..<4, using: &random) == 0 {
    traits.alignmentPages = 1 << Int.random(in: 0...40, using: &random)
  }
  if UInt8.random(in: 0..<3, using: &random) == 0 { traits.isZeroed = true }
  if UInt8.random(in: 0..<4, using: &random) == 0 {
    traits.lifetime = SpanTraits.Lifetime.allCases.randomElement(using: &random)!
    traits.objects = SpanTraits.Objects.allCases.randomElement(using: &random)!
  }
  return traits
}

/// The bytes of a trace with `events`; a chunk is closed after every `chunkEvents` of them.
func encode(
  _ events: [TraceEvent], header: TraceHeader = TraceHeader(program: "test"), chunkEvents: Int = .max,
  ending: TraceEnding? = .exited(status: 0)
) throws -> [UInt8] {
  var bytes: [UInt8] = []
  try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
    var writer = try TraceWriter(header: header, output: .function(sink))
    for (index, event) in events.enumerated() {
      try writer.append(event)
      if (index + 1) % chunkEvents == 0 { try writer.flush() }
    }
    if let ending {
      try writer.finish(ending)
    } else {
      try writer.flush()
    }
  }
  return bytes
}

/// All events in `bytes` and how they end.
func decode(
  _ bytes: [UInt8], _ tolerance: TraceReader.Tolerance = .strict
) throws(TraceError) -> (events: [TraceEvent], ending: TraceEnding?) {
  var reader = try TraceReader(TraceFile(bytes), tolerance: tolerance)
  var events: [TraceEvent] = []
  while let event = try reader.next() { events.append(event) }
  return (events, reader.ending)
}
