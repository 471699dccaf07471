// The best schedule for one pageblock in hindsight: when to break it, release, fault back, rebuild and drop it.
//
// A dynamic program forward in time. What can be of a block is one of three kinds of states, and each has the least cost with which
// it can be reached so far:
//
//   absent      nothing of it is in memory; only while nothing of it is needed
//   intact      one hugepage: all of its pages are held, none is taxed
//   broken, n   base pages: n of them are held, at least those that are needed, and the needed ones are taxed
//
// Time adds rent and tax, a need that grows adds faults, and at each opportunity a state may be left for another one at its price. What is
// needed when, and in which ranges the rest lies, is the run's own placement. Prices that depend on more than the state
// knows are taken at the least that they can be, so that no schedule that a policy could have followed costs less (Docs/Bound.md
// lists them).
//
// Between two opportunities nothing is decided. So rent and tax are added to all states only at the next one; a need that
// falls, or rises again, costs nothing to follow, and one that reaches a new height visits only the states that it makes impossible.

import HugeSpanCore

/// What the schedule is reckoned with, in microseconds.
struct SchedulePrices {
  let rent: Double
  let costs: CostModel
  /// Seconds from which a block that comes back counts as cold; the heap's statistics know classes of absence only.
  let coldAfter: Double

  init(_ costs: CostModel, memoryPrice: Double) {
    self.costs = costs
    rent = CostModel.rentPerPage(memoryPrice: memoryPrice)
    let classes = HeapStatistics().blocksRefaultedByAbsence.indices.map(HeapStatistics.absenceSeconds)
    coldAfter = classes.first { $0 >= costs.coldAfter } ?? .infinity
  }
}

/// One block's states. Times may not decrease.
final class BlockSchedule {
  private let prices: SchedulePrices
  /// Up to when the states' costs have their rent, and the tax of broken ones that they do not have yet.
  private var settled: UInt64
  private var pendingTax = 0.0
  /// What a page on base pages was taxed since the beginning, when the need last changed.
  private var tax: Double
  /// Pages that are handed out, as bits, and of these the number that is written to.
  private var used = InlineArray<8, UInt64>(repeating: 0)
  private var usedPages = 0
  private(set) var neededPages = 0
  /// The most that was needed since the last opportunity: no broken state holds less.
  private var highest = 0

  private var absent = 0.0
  private var absentSince: UInt64 = 0
  private var isFresh = true
  private var intact = Double.infinity
  /// By pages held.
  private let broken: UnsafeMutablePointer<Double>
  /// What breaking the block costs, by pages that are held after it.
  private let breaking: UnsafeMutablePointer<Double>
  /// The least that releasing another page of a broken block costs.
  private var release = 0.0
  private var rangesAreKnown = false
  private var hasChanged = false

  init(_ prices: SchedulePrices, at time: UInt64, tax: Double) {
    self.prices = prices
    settled = time
    self.tax = tax
    broken = .allocate(capacity: pagesPerBlock + 1)
    broken.initialize(repeating: .infinity, count: pagesPerBlock + 1)
    breaking = .allocate(capacity: pagesPerBlock + 1)
    breaking.initialize(repeating: .infinity, count: pagesPerBlock + 1)
  }

  deinit {
    broken.deallocate()
    breaking.deallocate()
  }

  /// Something may be gained by leaving a state: it is not as it was at the last opportunity, or a part of it is needed and
  /// a part free, so that it depends on the tax what is best.
  var isUnsettled: Bool { hasChanged || (neededPages > 0 && usedPages < pagesPerBlock) }

  // MARK: Changes

  /// Pages from `first` on are handed out, or given back.
  func setUsed(_ first: Int, _ count: Int, _ isUsed: Bool) {
    for page in first..<(first + count) {
      let bit: UInt64 = 1 << UInt64(page & 63)
      if isUsed { used[page >> 6] |= bit } else { used[page >> 6] &= ~bit }
    }
    usedPages += isUsed ? count : -count
    rangesAreKnown = false
    hasChanged = true
  }

  /// So many more pages are needed, or fewer. `tax` is what a page on base pages was taxed since the beginning.
  func need(_ change: Int, at now: UInt64, tax: Double) {
    addTax(tax)
    let wasEmpty = neededPages == 0
    neededPages += change
    hasChanged = true
    if change <= 0 { return }
    if wasEmpty { populate(now) }
    if neededPages > highest { faultUp(to: neededPages, at: now) }
  }

