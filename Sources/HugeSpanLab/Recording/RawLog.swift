// The recorder's log read back: its segments merged into one sequence of records in the order of time.

import CRecordingLog
import Glibc

/// A record of the log, with its thread and its time.
struct LogRecord {
  var time: UInt64
  /// A server that starts a thread per request uses up the trace's thread numbers; they begin again after 2^20.
  var thread: Int
  var kind: hs_log_kind
  var alignment: Int
  var address: UInt64
  var bytes: UInt64
}

/// The log of a recording, mapped: at 24 bytes an event it may be larger than memory.
final class RawLog {
  let header: hs_log_header
  private let bytes: UnsafeRawBufferPointer

  init(path: String) throws(ProgramError) {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw ProgramError(.missing, "\(path): cannot be opened: \(errorText(errno))") }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw ProgramError(.missing, "\(path): \(errorText(errno))") }
    let count = Int(status.st_size)
    if count < Int(HS_LOG_HEADER_BYTES) {
      throw ProgramError(.malformed, "\(path): cut off in the log's header, at byte \(count)")
    }
    let address = mmap(nil, count, PROT_READ, MAP_PRIVATE, file, 0)
    guard let address, address != UnsafeMutableRawPointer(bitPattern: -1) else {
      throw ProgramError(.unavailable, "\(path): cannot be mapped: \(errorText(errno))")
    }
    let bytes = UnsafeRawBufferPointer(start: address, count: count)
    header = bytes.loadUnaligned(as: hs_log_header.self)
    if header.magic != HS_LOG_MAGIC {
      munmap(address, count)
      throw ProgramError(.malformed, "\(path): not a recorder's log, at byte 0")
    }
    self.bytes = bytes
  }

  deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count) }

  /// The records of all threads, in the order of time; at equal times deaths come before births.
  func merged() -> MergedRecords { MergedRecords(segments()) }

  private func segments() -> [SegmentCursor] {
    var result: [SegmentCursor] = []
    var offset = Int(HS_LOG_HEADER_BYTES)
    while offset < bytes.count {
      let end = min(offset + Int(HS_LOG_SEGMENT_BYTES), bytes.count)
      if let cursor = SegmentCursor(UnsafeRawBufferPointer(rebasing: bytes[offset..<end])) { result.append(cursor) }
      offset = end
    }
    return result
  }
}

/// The records of many segments as one sequence.
struct MergedRecords {
  /// Segments wait until the merge reaches their first record, so that only those of running threads compete.
  private var waiting: [SegmentCursor]
  private var running = SegmentHeap()

  fileprivate init(_ segments: [SegmentCursor]) { waiting = segments.sorted { $0.rank > $1.rank } }

  /// The next record, nil after the last.
  mutating func next() -> LogRecord? {
    while true {
      while let next = waiting.last, next.rank <= running.first?.rank ?? .max {
        running.insert(next)
        waiting.removeLast()
      }
      guard var segment = running.first else { return nil }
      let record = segment.current
      let kind = hs_log_kind(UInt32(truncatingIfNeeded: (record.head >> 48) & 0xFF))
      if kind == HS_LOG_THREAD { segment.thread = Int(truncatingIfNeeded: record.address & 0xF_FFFF) }
      let result = LogRecord(
        time: record.head & (1 << 48 - 1), thread: segment.thread, kind: kind,
        alignment: 1 << Int((record.head >> 56) & 63), address: record.address, bytes: record.bytes)
      if segment.advance() { running.replaceFirst(with: segment) } else { running.removeFirst() }
      if kind != HS_LOG_THREAD { return result }
    }
  }
}

/// A place in a segment.
private struct SegmentCursor {
  private(set) var current: hs_log_record
  var thread: Int
  private let bytes: UnsafeRawBufferPointer
  private var offset: Int

  /// The segment's first record; nil when there is none, or the process ended before the frame was written.
  init?(_ bytes: UnsafeRawBufferPointer) {
    let stride = MemoryLayout<hs_log_record>.stride
    guard bytes.count >= 2 * stride else { return nil }
    let frame = bytes.loadUnaligned(as: hs_log_segment.self)
    guard frame.magic == UInt64(HS_LOG_SEGMENT_MAGIC) else { return nil }
    self.bytes = bytes
    offset = stride
    thread = Int(frame.thread) & 0xF_FFFF
    current = bytes.loadUnaligned(fromByteOffset: stride, as: hs_log_record.self)
    if current.head == 0 { return nil }
  }

  /// Steps to the next record; false at the end.
  mutating func advance() -> Bool {
    offset += MemoryLayout<hs_log_record>.stride
    guard offset + MemoryLayout<hs_log_record>.stride <= bytes.count else { return false }
    current = bytes.loadUnaligned(fromByteOffset: offset, as: hs_log_record.self)
    return current.head != 0
  }

  /// Time first; at equal times births after everything else, since an address that dies and is born in the same
  /// nanosecond did so in this order.
  var rank: UInt64 {
    let born: Bool =
      switch hs_log_kind(UInt32(truncatingIfNeeded: (current.head >> 48) & 0xFF)) {
      case HS_LOG_MALLOC, HS_LOG_CALLOC, HS_LOG_ALIGNED, HS_LOG_REALLOC_END, HS_LOG_MAP, HS_LOG_REMAP_END,
        HS_LOG_SPAN, HS_LOG_SPAN_AT:
        true
      default: false
      }
    return (current.head & (1 << 48 - 1)) << 1 | (born ? 1 : 0)
  }
}

/// A binary heap of segments, the one with the earliest record first.
private struct SegmentHeap {
  private var items: [(rank: UInt64, segment: SegmentCursor)] = []

  var first: SegmentCursor? { items.first?.segment }

  mutating func insert(_ segment: SegmentCursor) {
    items.append((segment.rank, segment))
    var child = items.count - 1
    while child > 0, items[child].rank < items[(child - 1) / 2].rank {
      items.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func replaceFirst(with segment: SegmentCursor) {
    items[0] = (segment.rank, segment)
    sink()
  }

  mutating func removeFirst() {
    let last = items.removeLast()
    if items.isEmpty { return }
    items[0] = last
    sink()
  }

  private mutating func sink() {
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < items.count && items[child].rank < items[least].rank {
        least = child
      }
      if least == parent { return }
      items.swapAt(parent, least)
      parent = least
    }
  }
}
