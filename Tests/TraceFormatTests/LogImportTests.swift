// Logs of malloc: Android's for memory_replay and glibc's mtrace; what they say, what is refused in them and where.

import Testing

@testable import TraceFormat

private func importing(
  _ text: String, _ format: ImportFormat, rate: Int = 1000
) throws -> (bytes: [UInt8], report: LogImport) {
  var bytes: [UInt8] = []
  var report = LogImport()
  try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
    report = try LogImport.run(
      TraceFile(Array(text.utf8)), format: format, program: "log", eventsPerSecond: rate, to: .function(sink))
  }
  return (bytes, report)
}

private func bodies(_ text: String, _ format: ImportFormat) throws -> [TraceEventBody] {
  try decode(importing(text, format).bytes).events.map(\.body)
}

private func plain(_ object: Int, _ bytes: Int) -> TraceEventBody {
  .allocate(object: object, bytes: bytes, alignment: 1, kind: .plain)
}

@Suite("A log for Android's memory_replay") struct MemoryReplayLogTests {
  @Test("becomes objects: threads as they come, realloc keeps the object")
  func calls() throws {
    let (bytes, report) = try importing(
      """
      186: malloc 0xb6038060 20
      186: calloc 0xb609f080 32 4
      187: realloc 0xb609f090 0xb6038060 12\r
      186: memalign 0xae9d1000 16 104

      186: free 0xb609f080
      187: free 0xb609f090
      """, .memoryReplay)
    #expect(
      try decode(bytes).events == [
        TraceEvent(time: 0, thread: 0, body: plain(0, 20)),
        TraceEvent(
          time: 1_000_000, thread: 0, body: .allocate(object: 1, bytes: 128, alignment: 1, kind: .zeroed)),
        TraceEvent(time: 2_000_000, thread: 1, body: .resize(object: 0, bytes: 12)),
        TraceEvent(
          time: 3_000_000, thread: 0, body: .allocate(object: 2, bytes: 104, alignment: 16, kind: .aligned)),
        TraceEvent(time: 4_000_000, thread: 0, body: .free(object: 1)),
        TraceEvent(time: 5_000_000, thread: 1, body: .free(object: 0)),
      ])
    #expect(report == LogImport(events: 6, objects: 3))
  }

  @Test("with times has those at which calls began; thread_done has one, or none")
  func times() throws {
    let (bytes, report) = try importing(
      """
      7: thread_done 0x0 1
      8: malloc 0x10 20 5000000 5000300
      9: malloc 0x20 20 5004000 5004001
      8: malloc 0x30 20 5003000 5004001
      8: free 0x30 5009000 5009000
      8: thread_done 0x0
      """, .memoryReplay)
    #expect(try decode(bytes).events.map(\.time) == [0, 4000, 4000, 9000])
    #expect(try decode(bytes).events.map(\.thread) == [0, 1, 0, 0])
    let header = try TraceReader(TraceFile(bytes)).header
    #expect(header.startNanoseconds == 5_000_000 && header.timeUnitNanoseconds == 1000 && header.level == .malloc)
    #expect(report.hasTimes && report.earlierLines == 1)
    let fine = try importing("8: malloc 0x10 20 7 8\n8: free 0x10 1009 1010\n", .memoryReplay)
    #expect(try decode(fine.bytes).events.map(\.time) == [0, 1002])
  }

  @Test("gives a thread's number to another thread after thread_done")
  func threads() throws {
    let (bytes, _) = try importing(
      "5: malloc 0x10 1\n5: thread_done 0x0\n6: malloc 0x20 1\n5: malloc 0x30 1\n", .memoryReplay)
    #expect(try decode(bytes).events.map(\.thread) == [0, 1, 2])
  }

  @Test("may fail, begin in the middle and contradict itself; that is counted")
  func oddities() throws {
    let text = """
      1: malloc 0x0 18446744073709551615
      1: calloc 0x0 9999999999999999999 9999999999
      1: free 0x0
      1: free 0x70
      1: malloc 0x10 0
      1: malloc 0x10 5
      1: realloc 0x0 0x10 18446744073709551615
      1: realloc 0x10 0x10 7
      1: realloc 0x20 0x99 8
      1: realloc 0x20 0x10 9
      1: realloc 0x0 0x20 0
      1: realloc 0x40 0x0 3
      1: memalign 0x50 48 10
      1: memalign 0x60 0 11
      """
    #expect(
      try bodies(text, .memoryReplay) == [
        plain(0, 1), .free(object: 0), plain(1, 5), .resize(object: 1, bytes: 7), plain(2, 8), .free(object: 2),
        .resize(object: 1, bytes: 9), .free(object: 1), plain(3, 3),
        .allocate(object: 4, bytes: 10, alignment: 64, kind: .aligned),
        .allocate(object: 5, bytes: 11, alignment: 1, kind: .aligned),
      ])
    let report = try importing(text, .memoryReplay).report
    #expect(report.failedCalls == 3 && report.unknownReleases == 2 && report.unseenReleases == 2)
  }

  @Test(
    "is refused with line and column",
    arguments: [
      ("malloc 0x10 5", 1, 1), ("x: malloc 0x10 5", 1, 1), ("1 malloc 0x10 5", 1, 1), (": malloc 0x10 5", 1, 1),
      ("99999999999: malloc 0x10 5", 1, 1), ("1:", 1, 3), ("1: mmap 0x10 5", 1, 4), ("1: malloc", 1, 10),
      ("1: malloc 10 5", 1, 11), ("1: malloc 0x 5", 1, 11), ("1: malloc 0xg 5", 1, 11),
      ("1: malloc 0x11111111111111111 5", 1, 11), ("1: malloc 0x10", 1, 15), ("1: malloc 0x10 -5", 1, 16),
      ("1: malloc 0x10 281474976710656", 1, 16), ("1: calloc 0x10 5", 1, 17),
      ("1: calloc 0x10 99999999999 99999999999", 1, 16), ("1: realloc 0x10 5", 1, 17), ("1: memalign 0x10 16", 1, 20),
      ("1: memalign 0x10 4398046511104 8", 1, 18), ("\n1: free 0x10 5", 2, 15), ("1: free 0x10 5 4", 1, 16),
      ("1: free 0x10 5 6 7", 1, 18), ("1: free 0x10 5 x", 1, 16), ("1: free 0x10 9223372036854775807 1", 1, 14),
      ("1: malloc 0x10 5\n1: free 0x10 5 6", 2, 14), ("1: malloc 0x10 5 1 2\n1: free 0x10", 2, 13),
      ("1: thread_done 0x0 1 2", 1, 22), ("1: thread_done 0x0 x", 1, 20), ("1: thread_done", 1, 15),
    ])
  func refusals(text: String, line: Int, column: Int) {
    let error = #expect(throws: TraceError.self) { _ = try importing(text, .memoryReplay) }
    #expect(error?.location == .cell(line: line, column: column), "\(text): \(String(describing: error))")
  }

  @Test("says again what a trace says", arguments: 1...5)
  func roundTrip(seed: UInt64) throws {
    let start = randomTrace(seed: seed, count: 3000, unit: 1).filter {
      switch $0.body {
      case .sample, .allocate(_, _, _, .mapped): false
      default: true
      }
    }
    // Without the mappings the numbers of objects and threads have gaps, which the first import closes.
    let first = try decode(importing(log(start), .memoryReplay).bytes).events
    #expect(first.count > 500)
    #expect(try decode(importing(log(first), .memoryReplay).bytes).events == first)
  }

  /// The lines of these events, each object at an address of its own.
  private func log(_ events: [TraceEvent]) -> String {
    var text = ""
    for event in events {
      let call: String? =
        switch event.body {
        case .allocate(let object, let bytes, let alignment, let kind):
          switch kind {
          case .plain: "malloc \(address(object)) \(bytes)"
          case .zeroed: "calloc \(address(object)) 1 \(bytes)"
          default: "memalign \(address(object)) \(alignment) \(bytes)"
          }
        case .resize(let object, let bytes): "realloc \(address(object)) \(address(object)) \(bytes)"
        case .free(let object): "free \(address(object))"
        default: nil
        }
      if let call { text += "\(event.thread + 100): \(call) \(event.time + 77) \(event.time + 78)\n" }
    }
    return text
  }

  private func address(_ object: Int) -> String { "0x" + String(object * 16 + 4096, radix: 16) }
}

