// Figures of a machine that is not quiet: medians, their spread, and how much others disturbed.

import Glibc

/// Repeated measurements of one quantity.
package struct Measured: Equatable, Sendable {
  package var median: Double
  /// Quartiles.
  package var low: Double
  package var high: Double
  package var count: Int

  /// - Precondition: there is a sample.
  package init(_ samples: [Double]) {
    let sorted = samples.sorted()
    count = sorted.count
    func quantile(_ share: Double) -> Double {
      let place = share * Double(sorted.count - 1)
      let index = Int(place)
      let next = min(index + 1, sorted.count - 1)
      return sorted[index] + (sorted[next] - sorted[index]) * (place - Double(index))
    }
    median = quantile(0.5)
    low = quantile(0.25)
    high = quantile(0.75)
  }

  /// Interquartile range by the median.
  package var spread: Double { median > 0 ? (high - low) / median : 0 }
}

/// CPU time of the calling thread, in microseconds.
func threadMicroseconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return Double(time.tv_sec) * 1e6 + Double(time.tv_nsec) / 1e3
}

/// CPU time by everyone and by this process, to tell how much others worked meanwhile.
struct Disturbance {
  private let others: Double
  private let start: Double

  init() {
    others = Self.othersSeconds()
    start = Self.now()
  }

  /// CPUs that others kept busy since the start, stolen time included; nil where /proc does not tell.
  var busyCPUs: Double? {
    let elapsed = Self.now() - start
    let spent = Self.othersSeconds() - others
    return elapsed > 0 && spent.isFinite ? max(0, spent / elapsed) : nil
  }

  private static func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  private static func othersSeconds() -> Double {
    // user nice system idle iowait irq softirq steal, in clock ticks.
    guard let line = contents(ofFile: "/proc/stat")?.split(separator: "\n").first else { return .nan }
    let fields = line.split(separator: " ").dropFirst().compactMap { Double($0) }
    guard fields.count >= 8 else { return .nan }
    let busy =
      (fields[0] + fields[1] + fields[2] + fields[5] + fields[6] + fields[7]) / Double(sysconf(Int32(_SC_CLK_TCK)))
    var own = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own)
    return busy - Double(own.tv_sec) - Double(own.tv_nsec) / 1e9
  }
}
