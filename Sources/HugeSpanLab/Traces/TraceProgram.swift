// A trace, decoded into what the replay loop reads: one record of 24 bytes per event, in one prefaulted array.
//
// Objects get slots: a slot is reused when its object dies, so the table of live objects is as long as the most objects
// that ever lived at once, not as many as were ever born, and stays in the cache. The samples of the recorded program
// are kept apart; the loop asks them for the program's CPU time only when a tick is due.

import TraceFormat

/// What a step does. An event of a malloc-level trace is one step; a part of a span that is freed is up to three: the
/// span is cut into spans before, and then one of them is freed.
package enum StepKind: UInt8, Sendable {
  case allocate, resize, free
  case allocateSpan, resizeSpan
  /// The pages of a span from an offset on become a span of their own, in another slot.
  case split
}

/// One event. Packed, because a run reads millions of them between two measurements.
package struct TraceStep: BitwiseCopyable, Sendable {
  /// Nanoseconds since the start of the trace.
  package var time: UInt64
  /// The object's size in bytes after the event; its last size for a free. For a split, the offset in
  /// pages of the heap in the lower half and the other slot in the upper one.
  package var bytes: Int
  /// The object's slot.
  package var slot: UInt32
  package var kind: UInt8
  /// Base-two logarithm of the alignment asked for.
  package var alignmentShift: UInt8
  /// The program's own mapping: whole pages, never carved from a span.
  package var isMapped: Bool
  /// Of a span that is born or grows, what was asked of it (`SpanTraits.coded`). Of a free, 1 if the next step frees what
  /// follows in memory by the same request.
  package var traits: UInt8 = 0
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
    while let event = try counter.next() { count += Self.stepCount(of: event.body) }
    if counter.header.level == .span && counter.header.pageBytes < SizeClasses.pageBytes {
      throw TraceError(.badField("spans of pages of \(counter.header.pageBytes) bytes cannot be replayed"), at: nil)
    }
    let objects = counter.objectCount
    let steps = MappedArray<TraceStep>(uninitializedCount: count)
    var builder = SlotBuilder(objectCount: objects, pageBytes: counter.header.pageBytes)
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
      if counter.header.level == .malloc {
        (steps.base + index).initialize(to: builder.step(for: event, &summary))
        index += 1
      } else {
        builder.addSpanSteps(for: event, &summary) { step in
          (steps.base + index).initialize(to: step)
          index += 1
        }
      }
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

  /// The same program, `factor` times as fast: every time is divided by it.
  package func accelerated(by factor: Double) -> TraceProgram { TraceProgram(self, factor) }

  private init(_ other: borrowing TraceProgram, _ factor: Double) {
    func scaled(_ time: UInt64) -> UInt64 { UInt64(Double(time) / factor) }
    steps = MappedArray(uninitializedCount: other.steps.count)
    for index in 0..<other.steps.count {
      var step = other.steps[index]
      step.time = scaled(step.time)
      (steps.base + index).initialize(to: step)
    }
    slotCount = other.slotCount
    samples = other.samples.map { TimedSample(time: scaled($0.time), sample: $0.sample) }
    var summary = other.summary
    summary.nanoseconds = scaled(summary.nanoseconds)
    self.summary = summary
    header = other.header
    ending = other.ending
    touchedFractions = other.touchedFractions
  }

  private static func stepCount(of body: TraceEventBody) -> Int {
    switch body {
    case .sample, .refuseSpan, .refuseGrowth: 0
    case .freePages(_, let first, _, let tail, _): 1 + (first > 0 ? 1 : 0) + (tail == nil ? 0 : 1)
    default: 1
    }
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
