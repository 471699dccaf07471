// How a trace is replayed.

import HugeSpanCore

/// Everything that a run is told besides its trace.
package struct ReplayOptions: Sendable {
  package var policy: PolicyChoice = HeapOptions().policy
  package var strategy = StrategyChoice(.splitDontneed)
  package var touch: TouchMode = .all
  /// Trace seconds per real second; nil is as fast as possible.
  package var speed: Double?
  /// Nanoseconds of trace time between residency passes; nil is never.
  package var residencyEvery: UInt64? = 5_000_000_000
  package var residencyLog: ResidencyLog.Mode = .off
  /// Samples per trace, at least; further ones are taken at every tick and at every new peak. 0 measures nothing at all.
  package var samples = 500
  /// Keep what is measured over time, and pictures of the blocks, besides means and peaks.
  package var series = false
  /// What memory is worth in the reckoning of costs: CPU-seconds per GiB-hour.
  package var memoryPrice: Double = 400
  package var weights = CostWeights()
  /// Log where spans lie, and reckon the reference from it when the run is over.
  package var reference = true
  package var costs = CostModel()
  /// Every other option of the heap.
  package var heap = HeapOptions()

  /// The machine to simulate; nil is this one.
  package var simulation: SimulationOptions?
  /// Stop at this time of the trace; nil is its end.
  package var until: UInt64?
  /// Equal parts of the trace at whose ends is noted what it has cost so far.
  package var slices = 2
  /// The program is taken to have been so many times as busy as it was.
  package var busyScale = 1.0
  /// Measure the CPU time of the heap's work.
  package var isTimed = true

  package init() {}
}

/// Why a run could not be made.
package enum ReplayFailure: Error, Equatable, Sendable {
  /// The heap refused, at this time of the trace.
  case heap(HeapError, nanoseconds: UInt64)
  /// The residency log does not fit or cannot be written.
  case residencyLog(ResidencyLogFailure)
  /// The program's live bytes do not fit into what is available.
  case memory(needed: Int, available: Int)
  /// The simulated machine had no memory left, at this time of the trace.
  case outOfMemory(nanoseconds: UInt64, chargedBytes: Int)
}
