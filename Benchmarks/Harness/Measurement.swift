// How a case is timed.
//
// A case runs a number of operations and says nothing of time. The number is calibrated to about 20 ms, the case is
// warmed up, and then all peers of a comparison are sampled in turns, because on a shared machine the speed drifts by
// a factor of two within seconds and a ratio of neighbours in time is worth more than either figure. What is measured is
// the thread's CPU time.

import Glibc

/// One thing to time: a peer doing a named job.
package struct BenchmarkCase {
  /// The job, the same for all peers.
  package var name: String
  /// Who does it.
  package var peer: String
  /// Prepares, and returns what does `count` operations. Not timed.
  package var prepare: () -> ((_ count: Int) -> Void)?

  /// A case; `prepare` returns nil when the peer is not on this machine.
  package init(name: String, peer: String, prepare: @escaping () -> ((_ count: Int) -> Void)?) {
    self.name = name
    self.peer = peer
    self.prepare = prepare
  }
}

/// What came of a case: nanoseconds of CPU time per operation.
package struct BenchmarkResult {
  package var name: String
  package var peer: String
  /// Sorted.
  package var samples: [Double]

  package var median: Double { samples[samples.count / 2] }
  package var minimum: Double { samples[0] }
  package var ninetieth: Double { samples[min(samples.count - 1, samples.count * 9 / 10)] }
  /// Median absolute deviation, as a share of the median.
  package var spread: Double {
    let deviations = samples.map { abs($0 - median) }.sorted()
    return deviations[deviations.count / 2] / median
  }
}

/// CPU time of this thread, in nanoseconds.
package func threadNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Times the cases of one job in turns. Cases whose peer is missing are left out.
package func measure(_ cases: [BenchmarkCase], samples: Int) -> [BenchmarkResult] {
  var running: [(case: BenchmarkCase, body: (Int) -> Void, count: Int, samples: [Double])] = []
  for each in cases {
    guard let body = each.prepare() else { continue }
    running.append((each, body, calibrate(body), []))
  }
  for _ in 0..<samples {
    for index in running.indices {
      let start = threadNanoseconds()
      running[index].body(running[index].count)
      running[index].samples.append(Double(threadNanoseconds() - start) / Double(running[index].count))
    }
  }
  return running.map { BenchmarkResult(name: $0.case.name, peer: $0.case.peer, samples: $0.samples.sorted()) }
}

/// Operations that take about 20 ms; running them is the warm-up.
private func calibrate(_ body: (Int) -> Void) -> Int {
  var count = 256
  while true {
    let start = threadNanoseconds()
    body(count)
    let elapsed = threadNanoseconds() - start
    if elapsed > 5_000_000 || count >= 1 << 28 { return max(1, count * 20_000_000 / Int(max(elapsed, 1))) }
    count *= 2
  }
}
