// A trace in, events out: the decoding half of ChunkLayout.swift.
//
// The bytes may come from anywhere, so nothing of them is believed: each chunk's checksum is checked before its first
// event, each read is bounded, each number is compared with what it may be, and the work and memory that a file can
// cause are proportional to its length. Nothing is allocated per event.

/// Reads a trace, event by event.
///
///     var reader = try TraceReader(path: "redis.hstrace")
///     while let event = try reader.next() { … }
///     print(reader.ending)
///
/// - Complexity: O(1) per event; memory O(objects ever born / 8) bytes beside the file's own.
public struct TraceReader: ~Copyable {
  /// What to do with a trace whose end is missing.
  public enum Tolerance: Sendable {
    /// It is an error, thrown where the bytes end.
    case strict
    /// It ends with its last whole chunk, and `ending` says that it is cut. Damage elsewhere is still an error.
    case upToLastWholeChunk
  }

  /// What the trace says of its program.
  public let header: TraceHeader
  /// How the recording ended; nil until `next` has returned nil.
  public private(set) var ending: TraceEnding?
  /// Events read so far.
  public private(set) var eventCount = 0
  /// Objects born so far.
  public internal(set) var objectCount = 0
  /// Chunks opened so far.
  public private(set) var chunkCount = 0

  private let file: TraceFile
  private let tolerance: Tolerance
  private let latestTime: UInt64
  private var cursor: ByteCursor
  var live = LiveObjects()
  var lengths = SpanLengths()
  /// The clock in steps.
  private var time: UInt64 = 0

  // The open chunk; `chunkCursor` ends where its events do.
  private var chunk: ChunkHeader
  var chunkCursor: ByteCursor
  private var eventsLeft: UInt32 = 0
  private var thread = 0
  var lastFreed = 0
  private var birthEnd = 0
  var sizes = RecentSizes()
  private var lastSample = ProgramSample.zero

  /// Reads the file at `path` whole and decodes its header.
  public init(path: String, tolerance: Tolerance = .strict) throws(TraceError) {
    try self.init(TraceFile(path: path), tolerance: tolerance)
  }

  /// Decodes the header of `file`.
  public init(_ file: TraceFile, tolerance: Tolerance = .strict) throws(TraceError) {
    let (header, end) = try TraceHeader.decode(file.bytes)
    self.header = header
    self.file = file
    self.tolerance = tolerance
    latestTime = TraceLimits.nanoseconds / header.timeUnitNanoseconds
    cursor = ByteCursor(file.bytes, from: end, to: file.bytes.count)
    chunkCursor = cursor
    chunk = ChunkHeader(
      payloadBytes: 0, eventCount: 0, birthCount: 0, thread: 0, firstObject: 0, startTime: 0, endTime: 0)
  }

  /// Bytes of the whole file.
  public var fileBytes: Int { file.bytes.count }

  /// The next event, nil after the last one.
  public mutating func next() throws(TraceError) -> TraceEvent? {
    while eventsLeft == 0 {
      if ending != nil { return nil }
      guard try openChunk() else { return nil }
    }
    let event = try decodeEvent()
    eventsLeft &-= 1
    eventCount &+= 1
    if eventsLeft == 0 { try closeChunk() }
    return event
  }

  /// Calls `body` with each of the events that are left.
  public mutating func forEach(_ body: (TraceEvent) throws -> Void) throws {
    while let event = try next() { try body(event) }
  }
}

// MARK: - Chunks

extension TraceReader {
  private func bad(_ text: String, at offset: Int) -> TraceError { TraceError(.badField(text), at: .byte(offset)) }

  /// The end of the bytes is not the end of the trace.
  private mutating func cut(_ part: String, missing: Int, chunkStart: Int) throws(TraceError) -> Bool {
    guard tolerance == .upToLastWholeChunk else {
      throw TraceError(.truncated(part: part, missing: missing), at: .byte(file.bytes.count))
    }
    ending = .cut(byte: chunkStart)
    return false
  }

