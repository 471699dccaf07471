// The recorded program over time, between its samples.

import TraceFormat

/// Walks the samples of a trace forward in time.
package struct SampleCursor {
  private let samples: [TimedSample]
  private let fractions: [Double]
  private var index = 0

  package init(_ program: borrowing TraceProgram) {
    samples = program.samples
    fractions = program.touchedFractions
  }

  private mutating func advance(to time: UInt64) {
    while index + 1 < samples.count, samples[index + 1].time <= time { index += 1 }
  }

  /// CPU time of the recorded program at `time`, interpolated between samples. Times may not decrease.
  package mutating func processCPU(at time: UInt64) -> UInt64 {
    guard !samples.isEmpty else { return 0 }
    advance(to: time)
    let before = samples[index]
    if time <= before.time {
      let share = before.time == 0 ? 1 : Double(time) / Double(before.time)
      return UInt64(share * Double(before.sample.cpuNanoseconds))
    }
    guard index + 1 < samples.count else { return before.sample.cpuNanoseconds }
    let after = samples[index + 1]
    let share = Double(time - before.time) / Double(after.time - before.time)
    let gained = after.sample.cpuNanoseconds &- before.sample.cpuNanoseconds
    // A program that replaced itself starts its clock anew.
    if after.sample.cpuNanoseconds < before.sample.cpuNanoseconds { return before.sample.cpuNanoseconds }
    return before.sample.cpuNanoseconds + UInt64(share * Double(gained))
  }

  /// Share of a large object's pages that the recorded program touched around `time`; 1 without samples.
  package mutating func touchedFraction(at time: UInt64) -> Double {
    guard !samples.isEmpty else { return 1 }
    advance(to: time)
    return fractions[index]
  }
}
