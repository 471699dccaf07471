import Foundation
import Glibc
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

private func sample(_ time: UInt64, cpu: UInt64, anonymous: Int = 0) -> TraceEvent {
  TraceEvent(
    time: time, thread: 0,
    body: .sample(
      ProgramSample(cpuNanoseconds: cpu, anonymousBytes: anonymous, hugeBytes: 0, minorFaults: 0, majorFaults: 0)))
}

@Suite("Decoding a trace for replay")
struct TraceProgramTests {
  @Test("slots are reused, totals are exact, a free knows its size")
  func slots() throws {
    let program = try TraceProgram(
      traceFile([
        allocation(0, 100), allocation(1, 300_000), release(0), allocation(2, 50, at: milliseconds(5)),
        TraceEvent(time: milliseconds(6), thread: 0, body: .resize(object: 1, bytes: 600_000)),
        release(1, at: milliseconds(7)),
      ]))
    #expect(program.slotCount == 2)
    #expect(program.steps[3].slot == program.steps[0].slot)
    #expect(program.steps[5].bytes == 600_000)
    #expect(program.summary.peakLiveBytes == 600_050)
    #expect(program.summary.allocations == 3 && program.summary.frees == 2 && program.summary.resizes == 1)
    #expect(program.summary.nanoseconds == milliseconds(7))
    #expect(program.summary.peakObjects == 2)
  }

  @Test("the program's CPU time is interpolated between samples")
  func processCPU() throws {
    let program = try TraceProgram(
      traceFile([
        allocation(0, 1), sample(milliseconds(100), cpu: 50), sample(milliseconds(200), cpu: 150),
        sample(milliseconds(300), cpu: 150),
      ]))
    var cursor = SampleCursor(program)
    #expect(cursor.processCPU(at: milliseconds(50)) == 25)
    #expect(cursor.processCPU(at: milliseconds(100)) == 50)
    #expect(cursor.processCPU(at: milliseconds(125)) == 75)
    #expect(cursor.processCPU(at: milliseconds(250)) == 150)
    #expect(cursor.processCPU(at: milliseconds(900)) == 150)
  }

  @Test("the touched share of large objects follows the recorded resident size, looking two seconds ahead")
  func touchedFraction() throws {
    let program = try TraceProgram(
      traceFile([
        allocation(0, 1 << 20), sample(milliseconds(100), cpu: 0, anonymous: 1 << 18),
        sample(milliseconds(1100), cpu: 0, anonymous: 1 << 19), sample(milliseconds(5000), cpu: 0, anonymous: 0),
      ]))
    var cursor = SampleCursor(program)
    #expect(cursor.touchedFraction(at: milliseconds(100)) == 0.5)
    #expect(cursor.touchedFraction(at: milliseconds(5000)) == 0)
  }

  @Test("a trace without its end is replayed as far as it is whole, and says so")
  func cutTrace() throws {
    var events = (0..<50_000).map { allocation($0, 64, at: UInt64($0) * 1000) }
    events.append(release(0, at: milliseconds(51)))
    let whole = try traceFile(events)
    let cut = TraceFile(Array(whole.bytes.prefix(whole.bytes.count - 10)))
    let program = try TraceProgram(cut)
    #expect(program.steps.count > 10_000)
    guard case .cut = program.ending else {
      Issue.record("the ending is \(program.ending)")
      return
    }
  }

  @Test("damage is an error with its place")
  func damage() throws {
    var bytes = try traceFile([allocation(0, 64), release(0)]).copy
    bytes[bytes.count - 40] ^= 0xFF
    #expect(throws: TraceError.self) { _ = try TraceProgram(TraceFile(bytes)) }
  }
}

@Suite("Generated traces")
struct SyntheticTraceTests {
  private func bytes(_ trace: SyntheticTrace) throws -> [UInt8] {
    let folder = try TemporaryFolder()
    let path = folder.path + "/t"
    let file = open(path, O_WRONLY | O_CREAT, 0o600)
    try trace.write(to: file)
    close(file)
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  private func small(_ shape: TraceShape, seed: UInt64 = 7) -> SyntheticTrace {
    var trace = SyntheticTrace()
    trace.shape = shape
    trace.seed = seed
    trace.peakBytes = 16 << 20
    trace.nanoseconds = 3_000_000_000
    return trace
  }

  @Test("every shape is readable, reaches its peak and no more", arguments: TraceShape.allCases)
  func shapes(_ shape: TraceShape) throws {
    let program = try TraceProgram(TraceFile(bytes(small(shape))))
    #expect(program.summary.peakLiveBytes > 15 << 20 && program.summary.peakLiveBytes < 24 << 20)
    #expect(program.samples.count >= 29)
    #expect(abs(Double(program.summary.nanoseconds) - 3e9) < 1e7)
  }

  @Test("the seed decides everything")
  func seeds() throws {
    let first = try bytes(small(.spiky))
    #expect(first == (try bytes(small(.spiky))))
    #expect(first != (try bytes(small(.spiky, seed: 8))))
  }

  @Test("drop-and-rise drops below half and comes back")
  func drop() throws {
    let program = try TraceProgram(TraceFile(bytes(small(.dropAndRise))))
    let middle = program.samples.filter { $0.time > 1_500_000_000 && $0.time < 2_000_000_000 }
    #expect(!middle.isEmpty && middle.allSatisfy { $0.sample.anonymousBytes < 8 << 20 })
    #expect(program.samples.last!.sample.anonymousBytes > 14 << 20)
  }
}
