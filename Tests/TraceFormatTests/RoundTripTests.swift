// What is written is what is read.

import Testing
import TraceFormat

@Suite("A trace that was written") struct RoundTripTests {
  @Test("gives back its events, header and ending", arguments: 1...20)
  func roundTrip(seed: UInt64) throws {
    let events = randomTrace(seed: seed, count: 3000)
    let header = TraceHeader(
      program: "/usr/bin/prögram", arguments: ["-c", "", "a b\n"], system: "Linux 6.18", pageBytes: 4096,
      startNanoseconds: 1_700_000_000_123_456_789)
    let ending: TraceEnding = [.exited(status: 3), .signalled(signal: 11), .stopped][Int(seed % 3)]
    let bytes = try encode(events, header: header, chunkEvents: 700, ending: ending)
    var reader = try TraceReader(TraceFile(bytes))
    #expect(reader.header == header)
    #expect(reader.ending == nil)
    for (index, event) in events.enumerated() {
      let read = try reader.next()
      try #require(read == event, "seed \(seed), event \(index)")
    }
    let last = try reader.next()
    #expect(last == nil)
    #expect(reader.ending == ending)
    #expect(reader.eventCount == events.count)
    #expect(reader.chunkCount == 5)
  }

  @Test("spans many chunks by itself when it is long")
  func longTraces() throws {
    let events = randomTrace(seed: 99, count: 60_000)
    let bytes = try encode(events)
    let read = try decode(bytes)
    #expect(read.events == events)
    var reader = try TraceReader(TraceFile(bytes))
    while try reader.next() != nil {}
    #expect(reader.chunkCount > 2)
  }

  @Test("has the times rounded down to its clock")
  func clock() throws {
    let event = TraceEvent(time: 1999, thread: 0, body: .allocate(object: 0, bytes: 8, alignment: 1, kind: .plain))
    let read = try decode(try encode([event])).events
    #expect(read.map(\.time) == [1000])
    let fine = try decode(try encode([event], header: TraceHeader(program: "t", timeUnitNanoseconds: 1))).events
    #expect(fine.map(\.time) == [1999])
  }

  @Test("may be empty")
  func empty() throws {
    let read = try decode(try encode([]))
    #expect(read.events.isEmpty)
    #expect(read.ending == .exited(status: 0))
  }

  @Test("costs few bytes where the program is regular: a stack of births and deaths two bytes a pair")
  func compactness() throws {
    var events: [TraceEvent] = []
    for object in 0..<10_000 {
      let time = UInt64(object) * 2000
      events.append(
        TraceEvent(time: time, thread: 0, body: .allocate(object: object, bytes: 64, alignment: 1, kind: .plain)))
      events.append(TraceEvent(time: time + 1000, thread: 0, body: .free(object: object)))
    }
    let bytes = try encode(events)
    #expect(bytes.count < 20_000 + 500)
  }
}

@Suite("A writer") struct WriterRefusalTests {
  private func refusal(_ events: [TraceEventBody], times: [UInt64]? = nil) -> TraceError? {
    do {
      _ = try encode(
        events.enumerated().map { TraceEvent(time: times?[$0] ?? 0, thread: 0, body: $1) })
      return nil
    } catch { return error as? TraceError }
  }

  private let birth = TraceEventBody.allocate(object: 0, bytes: 10, alignment: 1, kind: .plain)

  @Test("refuses what no program can do, and says at which event")
  func refusals() {
    let impossible: [[TraceEventBody]] = [
      [birth, .free(object: 1)], [birth, .resize(object: 1, bytes: 4)], [birth, birth],
      [birth, .allocate(object: 1, bytes: 0, alignment: 1, kind: .plain)],
      [birth, .allocate(object: 1, bytes: -1, alignment: 1, kind: .plain)],
      [birth, .allocate(object: 1, bytes: 1 << 48, alignment: 1, kind: .plain)],
      [birth, .allocate(object: 1, bytes: 8, alignment: 3, kind: .aligned)],
      [birth, .allocate(object: 1, bytes: 8, alignment: 0, kind: .aligned)],
      [birth, .allocate(object: 1, bytes: 8, alignment: 8, kind: .plain)], [birth, .resize(object: 0, bytes: 0)],
    ]
    for events in impossible {
      let error = refusal(events)
      #expect(error?.location == .event(1), "\(events)")
      guard case .impossibleEvent = error?.problem else {
        Issue.record("\(events) gave \(String(describing: error))")
        continue
      }
    }
    #expect(refusal([birth, .free(object: 0), .free(object: 0)])?.location == .event(2))
    #expect(refusal([birth, .free(object: 0), .resize(object: 0, bytes: 5)])?.location == .event(2))
    #expect(refusal([birth, .free(object: 0)], times: [2000, 1000])?.location == .event(1))
    #expect(refusal([birth, .free(object: 0)], times: [1000, 1000]) == nil)
  }
}
