// What is in a trace, in one pass: how much of what, how the live bytes went up and down, and how that compares with
// what the kernel saw of the program.

import TraceFormat

/// The figures of a trace.
package struct TraceSummary: Sendable {
  /// The live bytes at a time.
  package struct Point: Equatable, Sendable {
    package var time: UInt64
    package var liveBytes: Int
  }

  /// A fall of the live bytes to half or less, and what came after.
  package struct Drop: Equatable, Sendable {
    /// The last time at the high level, and that level.
    package var from: Point
    /// The lowest point after it.
    package var to: Point
    /// How long the live bytes stayed under half of the high level, in nanoseconds.
    package var lowNanoseconds: UInt64
    /// The highest level reached after the low, before the next drop; nil when the trace ends low.
    package var riseTo: Point?
  }

  /// Births of sizes from a power of two up to the next.
  package struct SizeClass: Equatable, Sendable {
    package var births = 0
    package var bytes = 0
  }

  package var header: TraceHeader
  package var ending: TraceEnding
  package var fileBytes: Int
  package var chunks: Int

  package var births = [AllocationKind: Int]()
  package var resizes = 0
  /// Of the resizes of spans those that made one longer.
  package var growths = 0
  /// Requests that gave back a part of a span, or several together; counted for each span that they touched.
  package var partialFrees = 0
  /// Requests that the heap refused.
  package var refusals = 0
  package var frees = 0
  package var samples = 0
  package var threads = 0
  package var nanoseconds: UInt64 = 0

  package var peak = Point(time: 0, liveBytes: 0)
  package var liveAtEnd = 0
  package var liveObjectsAtEnd = 0
  /// At index k the births of 2^k to 2^(k+1) − 1 bytes.
  package var sizeClasses = [SizeClass](repeating: SizeClass(), count: 48)
  /// The live bytes over time, evenly spaced.
  package var curve: [Point] = []
  package var drops: [Drop] = []

  /// The most anonymous memory that a sample saw.
  package var peakAnonymousBytes = 0
  /// The most recorded live bytes between that sample and the one before. Not at its instant: a death is recorded before
  /// the memory is given back, which takes milliseconds for a large object, and just then a sample is likely to see it.
  package var liveAtAnonymousPeak = 0
  package var anonymousPeakTime: UInt64 = 0
  package var peakHugeBytes = 0
  package var lastSample: ProgramSample?
  /// The longest time between two samples.
  package var longestSampleGap: UInt64 = 0

  /// All events, samples included.
  package var events: Int { births.values.reduce(0, +) + resizes + frees + partialFrees + refusals + samples }
  package var bytesPerEvent: Double { events == 0 ? 0 : Double(fileBytes) / Double(events) }
  /// CPU seconds per second.
  package var busyShare: Double {
    guard let lastSample, nanoseconds > 0 else { return 0 }
    return Double(lastSample.cpuNanoseconds) / Double(nanoseconds)
  }
  /// Recorded live bytes over the program's own anonymous memory, when that was at its peak; nil without samples.
  package var recordedShare: Double? {
    peakAnonymousBytes == 0 ? nil : Double(liveAtAnonymousPeak) / Double(peakAnonymousBytes)
  }

  /// Reads the rest of `reader`.
  ///
  /// - Complexity: O(events); memory 8 bytes per object.
  package init(of reader: consuming TraceReader) throws(TraceError) {
    header = reader.header
    fileBytes = reader.fileBytes
    chunks = 0
    ending = .stopped
    var live = LiveCurve()
    var sizes: [Int] = []
    var liveObjects = 0
    let page = header.pageBytes
    var previousSample: UInt64?
    while let event = try reader.next() {
      nanoseconds = event.time
      switch event.body {
      case .allocate(_, let bytes, _, let kind):
        note(birthOf: bytes, kind)
        sizes.append(bytes)
        liveObjects += 1
        live.add(bytes, at: event.time)
      case .allocateSpan(_, let pages, let traits):
        note(birthOf: pages * page, traits.isZeroed ? .zeroed : traits.alignmentPages > 1 ? .aligned : .plain)
        sizes.append(pages * page)
        liveObjects += 1
        live.add(pages * page, at: event.time)
      case .resizeSpan(let span, let pages, _):
        resizes += 1
        if pages * page > sizes[span] { growths += 1 }
        live.add(pages * page - sizes[span], at: event.time)
        sizes[span] = pages * page
      case .freePages(let span, let first, let pages, let tail, _):
        partialFrees += 1
        live.add(-pages * page, at: event.time)
        if tail != nil { sizes.append(sizes[span] - (first + pages) * page) }
        sizes[span] = first * page
        liveObjects += (tail == nil ? 0 : 1) - (first == 0 ? 1 : 0)
      case .refuseSpan, .refuseGrowth: refusals += 1
      case .resize(let object, let bytes):
        resizes += 1
        live.add(bytes - sizes[object], at: event.time)
        sizes[object] = bytes
      case .free(let object):
        frees += 1
        liveObjects -= 1
        live.add(-sizes[object], at: event.time)
      case .sample(let sample):
        note(sample, at: event.time, live: live.takeRecentPeak())
        longestSampleGap = max(longestSampleGap, event.time - (previousSample ?? event.time))
        previousSample = event.time
        continue
      }
      threads = max(threads, event.thread + 1)
    }
    live.finish(at: nanoseconds)
    curve = live.points
    peak = live.peak
    liveAtEnd = live.bytes
    liveObjectsAtEnd = liveObjects
    drops = Self.findDrops(in: curve)
    chunks = reader.chunkCount
    if let ending = reader.ending { self.ending = ending }
  }

  private mutating func note(birthOf bytes: Int, _ kind: AllocationKind) {
    births[kind, default: 0] += 1
    let exponent = Int.bitWidth - 1 - bytes.leadingZeroBitCount
    sizeClasses[exponent].births += 1
    sizeClasses[exponent].bytes += bytes
  }

  private mutating func note(_ sample: ProgramSample, at time: UInt64, live: Int) {
    samples += 1
    lastSample = sample
    peakHugeBytes = max(peakHugeBytes, sample.hugeBytes)
    if sample.anonymousBytes > peakAnonymousBytes {
      peakAnonymousBytes = sample.anonymousBytes
      liveAtAnonymousPeak = live
      anonymousPeakTime = time
    }
  }

  /// Walks the curve from high to low to high. A drop is taken for one when it reaches half of the highest level since
  /// the last, and that level was at least a quarter of the trace's peak; it is over when three quarters are back.
  static func findDrops(in curve: [Point]) -> [Drop] {
    let peak = curve.map(\.liveBytes).max() ?? 0
    var drops: [Drop] = []
    var high = Point(time: 0, liveBytes: 0)
    var open: Drop?
    var lowSince: UInt64?
    for point in curve {
      if var drop = open {
        if point.liveBytes < drop.to.liveBytes { drop.to = point }
        if point.liveBytes * 2 <= drop.from.liveBytes {
          lowSince = lowSince ?? point.time
          drop.lowNanoseconds = max(drop.lowNanoseconds, point.time - lowSince!)
        } else {
          lowSince = nil
        }
        open = drop
        // A rise: above half of the old level, and clearly off the floor.
        if point.liveBytes * 2 > drop.from.liveBytes && point.liveBytes - drop.to.liveBytes > drop.from.liveBytes / 5 {
          drop.riseTo = point
          drops.append(drop)
          open = nil
          high = point
        }
      } else if point.liveBytes >= high.liveBytes {
        high = point
        if var last = drops.last, last.riseTo != nil {
          last.riseTo = point
          drops[drops.count - 1] = last
        }
      } else if point.liveBytes * 2 <= high.liveBytes && high.liveBytes * 4 >= peak {
        open = Drop(from: high, to: point, lowNanoseconds: 0, riseTo: nil)
        lowSince = point.time
      }
    }
    if let open { drops.append(open) }
    return drops
  }
}

