// A recording while it is made: a directory with what is to become one trace.
//
//     header     what is known of the program before it starts, as the header of a trace
//     log        the recorder's log (recording_log.h)
//     samples    what the kernel said of the program, appended as it is asked
//
// Nothing of it is needed in memory, so `record` may be killed at any time, and the directory converted later.

import CRecordingLog
import Glibc
import TraceFormat

/// The directory of a recording.
package struct RawRecording: Sendable {
  package let directory: String

  package init(directory: String) { self.directory = directory }

  package var logPath: String { "\(directory)/log" }
  package var samplesPath: String { "\(directory)/samples" }
  package var headerPath: String { "\(directory)/header" }

  /// Makes the directory with an empty log in it. Its clock starts now.
  package static func create(
    at directory: String, header: TraceHeader
  ) throws(ProgramError) -> RawRecording {
    let recording = RawRecording(directory: directory)
    if mkdir(directory, 0o755) != 0 {
      let code = errno
      throw ProgramError(
        .usage,
        code == EEXIST
          ? "\(directory): exists already, from a recording that was interrupted; convert it (hugespan record --convert \(directory) -o FILE) or remove it"
          : "\(directory): cannot be made: \(errorText(code))")
    }
    var log = hs_log_header()
    log.magic = HS_LOG_MAGIC
    log.start_monotonic = nanoseconds(CLOCK_MONOTONIC)
    log.start_realtime = nanoseconds(CLOCK_REALTIME)
    log.page_bytes = UInt32(getpagesize())
    log.level = (header.level == .malloc ? HS_LOG_LEVEL_MALLOC : HS_LOG_LEVEL_SPAN).rawValue
    var header = header
    header.startNanoseconds = log.start_realtime
    header.pageBytes = Int(log.page_bytes)
    try write(header.encodedBytes, to: recording.headerPath)
    try write([], to: recording.samplesPath)
    var page = [UInt8](repeating: 0, count: Int(HS_LOG_HEADER_BYTES))
    withUnsafeBytes(of: &log) { page.replaceSubrange(0..<$0.count, with: $0) }
    try write(page, to: recording.logPath)
    return recording
  }

  /// Removes the directory and what `create` and the recorder put there.
  package func remove() {
    unlink(logPath)
    unlink(samplesPath)
    unlink(headerPath)
    rmdir(directory)
  }

  private static func write(_ bytes: [UInt8], to path: String) throws(ProgramError) {
    let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw ProgramError(.usage, "\(path): cannot be made: \(errorText(errno))") }
    defer { close(file) }
    if bytes.withUnsafeBytes({ Glibc.write(file, $0.baseAddress, $0.count) }) != bytes.count {
      throw ProgramError(.unavailable, "\(path): cannot be written: \(errorText(errno))")
    }
  }
}

/// The time of a clock in nanoseconds.
func nanoseconds(_ clock: clockid_t) -> UInt64 {
  var time = timespec()
  clock_gettime(clock, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
