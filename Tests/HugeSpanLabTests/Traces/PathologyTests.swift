// Pathologies are what their names say: each has the property that makes it one, at any seed.

import Foundation
import Testing
import TraceFormat

@testable import HugeSpanLab

/// What lived when, of a pathology.
private struct Life {
  var events: [TraceEvent] = []
  var bytes: [Int] = []
  var births: [UInt64] = []
  /// Nil for what outlives the trace.
  var deaths: [UInt64?] = []
  var file: [UInt8] = []

  init(_ trace: PathologicalTrace) throws {
    let path = NSTemporaryDirectory() + "pathology-\(UUID().uuidString).hstrace"
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    try #require(descriptor >= 0)
    defer {
      close(descriptor)
      unlink(path)
    }
    try trace.write(to: descriptor)
    let whole = try TraceFile(path: path)
    file = whole.copy
    var reader = try TraceReader(whole)
    while let event = try reader.next() {
      events.append(event)
      switch event.body {
      case .allocate(_, let size, _, _):
        bytes.append(size)
        births.append(event.time)
        deaths.append(nil)
      case .free(let object): deaths[object] = event.time
      default: break
      }
    }
  }

  init(_ pathology: Pathology, seed: UInt64 = 3, breakEven: UInt64? = nil) throws {
    try self.init(trace(pathology, seed: seed, breakEven: breakEven))
  }

  /// Live bytes after each event.
  var live: [(time: UInt64, bytes: Int)] {
    var sum = 0
    return events.map { event in
      switch event.body {
      case .allocate(let object, _, _, _): sum += bytes[object]
      case .free(let object): sum -= bytes[object]
      default: break
      }
      return (event.time, sum)
    }
  }

  /// Times from a death after which nothing (but `base` bytes) lives to the next birth.
  func gaps(base: Int = 0) -> [UInt64] {
    var result: [UInt64] = []
    let live = live
    for (index, event) in events.enumerated() {
      guard case .free = event.body, live[index].bytes <= base else { continue }
      let next = events[(index + 1)...].first { if case .allocate = $0.body { true } else { false } }
      if let next { result.append(next.time - event.time) }
    }
    return result
  }
}

private let peak = 32 << 20
private let length: UInt64 = 20_000_000_000

private func trace(_ pathology: Pathology, seed: UInt64 = 3, breakEven: UInt64? = nil) -> PathologicalTrace {
  var trace = PathologicalTrace(pathology)
  trace.seed = seed
  trace.peakBytes = peak
  trace.nanoseconds = length
  if let breakEven { trace.breakEven = breakEven }
  return trace
}

@Suite("A pathology") struct PathologyTests {
  @Test("is decided by its seed, keeps to peak and length, and can be replayed", arguments: Pathology.allCases)
  func basics(_ pathology: Pathology) throws {
    let life = try Life(pathology)
    #expect(life.file == (try Life(pathology).file))
    #expect(life.file != (try Life(pathology, seed: 4).file))
    let most = life.live.map(\.bytes).max()!
    #expect(most <= peak && most > peak * 8 / 10, "\(most)")
    #expect(life.events.last!.time <= length && life.events.last!.time > length - 200_000_000)
    let program = try TraceProgram(TraceFile(life.file))
    #expect(program.samples.count >= 200 && program.summary.objects == life.bytes.count)
  }

  @Test("of any peak and length that is allowed is a trace", arguments: Pathology.allCases)
  func extremes(_ pathology: Pathology) throws {
    for (peakBytes, breakEven) in [
      (PathologicalTrace.leastPeakBytes, 1_000_000), (100_000_007, 30_000_000),
    ] as [(Int, UInt64)] {
      var small = trace(pathology, breakEven: breakEven)
      small.peakBytes = peakBytes
      small.nanoseconds = small.leastNanoseconds
      let life = try Life(small)
      #expect(life.live.map(\.bytes).max()! <= peakBytes && life.bytes.count > 1)
      #expect(life.events.last!.time <= small.nanoseconds)
    }
  }

  @Test("large-then-small: in turn, and only the small ones stay where the large ones were")
  func largeThenSmall() throws {
    let life = try Life(.largeThenSmall)
    for index in life.bytes.indices {
      #expect(index % 2 == 0 ? life.bytes[index] >= 1 << 20 : life.bytes[index] <= 32 << 10)
    }
    // The sizes of large ones only grow, and a small one outlives its neighbours but at the end.
    let larges = stride(from: 0, to: life.bytes.count, by: 2).map { life.bytes[$0] }
    #expect(larges == larges.sorted() && Set(larges).count == 12)
    for index in stride(from: 1, to: life.bytes.count, by: 2) {
      #expect(life.deaths[index - 1]! < life.deaths[index] ?? .max)
    }
    // Of the memory little is left each time that the large ones have died.
    #expect(life.live.filter { $0.time > length / 24 }.map(\.bytes).min()! < peak / 20)
  }

  @Test("alternating: every second one dies, and what comes next is twice as long")
  func alternating() throws {
    let life = try Life(.alternating)
    // The rows: neighbours of the same length that were born together.
    var rows: [Range<Int>] = []
    for index in life.bytes.indices {
      if let last = rows.last, life.bytes[last.lowerBound] == life.bytes[index] {
        rows[rows.count - 1] = last.lowerBound..<index + 1
      } else {
        rows.append(index..<index + 1)
      }
    }
    #expect(rows.map { life.bytes[$0.lowerBound] >> 15 } == [1, 2, 4, 8, 16, 32, 1, 2, 4, 8, 16, 32])
    for (row, next) in zip(rows, rows.dropFirst()) where life.bytes[next.lowerBound] > life.bytes[row.lowerBound] {
      let survivors = row.filter { life.deaths[$0] ?? .max > life.births[next.lowerBound] }
      #expect(abs(survivors.count - row.count / 2) <= 1)
      #expect(zip(survivors, survivors.dropFirst()).allSatisfy { $1 - $0 == 2 })
    }
  }

