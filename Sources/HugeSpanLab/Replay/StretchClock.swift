// CPU time, wall time and faults of this thread over the stretches between measurements.
//
// Faults are meant to be those of the program's memory. What a tick touches is the heap's own, a few pages of its tables and of
// its code for the first time each: it takes them out again.

import CHugeSpanShims
import Glibc

/// A stopwatch for the replay's own work. Each start and stop costs about a microsecond.
struct StretchClock: Sendable {
  private(set) var cpuNanoseconds: UInt64 = 0
  private(set) var wallNanoseconds: UInt64 = 0
  private(set) var faults = 0
  private var startCPU: UInt64 = 0
  private var startWall: UInt64 = 0
  private var startFaults = 0

  mutating func start() {
    startFaults = Self.faultCount()
    startWall = hs_shim_monotonic_nanoseconds()
    startCPU = hs_shim_thread_cpu_nanoseconds()
  }

  mutating func stop() {
    cpuNanoseconds += hs_shim_thread_cpu_nanoseconds() - startCPU
    wallNanoseconds += hs_shim_monotonic_nanoseconds() - startWall
    faults += Self.faultCount() - startFaults
  }

  /// The part of the wall's time in which the thread ran.
  var runShare: Double {
    wallNanoseconds == 0 ? 1 : min(1, Double(cpuNanoseconds) / Double(wallNanoseconds))
  }

  /// Takes the faults since `count` back: they were not of the program's memory.
  mutating func leaveOutFaults(since count: Int) { faults -= Self.faultCount() - count }

  /// Faults of this thread since it started.
  static func faultCount() -> Int {
    var usage = rusage()
    getrusage(1, &usage)  // RUSAGE_THREAD
    return usage.ru_minflt + usage.ru_majflt
  }
}
