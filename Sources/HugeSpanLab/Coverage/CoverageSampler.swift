// A process looked at again and again, for a small share of a core.
//
// A complete look walks every page table of the process: 22 ns a base page by smaps, 45 ms for 8 GiB, which is half of a core at ten looks a
// second. What is in memory at all the kernel counts as it goes and tells in `status` for a few microseconds. What is on hugepages has to be
// walked; so after a first complete look each look walks a part of the address space, the one that was walked longest ago, as long as its
// share of CPU time lasts, by PAGEMAP_SCAN, which is several times as quick. Each sample says how old its oldest part is. LazyFree
// is told by smaps alone, and is as old as the last complete look, which is repeated as often as its share allows.

import CHugeSpanShims
import Glibc

/// One look of a series.
package struct CoverageSample: Equatable, Sendable {
  package var coverage: ProcessCoverage
  /// Seconds since the oldest part of the huge bytes was seen, and since LazyFree was.
  package var oldestSeconds: Double
  package var lazyFreeSeconds: Double

  /// A look at everything, unless ages say otherwise.
  package init(coverage: ProcessCoverage, oldestSeconds: Double = 0, lazyFreeSeconds: Double = 0) {
    self.coverage = coverage
    self.oldestSeconds = oldestSeconds
    self.lazyFreeSeconds = lazyFreeSeconds
  }
}