@Suite("A log of glibc's mtrace") struct MtraceLogTests {
  @Test("becomes objects, at the pace that is asked for")
  func calls() throws {
    let (bytes, report) = try importing(
      """
      = Start
      @ ./a program:(main+0x1e)[0x401146] + 0x1f3a6b0 0x64
      @ ./a - 0x5 + program:[0x401156] + 0x1f3a720 0x12c
      @ ./a program:(main+0x3e)[0x401166] < 0x1f3a6b0
      @ ./a program:(main+0x3e)[0x401166] > 0x1f3a900 0x1388
      @ [0x401176] ! 0x1f3a720 0xffffffffffffffff
      @ [0x401176] + (nil) 0x7fffffffffffffff
      + 0x1f3a6b0 0
      @ [0x401176] - 0x1f3a720
      - 0x1f3a900
      @ [0x401176] - 0x99
      = End

      """, .mtrace)
    #expect(
      try decode(bytes).events.map(\.body) == [
        plain(0, 100), plain(1, 300), .resize(object: 0, bytes: 5000), plain(2, 1), .free(object: 1), .free(object: 0),
      ])
    #expect(try decode(bytes).events.map(\.time) == (0..<6).map { $0 * 1_000_000 })
    #expect(report == LogImport(events: 6, objects: 3, unknownReleases: 1, failedCalls: 2))
    // The rate decides the clock where it is no whole number of microseconds.
    let fast = try importing("+ 0x10 0x5\n- 0x10\n", .mtrace, rate: 3_000_000)
    #expect(try decode(fast.bytes).events.map(\.time) == [0, 333])
  }

  @Test(
    "may end anywhere: in a line, or between the two lines of a realloc",
    arguments: ["@ [0x4] + 0x20 0x5", "@ [0x4] +", "@ [0", "= En", "@ [0x4] < 0x10\n", "@ [0x4] < 0x10\n@ [0x4] > 0"])
  func cut(rest: String) throws {
    let (bytes, report) = try importing("= Start\n@ [0x4] + 0x10 0x5\n" + rest, .mtrace)
    #expect(report.isCut)
    #expect(try decode(bytes).events.map(\.body) == [plain(0, 5)])
  }

  @Test("with its End is whole, with or without the end of that line", arguments: ["= End", "= End\n", ""])
  func whole(rest: String) throws {
    #expect(try importing("= Start\n@ [0x4] + 0x10 0x5\n" + rest, .mtrace).report.isCut == false)
  }

  @Test(
    "is refused with line and column",
    arguments: [
      ("= Begin", 1, 3), ("=", 1, 2), ("= Start now", 1, 3), ("malloc 0x10", 1, 1), ("@ [0x4]", 1, 8),
      ("@ [0x4] * 0x10 0x5", 1, 9), ("@ [0x4] + 0x10", 1, 11), ("@ [0x4] + 10 0x5", 1, 11), ("@ [0x4] +", 1, 10),
      ("@ [0x4] + 0x10 five", 1, 16), ("@ [0x4] + 0x10 0x1000000000000", 1, 16), ("@ [0x4] - 0x10 0x5", 1, 11),
      ("@ [0x4] - -0x10", 1, 11), ("@ [0x4] < 0x10\n= Start\n+ 0x20 0x5", 3, 1), ("\n@ [0x4] > 0x10 0x5", 2, 1),
      ("@ + 0x10 0x5", 1, 5), ("! 0x10 -1", 1, 8),
    ])
  func refusals(text: String, line: Int, column: Int) {
    let error = #expect(throws: TraceError.self) { _ = try importing(text + "\n", .mtrace) }
    #expect(error?.location == .cell(line: line, column: column), "\(text): \(String(describing: error))")
  }
}

@Suite("The kind of a table or log") struct ImportFormatTests {
  @Test(
    "is told by its first line",
    arguments: [
      ("= Start\n", .mtrace), ("\n  \n@ [0x4] - 0x10\n", .mtrace), ("- 0x10\n", .mtrace),
      ("186: malloc 0x10 5", .memoryReplay), ("186: what", .memoryReplay), (":", .jemallocTable),
      ("shard_ind,operation,size_or_alloc_index", .jemallocTable), ("", .jemallocTable), ("x: y", .jemallocTable),
    ] as [(String, ImportFormat)])
  func detection(text: String, format: ImportFormat) {
    #expect(ImportFormat.detect(TraceFile(Array(text.utf8))) == format)
  }
}
