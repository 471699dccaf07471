// A raw recording becomes a trace: addresses become objects, numbered in the order of their birth.

import CRecordingLog
import Glibc
import TraceFormat

/// What became of a raw recording.
package struct ConversionReport: Equatable, Sendable {
  package var level = TraceLevel.malloc
  package var events = 0
  package var objects = 0
  /// Calls of malloc and its family among the births; at the level of spans what the heap gave.
  package var heapBirths = 0
  package var samples = 0
  /// Releases of addresses that were born before recording began, or outside of what is recorded.
  package var unknownReleases = 0
  /// Births at an address whose owner still lived: its release went unseen, and is put in before.
  package var unseenReleases = 0
  /// Images after the first, by exec.
  package var replacedImages = 0
  /// Whether the recorder ever ran inside the program.
  package var attached = false
  /// Why the recorder stopped before the program's end, if it did.
  package var problem: String?
}

/// Turns the log and samples of a raw recording into a trace.
package struct LogConversion: ~Copyable {
  private var writer: TraceWriter
  private var report = ConversionReport()
  private var heap: [UInt64: Int] = [:]
  private var mapped = MappedRanges()
  private var spans: SpanConversion
  /// What a thread has given up by realloc or mremap, until the call's end says what became of it.
  private var pending: [Int: Pending] = [:]
  private var time: UInt64 = 0

  private struct Pending {
    var object: Int?
    var address: UInt64
    var bytes: UInt64
  }

  /// Converts `recording` to the file at `path`.
  ///
  /// - Parameter ending: how the program ended; `.stopped` when nobody saw it.
  package static func convert(
    _ recording: RawRecording, to path: String, ending: TraceEnding
  ) throws(ProgramError) -> ConversionReport {
    let log = try RawLog(path: recording.logPath)
    let samples = try readSamples(recording.samplesPath)
    let header: TraceHeader
    do { header = try TraceHeader(decoding: TraceFile(path: recording.headerPath)) } catch {
      throw ProgramError(.malformed, "\(recording.headerPath): \(error)")
    }
    // Complete or not there: a reader never sees half a trace under the name that was asked for.
    let partial = "\(path).partial"
    let file = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw ProgramError(.usage, "\(partial): cannot be made: \(errorText(errno))") }
    defer { close(file) }
    do {
      var conversion = LogConversion(writer: try TraceWriter(header: header, output: .descriptor(file)))
      try conversion.add(log, samples)
      let report = conversion.report
      try conversion.finish(problem(of: log) == nil ? ending : .stopped)
      if rename(partial, path) != 0 { throw ProgramError(.usage, "\(path): cannot be made: \(errorText(errno))") }
      return report
    } catch let error as TraceError {
      unlink(partial)
      throw ProgramError(.unavailable, "\(partial): \(error)")
    } catch let error as ProgramError {
      unlink(partial)
      throw error
    } catch { fatalError("\(error)") }
  }

  private init(writer: consuming TraceWriter) {
    spans = SpanConversion(pageBytes: writer.header.pageBytes)
    self.writer = writer
  }

  private consuming func finish(_ ending: TraceEnding) throws(TraceError) { try writer.finish(ending) }

  private static func problem(of log: RawLog) -> String? {
    let code = errorText(Int32(truncatingIfNeeded: log.header.problem_error))
    return switch hs_log_problem(log.header.problem) {
    case HS_LOG_COMPLETE: nil
    case HS_LOG_NO_SPACE: "the log could not grow: \(code)"
    case HS_LOG_NO_WIPE_ON_FORK: "the kernel cannot wipe memory on fork: \(code)"
    default: "unknown problem \(log.header.problem)"
    }
  }

  private static func readSamples(_ path: String) throws(ProgramError) -> [hs_log_sample] {
    let file: TraceFile
    do { file = try TraceFile(path: path) } catch { throw ProgramError(.missing, "\(path): \(error)") }
    let stride = MemoryLayout<hs_log_sample>.stride
    return (0..<file.bytes.count / stride).map {
      file.bytes.loadUnaligned(fromByteOffset: $0 * stride, as: hs_log_sample.self)
    }
  }

  private mutating func add(_ log: RawLog, _ samples: [hs_log_sample]) throws(TraceError) {
    var nextSample = 0
    var records = log.merged()
    while let record = records.next() {
      while nextSample < samples.count && samples[nextSample].time <= record.time {
        try add(samples[nextSample])
        nextSample += 1
      }
      try add(record)
    }
    while nextSample < samples.count {
      try add(samples[nextSample])
      nextSample += 1
    }
    report.events = writer.eventCount
    report.objects = writer.objectCount
    report.problem = Self.problem(of: log)
    report.attached = log.header.process != 0
    report.level = writer.header.level
  }
}

// MARK: - Records to events

extension LogConversion {
  private mutating func emit(_ body: TraceEventBody, thread: Int) throws(TraceError) {
    try writer.append(TraceEvent(time: time, thread: thread, body: body))
  }

  private mutating func add(_ sample: hs_log_sample) throws(TraceError) {
    time = max(time, sample.time)
    report.samples += 1
    try emit(
      .sample(
        ProgramSample(
          cpuNanoseconds: sample.cpu_nanoseconds, anonymousBytes: Int(sample.anonymous_bytes),
          hugeBytes: Int(sample.huge_bytes), minorFaults: sample.minor_faults, majorFaults: sample.major_faults)),
      thread: 0)
  }

