import Foundation
import Glibc
import HugeSpanCore
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("Replay on the real kernel")
struct ReplayTests {
  /// A short program with two drops.
  private func program() throws -> TraceFile {
    let folder = try TemporaryFolder()
    let path = folder.path + "/t"
    let file = open(path, O_WRONLY | O_CREAT, 0o600)
    var trace = SyntheticTrace()
    trace.peakBytes = 32 << 20
    trace.nanoseconds = 8_000_000_000
    trace.churnPerSecond = 2000
    try trace.write(to: file)
    close(file)
    return try TraceFile(path: path)
  }

  private func run(_ file: TraceFile, _ configure: (inout ReplayOptions) throws -> Void) throws -> RunResult {
    var options = ReplayOptions()
    options.residencyEvery = nil
    options.samples = 20
    try configure(&options)
    let program = try TraceProgram(file)
    return try replay(program, options: options, group: nil)
  }

  @Test(
    "the same trace gives the same decisions, whatever is touched and measured",
    arguments: ["immediate dontneed", "gperftools:rate=10 split-dontneed", "seed:rate=900 dontneed", "seed free-whole"])
  func deterministic(_ pair: String) throws {
    let words = pair.split(separator: " ").map(String.init)
    let file = try program()
    func decisions(_ touch: TouchMode, _ samples: Int) throws -> [String: Int] {
      try run(file) {
        $0.policy = try PolicyChoice(notation: words[0])
        $0.strategy = try StrategyChoice(notation: words[1])
        $0.touch = touch
        $0.samples = samples
        $0.heap.effectSamplePeriod = 0
      }.decisions
    }
    let first = try decisions(.all, 20)
    #expect(first["allocations"]! > 1000 && first["ticks"]! > 7)
    #expect(try decisions(.all, 100) == first)
    #expect(try decisions(.none, 0) == first)
  }

  @Test("with residency passes, the answers of one run make another decide the same")
  func residencyLog() throws {
    let file = try program()
    let folder = try TemporaryFolder()
    let log = folder.path + "/answers"
    func run(_ mode: ResidencyLog.Mode, _ touch: TouchMode) throws -> RunResult {
      try self.run(file) {
        $0.policy = .seed(SeedOptions())
        $0.strategy = StrategyChoice(.dontneed)
        $0.residencyEvery = 500_000_000
        $0.residencyLog = mode
        $0.touch = touch
      }
    }
    let written = try run(.writing(path: log), .all)
    #expect(written.residencyPasses >= 15)
    // Nothing is resident in this run, but the answers say what was in the first.
    let read = try run(.reading(path: log), .none)
    #expect(read.decisions == written.decisions)

    let lines = try #require(contents(ofFile: log)).split(separator: "\n").map(String.init)
    #expect(lines.count >= 15)
    try (lines.dropLast(1) + ["1 2 nonsense"]).joined(separator: "\n").write(
      toFile: log, atomically: true, encoding: .utf8)
    #expect(throws: ReplayFailure.residencyLog(.malformed(path: log, line: lines.count))) {
      try run(.reading(path: log), .none)
    }
    try lines.prefix(3).joined(separator: "\n").write(toFile: log, atomically: true, encoding: .utf8)
    #expect(throws: ReplayFailure.residencyLog(.differs(line: 4))) { try run(.reading(path: log), .none) }
    #expect(throws: ReplayFailure.residencyLog(.system(path: "/nowhere/log", code: ENOENT))) {
      try run(.reading(path: "/nowhere/log"), .none)
    }
  }

  @Test("ticks and samples go on while the program idles, at least every second and 500 times")
  func idle() throws {
    let file = try traceFile([
      allocation(0, 4 << 20), release(0, at: milliseconds(20)),
      allocation(1, 64, at: milliseconds(30_000)), release(1, at: milliseconds(30_000)),
    ])
    let result = try run(file) {
      $0.policy = .immediate
      $0.strategy = StrategyChoice(.dontneed)
      $0.samples = 500
    }
    #expect(result.ticks >= 29 && result.samples >= 500)
    #expect(result.releasedPages >= 1024)
    // Four MiB for 20 of 30,000 ms.
    #expect(result.usedBytes!.mean < 100_000 && result.usedBytes!.peak >= 4_194_304)
    #expect(result.seconds == 30)
  }

  @Test("a hard limit ends the run with the time at which it was hit")
  func hardLimit() throws {
    let file = try traceFile([allocation(0, 1 << 20), allocation(1, 64 << 20, at: milliseconds(70))])
    #expect(throws: ReplayFailure.heap(.limitExceeded, nanoseconds: milliseconds(70))) {
      try run(file) { $0.heap.hardLimitBytes = 16 << 20 }
    }
  }

  @Test("at a speed the run takes the time that it should")
  func speed() throws {
    let file = try traceFile([allocation(0, 4096), release(0, at: milliseconds(1000))])
    let result = try run(file) { $0.speed = 5 }
    #expect(result.wallSeconds >= 0.19 && result.speed == 5)
  }

  @Test("what is touched is counted as faults and as coverage by the kernel's word")
  func faults() throws {
    let file = try traceFile([allocation(0, 32 << 20), release(0, at: milliseconds(500))])
    let touched = try run(file) { $0.policy = .never }
    #expect(touched.faults! >= 16 && touched.faultCPUSeconds! > 0)
    #expect(touched.residentBytes!.peak >= 33_554_432)
    #expect((0...1).contains(touched.coverage!))
    let untouched = try run(file) {
      $0.policy = .never
      $0.touch = .none
    }
    #expect(untouched.faultCPUSeconds == 0 && untouched.residentBytes == nil && untouched.coverage == nil)
    #expect(untouched.chargedBytes == nil && untouched.overhead == nil)
  }
}