  @Test("phases: small ones and large ones have all of the memory in turn")
  func phases() throws {
    let life = try Life(.phases)
    let phase = length / 10
    for index in life.bytes.indices {
      let isSmall = life.births[index] / phase % 2 == 0
      #expect(isSmall ? life.bytes[index] <= 32 << 10 : life.bytes[index] >= 1 << 20)
    }
    #expect(life.gaps().count == 9)
  }

  @Test("just-over-hugepage: every object is, by one to sixteen pages, and the set is replaced all the time")
  func justOverHugepage() throws {
    let life = try Life(.justOverHugepage)
    #expect(life.bytes.allSatisfy { $0 > 2 << 20 && $0 <= (2 << 20) + (64 << 10) && $0 % 4096 == 0 })
    #expect(life.bytes.count == peak / ((2 << 20) + (64 << 10)) * 11)
    let after = life.live.filter { $0.time > length / 20 }.map(\.bytes)
    #expect(after.min()! > peak * 8 / 10)
  }

  @Test("one-time-drop: one drop, to a tenth, and no birth after it")
  func oneTimeDrop() throws {
    let life = try Life(.oneTimeDrop)
    let dead = life.deaths.compactMap { $0 }
    #expect(dead.min()! >= length * 4 / 10 && dead.max()! - dead.min()! <= length / 200)
    #expect(life.births.max()! < dead.min()!)
    let left = life.live.last!.bytes
    #expect(left <= peak / 10 && left > peak / 50)
    // What is left is strewn over all that was born.
    let survivors = life.bytes.indices.filter { life.deaths[$0] == nil }
    #expect(survivors.first! < life.bytes.count / 20 && survivors.last! > life.bytes.count * 19 / 20)
  }

  @Test("survivors: exactly one of each 2 MiB outlives its round, and the next")
  func survivors() throws {
    let life = try Life(.survivors)
    let round = length / 6
    #expect(life.bytes.allSatisfy { $0 == 32 << 10 } && life.bytes.count % 64 == 0)
    var places: Set<Int> = []
    for block in 0..<life.bytes.count / 64 {
      let members = block * 64..<block * 64 + 64
      // Times are whole microseconds.
      let end = ((life.births[block * 64] + 1000) / round + 1) * round
      let kept = members.filter { life.deaths[$0] ?? .max > end }
      #expect(kept.count == 1)
      places.formUnion(kept.map { $0 % 64 })
      #expect(kept.allSatisfy { life.deaths[$0] ?? .max > end + round / 4 })
    }
    #expect(places.count > 20, "always the same place")
  }

  @Test("refault-storm: all is gone for three break-even times and back in ten milliseconds")
  func refaultStorm() throws {
    let breakEven: UInt64 = 500_000_000
    let life = try Life(.refaultStorm, breakEven: breakEven)
    let gaps = life.gaps()
    #expect(gaps.count >= 9 && gaps.allSatisfy { $0 >= 3 * breakEven && $0 < 4 * breakEven })
    // Births come in bursts.
    var bursts: [[Int]] = []
    for index in life.bytes.indices {
      if let last = bursts.last?.last, life.births[index] - life.births[last] < 100_000_000 {
        bursts[bursts.count - 1].append(index)
      } else {
        bursts.append([index])
      }
    }
    for burst in bursts {
      #expect(life.births[burst.last!] - life.births[burst.first!] <= 10_000_000)
      #expect(burst.reduce(0) { $0 + life.bytes[$1] } > peak * 9 / 10)
    }
  }

  @Test("just-over-break-even: half of the memory is idle that long, and the other half never", arguments: [1, 2, 3])
  func justOverBreakEven(_ seed: UInt64) throws {
    let breakEven: UInt64 = 400_000_000
    let life = try Life(.justOverBreakEven, seed: seed, breakEven: breakEven)
    let gaps = life.gaps(base: peak / 2)
    #expect(gaps.count >= 20)
    #expect(gaps.allSatisfy { $0 > breakEven * 105 / 100 && $0 < breakEven * 125 / 100 }, "\(gaps)")
    #expect(Set(gaps).count > gaps.count / 2)
    #expect(life.live.filter { $0.time > breakEven / 2 }.map(\.bytes).min()! > peak * 45 / 100)
    // Each hugepage that is wanted back was idle that long, not only all of them together.
    let huge = life.bytes.indices.filter { life.bytes[$0] == 2 << 20 && life.births[$0] > breakEven / 4 }
    let count = peak / 2 / (2 << 20)
    for (object, next) in zip(huge, huge.dropFirst(count)) {
      let gap = life.births[next] - life.deaths[object]!
      #expect(gap > breakEven * 105 / 100 && gap < breakEven * 125 / 100)
    }
  }

  @Test("goes by the default prices' break-even, which is near a second")
  func breakEven() {
    #expect(Pathology.usualBreakEven == 962_000_000 || Pathology.usualBreakEven == 963_000_000)
    #expect(PathologicalTrace(.refaultStorm).breakEven == Pathology.usualBreakEven)
  }
}
