// What is known of the written pages of a hugepage, against a set of them.

import TestKernels
import Testing

@testable import HugeSpanLab

@Suite struct WrittenPagesOfAHugepage {
  /// Passes a bitmap of no page.
  private func withBits<Result>(_ body: (SimulatedPages.Bits) -> Result) -> Result {
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: SimulatedPages.wordCount) { words in
      words.initialize(repeating: 0)
      return body(SimulatedPages(words.baseAddress!).written)
    }
  }

  /// The pages that count as written.
  private func pages(_ written: WrittenPages) -> Set<Int> {
    withBits { bits in
      written.set(bits)
      return Set((0..<512).filter { bits[$0 >> 6] >> UInt64($0 & 63) & 1 != 0 })
    }
  }

  /// Pages that were not written though the other of their pair was.
  private func halves(_ truth: Set<Int>) -> Int { truth.count { !truth.contains($0 ^ 1) } }

  @Test("are exact while at most three are left out of written pairs, and never too few", arguments: 1...32)
  func areExactWhileFewAreLeftOut(seed: Int) {
    var random = SeededRandom(seed: UInt64(seed))
    var written = WrittenPages()
    var truth = Set<Int>()
    var mostHalves = 0
    for step in 0..<200 {
      let first = Int.random(in: 0..<512, using: &random)
      let end = min(512, first + Int.random(in: 1...(seed.isMultiple(of: 2) ? 9 : 200), using: &random))
      written.insert(first, end)
      truth.formUnion(first..<end)
      mostHalves = max(mostHalves, halves(truth))
      let found = pages(written)
      #expect(found.isSuperset(of: truth), "seed \(seed), step \(step)")
      #expect(written.count == found.count, "seed \(seed), step \(step)")
      if mostHalves <= 3 { #expect(found == truth, "seed \(seed), step \(step)") }
      // What was not exact is at most the other page of a pair.
      #expect(found.isSubset(of: truth.union(truth.map { $0 ^ 1 })), "seed \(seed), step \(step)")
    }
  }

  @Test("come back from a table of base pages as they were")
  func comeBackFromATable() {
    withBits { bits in
      for truth in [Set(0..<512), Set(63..<130), Set([5]), Set(0..<511), Set((1..<64)).union(400..<448), []] {
        for word in 0..<8 { bits[word] = 0 }
        for page in truth { bits[page >> 6] |= 1 << UInt64(page & 63) }
        #expect(pages(WrittenPages(bits)) == truth)
      }
    }
  }

  @Test("leave a pageblock in one cache line, and one with base pages in 384 bytes")
  func fitIntoALine() {
    #expect(MemoryLayout<SimulatedBlock>.size == 64 && SimulatedPages.wordCount * 8 == 320)
  }
}
