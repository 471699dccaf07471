// The figures of `trace info`, on traces that are small enough to count by hand.

import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("The summary of a trace") struct TraceSummaryTests {
  private func summary(_ text: String, dropping lost: Int = 0) throws -> TraceSummary {
    var bytes: [UInt8] = []
    _ = try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
      try TraceText.pack(TraceFile(Array(text.utf8)), to: .function(sink))
    }
    bytes.removeLast(lost)
    return try TraceSummary(of: TraceReader(TraceFile(bytes), tolerance: .upToLastWholeChunk))
  }

  private let small = """
    hstrace 1
    program small
    1 0 allocate 0 1000
    2 0 allocate 1 3000 zeroed
    2.5 1 sample cpu 500000000 anonymous 8000 huge 4096 minor 7 major 1
    3 1 free 0
    4 1 resize 1 100
    5 1 sample cpu 2500000000 anonymous 6000 huge 0 minor 9 major 1
    10 0 allocate 2 64 aligned 64
    end exited 3

    """

  @Test("counts events, bytes and threads, and relates them to the program's memory") func counts() throws {
    let summary = try summary(small)
    #expect(summary.events == 7)
    #expect(summary.births == [.plain: 1, .zeroed: 1, .aligned: 1])
    #expect((summary.frees, summary.resizes, summary.samples, summary.threads) == (1, 1, 2, 2))
    #expect(summary.nanoseconds == 10_000_000_000)
    #expect(summary.peak == TraceSummary.Point(time: 2_000_000_000, liveBytes: 4000))
    #expect((summary.liveAtEnd, summary.liveObjectsAtEnd) == (164, 2))
    #expect((summary.peakAnonymousBytes, summary.liveAtAnonymousPeak) == (8000, 4000))
    #expect(summary.recordedShare == 0.5)
    #expect(summary.busyShare == 0.25)
    #expect(summary.peakHugeBytes == 4096)
    #expect(summary.longestSampleGap == 2_500_000_000)
    #expect(summary.ending == .exited(status: 3))
    #expect(summary.sizeClasses[9] == TraceSummary.SizeClass(births: 1, bytes: 1000))
    #expect(summary.sizeClasses[11] == TraceSummary.SizeClass(births: 1, bytes: 3000))
  }

  @Test("says of a trace without its end that it is cut") func cut() throws {
    let summary = try summary(small, dropping: 5)
    guard case .cut = summary.ending else {
      Issue.record("\(summary.ending)")
      return
    }
    #expect(summary.events == 7)
    #expect(summary.text(path: "x").contains("cut off, whole up to byte"))
    #expect(summary.json(path: "x").contains("\"isCut\": true"))
  }

  @Test("finds drops to half, how long they last, and the rise after") func drops() throws {
    var text = "hstrace 1\nprogram waves\n"
    // Up to 100 by 10 s, down to 30 by 12 s, low until 40 s, up to 90 by 45 s, down to 70, up to 90, down to 0 at 60 s.
    for object in 0..<100 { text += "\(object / 10).\(object % 10) 0 allocate \(object) 1000000\n" }
    for object in 0..<70 { text += "\(10 + object / 35).\(object % 35 + 10) 0 free \(object)\n" }
    for object in 0..<60 { text += "\(40 + object / 12).\(object % 12 + 10) 0 allocate \(100 + object) 1000000\n" }
    for object in 100..<120 { text += "50.\(object) 0 free \(object)\n" }
    for object in 0..<20 { text += "52.\(object + 10) 0 allocate \(160 + object) 1000000\n" }
    for object in Array(70..<100) + Array(120..<180) { text += "60 0 free \(object)\n" }
    text += "61 0 allocate 180 1\n"
    let drops = try summary(text).drops
    try #require(drops.count == 2)
    #expect(drops[0].from.liveBytes == 100_000_000)
    #expect(drops[0].to.liveBytes == 30_000_000)
    #expect((29.0...31.5).contains(Double(drops[0].lowNanoseconds) / 1e9))
    #expect(drops[0].riseTo?.liveBytes == 90_000_000)
    #expect(drops[1].from.liveBytes == 90_000_000)
    #expect(drops[1].to.liveBytes <= 1)
    #expect(drops[1].riseTo == nil)
  }

  @Test("keeps the curve of a long trace short, and its peaks") func longCurve() {
    var curve = LiveCurve()
    for second in 0..<100_000 {
      curve.add(second == 77_000 ? 5 : 1, at: UInt64(second) * 1_000_000_000)
    }
    curve.finish(at: 100_000_000_000_000)
    #expect(curve.points.count <= 8193)
    #expect(curve.points.count > 4000)
    #expect(curve.points.last?.liveBytes == 100_004)
    #expect(curve.peak.liveBytes == 100_004)
    #expect(zip(curve.points, curve.points.dropFirst()).allSatisfy { $0.time < $1.time })
  }

  @Test("tells dates") func dates() {
    #expect(utcText(seconds: 0) == "1970-01-01 00:00:00 UTC")
    #expect(utcText(seconds: 951_782_399) == "2000-02-28 23:59:59 UTC")
    #expect(utcText(seconds: 951_868_799) == "2000-02-29 23:59:59 UTC")
    #expect(utcText(seconds: 1_767_225_600) == "2026-01-01 00:00:00 UTC")
  }
}