  /// Opens the chunk at the cursor; false at the end of the trace.
  private mutating func openChunk() throws(TraceError) -> Bool {
    let start = cursor.position
    guard let magic = cursor.field(UInt32.self) else {
      return try cut("end record", missing: EndRecord.byteCount - cursor.count, chunkStart: start)
    }
    if magic == EndRecord.magic { return try readEnd(from: start) }
    if magic != ChunkHeader.magic { throw bad("neither a chunk nor the end record begins here", at: start) }
    guard let (header, stored) = ChunkHeader.decode(&cursor) else {
      return try cut(
        "header of chunk \(chunkCount)", missing: start + ChunkHeader.byteCount - cursor.end, chunkStart: start)
    }
    let length = Int(header.payloadBytes)
    if length == 0 || length > ChunkHeader.maximumPayloadBytes {
      throw bad("chunk \(chunkCount) claims \(length) bytes of events", at: start + 4)
    }
    if length > cursor.count {
      return try cut("chunk \(chunkCount)", missing: length - cursor.count, chunkStart: start)
    }
    let payloadStart = cursor.position
    var checksum = Checksum()
    checksum.update(UnsafeRawBufferPointer(rebasing: cursor.bytes[start..<payloadStart - 4]))
    checksum.update(UnsafeRawBufferPointer(rebasing: cursor.bytes[payloadStart..<payloadStart + length]))
    if checksum.value != stored {
      throw TraceError(
        .checksum(part: "chunk \(chunkCount)", stored: stored, computed: checksum.value), at: .byte(start))
    }
    try check(header, at: start)
    chunk = header
    chunkCursor = ByteCursor(cursor.bytes, from: payloadStart, to: payloadStart + length)
    cursor.position = payloadStart + length
    eventsLeft = header.eventCount
    thread = Int(header.thread)
    lastFreed = objectCount
    birthEnd = objectCount + Int(header.birthCount)
    live.reserve(birthEnd)
    sizes = RecentSizes()
    lastSample = .zero
    chunkCount += 1
    return true
  }

  /// Refuses a chunk's header that contradicts itself or what came before.
  private func check(_ header: ChunkHeader, at start: Int) throws(TraceError) {
    if header.eventCount == 0 || header.eventCount > header.payloadBytes {
      throw bad("chunk \(chunkCount) claims \(header.eventCount) events in \(header.payloadBytes) bytes", at: start + 8)
    }
    if header.birthCount > header.eventCount {
      throw bad("chunk \(chunkCount) claims \(header.birthCount) births in \(header.eventCount) events", at: start + 12)
    }
    if header.thread >= UInt32(TraceLimits.threads) {
      throw bad("chunk \(chunkCount) begins with thread \(header.thread)", at: start + 16)
    }
    if header.firstObject != UInt64(objectCount) {
      throw bad(
        "chunk \(chunkCount) begins with object \(header.firstObject), \(objectCount) were born before", at: start + 20)
    }
    if header.startTime != time || header.endTime < time || header.endTime > latestTime {
      throw bad("chunk \(chunkCount) does not begin at the time at which the last ended", at: start + 28)
    }
  }

  private func closeChunk() throws(TraceError) {
    if chunkCursor.count != 0 {
      throw bad("\(chunkCursor.count) bytes follow the last event of chunk \(chunkCount - 1)", at: chunkCursor.position)
    }
    if time != chunk.endTime {
      throw bad("chunk \(chunkCount - 1) ends at \(time), its header says \(chunk.endTime)", at: chunkCursor.position)
    }
    if objectCount != birthEnd {
      throw bad("chunk \(chunkCount - 1) has fewer births than its header says", at: chunkCursor.position)
    }
  }