/// Looks at one process.
package final class CoverageSampler {
  /// A stretch of anonymous address space, and what was on hugepages there.
  private struct Stretch {
    var start: UInt
    var end: UInt
    var hugeBytes = 0
    var seenAt: UInt64 = 0
  }

  /// A walk of one stretch is at most this long: a sixth of a millisecond on base pages.
  private static let stretchBytes: UInt = 128 << 20

  private let reader: CoverageReader
  private let process: Int
  /// Share of a core, or nil to look completely each time.
  private let effort: Double?
  private var stretches: [Stretch] = []
  private var next = 0
  private var mapsReadAt: UInt64 = 0
  private var sizeAtMaps: Int?
  private var last: ProcessCoverage?
  private var completeAt: UInt64 = 0
  private var completeCost: UInt64 = 0
  private var lookedAt: UInt64 = 0
  private var charge: CgroupMembership?
  private var scan: PagemapScan?

  /// - Parameter effort: Share of a core that the looks may take, 0.001 to 1; nil looks completely each time.
  package init(_ reader: CoverageReader, process: Int, effort: Double?) {
    self.reader = reader
    self.process = process
    self.effort = effort
  }

  /// Looks. `now` is a clock in nanoseconds.
  package func look(at now: UInt64) throws(CoverageError) -> CoverageSample {
    defer { lookedAt = now }
    guard let effort, last != nil, let quick = try quickLook(effort, now) else { return try completeLook(now) }
    return quick
  }

  private static func cpu() -> UInt64 { hs_shim_thread_cpu_nanoseconds() }

  private func completeLook(_ now: UInt64) throws(CoverageError) -> CoverageSample {
    let before = CoverageSampler.cpu()
    let coverage = try reader.look(at: process, mappings: false)
    completeCost = CoverageSampler.cpu() - before
    completeAt = now
    last = coverage
    if effort != nil && scan == nil { scan = PagemapScan(directory: "\(reader.proc)/\(process)") }
    if charge == nil { charge = reader.membership(of: process) }
    return CoverageSample(coverage: coverage)
  }

  /// Nil where a complete look is due, or all that can be had.
  private func quickLook(_ effort: Double, _ now: UInt64) throws(CoverageError) -> CoverageSample? {
    guard var coverage = last, scan != nil, now > lookedAt else { return nil }
    // A quarter of the effort is for complete looks.
    if Double(completeCost) <= Double(now - completeAt) * effort / 4 { return nil }
    guard let status = reader.status(of: process) else { return nil }
    // Half of it for the walk; the rest is for this look's other work and what is made of it.
    let budget = UInt64(Double(now - lookedAt) * effort / 2)
    let before = CoverageSampler.cpu()
    let isFirst = mapsReadAt == 0
    if isFirst || status.sizeBytes != sizeAtMaps || now - mapsReadAt > 1_000_000_000 {
      guard readMaps(now) else { return nil }
      sizeAtMaps = status.sizeBytes
    }
    var walked = 0
    while walked < stretches.count && (isFirst || walked == 0 || CoverageSampler.cpu() - before < budget) {
      if next >= stretches.count { next = 0 }
      guard walk(&stretches[next], now) else { return nil }
      next += 1
      walked += 1
    }
    coverage.total.sizeBytes = status.sizeBytes
    coverage.total.residentBytes = status.residentBytes
    coverage.total.anonymousBytes = status.anonymousBytes
    coverage.total.swappedBytes = status.swappedBytes
    // The parts were seen at different times, so that a process that shrinks may seem to have more on hugepages than it has.
    coverage.total.hugeBytes = min(stretches.reduce(0) { $0 + $1.hugeBytes }, status.anonymousBytes)
    coverage.total.lazyFreeBytes = min(coverage.total.lazyFreeBytes, status.anonymousBytes)
    coverage.chargedBytes = charge.flatMap { reader.charge($0) }
    last = coverage
    let oldest = stretches.map(\.seenAt).min() ?? now
    return CoverageSample(
      coverage: coverage, oldestSeconds: Double(now - oldest) / 1e9,
      lazyFreeSeconds: Double(now - completeAt) / 1e9)
  }

  /// Cuts the anonymous mappings into stretches; of those that were known what was seen is kept.
  private func readMaps(_ now: UInt64) -> Bool {
    guard let text = contents(ofFile: "\(reader.proc)/\(process)/maps"), let mappings = try? parseSmaps(text) else {
      return false
    }
    mapsReadAt = now
    var known = stretches[...]
    var result: [Stretch] = []
    for area in BlockTally.areas(of: mappings) where area.isUsable {
      var start = area.start
      while start < area.end {
        // Cut at multiples, so that a mapping that grows keeps its stretches.
        let end = min(area.end, (start / CoverageSampler.stretchBytes + 1) * CoverageSampler.stretchBytes)
        while let first = known.first, first.start < start { known.removeFirst() }
        if let first = known.first, first.start == start {
          var kept = first
          kept.end = end
          kept.hugeBytes = min(kept.hugeBytes, Int(end - start))
          result.append(kept)
        } else {
          var fresh = Stretch(start: start, end: end)
          if !walk(&fresh, now) { return false }
          result.append(fresh)
        }
        start = end
      }
    }
    stretches = result
    return true
  }

  private func walk(_ stretch: inout Stretch, _ now: UInt64) -> Bool {
    var huge = 0
    let code = scan?.forEachRegion(.hugePages, from: stretch.start, to: stretch.end) {
      huge += Int($0.end - $0.start)
    }
    if code != 0 { return false }
    stretch.hugeBytes = huge
    stretch.seenAt = now
    return true
  }
}

/// What `/proc/PID/status` says of a process' memory.
package struct ProcessStatus: Equatable, Sendable {
  package var sizeBytes: Int
  package var residentBytes: Int
  package var anonymousBytes: Int
  package var swappedBytes: Int

  /// Nil if a line is missing: a kernel thread's, or an older kernel's.
  package init?(_ text: String) {
    var values: [Int?] = [nil, nil, nil, nil]
    let keys = ["VmSize:", "VmRSS:", "RssAnon:", "VmSwap:"]
    for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
      guard let first = line.first, first == UInt8(ascii: "V") || first == UInt8(ascii: "R") else { continue }
      let words = line.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") })
      guard words.count == 3, let index = keys.firstIndex(where: { words[0].elementsEqual($0.utf8) }) else { continue }
      guard let kilobytes = Int(String(decoding: words[1], as: UTF8.self)), kilobytes >= 0, kilobytes < 1 << 50 else {
        return nil
      }
      values[index] = kilobytes << 10
    }
    guard let size = values[0], let resident = values[1], let anonymous = values[2] else { return nil }
    sizeBytes = size
    residentBytes = resident
    anonymousBytes = anonymous
    swappedBytes = values[3] ?? 0
  }
}
