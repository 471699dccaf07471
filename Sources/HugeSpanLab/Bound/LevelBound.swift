// The clairvoyant bound: what no allocator, or no policy, can go below, even if it knew the future.
//
// A program needs L(t) pages at time t. Pages are alike, so look at them as levels: level k is needed whenever L(t) is at least k.
// Between two needs of a level there is a gap, and for a gap there are three things to do: hold the page, give it away and
// fault it back, or give it away lazily and take it back. The cheapest of them, summed over the gaps of all levels, with the first
// faults and the rent of what is needed, is the bound. Why nothing costs less is shown step by step in Docs/Bound.md.
//
// Levels that are not needed wait on a stack, the lowest on top, in runs that fell free at one time. L falls: a run is
// pushed. L rises: runs are popped, and the gaps of their levels are over. Each change of L pushes at most one run, and pops what others
// pushed; so it costs O(1) amortised, whatever the number of pages, and nothing is kept but the runs.

import HugeSpanCore

/// The least that the price list asks for a page, in microseconds.
package struct PagePrices: Equatable, Sendable {
  /// Holding a page for a second.
  package var rent: Double
  /// Giving a page away.
  package var release: Double
  /// Bringing a page into memory.
  package var fault: Double
  /// What lazily freed memory counts for, as a share of its rent: 0 to 1.
  package var lazyWeight: Double

  package init(rent: Double, release: Double, fault: Double, lazyWeight: Double) {
    self.rent = rent
    self.release = release
    self.fault = fault
    self.lazyWeight = lazyWeight
  }

  /// The marginal prices of `costs`: of every way to move a page the cheapest, calls and ranges for nothing.
  ///
  /// The fault is a warm one, however long the gap is. Pages are alike, so a page that is wanted after a long gap may be one that was
  /// given away a moment ago while others were away instead: with two blocks that are away in turn, levels have long
  /// gaps and no block has.
  package init(_ costs: CostModel, memoryPrice: Double, lazyWeight: Double = 1) {
    let block = Double(pagesPerBlock)
    let bulkFault = Swift.min(costs.blockFault, Swift.min(costs.coldBlockFault, costs.collapse)) / block
    self.init(
      rent: CostModel.rentPerPage(memoryPrice: memoryPrice),
      release: Swift.min(costs.releaseBlock / block, costs.releasePage), fault: Swift.min(bulkFault, costs.pageFault),
      lazyWeight: Swift.min(Swift.max(lazyWeight, 0), 1))
  }

  /// The cheapest way for a page over a gap of `seconds`.
  @inline(__always)
  package func gap(_ seconds: Double) -> Double {
    let held = rent * seconds
    return Swift.min(held, release + Swift.min(fault, lazyWeight * held))
  }

  /// The cheapest way for a page that is not needed again before the end, in `seconds`.
  @inline(__always)
  package func lastGap(_ seconds: Double) -> Double { Swift.min(rent * seconds, release) }
}

/// Levels that fell free at one time.
struct WaitingLevels: BitwiseCopyable {
  var levels: Int
  var since: UInt64
}

/// The bound of one need for pages, told change by change in order of time.
///
/// A class, for the compiler's sake: with a struct that cannot be copied the thread sanitizer's build of this file is refused.
package final class LevelBound {
  private let prices: PagePrices
  private let runs: MappedArray<WaitingLevels>
  private var depth = 0
  private var level = 0
  private var highest = 0
  private var time: UInt64 = 0
  private var pageNanoseconds = 0.0
  private var gaps = 0.0

  /// - Parameter changes: How often the need will change, at most.
  package init(_ prices: PagePrices, changes: Int) {
    self.prices = prices
    // As many runs as that can be waiting; as many as a GiB of single pages makes are in memory before anything is measured.
    runs = MappedArray(zeroes: changes + 1, prefaulted: Swift.min(changes + 1, 1 << 18))
  }

  /// `pages` are needed from `now` on. Times may not decrease.
  @inline(__always)
  package func need(_ pages: Int, at now: UInt64) {
    if pages == level { return }
    change(to: pages, at: now)
  }

  private func change(to pages: Int, at now: UInt64) {
    pageNanoseconds += Double(level) * Double(now &- time)
    time = now
    if pages < level {
      let levels = level - pages
      if depth > 0, runs[depth - 1].since == now {
        runs[depth - 1].levels += levels
      } else {
        runs[depth] = WaitingLevels(levels: levels, since: now)
        depth += 1
      }
    } else {
      var rest = pages - level
      while rest > 0, depth > 0 {
        let run = runs[depth - 1]
        let levels = Swift.min(run.levels, rest)
        gaps += Double(levels) * prices.gap(Double(now &- run.since) / 1e9)
        rest -= levels
        if levels == run.levels { depth -= 1 } else { runs[depth - 1].levels -= levels }
      }
      highest += rest
    }
    level = pages
  }

  /// What the bound is made of, up to `end`. What is free then waits for nothing: it was held until the end or given away.
  package func parts(until end: UInt64) -> BoundParts {
    let held = (pageNanoseconds + Double(level) * Double(end &- time)) / 1e9
    var waiting = 0.0
    for index in 0..<depth {
      let run = runs[index]
      waiting += Double(run.levels) * prices.lastGap(Double(end &- run.since) / 1e9)
    }
    return BoundParts(
      rent: prices.rent * held / 1e6, firstFaults: prices.fault * Double(highest) / 1e6, gaps: (gaps + waiting) / 1e6)
  }
}

/// The parts of a bound, in CPU-seconds.
package struct BoundParts: Equatable, Sendable {
  /// Of the pages while they are needed.
  package var rent: Double
  package var firstFaults: Double
  /// Holding pages between two needs, or giving them away and getting them back.
  package var gaps: Double

  /// The bound.
  package var total: Double { rent + firstFaults + gaps }
}