  private func addTax(_ now: Double) {
    pendingTax += Double(neededPages) * (now - tax)
    tax = now
  }

  /// Rent of a page since the states were settled.
  private func pendingRent(_ now: UInt64) -> Double { prices.rent * Double(now - settled) / 1e9 }

  /// The empty block is used. Absent, or broken and dropped just before that, it comes back as a hugepage.
  private func populate(_ now: UInt64) {
    let seconds = Double(now - absentSince) / 1e9
    let pending = pendingRent(now)
    let fault = prices.costs.blockFault
    var back = absent + (isFresh || seconds < prices.coldAfter ? fault : prices.costs.coldBlockFault)
    if !isFresh {
      // Or it was held until now, or until so shortly before that it comes back warm.
      let held = pending - (absent < .infinity ? min(seconds, prices.coldAfter) * prices.rent : 0)
      back = min(back, intact + held * Double(pagesPerBlock) + prices.costs.releaseBlock + fault)
      for pages in highest...pagesPerBlock {
        back = min(back, broken[pages] + held * Double(pages) + pendingTax + dropping(pages) + fault)
      }
    }
    isFresh = false
    absent = .infinity
    intact = min(intact, back - pending * Double(pagesPerBlock))
  }

  /// A broken block that holds less faults the rest, page by page.
  private func faultUp(to pages: Int, at now: UInt64) {
    let pending = pendingRent(now)
    // A page more that is faulted has no rent until now.
    let fault = prices.costs.pageFault - pending
    var least = broken[pages]
    for held in highest..<pages {
      least = min(least, broken[held] + Double(pages - held) * fault)
      broken[held] = .infinity
    }
    broken[pages] = least
    highest = pages
  }

  // MARK: Opportunities

  /// A policy may have acted: every state that another one can be left for gets the least cost of both.
  func settle(at now: UInt64, tax: Double) {
    addTax(tax)
    let pending = pendingRent(now)
    settled = now
    intact += pending * Double(pagesPerBlock)
    for held in highest...pagesPerBlock { broken[held] += pending * Double(held) + pendingTax }
    pendingTax = 0
    if !rangesAreKnown { lookAtRanges() }

    var next = Double.infinity
    var least = Double.infinity
    var held = pagesPerBlock
    while held >= neededPages {
      next = min(min(broken[held], intact + breaking[held]), next + release)
      broken[held] = next
      least = min(least, next)
      held -= 1
    }
    highest = neededPages
    hasChanged = false
    if neededPages > 0 {
      intact = min(intact, least + prices.costs.collapse)
    } else {
      if absent == .infinity { absentSince = now }
      absent = min(absent, intact + prices.costs.releaseBlock)
      for held in 0...pagesPerBlock { absent = min(absent, broken[held] + dropping(held)) }
    }
  }

  /// What is left of a broken block without a needed page goes.
  private func dropping(_ held: Int) -> Double {
    Double(held) * prices.costs.releaseBlock / Double(pagesPerBlock)
  }

  /// The cheapest end.
  func leastCost(at end: UInt64, tax: Double) -> Double {
    settle(at: end, tax: tax)
    var least = min(absent, intact)
    for held in neededPages...pagesPerBlock { least = min(least, broken[held]) }
    return least
  }

  // MARK: Ranges

  /// Finds the free ranges: whoever releases some of the pages takes the longest ranges.
  private func lookAtRanges() {
    rangesAreKnown = true
    var countByLength = InlineArray<513, UInt16>(repeating: 0)
    var longest = 0
    var length = 0
    for page in 0...pagesPerBlock {
      if page < pagesPerBlock, used[page >> 6] >> UInt64(page & 63) & 1 == 0 {
        length += 1
      } else if length > 0 {
        countByLength[length] += 1
        longest = max(longest, length)
        length = 0
      }
    }
    let costs = prices.costs
    release = costs.releasePage + costs.releaseRange / Double(max(longest, 1))
    var price = costs.split
    var left = 0
    var next = longest
    breaking[pagesPerBlock] = price
    var held = pagesPerBlock
    while held > 0 {
      held -= 1
      if left == 0 {
        while next > 0, countByLength[next] == 0 { next -= 1 }
        if next > 0 {
          countByLength[next] -= 1
          left = next
          price += costs.releaseRange
        } else {
          // Pages that are handed out and were never written to: at the price of the last range.
          left = held + 1
        }
      }
      left -= 1
      price += costs.releasePage
      breaking[held] = price
    }
  }
}