  private mutating func readEnd(from start: Int) throws(TraceError) -> Bool {
    guard let events = cursor.field(UInt64.self), let objects = cursor.field(UInt64.self),
      let kind = cursor.field(UInt32.self), let code = cursor.field(UInt32.self), let stored = cursor.field(UInt32.self)
    else { return try cut("end record", missing: start + EndRecord.byteCount - cursor.end, chunkStart: start) }
    let computed = Checksum.of(UnsafeRawBufferPointer(rebasing: cursor.bytes[start..<cursor.position - 4]))
    if stored != computed {
      throw TraceError(.checksum(part: "end record", stored: stored, computed: computed), at: .byte(start))
    }
    if events != UInt64(eventCount) || objects != UInt64(objectCount) {
      throw bad(
        "the end record counts \(events) events and \(objects) objects, the chunks have \(eventCount) and \(objectCount)",
        at: start + 4)
    }
    if cursor.count != 0 { throw bad("\(cursor.count) bytes follow the end record", at: cursor.position) }
    let code32 = Int(Int32(bitPattern: code))
    switch kind {
    case 0: ending = .exited(status: code32)
    case 1: ending = .signalled(signal: code32)
    case 2: ending = .stopped
    default: throw bad("an ending of kind \(kind)", at: start + 20)
    }
    return false
  }
}

// MARK: - Events

extension TraceReader {
  @inline(never)
  func impossible(_ what: String, at offset: Int) -> TraceError {
    TraceError(.impossibleEvent(what), at: .byte(offset))
  }

  @inline(never)
  func short(at offset: Int) -> TraceError {
    bad("an event does not fit into its chunk, or a number in it into 64 bits", at: offset)
  }

  private mutating func decodeEvent() throws(TraceError) -> TraceEvent {
    var start = chunkCursor.position
    guard var first = chunkCursor.byte() else { throw short(at: start) }
    while first == EventClass.other | OtherDetail.thread << 5 {
      guard let next = chunkCursor.varint() else { throw short(at: start) }
      if next >= UInt64(TraceLimits.threads) { throw impossible("thread \(next)", at: start) }
      thread = Int(next)
      start = chunkCursor.position
      guard let byte = chunkCursor.byte() else { throw short(at: start) }
      first = byte
    }
    var steps = UInt64((first &>> 2) & 7)
    if steps == 7 {
      guard let more = chunkCursor.varint() else { throw short(at: start) }
      if more > chunk.endTime { throw impossible("time passes the end of the chunk", at: start) }
      steps = more + 7
    }
    if steps > chunk.endTime &- time { throw impossible("time passes the end of the chunk", at: start) }
    // No overflow in either: the chunk's end is at most the latest time that the unit allows.
    time &+= steps
    let detail = first &>> 5
    let body: TraceEventBody
    if header.level == .span {
      body = try spanEvent(first & 3, detail, at: start)
      return TraceEvent(time: time &* header.timeUnitNanoseconds, thread: thread, body: body)
    }
    switch first & 3 {
    case EventClass.birth:
      body = .allocate(object: try birth(at: start), bytes: try size(detail, at: start), alignment: 1, kind: .plain)
    case EventClass.death: body = .free(object: try death(detail, at: start))
    case EventClass.resize:
      let bytes = try size(detail, at: start)
      guard let distance = chunkCursor.varint() else { throw short(at: start) }
      guard distance < UInt64(objectCount) else { throw impossible("resize of an object before the first", at: start) }
      let object = objectCount &- 1 &- Int(distance)
      if !live.contains(object) { throw impossible("resize of object \(object), which is dead", at: start) }
      body = .resize(object: object, bytes: bytes)
    default: body = try other(detail, at: start)
    }
    return TraceEvent(time: time &* header.timeUnitNanoseconds, thread: thread, body: body)
  }

  @inline(__always)
  mutating func birth(at start: Int) throws(TraceError) -> Int {
    let object = objectCount
    if object >= birthEnd { throw impossible("more births than the chunk's header says", at: start) }
    live.insert(object)
    objectCount &+= 1
    return object
  }

