// Damaged, truncated and foreign bytes: refused with what is wrong and where, and never a crash.

import Testing

@testable import TraceFormat

@Suite("A damaged trace") struct DamageTests {
  private func refusal(_ bytes: [UInt8], _ tolerance: TraceReader.Tolerance = .strict) -> TraceError? {
    do {
      _ = try decode(bytes, tolerance)
      return nil
    } catch { return error }
  }

  @Test("is refused by name when it is none")
  func foreign() {
    #expect(refusal([]) == TraceError(.foreign, at: .byte(0)))
    #expect(refusal(Array("#!/bin/sh\n".utf8)) == TraceError(.foreign, at: .byte(0)))
    #expect(refusal([0x89, 0x50, 0x4E, 0x47]) == TraceError(.foreign, at: .byte(1)))
  }

  @Test("is refused when its version is not ours")
  func version() throws {
    var bytes = try encode([])
    bytes[8] = 3
    #expect(refusal(bytes) == TraceError(.unsupportedVersion(3), at: .byte(8)))
    #expect(
      refusal(bytes)?.description == "version 3 of the trace format is not supported, only 1 and 2 are, at byte 8")
    // What only the other version has is missing, or too much.
    bytes[8] = 2
    #expect(refusal(bytes)?.description.contains("names no level") == true)
    bytes = try encode([], header: spanHeader)
    bytes[8] = 1
    #expect(refusal(bytes)?.description.contains("1 bytes follow the header's last field") == true)
  }

  @Test("is refused wherever a bit is flipped")
  func flippedBits() throws {
    let traces = [
      try encode(randomTrace(seed: 5, count: 200), chunkEvents: 50),
      try encode(randomSpanTrace(seed: 5, count: 60), header: spanHeader, chunkEvents: 30),
    ]
    for (number, bytes) in traces.enumerated() {
      for index in bytes.indices {
        for bit in 0..<8 {
          var damaged = bytes
          damaged[index] ^= 1 << bit
          #expect(refusal(damaged) != nil, "trace \(number), byte \(index), bit \(bit)")
        }
      }
    }
  }

  @Test("names the chunk whose checksum is wrong, and where it begins")
  func checksum() throws {
    let events = randomTrace(seed: 6, count: 100)
    let bytes = try encode(events, chunkEvents: 50)
    let firstChunk = try encode([]).count - EndRecord.byteCount
    let second = try encode(Array(events[..<50])).count - EndRecord.byteCount
    var damaged = bytes
    damaged[second + ChunkHeader.byteCount] ^= 1
    guard let error = refusal(damaged), case .checksum(let part, _, _) = error.problem else {
      Issue.record("no checksum error")
      return
    }
    #expect(part == "chunk 1")
    #expect(error.location == .byte(second))
    damaged = bytes
    damaged[firstChunk] ^= 1
    #expect(refusal(damaged)?.location == .byte(firstChunk))
  }

  @Test("that is cut anywhere is refused by a strict reader, and read to its last whole chunk by a tolerant one")
  func truncation() throws {
    let events = randomTrace(seed: 7, count: 400)
    let bytes = try encode(events, chunkEvents: 100)
    let headerEnd = try encode([]).count - EndRecord.byteCount
    var ends = [headerEnd]
    for chunk in 1...4 {
      ends.append(try encode(Array(events[..<(chunk * 100)]), chunkEvents: 100).count - EndRecord.byteCount)
    }
    for length in 0..<bytes.count {
      let cut = Array(bytes[..<length])
      let error = refusal(cut)
      if length >= 1 {
        guard case .truncated = error?.problem else {
          Issue.record("length \(length): \(String(describing: error))")
          continue
        }
        #expect(error?.location == .byte(length))
      }
      if length < headerEnd {
        #expect(refusal(cut, .upToLastWholeChunk) != nil)
      } else {
        let whole = ends.lastIndex { $0 <= length }!
        let read = try decode(cut, .upToLastWholeChunk)
        #expect(read.events == Array(events[..<(whole * 100)]), "length \(length)")
        #expect(read.ending == .cut(byte: ends[whole]), "length \(length)")
      }
    }
  }

  @Test("with bytes after its end is refused")
  func trailing() throws {
    let bytes = try encode(randomTrace(seed: 8, count: 10))
    #expect(refusal(bytes + [0])?.location == .byte(bytes.count))
  }

  /// Damage with the checksums made right again, so that it reaches the decoder of events.
  @Test("whose checksums are right gives an error or events that are possible, never a crash", arguments: 1...8)
  func mutations(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed &* 7919)
    let original =
      seed % 2 == 0
      ? try encode(randomTrace(seed: seed, count: 150), chunkEvents: 60)
      : try encode(randomSpanTrace(seed: seed, count: 150), header: spanHeader, chunkEvents: 60)
    var refused = 0
    for round in 0..<3000 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let index = Int.random(in: 0..<bytes.count, using: &random)
        bytes[index] = UInt8.random(in: 0...255, using: &random)
      }
      if round % 5 == 0 { bytes.removeLast(Int.random(in: 0..<bytes.count / 2, using: &random)) }
      repairChecksums(&bytes)
      do {
        let read = try decode(bytes, round % 2 == 0 ? .strict : .upToLastWholeChunk)
        // What a reader accepts, a writer accepts too: both know the same impossible events.
        _ = try encode(
          read.events, header: TraceReader(TraceFile(bytes), tolerance: .upToLastWholeChunk).header)
      } catch let error as TraceError {
        if case .event = error.location { Issue.record("seed \(seed): accepted by the reader only: \(error)") }
        refused += 1
      }
    }
    #expect(refused > 1000)
  }

  @Test("that repeats a death, frees the unborn or exceeds its counts is refused at the byte of the event")
  func impossibleEvents() throws {
    let birth = TraceEvent(time: 0, thread: 0, body: .allocate(object: 0, bytes: 8, alignment: 1, kind: .plain))
    let death = TraceEvent(time: 0, thread: 0, body: .free(object: 0))
    var bytes = try encode([birth, death])
    let payload = try encode([]).count - EndRecord.byteCount + ChunkHeader.byteCount
    // A birth of two bytes (an explicit size), then a death of one.
    bytes[payload + 2] = EventClass.death | 1 << 5
    repairChecksums(&bytes)
    #expect(
      refusal(bytes)
        == TraceError(.impossibleEvent("free of object -1, which was not born"), at: .byte(payload + 2)))
    bytes[payload + 2] = EventClass.birth
    repairChecksums(&bytes)
    #expect(
      refusal(bytes)
        == TraceError(.impossibleEvent("more births than the chunk's header says"), at: .byte(payload + 2)))
  }
}
