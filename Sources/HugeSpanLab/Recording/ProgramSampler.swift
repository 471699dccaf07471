// What the kernel says of the program while it runs: asked from outside, so that the recorder needs no thread inside it.

import CRecordingLog
import Glibc

/// Appends samples of a process to the file of a recording.
struct ProgramSampler: ~Copyable {
  private let process: pid_t
  private let startMonotonic: UInt64
  private let file: Int32
  private var clock: clockid_t = 0
  private var pending = hs_log_sample()
  private var hugeBytes: UInt64 = 0
  private var hugeBytesDue: UInt64 = 0
  /// How this thread was scheduled, and is again afterwards.
  private let policy: Int32
  private var original = sched_param()
  private var buffer = [UInt8](repeating: 0, count: 16384)

  init?(process: pid_t, recording: RawRecording, startMonotonic: UInt64) {
    self.process = process
    self.startMonotonic = startMonotonic
    // On time even if others take all CPUs, for the millisecond that a look takes; where real-time scheduling is not
    // allowed, samples may be late. (Niceness would not do: it counts only among the processes of a session.)
    policy = sched_getscheduler(0)
    var parameters = sched_param()
    sched_getparam(0, &original)
    parameters.sched_priority = 1
    sched_setscheduler(0, SCHED_RR, &parameters)
    file = open(recording.samplesPath, O_WRONLY | O_APPEND | O_CLOEXEC)
    if file < 0 || clock_getcpuclockid(process, &clock) != 0 { return nil }
  }

  deinit {
    leaveRealTime()
    if file >= 0 { close(file) }
  }

  private func leaveRealTime() {
    var parameters = original
    sched_setscheduler(0, policy, &parameters)
  }

  /// Takes one sample; nothing when the process is gone or its memory is no more.
  ///
  /// A program may free a hundred megabytes while it is looked at. So the time is that of the middle of the look, and a
  /// look that took long, because this process had to wait for a CPU, is taken again.
  mutating func sample() {
    readHugeBytesIfDue()
    for _ in 0..<3 {
      var sample = hs_log_sample()
      let before = nanoseconds(CLOCK_MONOTONIC)
      guard readMemory(&sample), readFaults(&sample), readClock(&sample) else { return }
      let after = nanoseconds(CLOCK_MONOTONIC)
      pending = sample
      pending.time = before + (after - before) / 2 - startMonotonic
      if after - before < 10_000_000 { break }
    }
    pending.huge_bytes = min(hugeBytes, pending.anonymous_bytes)
    // One write of 48 bytes: whole or not there.
    _ = withUnsafeBytes(of: &pending) { write(file, $0.baseAddress, $0.count) }
  }

  private func readClock(_ sample: inout hs_log_sample) -> Bool {
    var time = timespec()
    guard clock_gettime(clock, &time) == 0 else { return false }
    sample.cpu_nanoseconds = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    return true
  }

  /// The kernel's counter of anonymous pages.
  private mutating func readMemory(_ sample: inout hs_log_sample) -> Bool {
    guard let text = read("/proc/\(process)/status") else { return false }
    for line in text.split(separator: 0x0A) {
      if let value = kibibytes(line, "RssAnon:") {
        sample.anonymous_bytes = value * 1024
        return true
      }
    }
    return false
  }

  /// Hugepages are in the rolled-up map only: a pass of the kernel over the page tables, 2 ms for 100 MiB of base pages,
  /// nothing for hugepages. It is made with each sample while that is a tenth of the time, and less often for programs of
  /// gigabytes; then the figure is the last one.
  private mutating func readHugeBytesIfDue() {
    let now = nanoseconds(CLOCK_MONOTONIC)
    if now < hugeBytesDue { return }
    let workBefore = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
    guard let text = read("/proc/\(process)/smaps_rollup") else { return }
    for line in text.split(separator: 0x0A) {
      if let value = kibibytes(line, "AnonHugePages:") { hugeBytes = value * 1024 }
    }
    let work = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - workBefore
    hugeBytesDue = now + 10 * work
    // Too long to be ahead of everybody.
    if work > 100_000_000 { leaveRealTime() }
  }

  /// Fields 10 and 12 of `stat`, counted after the name, which may itself contain blanks and parentheses.
  private mutating func readFaults(_ sample: inout hs_log_sample) -> Bool {
    guard let text = read("/proc/\(process)/stat"), let close = text.lastIndex(of: 0x29) else { return false }
    let fields = text[(close + 1)...].split(separator: 0x20)
    guard fields.count > 9, let minor = decimal(fields[7]), let major = decimal(fields[9]) else { return false }
    sample.minor_faults = minor
    sample.major_faults = major
    return true
  }

  private mutating func read(_ path: String) -> ArraySlice<UInt8>? {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var count = 0
    while count < buffer.count {
      let result = buffer.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress! + count, $0.count - count) }
      if result <= 0 { break }
      count += result
    }
    return count > 0 ? buffer[..<count] : nil
  }

  private func kibibytes(_ line: ArraySlice<UInt8>, _ name: StaticString) -> UInt64? {
    let prefix = UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
    guard line.starts(with: prefix) else { return nil }
    return decimal(line.dropFirst(prefix.count).drop { $0 == 0x20 || $0 == 0x09 })
  }

  private func decimal(_ bytes: ArraySlice<UInt8>) -> UInt64? {
    let digits = bytes.prefix { $0 >= 0x30 && $0 <= 0x39 }
    return digits.isEmpty ? nil : digits.reduce(0) { $0 &* 10 &+ UInt64($1 - 0x30) }
  }
}
