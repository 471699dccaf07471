// Events in, a trace out: the encoding half of ChunkLayout.swift.
//
// The writer refuses what no program can do, so that a trace that was written can be read: an error here is a mistake of
// the caller's (a recorder that merges wrongly, a text that a person wrote), found where it is made.

/// Writes a trace, event by event.
///
/// Bytes leave in whole chunks, so whatever interrupts the writer leaves a trace that is readable up to the last one.
/// Call `finish` at the end; without it the trace counts as cut.
///
/// - Complexity: O(1) per event, memory O(objects ever born / 8) bytes.
public struct TraceWriter: ~Copyable {
  /// What was given at the start.
  public let header: TraceHeader
  /// Events written so far.
  public private(set) var eventCount = 0
  /// Objects born so far; the next one has this number.
  public internal(set) var objectCount = 0
  /// Bytes that left so far, whole chunks only.
  public private(set) var byteCount = 0

  private let output: TraceOutput
  var live = LiveObjects()
  var lengths = SpanLengths()
  private var time: UInt64 = 0

  // The open chunk.
  var payload: [UInt8] = []
  var chunk = ChunkHeader(
    payloadBytes: 0, eventCount: 0, birthCount: 0, thread: 0, firstObject: 0, startTime: 0, endTime: 0)
  private var thread: UInt32 = 0
  var lastFreed = 0
  var sizes = RecentSizes()
  private var lastSample = ProgramSample.zero

  /// Begins a trace by writing its header.
  public init(header: TraceHeader, output: TraceOutput) throws(TraceError) {
    self.header = header
    self.output = output
    let bytes = header.encoded
    payload.reserveCapacity(ChunkHeader.targetPayloadBytes + 256)
    try output.write(bytes)
    byteCount = bytes.count
  }

  /// Appends `event`. Its time is rounded down to the trace's clock.
  public mutating func append(_ event: TraceEvent) throws(TraceError) {
    let clock = event.time / header.timeUnitNanoseconds
    if clock < time { throw impossible("time goes back from \(time) to \(clock) steps of the clock") }
    if event.time > TraceLimits.nanoseconds { throw impossible("a time of \(event.time) ns") }
    if event.thread < 0 || event.thread >= TraceLimits.threads { throw impossible("thread \(event.thread)") }
    if header.level == .malloc { try check(event.body) } else { try checkSpan(event.body) }
    beginEvent(thread: UInt32(event.thread))
    let steps = clock - time
    time = clock
    switch event.body {
    case .allocate(_, let bytes, let alignment, let kind): encodeBirth(bytes, alignment, kind, steps)
    case .free(let object):
      encodeDeath(object, steps)
    case .resize(let object, let bytes):
      let index = sizes.index(of: UInt64(bytes))
      appendFirst(EventClass.resize, detail: index ?? RecentSizes.escape, steps)
      if index == nil { payload.appendVarint(UInt64(bytes)) }
      payload.appendVarint(UInt64(objectCount - 1 - object))
    case .sample(let sample):
      appendFirst(EventClass.other, detail: OtherDetail.sample, steps)
      for (new, old) in zip(sample.words, lastSample.words) {
        payload.appendVarint(folded(Int64(bitPattern: new &- old)))
      }
      lastSample = sample
    default: encodeSpan(event.body, steps)
    }
    eventCount += 1
    chunk.eventCount += 1
    if payload.count >= ChunkHeader.targetPayloadBytes { try flush() }
  }

  /// Writes what is open as a chunk of its own, so that it survives whatever comes.
  public mutating func flush() throws(TraceError) {
    guard chunk.eventCount > 0 else { return }
    chunk.payloadBytes = UInt32(payload.count)
    chunk.endTime = time
    var bytes = chunk.encoded
    var checksum = Checksum()
    bytes.withUnsafeBytes { checksum.update($0) }
    payload.withUnsafeBytes { checksum.update($0) }
    bytes.appendField(checksum.value)
    try output.write(bytes + payload)
    byteCount += bytes.count + payload.count
    payload.removeAll(keepingCapacity: true)
    chunk.eventCount = 0
  }

  /// Writes the open chunk and the end record.
  public consuming func finish(_ ending: TraceEnding) throws(TraceError) {
    try flush()
    let (kind, code): (UInt32, Int) =
      switch ending {
      case .exited(let status): (0, status)
      case .signalled(let signal): (1, signal)
      case .stopped: (2, 0)
      case .cut: throw TraceError(.badField("a writer cannot finish a trace as cut"), at: nil)
      }
    var bytes = EndRecord(
      eventCount: UInt64(eventCount), objectCount: UInt64(objectCount), kind: kind,
      code: UInt32(truncatingIfNeeded: code)
    ).encoded
    bytes.appendField(bytes.withUnsafeBytes { Checksum.of($0) })
    try output.write(bytes)
  }
}

extension TraceWriter {
  func impossible(_ what: String) -> TraceError { TraceError(.impossibleEvent(what), at: .event(eventCount)) }

