// The text form: what is printed is read back, and what is not understood is refused with its line.

import Testing
import TraceFormat

@Suite("The text form") struct TextFormTests {
  private func text(_ bytes: [UInt8]) throws -> String {
    var reader = try TraceReader(TraceFile(bytes))
    var text = TraceText.lines(of: reader.header)
    while let event = try reader.next() { text += TraceText.line(of: event) }
    return text + TraceText.line(of: reader.ending!)
  }

  private func pack(_ text: String) throws -> [UInt8] {
    var bytes: [UInt8] = []
    try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
      try TraceText.pack(TraceFile(Array(text.utf8)), to: .function(sink))
    }
    return bytes
  }

  @Test("gives back the same bytes", arguments: 1...10)
  func roundTrip(seed: UInt64) throws {
    let header = TraceHeader(
      program: "/a b/c\\d\ne", arguments: ["", " x ", "#", "ü\r"], system: "Linux", pageBytes: 16384,
      timeUnitNanoseconds: seed % 2 == 0 ? 1000 : 1, startNanoseconds: 17)
    let events = randomTrace(seed: seed, count: 2000, unit: header.timeUnitNanoseconds)
    let bytes = try encode(events, header: header, ending: .signalled(signal: 9))
    #expect(try pack(text(bytes)) == bytes, "seed \(seed)")
  }

  @Test("gives back the same bytes of a trace of spans", arguments: 1...10)
  func spanRoundTrip(seed: UInt64) throws {
    let bytes = try encode(randomSpanTrace(seed: seed, count: 2000), header: spanHeader, ending: .stopped)
    #expect(try pack(text(bytes)) == bytes, "seed \(seed)")
  }

  @Test("of spans may be written by hand")
  func spansByHand() throws {
    let bytes = try pack(
      """
      hstrace 2
      level span
      0 0 span 0 16 aligned 512 zeroed short many
      1 0 resize-span 0 20 zeroed
      2 0 free-pages 0 3 2 tail 1 joined
      2 0 refused-growth 1 99
      3 1 free 1
      """)
    let read = try decode(bytes).events.map(\.body)
    #expect(
      read == [
        .allocateSpan(
          span: 0, pages: 16,
          traits: SpanTraits(alignmentPages: 512, isZeroed: true, lifetime: .short, objects: .many)),
        .resizeSpan(span: 0, pages: 20, isZeroed: true),
        .freePages(span: 0, first: 3, pages: 2, tail: 1, isJoined: true),
        .refuseGrowth(span: 1, pages: 99, isZeroed: false), .free(object: 1),
      ])
  }

  @Test("may be written by hand, with comments and without a header")
  func byHand() throws {
    let bytes = try pack(
      """
      hstrace 1
      # two objects

      0 0 allocate 0 100
      0.5 1 allocate 1 4096 aligned 64
      1.25 0 free 0
      """)
    let read = try decode(bytes)
    #expect(read.events.map(\.time) == [0, 500_000_000, 1_250_000_000])
    #expect(read.events[1].body == .allocate(object: 1, bytes: 4096, alignment: 64, kind: .aligned))
    #expect(read.ending == .exited(status: 0))
  }

  @Test(
    "is refused with the line",
    arguments: [
      ("x", 1), ("", 1), ("hstrace 3", 1), ("hstrace 2\nlevel page", 2),
      ("hstrace 1\nlevel span", 2), ("hstrace 1\n0 0 span 0 1", 2), ("hstrace 2\n0 0 span 0 1", 2),
      ("hstrace 2\nlevel span\n0 0 allocate 0 1", 3), ("hstrace 2\nlevel span\n0 0 span 0 1 red", 3),
      ("hstrace 2\nlevel span\n0 0 span 0 9\n0 0 free-pages 0 3 2", 4),
      ("hstrace 2\nlevel span\n0 0 span 0 9\n0 0 free-pages 0 3 7", 4),
      ("hstrace 2\nlevel span\n0 0 span 0 9\n0 0 free-pages 0 3 6 tail 1", 4),
      ("hstrace 2\nlevel span\n0 0 span 0 9\n0 0 resize-span 0 9 zeros", 4), ("hstrace 1\npage-bytes 5", 2),
      ("hstrace 1\n0 0 alloc 0 1", 2),
      ("hstrace 1\n0 0 allocate 0 1\n\n0 0 free 1", 4), ("hstrace 1\n0 0 allocate 0 1 red", 2),
      ("hstrace 1\n0 0 allocate 0 1 zeroed 3", 2), ("hstrace 1\nzero 0 allocate 0 1", 2),
      ("hstrace 1\n0 0 allocate 0", 2),
      ("hstrace 1\n1 0 allocate 0 1\n0 0 free 0", 3), ("hstrace 1\nend exited", 2),
      ("hstrace 1\nend stopped\n0 0 free 0", 3),
      ("hstrace 1\n0 0 sample cpu 1", 2), ("hstrace 1\nprogram a\\q", 2),
      ("hstrace 1\n0 0 allocate 0 99999999999999999999", 2),
      ("hstrace 1\n99999999999999 0 allocate 0 1", 2), ("hstrace 1\n0.1234567890 0 allocate 0 1", 2),
    ])
  func refusals(text: String, line: Int) {
    let error = #expect(throws: TraceError.self) { _ = try pack(text) }
    #expect(error?.location == .line(line), "\(text): \(String(describing: error))")
  }
}
