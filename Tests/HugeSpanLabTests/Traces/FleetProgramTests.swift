// Programs made up from profiles: births, lifetimes and live memory are the profile's.

import Foundation
import Testing
import TraceFormat

@testable import HugeSpanLab

private let sizes = FleetProfile([
  .init(bytes: 64, birthsPerSecond: 4_000, live: 2_000), .init(bytes: 3000, birthsPerSecond: 100, live: 500),
  .init(bytes: 200_000, birthsPerSecond: 2, live: 60),
])

private func events(
  _ shape: TraceShape, seed: UInt64, peak: Int, seconds: UInt64, startUp: UInt64? = nil
) throws -> [TraceEvent] {
  let path = NSTemporaryDirectory() + "fleet-\(UUID().uuidString).hstrace"
  defer { unlink(path) }
  let file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
  try #require(file >= 0)
  defer { close(file) }
  try FleetProgram(
    sizes, name: "test", shape: shape, seed: seed, peakBytes: peak, nanoseconds: seconds * 1_000_000_000,
    startUpNanoseconds: startUp
  ).write(to: file)
  var reader = try TraceReader(TraceFile(path: path))
  var result: [TraceEvent] = []
  while let event = try reader.next() { result.append(event) }
  return result
}

/// Live bytes, and of each size its live objects, at `seconds`.
private func living(_ events: [TraceEvent], at seconds: Double) -> (bytes: Int, counts: [Int: Int]) {
  var objects: [Int: Int] = [:]
  for event in events where Double(event.time) / 1e9 <= seconds {
    switch event.body {
    case .allocate(let object, let bytes, _, _): objects[object] = bytes
    case .free(let object): objects[object] = nil
    default: break
    }
  }
  return (objects.values.reduce(0, +), objects.values.reduce(into: [:]) { $0[$1, default: 0] += 1 })
}

@Suite struct FleetProgramTests {
  /// The profile's own live memory as the peak, so that counts are the profile's.
  private static let peak = Int(sizes.liveBytes)

  @Test func keepsTheProfilesObjectsAliveUnderASteadyLoad() throws {
    let events = try events(.steady, seed: 3, peak: Self.peak, seconds: 20)
    for time in [1.0, 3, 19] {
      let (bytes, counts) = living(events, at: time)
      // Five standard deviations of a Poisson count.
      for size in sizes.sizes {
        let count = Double(counts[size.bytes] ?? 0)
        #expect(abs(count - size.live) < 5 * size.live.squareRoot(), "\(size) at \(time): \(count)")
      }
      #expect(abs(Double(bytes) / Double(Self.peak) - 1) < 0.5)
    }
  }

  @Test func bearsAsManyASecondAsTheProfileSays() throws {
    let events = try events(.steady, seed: 4, peak: Self.peak, seconds: 20)
    var births: [Int: Double] = [:]
    for event in events where event.time > 1_000_000_000 {
      if case .allocate(_, let bytes, _, _) = event.body { births[bytes, default: 0] += 1 }
    }
    for size in sizes.sizes {
      let expected = size.birthsPerSecond * 19
      #expect(abs((births[size.bytes] ?? 0) - expected) < 5 * expected.squareRoot(), "\(size)")
    }
  }

  @Test func livesExponentially() throws {
    let events = try events(.steady, seed: 5, peak: Self.peak, seconds: 20)
    var born: [Int: UInt64] = [:]
    var lives: [Double] = []
    for event in events {
      switch event.body {
      case .allocate(let object, 64, _, _): if event.time > 1_000_000_000 { born[object] = event.time }
      case .free(let object): if let birth = born[object] { lives.append(Double(event.time - birth) / 1e9) }
      default: break
      }
    }
    // Mean and median of an exponential distribution whose mean is half a second.
    lives.sort()
    #expect(abs(lives.reduce(0, +) / Double(lives.count) - 0.5) < 0.02)
    #expect(abs(lives[lives.count / 2] - 0.5 * 0.6931) < 0.02)
  }

  @Test func startsUpForAsLongAsItIsAskedTo() throws {
    let slow = try events(.steady, seed: 8, peak: Self.peak, seconds: 20, startUp: 10_000_000_000)
    for (time, share) in [(2.0, 0.2), (5, 0.5), (15, 1)] {
      let count = Double(living(slow, at: time).counts[64] ?? 0)
      #expect(abs(count - 2000 * share) < 5 * (2000 * share).squareRoot(), "\(count) at \(time)")
    }
    let atOnce = try events(.steady, seed: 8, peak: Self.peak, seconds: 20, startUp: 0)
    #expect(abs(Double(living(atOnce, at: 0).counts[64] ?? 0) - 2000) < 250)
  }

  @Test func followsTheLoad() throws {
    let events = try events(.dropAndRise, seed: 6, peak: Self.peak, seconds: 30)
    let small = { living(events, at: $0).counts[64] ?? 0 }
    #expect(abs(Double(small(20)) / 0.3 / 2_000 - 1) < 0.25 && abs(Double(small(28)) / 2_000 - 1) < 0.15)
  }

  @Test func isTheSameFromOneSeedAndAnotherFromAnother() throws {
    let first = try events(.spiky, seed: 7, peak: Self.peak / 4, seconds: 3)
    #expect(try events(.spiky, seed: 7, peak: Self.peak / 4, seconds: 3) == first)
    #expect(try events(.spiky, seed: 8, peak: Self.peak / 4, seconds: 3) != first)
  }

  @Test func leavesOutWhatIsTooLargeForThePeak() {
    let program = FleetProgram(sizes, name: "test", shape: .steady, seed: 1, peakBytes: 400_000, nanoseconds: 1)
    #expect(program.omittedSizes == 1)
  }
}