  /// Refuses what no program can do, and books deaths.
  private mutating func check(_ body: TraceEventBody) throws(TraceError) {
    switch body {
    case .allocate(let object, let bytes, let alignment, let kind):
      if object != objectCount { throw impossible("object \(object) is born, \(objectCount) is next") }
      try check(bytes: bytes)
      if alignment <= 0 || alignment & (alignment - 1) != 0 || alignment > 1 << TraceLimits.alignmentLogarithm {
        throw impossible("an alignment of \(alignment)")
      }
      if alignment != 1 && (kind == .plain || kind == .zeroed) {
        throw impossible("an alignment of \(alignment) asked of a call that has none")
      }
    case .resize(let object, let bytes):
      if object < 0 || object >= objectCount || !live.contains(object) {
        throw impossible("resize of object \(object), which does not live")
      }
      try check(bytes: bytes)
    case .free(let object):
      if object < 0 || object >= objectCount || !live.remove(object) {
        throw impossible("free of object \(object), which does not live")
      }
    case .sample(let sample): try check(sample)
    default: throw impossible("an event of a span in a trace of malloc")
    }
  }

  func check(_ sample: ProgramSample) throws(TraceError) {
    for bytes in [sample.anonymousBytes, sample.hugeBytes] where bytes < 0 || bytes > TraceLimits.objectBytes {
      throw impossible("a sample of \(bytes) bytes")
    }
  }

  private func check(bytes: Int) throws(TraceError) {
    if bytes <= 0 || bytes > TraceLimits.objectBytes { throw impossible("an object of \(bytes) bytes") }
  }

  /// Opens a chunk if none is open, and names the thread where it changes.
  private mutating func beginEvent(thread next: UInt32) {
    if chunk.eventCount == 0 {
      chunk = ChunkHeader(
        payloadBytes: 0, eventCount: 0, birthCount: 0, thread: next, firstObject: UInt64(objectCount),
        startTime: time, endTime: time)
      thread = next
      lastFreed = objectCount
      sizes = RecentSizes()
      lastSample = .zero
    } else if next != thread {
      payload.append(EventClass.other | OtherDetail.thread << 5)
      payload.appendVarint(UInt64(next))
      thread = next
    }
  }

  mutating func appendFirst(_ eventClass: UInt8, detail: UInt8, _ steps: UInt64) {
    payload.append(eventClass | UInt8(min(steps, 7)) << 2 | detail << 5)
    if steps >= 7 { payload.appendVarint(steps - 7) }
  }

  /// The next object lives.
  mutating func bear() {
    chunk.birthCount += 1
    objectCount += 1
    live.reserve(objectCount)
    live.insert(objectCount - 1)
  }

  private mutating func encodeBirth(_ bytes: Int, _ alignment: Int, _ kind: AllocationKind, _ steps: UInt64) {
    bear()
    let index = sizes.index(of: UInt64(bytes))
    if kind == .plain {
      appendFirst(EventClass.birth, detail: index ?? RecentSizes.escape, steps)
      if index == nil { payload.appendVarint(UInt64(bytes)) }
      return
    }
    let detail =
      switch kind {
      case .zeroed: OtherDetail.zeroed
      case .aligned: OtherDetail.aligned
      default: OtherDetail.mapped
      }
    appendFirst(EventClass.other, detail: detail, steps)
    payload.appendVarint(index.map(UInt64.init) ?? UInt64(bytes) + UInt64(RecentSizes.escape))
    if kind != .zeroed { payload.append(UInt8(alignment.trailingZeroBitCount)) }
  }

  private mutating func encodeDeath(_ object: Int, _ steps: UInt64) {
    let distance = objectCount - 1 - object
    let step = object - lastFreed
    lastFreed = object
    if distance <= Int(FreeDetail.lastNear) {
      appendFirst(EventClass.death, detail: UInt8(distance), steps)
    } else if step == 1 {
      appendFirst(EventClass.death, detail: FreeDetail.successor, steps)
    } else if step == -1 {
      appendFirst(EventClass.death, detail: FreeDetail.predecessor, steps)
    } else if varintLength(folded(Int64(step))) < varintLength(UInt64(distance)) {
      appendFirst(EventClass.death, detail: FreeDetail.step, steps)
      payload.appendVarint(folded(Int64(step)))
    } else {
      appendFirst(EventClass.death, detail: FreeDetail.distance, steps)
      payload.appendVarint(UInt64(distance))
    }
  }
}

extension ProgramSample {
  /// Nothing used yet: what the first sample of a chunk is a difference to.
  static let zero = ProgramSample(cpuNanoseconds: 0, anonymousBytes: 0, hugeBytes: 0, minorFaults: 0, majorFaults: 0)

  /// The fields in the order of the format.
  var words: [UInt64] {
    [
      cpuNanoseconds, UInt64(bitPattern: Int64(anonymousBytes)), UInt64(bitPattern: Int64(hugeBytes)), minorFaults,
      majorFaults,
    ]
  }
}