  @inline(__always)
  mutating func size(_ detail: UInt8, at start: Int) throws(TraceError) -> Int {
    let size: UInt64
    if detail == RecentSizes.escape {
      guard let explicit = chunkCursor.varint() else { throw short(at: start) }
      size = explicit
      sizes.insert(size)
    } else {
      size = sizes.size(at: detail)
    }
    return try checked(size, at: start)
  }

  @inline(__always)
  func checked(_ size: UInt64, at start: Int) throws(TraceError) -> Int {
    if size == 0 || size > UInt64(TraceLimits.objectBytes) { throw impossible("an object of \(size) bytes", at: start) }
    return Int(size)
  }

  @inline(__always)
  mutating func death(_ detail: UInt8, at start: Int) throws(TraceError) -> Int {
    var object: Int
    switch detail {
    case 0...FreeDetail.lastNear: object = objectCount &- 1 &- Int(detail)
    case FreeDetail.successor: object = lastFreed &+ 1
    case FreeDetail.predecessor: object = lastFreed &- 1
    default:
      guard let number = chunkCursor.varint() else { throw short(at: start) }
      // Whatever the number, the sum is some integer, and the check below has the last word.
      object =
        detail == FreeDetail.step
        ? lastFreed &+ Int(unfolded(number)) : objectCount &- 1 &- Int(truncatingIfNeeded: number)
    }
    if object < 0 || object >= objectCount {
      throw impossible("free of object \(object), which was not born", at: start)
    }
    if !live.remove(object) { throw impossible("free of object \(object), which is dead", at: start) }
    lastFreed = object
    return object
  }

  @inline(never)
  private mutating func other(_ detail: UInt8, at start: Int) throws(TraceError) -> TraceEventBody {
    switch detail {
    case OtherDetail.sample: return .sample(try sample(at: start))
    case OtherDetail.zeroed, OtherDetail.aligned, OtherDetail.mapped:
      let object = try birth(at: start)
      guard let code = chunkCursor.varint() else { throw short(at: start) }
      let bytes: Int
      if code < UInt64(RecentSizes.escape) {
        bytes = try checked(sizes.size(at: UInt8(code)), at: start)
      } else {
        sizes.insert(code - UInt64(RecentSizes.escape))
        bytes = try checked(code - UInt64(RecentSizes.escape), at: start)
      }
      if detail == OtherDetail.zeroed { return .allocate(object: object, bytes: bytes, alignment: 1, kind: .zeroed) }
      guard let logarithm = chunkCursor.byte() else { throw short(at: start) }
      if logarithm > UInt8(TraceLimits.alignmentLogarithm) {
        throw impossible("an alignment of 2^\(logarithm)", at: start)
      }
      return .allocate(
        object: object, bytes: bytes, alignment: 1 << Int(logarithm),
        kind: detail == OtherDetail.aligned ? .aligned : .mapped)
    default: throw impossible("an event of unknown kind", at: start)
    }
  }

  mutating func sample(at start: Int) throws(TraceError) -> ProgramSample {
    let sample = ProgramSample(
      cpuNanoseconds: try number(after: lastSample.cpuNanoseconds, at: start),
      anonymousBytes: try sampledBytes(after: lastSample.anonymousBytes, at: start),
      hugeBytes: try sampledBytes(after: lastSample.hugeBytes, at: start),
      minorFaults: try number(after: lastSample.minorFaults, at: start),
      majorFaults: try number(after: lastSample.majorFaults, at: start))
    lastSample = sample
    return sample
  }

  private mutating func number(after last: UInt64, at start: Int) throws(TraceError) -> UInt64 {
    guard let number = chunkCursor.varint() else { throw short(at: start) }
    return last &+ UInt64(bitPattern: unfolded(number))
  }

  private mutating func sampledBytes(after last: Int, at start: Int) throws(TraceError) -> Int {
    let bytes = try number(after: UInt64(last), at: start)
    if bytes > UInt64(TraceLimits.objectBytes) { throw impossible("a sample of \(bytes) bytes", at: start) }
    return Int(bytes)
  }
}
