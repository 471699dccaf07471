// A recorder's log: attaching a process to it, giving threads their segments, taking them back.
//
// This runs inside malloc, of programs that know nothing of us: no allocation (the compiler proves it), no descriptor
// kept open (programs close what they did not open, and reuse the number), no lock that a thread could die with except
// one of a few instructions. A segment is opened by path, mapped, and the descriptor closed again: some ten
// microseconds, once in ten thousand events.
//
// Compiled into each library that records (see log_writer.h), by a symbolic link.

import CHugeSpanLogWriter

private let headerBytes = UInt64(HS_LOG_HEADER_BYTES)
private let segmentBytes = UInt64(HS_LOG_SEGMENT_BYTES)

/// Attaches this process to the log at `path`, if that is of `level`.
///
/// A program that starts others hands them our environment. The log knows the process it is for: another one leaves it
/// alone, and the same one, coming back by exec, goes on with it.
@c(hs_recorder_attach)
public func attach(_ path: UnsafePointer<CChar>, _ level: UInt32) -> UnsafeMutablePointer<hs_state>? {
  guard let header = mapHeader(path) else { return nil }
  let process = hs_system_process()
  if header.pointee.level != level {
    _ = hs_system_unmap(header, headerBytes)
    return nil
  }
  if !hs_exchange(&header.pointee.process, 0, process) && hs_load(&header.pointee.process) != process {
    _ = hs_system_unmap(header, headerBytes)
    return nil
  }
  // After a failure the log has a hole; going on in a new image would hide it.
  if hs_load(&header.pointee.problem) != 0 { return nil }
  guard let state = mapState(header) else { return nil }
  state.pointee.header = header
  state.pointee.start_monotonic = header.pointee.start_monotonic
  guard copy(path, to: state.pointee.path) else { return nil }
  if hs_fetch_add(&header.pointee.images) > 0 { recordImage(state) }
  hs_store(&state.pointee.active, 1)
  return state
}

private func mapHeader(_ path: UnsafePointer<CChar>) -> UnsafeMutablePointer<hs_log_header>? {
  let file = hs_system_open(path)
  guard file >= 0 else { return nil }
  defer { _ = hs_system_close(file) }
  let address = hs_system_map_file(file, 0, headerBytes)
  guard address > 0, let header = UnsafeMutablePointer<hs_log_header>(bitPattern: Int(address)) else { return nil }
  if header.pointee.magic != HS_LOG_MAGIC {
    _ = hs_system_unmap(header, headerBytes)
    return nil
  }
  return header
}

/// The state, and behind it in the same mapping what it points to.
private func mapState(_ header: UnsafeMutablePointer<hs_log_header>) -> UnsafeMutablePointer<hs_state>? {
  let stateBytes = MemoryLayout<hs_state>.stride
  let remainderBytes = Int(HS_REMAINDERS) * MemoryLayout<hs_remainder>.stride
  let address = hs_system_map_wiped_on_fork(UInt64(stateBytes + remainderBytes + Int(HS_LOG_PATH_BYTES)))
  guard address > 0, let base = UnsafeMutableRawPointer(bitPattern: Int(address)) else {
    report(HS_LOG_NO_WIPE_ON_FORK, address, to: header)
    return nil
  }
  let state = base.assumingMemoryBound(to: hs_state.self)
  state.pointee.remainders = (base + stateBytes).assumingMemoryBound(to: hs_remainder.self)
  state.pointee.path = (base + stateBytes + remainderBytes).assumingMemoryBound(to: CChar.self)
  return state
}

/// The path is kept because the environment it came in belongs to the program.
private func copy(_ path: UnsafePointer<CChar>, to target: UnsafeMutablePointer<CChar>) -> Bool {
  for index in 0..<Int(HS_LOG_PATH_BYTES) {
    target[index] = path[index]
    if path[index] == 0 { return true }
  }
  return false
}

/// Says in the log that what lived before is gone, from a segment that is handed on at once.
private func recordImage(_ state: UnsafeMutablePointer<hs_state>) {
  var cursor = hs_cursor()
  // In the name of the first thread, so that no number is spent on this.
  cursor.thread = 1
  guard refill(state, &cursor) else { return }
  hs_store_record(&cursor, head(HS_LOG_IMAGE, state), 0, 0)
  retire(state, &cursor)
}

private func head(_ kind: hs_log_kind, _ state: UnsafeMutablePointer<hs_state>) -> UInt64 {
  (hs_monotonic() &- state.pointee.start_monotonic) | UInt64(kind.rawValue) &<< UInt64(HS_LOG_TIME_BITS)
}

