// A process looked at again and again for a small share of a core.

import Foundation
import Glibc
import TestSupport
import Testing

@testable import HugeSpanLab

private func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }

@Suite("A series of looks", .serialized)
struct CoverageSamplerTests {
  /// Looks every few milliseconds until `condition` holds, for ten seconds at most.
  private func look(_ sampler: CoverageSampler, until condition: (CoverageSample) -> Bool) throws -> CoverageSample {
    let start = now()
    while true {
      let sample = try sampler.look(at: now())
      if condition(sample) || now() - start > 10_000_000_000 { return sample }
      usleep(5000)
    }
  }

  @Test("sees memory that comes and memory that goes within the age that it states, and never more than there is")
  func follows() throws {
    let sampler = CoverageSampler(CoverageReader(), process: Int(getpid()), effort: 0.05)
    let first = try sampler.look(at: now())
    #expect(first.oldestSeconds == 0)
    let bytes = 64 << 20
    let whole = mmap(nil, bytes + 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    let area = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: whole) + 0x1f_ffff) & ~0x1f_ffff)!
    madvise(area, bytes, MADV_HUGEPAGE)
    memset(area, 1, bytes)
    let isHuge = try CoverageReader().look(at: Int(getpid())).total.hugeBytes >= bytes
    // Other tests have memory too, but none takes as much within this time.
    let grown = try look(sampler) {
      #expect($0.coverage.total.hugeBytes <= $0.coverage.total.anonymousBytes)
      return $0.coverage.total.hugeBytes >= (isHuge ? bytes : 0) && $0.coverage.total.anonymousBytes >= bytes
    }
    #expect(grown.coverage.total.anonymousBytes >= bytes)
    if isHuge { #expect(grown.coverage.total.hugeBytes >= bytes) }
    munmap(whole, bytes + 2 << 20)
    let gone = now()
    let after = try look(sampler) { sample in
      Double(now() - gone) / 1e9 > sample.oldestSeconds + 0.01
        && sample.coverage.total.hugeBytes <= grown.coverage.total.hugeBytes - (isHuge ? bytes : 0) / 2
    }
    if isHuge { #expect(after.coverage.total.hugeBytes <= grown.coverage.total.hugeBytes - bytes / 2) }
  }

  @Test("with full effort is what a single look is")
  func full() throws {
    let child = try Sleeper()
    defer { child.end() }
    let number = child.number
    let whole = CoverageSampler(CoverageReader(), process: number, effort: nil)
    let parts = CoverageSampler(CoverageReader(), process: number, effort: 0.015)
    let once = try CoverageReader().look(at: number, mappings: false)
    for _ in 0..<5 {
      usleep(20_000)
      #expect(try whole.look(at: now()).coverage.total == once.total)
      let part = try parts.look(at: now())
      #expect(part.coverage.total.hugeBytes == once.total.hugeBytes)
      #expect(abs(part.coverage.total.anonymousBytes - once.total.anonymousBytes) <= 1 << 20)
      #expect(part.oldestSeconds <= 1 && part.lazyFreeSeconds <= 1)
    }
    child.end()
    #expect(throws: CoverageError.self) { try parts.look(at: now()) }
  }

  @Test("reads the kernel's counters of status, and nothing where one is missing")
  func status() {
    let text =
      "Name:\tx\nVmPeak:\t  900 kB\nVmSize:\t     800 kB\nVmRSS:\t 400 kB\nRssAnon:\t  300 kB\nVmSwap:\t  8 kB\n"
    let status = ProcessStatus(text)
    #expect(status?.sizeBytes == 800 << 10 && status?.anonymousBytes == 300 << 10 && status?.swappedBytes == 8 << 10)
    #expect(
      ProcessStatus("Name:\tkthreadd\n") == nil
        && ProcessStatus("VmSize:\t1 kB\nVmRSS:\t-1 kB\nRssAnon:\t1 kB\n") == nil)
  }
}