/// The live bytes over time, kept at an even spacing that doubles when there are too many points.
struct LiveCurve {
  private static let capacity = 8192
  private(set) var bytes = 0
  private(set) var peak = TraceSummary.Point(time: 0, liveBytes: 0)
  private(set) var points: [TraceSummary.Point] = []
  private var recentPeak = 0
  private var spacing: UInt64 = 1_000_000
  private var due: UInt64 = 0

  /// Changes the live bytes at `time`, which never decreases.
  mutating func add(_ change: Int, at time: UInt64) {
    if time >= due { catchUp(to: time) }
    bytes += change
    recentPeak = max(recentPeak, bytes)
    if bytes > peak.liveBytes { peak = TraceSummary.Point(time: time, liveBytes: bytes) }
  }

  /// The most bytes since this was last asked.
  mutating func takeRecentPeak() -> Int {
    defer { recentPeak = bytes }
    return recentPeak
  }

  /// Points for the times that have passed, each with what held until then.
  private mutating func catchUp(to time: UInt64) {
    while due <= time {
      points.append(TraceSummary.Point(time: due, liveBytes: bytes))
      due += spacing
      if points.count == Self.capacity {
        points = stride(from: 0, to: points.count, by: 2).map { points[$0] }
        spacing *= 2
        due = points.last!.time + spacing
      }
    }
  }

  /// Ends the curve at `time`.
  mutating func finish(at time: UInt64) {
    catchUp(to: time)
    points.append(TraceSummary.Point(time: time, liveBytes: bytes))
  }
}
