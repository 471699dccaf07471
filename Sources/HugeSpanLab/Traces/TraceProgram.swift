// A trace, decoded into what the replay loop reads: one record of 24 bytes per event, in one prefaulted array.
//
// Objects get slots: a slot is reused when its object dies, so the table of live objects is as long as the most objects
// that ever lived at once, not as many as were ever born, and stays in the cache. The samples of the recorded program
// are kept apart; the loop asks them for the program's CPU time only when a tick is due.

import TraceFormat

/// What an event does; the low bits of `Step.detail`.
package enum StepKind: UInt8, Sendable {
  case allocate, resize, free
}

/// One event. Packed, because a run reads millions of them between two measurements.
package struct TraceStep: BitwiseCopyable, Sendable {
  /// Nanoseconds since the start of the trace.
  package var time: UInt64
  /// The object's size in bytes after the event; its last size for a free.
  package var bytes: Int
  /// The object's slot.
  package var slot: UInt32
  package var kind: UInt8
  /// Base-two logarithm of the alignment asked for.
  package var alignmentShift: UInt8
  /// The program's own mapping: whole pages, never carved from a span.
  package var isMapped: Bool
  package var unused: UInt8 = 0
}

/// What was measured of the recorded program at a time of the trace.
package struct TimedSample: Equatable, Sendable {
  package var time: UInt64
  package var sample: ProgramSample
}

/// Totals of a trace that need every event.
package struct ProgramTotals: Equatable, Sendable {
  package var events = 0
  package var allocations = 0
  package var resizes = 0
  package var frees = 0
  package var objects = 0
  /// Live objects at once, at most.
  package var peakObjects = 0
  package var peakLiveBytes = 0
  /// Sum of the sizes that were asked for.
  package var allocatedBytes = 0
  /// End of the trace: the time of its last event.
  package var nanoseconds: UInt64 = 0
  /// Largest anonymous resident size of the recorded program.
  package var peakAnonymousBytes = 0
  /// Peak of the bytes in objects larger than `SizeClasses.largestBytes`, and of the others.
  package var peakLargeBytes = 0
  package var peakSmallBytes = 0
}

/// A decoded trace.
package struct TraceProgram: ~Copyable {
  package let steps: MappedArray<TraceStep>
  package let slotCount: Int
  package let samples: [TimedSample]
  package let summary: ProgramTotals
  package let header: TraceHeader
  package let ending: TraceEnding
  /// Share of the pages of large objects that the recorded program had touched, at each sample.
  package let touchedFractions: [Double]

  /// Reads and decodes the trace at `path`. A trace that was cut off is read up to its last whole chunk.
  package init(path: String) throws(TraceError) { try self.init(TraceFile(path: path)) }

  /// Decodes `file`.
  ///
  /// - Complexity: O(events); reads the file twice, so that the array of events has its final length at once.
  package init(_ file: TraceFile) throws(TraceError) {
    var counter = try TraceReader(file, tolerance: .upToLastWholeChunk)
    var count = 0
    while let event = try counter.next() {
      if case .sample = event.body { continue }
      count += 1
    }
    let objects = counter.objectCount
    let steps = MappedArray<TraceStep>(uninitializedCount: count)
    var builder = SlotBuilder(objectCount: objects)
    var samples: [TimedSample] = []
    var fractions: [Double] = []
    var summary = ProgramTotals()
    summary.objects = objects

    var reader = try TraceReader(file, tolerance: .upToLastWholeChunk)
    var index = 0
    while let event = try reader.next() {
      summary.nanoseconds = event.time
      summary.events += 1
      if case .sample(let sample) = event.body {
        samples.append(TimedSample(time: event.time, sample: sample))
        summary.peakAnonymousBytes = max(summary.peakAnonymousBytes, sample.anonymousBytes)
        let fraction = Double(sample.anonymousBytes - builder.smallBytes) / Double(max(builder.largeBytes, 1))
        fractions.append(min(max(fraction, 0), 1))
        continue
      }
      (steps.base + index).initialize(to: builder.step(for: event, &summary))
      index += 1
      summary.peakLiveBytes = max(summary.peakLiveBytes, builder.smallBytes + builder.largeBytes)
      summary.peakLargeBytes = max(summary.peakLargeBytes, builder.largeBytes)
      summary.peakSmallBytes = max(summary.peakSmallBytes, builder.smallBytes)
    }
    summary.peakObjects = builder.slotCount
    slotCount = builder.slotCount
    header = reader.header
    ending = reader.ending ?? .stopped
    self.steps = steps
    self.samples = samples
    self.summary = summary
    touchedFractions = Self.widened(fractions, samples)
  }

  /// The largest fraction within two seconds from each sample on: memory is touched some time after it is allocated.
  private static func widened(_ fractions: [Double], _ samples: [TimedSample]) -> [Double] {
    var result = fractions
    for index in fractions.indices {
      var next = index
      while next < samples.count, samples[next].time <= samples[index].time + 2_000_000_000 {
        result[index] = max(result[index], fractions[next])
        next += 1
      }
    }
    return result
  }
}

/// Gives objects their slots and turns events into steps.
private struct SlotBuilder {
  private var slots: [UInt32]
  private var freeSlots: [UInt32] = []
  private var sizes: [Int] = []
  private(set) var slotCount = 0
  private(set) var smallBytes = 0
  private(set) var largeBytes = 0

  init(objectCount: Int) { slots = [UInt32](repeating: 0, count: objectCount) }

  private mutating func count(_ bytes: Int, _ sign: Int) {
    if bytes > SizeClasses.largestBytes { largeBytes += sign * bytes } else { smallBytes += sign * bytes }
  }

  mutating func step(for event: TraceEvent, _ summary: inout ProgramTotals) -> TraceStep {
    switch event.body {
    case .allocate(let object, let bytes, let alignment, let kind):
      let slot: UInt32
      if let last = freeSlots.popLast() {
        slot = last
      } else {
        slot = UInt32(slotCount)
        slotCount += 1
        sizes.append(0)
      }
      slots[object] = slot
      sizes[Int(slot)] = bytes
      count(bytes, 1)
      summary.allocations += 1
      summary.allocatedBytes += bytes
      return TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: StepKind.allocate.rawValue,
        alignmentShift: UInt8(max(alignment, 1).trailingZeroBitCount), isMapped: kind == .mapped)
    case .resize(let object, let bytes):
      let slot = slots[object]
      count(sizes[Int(slot)], -1)
      count(bytes, 1)
      sizes[Int(slot)] = bytes
      summary.resizes += 1
      return TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: StepKind.resize.rawValue, alignmentShift: 0, isMapped: false)
    case .free(let object):
      let slot = slots[object]
      let bytes = sizes[Int(slot)]
      count(bytes, -1)
      freeSlots.append(slot)
      summary.frees += 1
      return TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: StepKind.free.rawValue, alignmentShift: 0, isMapped: false)
    case .sample: preconditionFailure("a sample is no step")
    }
  }
}

// MARK: - The recorded program over time

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
