// How much memory others can still take before this process feels it: strategy `deferred` gives nothing away before
// somebody needs it, so somebody has to look.
//
// What is looked at is whatever exists: the process' memory cgroup and those above it (version 2: memory.current against
// memory.high and memory.max; version 1: usage against limit), the system's MemAvailable, the stalls that the kernel
// reports (PSI), and a limit of the user's own on what the process has resident. Each gives a *headroom*; the least
// counts. A limit is as good as reached when the headroom falls below a *reserve*: a sixteenth of the limit, and what the
// fastest consumer of late takes in a tenth of a second.
//
// The usage of a cgroup contains file cache and what MADV_FREE gave up, which the kernel takes back by itself. To know how
// much that is takes a longer file (memory.stat, 30 us), so it is read only where the plain difference is below the reserve.
//
// It polls, because nothing else is early enough: PSI and version 1's pressure events tell of reclaim that is under way,
// and at 500 MB/s a limit that is 100 MB away is hit in 200 ms. The next look comes after a quarter of the time that
// the fastest consumer of late would need, or one of 1 GB/s whom nobody has seen yet: 1 to 100 ms, and while nobody takes
// anything at the cost of a thousandth of a processor at most. An event ends a wait early.
//
// All paths begin at a root, so that recorded trees can be shown to it. No allocation and no Foundation: this is in the C
// library too.

import CHugeSpanShims

/// What a look at the files told.
package struct PressureReading: Equatable, Sendable {
  /// Bytes until the nearest limit; `Int.max` if there is none.
  package var headroom = Int.max
  /// Below this many bytes of headroom memory should be given back.
  package var reserve = 0
  /// Tasks stalled for want of memory for a tenth of two seconds.
  package var isStalled = false
  /// Nanoseconds until the next look.
  package var nextLook: UInt64 = PressureWatcher.longestPeriod

  /// Memory should be given back now.
  package var isPressed: Bool { headroom < reserve || isStalled }

  /// Far from every limit.
  package init() {}
}

/// One thing that is looked at.
struct PressureSource {
  enum Kind: UInt8 {
    case none, groupOne, groupTwo, system, stalls, own
  }

  var kind = Kind.none
  // Files, negative where there is none.
  var usage: Int32 = -1
  var limit: Int32 = -1
  var high: Int32 = -1
  var statistics: Int32 = -1

  /// The last look, and when the next is due.
  var lookedAt: UInt64 = 0
  var due: UInt64 = 0
  var headroom = Int.max
  var reserve = 0
  /// Bytes a second that went at most of late; halves in two seconds.
  var rate: Double = 0
  /// Stalls: microseconds in all when the window began, and when that was.
  var stallTotal = -1
  var windowStart: UInt64 = 0

  func closeFiles() {
    if usage >= 0 { hs_shim_close(usage) }
    if limit >= 0 { hs_shim_close(limit) }
    if high >= 0 { hs_shim_close(high) }
    if statistics >= 0 { hs_shim_close(statistics) }
  }
}

