// The memory of another process, looked at from outside while it runs: mean and peak, and how much of it was huge.

import Glibc

/// Collects looks at a process.
package struct MemoryWatch {
  /// Nanoseconds between looks, unless a look itself takes long.
  package static let period: UInt64 = 50_000_000

  private var start: UInt64?
  private var lastTime: UInt64 = 0
  private var lastAnonymous = 0
  private var lastHuge = 0
  private var hugeDue: UInt64 = 0
  private var anonymousNanoseconds = 0.0
  private var hugeNanoseconds = 0.0
  /// Bytes of anonymous memory at the peak.
  package private(set) var peakBytes = 0
  /// Looks that found something.
  package private(set) var looks = 0

  package init() {}

  /// Looks once; nothing when the process is gone.
  package mutating func look(at process: pid_t) {
    guard let anonymous = kibibytes("/proc/\(process)/status", "RssAnon:") else { return }
    let now = nanoseconds(CLOCK_MONOTONIC)
    note(anonymous: anonymous, huge: hugeIfDue(process, now), at: now)
  }

  /// What a look found; `huge` is nil if it was not looked for.
  mutating func note(anonymous: Int, huge: Int?, at now: UInt64) {
    if start == nil {
      start = now
    } else {
      // What was found last held until now.
      anonymousNanoseconds += Double(lastAnonymous) * Double(now - lastTime)
      hugeNanoseconds += Double(lastHuge) * Double(now - lastTime)
    }
    lastTime = now
    lastAnonymous = anonymous
    // Two files tell the two, and between them the program went on.
    lastHuge = min(huge ?? lastHuge, anonymous)
    peakBytes = max(peakBytes, anonymous)
    looks += 1
  }

  /// A pass of the kernel over the process' page tables: never more than a tenth of the time.
  private mutating func hugeIfDue(_ process: pid_t, _ now: UInt64) -> Int? {
    if now < hugeDue { return nil }
    let before = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
    let huge = kibibytes("/proc/\(process)/smaps_rollup", "AnonHugePages:") ?? 0
    hugeDue = now + 10 * (nanoseconds(CLOCK_THREAD_CPUTIME_ID) - before)
    return huge
  }

  private var nanosecondsWatched: UInt64 { lastTime - (start ?? lastTime) }

  /// Mean bytes of anonymous memory; nil if the process was gone too soon.
  package var meanBytes: Double? {
    nanosecondsWatched == 0 ? nil : anonymousNanoseconds / Double(nanosecondsWatched)
  }

  /// Bytes on hugepages of all bytes, over time; nil if the process was gone too soon.
  package var hugeShare: Double? { anonymousNanoseconds == 0 ? nil : hugeNanoseconds / anonymousNanoseconds }

  private func kibibytes(_ path: String, _ name: String) -> Int? {
    guard let text = wholeFile(path) else { return nil }
    for line in text.split(separator: "\n") where line.hasPrefix(name) {
      return line.dropFirst(name.count).split { $0.isWhitespace }.first.flatMap { Int($0) }.map { $0 * 1024 }
    }
    return nil
  }

  private func wholeFile(_ path: String) -> String? {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 8192)
    let count = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
  }
}
