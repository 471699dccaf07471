// Traces of spans: what is written is what is read, and what no allocator can ask is not written.

import Testing
import TraceFormat

@Suite("A trace of spans") struct SpanTraceTests {
  @Test("gives back its events and its level", arguments: 1...20)
  func roundTrip(seed: UInt64) throws {
    let events = randomSpanTrace(seed: seed, count: 3000)
    let bytes = try encode(events, header: spanHeader, chunkEvents: 700)
    var reader = try TraceReader(TraceFile(bytes))
    #expect(reader.header == spanHeader && reader.header.version == 2)
    for (index, event) in events.enumerated() {
      let read = try reader.next()
      try #require(read == event, "seed \(seed), event \(index)")
    }
    let last = try reader.next()
    #expect(last == nil && reader.ending == .exited(status: 0))
  }

  @Test("costs about two bytes an event where spans are short and many, as under an allocator")
  func compactness() throws {
    var random = SeededGenerator(seed: 3)
    var events: [TraceEvent] = []
    var live: [Int] = []
    var born = 0
    for index in 0..<20_000 {
      let time = UInt64(index) * 90_000
      if live.count > 1000 && index % 2 == 0 {
        let span = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        events.append(TraceEvent(time: time, thread: 0, body: .free(object: span)))
      } else {
        let pages = [1, 1, 1, 2, 2, 5, 7, 40].randomElement(using: &random)!
        events.append(
          TraceEvent(time: time, thread: 0, body: .allocateSpan(span: born, pages: pages, traits: SpanTraits())))
        live.append(born)
        born += 1
      }
    }
    let bytes = try encode(events, header: spanHeader)
    #expect(bytes.count < events.count * 4, "\(Double(bytes.count) / Double(events.count)) bytes an event")
  }

  @Test("of malloc is written as before: version 1, no level")
  func version() throws {
    let bytes = try encode([])
    #expect(bytes[8] == 1)
    #expect(try TraceReader(TraceFile(bytes)).header.level == .malloc)
  }

  private func refusal(_ bodies: [TraceEventBody]) -> TraceError? {
    do {
      _ = try encode(bodies.map { TraceEvent(time: 0, thread: 0, body: $0) }, header: spanHeader)
      return nil
    } catch { return error as? TraceError }
  }

  @Test("has nothing in it that no allocator can ask")
  func refusals() {
    let birth = TraceEventBody.allocateSpan(span: 0, pages: 10, traits: SpanTraits())
    let impossible: [TraceEventBody] = [
      birth, .allocateSpan(span: 1, pages: 0, traits: SpanTraits()),
      .allocateSpan(span: 1, pages: 1 << 36, traits: SpanTraits()),
      .allocateSpan(span: 1, pages: 1, traits: SpanTraits(alignmentPages: 3)),
      .refuseSpan(pages: 0, traits: SpanTraits()), .refuseSpan(pages: 1, traits: SpanTraits(alignmentPages: 1 << 41)),
      .resizeSpan(span: 1, pages: 1, isZeroed: false), .resizeSpan(span: 0, pages: 0, isZeroed: false),
      .refuseGrowth(span: -1, pages: 1, isZeroed: false), .free(object: 1),
      .freePages(span: 0, first: -1, pages: 2, tail: nil, isJoined: false),
      .freePages(span: 0, first: 10, pages: 1, tail: nil, isJoined: false),
      .freePages(span: 0, first: 0, pages: 0, tail: 1, isJoined: false),
      .freePages(span: 0, first: 5, pages: 6, tail: nil, isJoined: false),
      .freePages(span: 0, first: 5, pages: 4, tail: nil, isJoined: false),
      .freePages(span: 0, first: 5, pages: 5, tail: 1, isJoined: false),
      .freePages(span: 0, first: 5, pages: 4, tail: 2, isJoined: false),
      .allocate(object: 1, bytes: 5, alignment: 1, kind: .plain), .resize(object: 0, bytes: 3),
    ]
    for body in impossible {
      let error = refusal([birth, body])
      #expect(error?.location == .event(1), "\(body)")
      guard case .impossibleEvent = error?.problem else {
        Issue.record("\(body) gave \(String(describing: error))")
        continue
      }
    }
    #expect(
      refusal([birth, .freePages(span: 0, first: 0, pages: 4, tail: 1, isJoined: true), .free(object: 0)]) != nil)
    #expect(
      refusal([birth, .freePages(span: 0, first: 0, pages: 4, tail: 1, isJoined: true), .free(object: 1)]) == nil)
  }
}