/// Watches everything that can tell of memory getting short. Used by one thread at a time.
package struct PressureWatcher {
  /// The shortest and the longest time between two looks, in nanoseconds.
  package static var shortestPeriod: UInt64 { 1_000_000 }
  package static var longestPeriod: UInt64 { 100_000_000 }
  /// Bytes a second of a consumer whom nobody has seen yet.
  static var unseenRate: Double { 1e9 }
  /// The reserve is a sixteenth of the limit, within these bounds, and never more than a quarter of it.
  static var reserveShare: Int { 16 }
  static var leastReserve: Int { 32 << 20 }
  static var mostReserve: Int { 1 << 30 }
  /// What the fastest consumer takes in this time belongs to the reserve too: a hundred of the shortest periods.
  static var reserveSeconds: Double { 0.1 }
  /// While nobody takes anything a look may cost one part in this of the time until the next.
  static var costFactor: UInt64 { 1000 }
  /// Microseconds of stalls within two seconds that count as pressure.
  static var stallLimit: Int { 200_000 }
  static var stallWindow: UInt64 { 2_000_000_000 }
  /// Groups that are looked at, from the process' own upwards.
  static var mostGroups: Int { 8 }
  static let capacity = 11

  var sources = InlineArray<11, PressureSource>(repeating: PressureSource())
  package internal(set) var sourceCount = 0
  /// Signalled by the kernel's pressure events, and by whoever wants the watching thread; negative if there is none.
  package internal(set) var event: Int32 = -1
  private var ownLimit = 0
  private var lookCost: UInt64 = 0

  /// Watches nothing.
  package init() {}

  /// Opens what there is to look at.
  ///
  /// - Parameters:
  ///   - root: What all paths begin with; nil for the system itself.
  ///   - ownLimit: Bytes that the process may have resident; 0 for no such limit.
  ///   - hasEvents: Whether to be told of version 1's pressure events.
  package init(root: UnsafePointer<CChar>? = nil, ownLimit: Int, hasEvents: Bool) {
    self.ownLimit = ownLimit
    if hasEvents { event = hs_shim_event_open() }
    var path = PathText(root: root)
    openGroups(&path)
    path.reset()
    path.append("/proc/meminfo")
    add(PressureSource(kind: .system, usage: path.open()))
    if sources[0].kind != .groupTwo || !openStalls(ofGroup: &path) {
      path.reset()
      path.append("/proc/pressure/memory")
      add(PressureSource(kind: .stalls, usage: path.open()))
    }
    if ownLimit > 0 {
      path.reset()
      path.append("/proc/self/statm")
      add(PressureSource(kind: .own, usage: path.open()))
    }
  }

  mutating func add(_ source: PressureSource) {
    if source.usage < 0 || sourceCount == Self.capacity { return source.closeFiles() }
    sources[sourceCount] = source
    sourceCount += 1
  }

  /// Closes every file.
  package mutating func close() {
    for index in 0..<sourceCount { sources[index].closeFiles() }
    if event >= 0 { hs_shim_close(event) }
    self = PressureWatcher()
  }

  // MARK: Looking

  /// Looks at what is due at `now`, a clock in nanoseconds that does not go back; at everything if `all`.
  package mutating func look(now: UInt64, all: Bool = false) -> PressureReading {
    var reading = PressureReading()
    var next = UInt64.max
    var tightest = Int.max
    let start = hs_shim_thread_cpu_nanoseconds()
    var looked = 0
    for index in 0..<sourceCount {
      if all || now >= sources[index].due {
        looked += 1
        var source = sources[index]
        if source.kind == .stalls {
          reading.isStalled = lookAtStalls(&source, now) || reading.isStalled
        } else {
          look(at: &source, now)
        }
        sources[index] = source
      }
      next = min(next, sources[index].due)
      // The nearest to its reserve is the one that counts.
      let room = sources[index].headroom == .max ? Int.max : sources[index].headroom - sources[index].reserve
      if room < tightest {
        tightest = room
        reading.headroom = sources[index].headroom
        reading.reserve = sources[index].reserve
      }
    }
    if looked == sourceCount { lookCost = hs_shim_thread_cpu_nanoseconds() &- start }
    reading.nextLook = next == .max ? Self.longestPeriod : max(next &- min(next, now), Self.shortestPeriod)
    return reading
  }

  private func look(at source: inout PressureSource, _ now: UInt64) {
    guard let (limit, plain) = difference(source) else {
      source.headroom = .max
      source.lookedAt = 0
      source.due = now + Self.longestPeriod
      return
    }
    let fading = source.lookedAt == 0 ? 0 : 1 / (1 + 0.35 * Double(now - source.lookedAt) / 1e9)
    source.rate *= fading
    source.reserve = Self.reserve(limit: limit, rate: source.rate)
    var headroom = plain
    if headroom < source.reserve { headroom += reclaimableBytes(source) }
    if source.lookedAt != 0 && source.headroom != .max && now > source.lookedAt && headroom < source.headroom {
      source.rate = max(source.rate, Double(source.headroom - headroom) / (Double(now - source.lookedAt) / 1e9))
      source.reserve = Self.reserve(limit: limit, rate: source.rate)
    }
    source.headroom = headroom
    source.lookedAt = now
    source.due = now + period(source)
  }

  package static func reserve(limit: Int, rate: Double) -> Int {
    let share = max(leastReserve, min(limit / reserveShare, mostReserve))
    return min(share + Int(min(rate * reserveSeconds, 1e12)), limit / 4)
  }

  /// A quarter of the time in which the room down to the reserve could be gone.
  private func period(_ source: PressureSource) -> UInt64 {
    let room = Double(max(source.headroom - source.reserve, 0))
    // A tenth of what an unseen consumer would take is somebody; below that is noise.
    let isSeen = source.rate > Self.unseenRate / 10
    let seconds = room / max(source.rate, Self.unseenRate) / 4
    var period = UInt64(min(seconds, 1) * 1e9)
    if !isSeen { period = max(period, lookCost * Self.costFactor) }
    return min(max(period, Self.shortestPeriod), Self.longestPeriod)
  }

  /// The limit, and how much of it is left by the plain counters; nil if there is no limit or no answer.
  private func difference(_ source: PressureSource) -> (limit: Int, left: Int)? {
    switch source.kind {
    case .groupOne, .groupTwo:
      var limit = number(source.limit) ?? .max
      if source.high >= 0 { limit = min(limit, number(source.high) ?? .max) }
      // What version 1 calls no limit is the largest number of pages.
      guard limit < 1 << 60, let usage = number(source.usage) else { return nil }
      return (limit, limit - usage)
    case .system:
      return withText(source.usage) { text in
        guard let available = text.kilobytes("MemAvailable:"), let total = text.kilobytes("MemTotal:") else {
          return nil
        }
        return (total, available)
      }
    case .own:
      return withText(source.usage) { text in
        guard let pages = text.number(word: 1) else { return nil }
        return (ownLimit, ownLimit - pages << pageShift)
      }
    case .none, .stalls: return nil
    }
  }

  /// Bytes of a group's usage that the kernel takes back by itself: file cache that is not in use, and what was lazily freed, which
  /// it keeps in the same list.
  private func reclaimableBytes(_ source: PressureSource) -> Int {
    switch source.kind {
    case .groupOne: withText(source.statistics) { $0.value("total_inactive_file ") ?? $0.value("inactive_file ") } ?? 0
    case .groupTwo: withText(source.statistics) { $0.value("inactive_file ") } ?? 0
    case .none, .system, .stalls, .own: 0
    }
  }

  /// Whether stalls of the last two seconds have come to the limit; then the next two begin.
  private func lookAtStalls(_ source: inout PressureSource, _ now: UInt64) -> Bool {
    source.due = now + Self.longestPeriod
    guard let total = withText(source.usage, { $0.value("total=") }) else { return false }
    let isStalled = source.stallTotal >= 0 && total - source.stallTotal >= Self.stallLimit
    if source.stallTotal < 0 || isStalled || now - source.windowStart >= Self.stallWindow {
      source.stallTotal = total
      source.windowStart = now
    }
    return isStalled
  }

  private func number(_ file: Int32) -> Int? { withText(file) { $0.number(word: 0) } }

  private func withText<Result>(_ file: Int32, _ body: (FileText) -> Result?) -> Result? {
    if file < 0 { return nil }
    var buffer = InlineArray<8192, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &buffer) { bytes in
      let length = hs_shim_read_at(file, bytes.baseAddress, bytes.count, 0)
      return length > 0 ? body(FileText(UnsafeRawBufferPointer(rebasing: bytes[..<length]))) : nil
    }
  }
}