  private mutating func add(_ record: LogRecord) throws(TraceError) {
    time = max(time, record.time)
    switch record.kind {
    case HS_LOG_MALLOC: try birth(record, .plain)
    case HS_LOG_CALLOC: try birth(record, .zeroed)
    case HS_LOG_ALIGNED: try birth(record, .aligned)
    case HS_LOG_FREE:
      if let object = heap.removeValue(forKey: record.address) {
        try emit(.free(object: object), thread: record.thread)
      } else {
        report.unknownReleases += 1
      }
    case HS_LOG_REALLOC_BEGIN:
      // If the call frees (size 0) there is no end, and the next begin or the program's end finds the object here.
      try settle(record.thread)
      let object = heap.removeValue(forKey: record.address)
      pending[record.thread] = Pending(object: object, address: record.address, bytes: 0)
    case HS_LOG_REALLOC_END: try reallocated(record)
    case HS_LOG_MAP:
      try unmap(record)
      try map(record)
    case HS_LOG_UNMAP: try unmap(record)
    case HS_LOG_REMAP_BEGIN:
      pending[record.thread] = Pending(
        object: mapped.object(at: record.address), address: record.address, bytes: record.bytes)
    case HS_LOG_REMAP_END: try remapped(record)
    case HS_LOG_SPAN, HS_LOG_SPAN_AT, HS_LOG_SPAN_FREE, HS_LOG_SPAN_REFUSED: try addSpan(record)
    case HS_LOG_IMAGE where writer.header.level == .span: try addSpan(record)
    case HS_LOG_IMAGE:
      report.replacedImages += 1
      try freeAll(thread: record.thread)
    default: break
    }
  }

  private mutating func addSpan(_ record: LogRecord) throws(TraceError) {
    var events: [TraceEventBody] = []
    try spans.add(record, &report) { (event) throws(TraceError) in events.append(event) }
    for event in events { try emit(event, thread: record.thread) }
  }

  /// An object is at least a byte: malloc(0) returns an address of its own.
  private func objectBytes(_ bytes: UInt64) -> Int { Int(min(max(bytes, 1), UInt64(TraceLimits.objectBytes))) }

  private mutating func birth(_ record: LogRecord, _ kind: AllocationKind) throws(TraceError) {
    if let previous = heap[record.address] {
      report.unseenReleases += 1
      try emit(.free(object: previous), thread: record.thread)
    }
    let object = writer.objectCount
    heap[record.address] = object
    report.heapBirths += 1
    try emit(
      .allocate(
        object: object, bytes: objectBytes(record.bytes), alignment: kind == .aligned ? record.alignment : 1, kind: kind
      ),
      thread: record.thread)
  }

  /// A realloc that never ended was a free.
  private mutating func settle(_ thread: Int) throws(TraceError) {
    if let object = pending.removeValue(forKey: thread)?.object { try emit(.free(object: object), thread: thread) }
  }

  private mutating func reallocated(_ record: LogRecord) throws(TraceError) {
    guard let begun = pending.removeValue(forKey: record.thread), let object = begun.object else {
      // Born before recording began: now it is known.
      if record.address != 0 { try birth(record, .plain) }
      return
    }
    if record.address == 0 {
      heap[begun.address] = object
      return
    }
    if let previous = heap[record.address] {
      report.unseenReleases += 1
      try emit(.free(object: previous), thread: record.thread)
    }
    heap[record.address] = object
    try emit(.resize(object: object, bytes: objectBytes(record.bytes)), thread: record.thread)
  }

  private func wholePages(_ bytes: UInt64) -> UInt64 {
    let page = UInt64(writer.header.pageBytes)
    return (bytes &+ page &- 1) / page &* page
  }

  private mutating func map(_ record: LogRecord) throws(TraceError) {
    let bytes = wholePages(record.bytes)
    let object = writer.objectCount
    _ = mapped.insert(record.address, bytes: bytes, object: object)
    try emit(
      .allocate(object: object, bytes: objectBytes(bytes), alignment: writer.header.pageBytes, kind: .mapped),
      thread: record.thread)
  }

  private mutating func unmap(_ record: LogRecord) throws(TraceError) {
    for change in mapped.remove(record.address, bytes: wholePages(record.bytes)) {
      try emit(
        change.bytes == 0
          ? .free(object: change.object) : .resize(object: change.object, bytes: objectBytes(change.bytes)),
        thread: record.thread)
    }
  }

  /// One resize: the bytes that the object has when the old range is gone and the new one is in place.
  private mutating func remapped(_ record: LogRecord) throws(TraceError) {
    guard let begun = pending.removeValue(forKey: record.thread), record.address != 0, let object = begun.object else {
      return
    }
    let old = mapped.remove(begun.address, bytes: wholePages(begun.bytes))
    for change in old where change.object != object {
      try emit(
        change.bytes == 0
          ? .free(object: change.object) : .resize(object: change.object, bytes: objectBytes(change.bytes)),
        thread: record.thread)
    }
    // MREMAP_FIXED replaces what is in the way.
    var displaced = record
    displaced.bytes = record.bytes
    try unmap(displaced)
    let bytes = mapped.insert(record.address, bytes: wholePages(record.bytes), object: object)
    try emit(.resize(object: object, bytes: objectBytes(bytes)), thread: record.thread)
  }

  /// The image was replaced: nothing of it lives on.
  private mutating func freeAll(thread: Int) throws(TraceError) {
    for key in pending.keys { try settle(key) }
    for object in heap.values.sorted() { try emit(.free(object: object), thread: thread) }
    heap.removeAll()
    for change in mapped.remove(0, bytes: .max) { try emit(.free(object: change.object), thread: thread) }
  }
}