private func report(_ problem: hs_log_problem, _ error: Int, to header: UnsafeMutablePointer<hs_log_header>) {
  header.pointee.problem_error = UInt32(truncatingIfNeeded: -error)
  hs_store(&header.pointee.problem, problem.rawValue)
}

/// Gives the thread of `cursor` room for at least one record.
@c(hs_recorder_refill)
public func refill(_ state: UnsafeMutablePointer<hs_state>, _ cursor: UnsafeMutablePointer<hs_cursor>) -> Bool {
  let header = state.pointee.header!
  if cursor.pointee.thread == 0 { cursor.pointee.thread = hs_fetch_add(&header.pointee.threads) &+ 1 }
  if let segment = cursor.pointee.segment {
    _ = hs_system_unmap(segment, segmentBytes)
    cursor.pointee.segment = nil
  } else if takeRemainder(state, cursor) {
    return true
  }
  let index = hs_fetch_add(&header.pointee.segments)
  let address = mapSegment(state.pointee.path, index)
  guard address > 0, let segment = UnsafeMutablePointer<hs_log_segment>(bitPattern: Int(address)) else {
    cursor.pointee.next = nil
    cursor.pointee.end = nil
    report(HS_LOG_NO_SPACE, address, to: header)
    hs_store(&state.pointee.active, 0)
    return false
  }
  segment.pointee.index = index
  segment.pointee.thread = cursor.pointee.thread &- 1
  segment.pointee.magic = UInt64(HS_LOG_SEGMENT_MAGIC)
  cursor.pointee.segment = segment
  cursor.pointee.next = firstRecord(segment)
  cursor.pointee.end = endRecord(segment)
  return true
}

/// Space on the disk first, the mapping after: a store into a mapped hole of a full disk would end the program.
private func mapSegment(_ path: UnsafePointer<CChar>, _ index: UInt32) -> Int {
  let file = hs_system_open(path)
  if file < 0 { return file }
  defer { _ = hs_system_close(file) }
  let offset = headerBytes &+ UInt64(index) &* segmentBytes
  let allocated = hs_system_allocate(file, offset, segmentBytes)
  if allocated < 0 { return allocated }
  return hs_system_map_file(file, offset, segmentBytes)
}

private func firstRecord(_ segment: UnsafeMutablePointer<hs_log_segment>) -> UnsafeMutablePointer<hs_log_record> {
  UnsafeMutableRawPointer(segment + 1).assumingMemoryBound(to: hs_log_record.self)
}

private func endRecord(_ segment: UnsafeMutablePointer<hs_log_segment>) -> UnsafeMutablePointer<hs_log_record> {
  firstRecord(segment) + (Int(segmentBytes) / MemoryLayout<hs_log_record>.stride - 1)
}

// MARK: - Threads that end

/// Takes what is left of the segment, for the next thread that begins. A server may start a thread per request.
@c(hs_recorder_retire)
public func retire(_ state: UnsafeMutablePointer<hs_state>, _ cursor: UnsafeMutablePointer<hs_cursor>) {
  guard let segment = cursor.pointee.segment, let next = cursor.pointee.next else { return }
  cursor.pointee.segment = nil
  cursor.pointee.next = nil
  cursor.pointee.end = nil
  // Room for the hand-over and one record at least.
  if next + 2 <= endRecord(segment) {
    lock(state)
    defer { unlock(state) }
    let count = Int(state.pointee.remainder_count)
    if count < Int(HS_REMAINDERS) {
      state.pointee.remainders[count] = hs_remainder(segment: segment, next: next)
      state.pointee.remainder_count = UInt32(count) &+ 1
      return
    }
  }
  _ = hs_system_unmap(segment, segmentBytes)
}

private func takeRemainder(
  _ state: UnsafeMutablePointer<hs_state>, _ cursor: UnsafeMutablePointer<hs_cursor>
) -> Bool {
  lock(state)
  let count = Int(state.pointee.remainder_count)
  if count == 0 {
    unlock(state)
    return false
  }
  let remainder = state.pointee.remainders[count - 1]
  state.pointee.remainder_count = UInt32(count) &- 1
  unlock(state)
  cursor.pointee.segment = remainder.segment
  cursor.pointee.next = remainder.next
  cursor.pointee.end = endRecord(remainder.segment)
  hs_store_record(cursor, head(HS_LOG_THREAD, state), UInt64(cursor.pointee.thread &- 1), 0)
  return true
}

/// Held for a few instructions, only when threads begin and end.
private func lock(_ state: UnsafeMutablePointer<hs_state>) {
  while !hs_exchange(&state.pointee.remainder_lock, 0, 1) { hs_pause() }
}

private func unlock(_ state: UnsafeMutablePointer<hs_state>) { hs_store(&state.pointee.remainder_lock, 0) }
