// The bound against a search through all schedules, which knows pages that are held, lazily free or gone, and no levels.

import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

/// A need for pages: from each time on so many.
struct Need: CustomStringConvertible {
  var changes: [(time: UInt64, pages: Int)]
  var end: UInt64

  var description: String { changes.map { "\($0.pages)@\($0.time)" }.joined(separator: " ") + " end \(end)" }

  /// Up to `levels` pages and `events` changes, some of them at once.
  static func random(levels: Int, events: Int, _ generator: inout SeededGenerator) -> Need {
    var time: UInt64 = 0
    var changes: [(time: UInt64, pages: Int)] = []
    for _ in 0..<events {
      if Int.random(in: 0..<8, using: &generator) > 0 {
        time += UInt64.random(in: 1...4_000_000_000, using: &generator)
      }
      changes.append((time, Int.random(in: 0...levels, using: &generator)))
    }
    return Need(changes: changes, end: time + UInt64.random(in: 0...2_000_000_000, using: &generator))
  }

  func bound(_ prices: PagePrices) -> BoundParts {
    let bound = LevelBound(prices, changes: changes.count)
    for change in changes { bound.need(change.pages, at: change.time) }
    return bound.parts(until: end)
  }
}

/// The least cost over all schedules, by the shortest way through all states: so many pages held, so many lazily free.
struct ScheduleSearch {
  private struct State {
    var held: Int
    var lazy: Int
  }

  private let prices: PagePrices
  private let states: [State]
  /// Price of the cheapest sequence of moves of single pages from one state to another.
  private var moves: [[Double]]

  init(_ prices: PagePrices, levels: Int) {
    self.prices = prices
    var states: [State] = []
    for held in 0...levels { for lazy in 0...(levels - held) { states.append(State(held: held, lazy: lazy)) } }
    self.states = states
    moves = []
    for from in states {
      moves.append(
        states.map { to in
          switch (to.held - from.held, to.lazy - from.lazy) {
          case (0, 0), (1, -1), (0, -1): 0  // as it is; taken back; taken by the kernel
          case (-1, 0), (-1, 1): prices.release
          case (1, 0): prices.fault
          default: Double.infinity
          }
        })
    }
    for middle in states.indices {
      for from in states.indices where moves[from][middle] < .infinity {
        for to in states.indices {
          moves[from][to] = min(moves[from][to], moves[from][middle] + moves[middle][to])
        }
      }
    }
  }

  /// - Parameter stops: Times between changes at which pages may move too.
  func leastCost(_ need: Need, stops: [UInt64]) -> Double {
    var times: [(time: UInt64, pages: Int?)] = need.changes.map { ($0.time, $0.pages) }
    times += stops.map { ($0, nil) }
    // Of what is at one time the order is kept.
    times = times.enumerated().sorted { ($0.element.time, $0.offset) < ($1.element.time, $1.offset) }.map(\.element)
    var costs = states.map { $0.held == 0 && $0.lazy == 0 ? 0 : Double.infinity }
    var pages = 0
    for (index, entry) in times.enumerated() {
      pages = entry.pages ?? pages
      let until = index + 1 < times.count ? times[index + 1].time : need.end
      let seconds = Double(until - entry.time) / 1e9
      costs = states.indices.map { to in
        let state = states[to]
        if state.held < pages { return .infinity }
        var least = Double.infinity
        for from in states.indices { least = min(least, costs[from] + moves[from][to]) }
        return least + seconds * prices.rent * (Double(state.held) + prices.lazyWeight * Double(state.lazy))
      }
    }
    return costs.min()! / 1e6
  }
}

/// Ways to get the bound wrong: a term that is left out.
enum MissingTerm: CaseIterable {
  case rent, firstFaults, gaps, release, refault, holding, lazyFree

  func bound(_ need: Need, _ prices: PagePrices) -> Double {
    var wrong = prices
    switch self {
    case .rent: return need.bound(prices).total - need.bound(prices).rent
    case .firstFaults: return need.bound(prices).total - need.bound(prices).firstFaults
    case .gaps: return need.bound(prices).total - need.bound(prices).gaps
    case .release: wrong.release = 0
    case .refault:
      wrong.fault = 0
      return need.bound(wrong).total + need.bound(prices).firstFaults
    // Everything is given away at once, or nothing lazily.
    case .holding:
      let parts = need.bound(prices)
      wrong.rent = 1e12
      return parts.rent + parts.firstFaults + need.bound(wrong).gaps
    case .lazyFree: wrong.lazyWeight = 1
    }
    return need.bound(wrong).total
  }
}

@Suite("The clairvoyant bound") struct LevelBoundTests {
  /// Prices of the order of a gap's rent, so that every way is the best one somewhere.
  private func prices(_ generator: inout SeededGenerator) -> PagePrices {
    PagePrices(
      rent: Double.random(in: 0.1...1, using: &generator), release: Double.random(in: 0...0.5, using: &generator),
      fault: Double.random(in: 0...1.5, using: &generator),
      lazyWeight: [0, 0.2, 0.5, 1].randomElement(using: &generator)!)
  }

  /// Calls `body` with needs, prices and what the search found.
  private func search(_ seed: UInt64, count: Int, _ body: (Need, PagePrices, Double) -> Void) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<count {
      let prices = prices(&generator)
      let levels = Int.random(in: 1...8, using: &generator)
      let search = ScheduleSearch(prices, levels: levels)
      for _ in 0..<8 {
        let events = Int.random(in: 1...10, using: &generator)
        let need = Need.random(levels: levels, events: events, &generator)
        let stops = (0..<4).map { _ in UInt64.random(in: 0...max(need.changes.last!.time, 1), using: &generator) }
        let first = need.changes[0].time
        body(need, prices, search.leastCost(need, stops: stops.filter { $0 >= first && $0 <= need.end }))
      }
    }
  }

  @Test("is the cost of the best of all schedules")
  func equalsSearch() {
    for seed in UInt64(1)...3 {
      search(seed, count: 20) { need, prices, least in
        let bound = need.bound(prices).total
        #expect(abs(bound - least) <= 1e-9 * max(1, least), "seed \(seed), \(prices): \(need)")
      }
    }
  }

  @Test("is not without any of its terms", arguments: MissingTerm.allCases)
  func needsTerm(_ term: MissingTerm) {
    var wrong = 0
    search(7, count: 10) { need, prices, least in
      if abs(term.bound(need, prices) - least) > 1e-7 { wrong += 1 }
    }
    #expect(wrong > 5, "\(term)")
  }

  @Test("takes every price from the list, the least of those that move a page")
  func listPrices() {
    var costs = CostModel()
    var prices = PagePrices(costs, memoryPrice: 400)
    #expect(abs(prices.rent * 512 - 217.01) < 0.01)
    #expect(prices.release == 9.0 / 512 && prices.fault == 200.0 / 512 && prices.lazyWeight == 1)
    costs.collapse = 100
    costs.releasePage = 0.01
    prices = PagePrices(costs, memoryPrice: 400, lazyWeight: 0)
    #expect(prices.release == 0.01 && prices.fault == 100.0 / 512 && prices.lazyWeight == 0)
    costs.pageFault = 0.1
    #expect(PagePrices(costs, memoryPrice: 400).fault == 0.1)
    // What has been away for long may be another page.
    costs = CostModel()
    costs.coldBlockFault = 5000
    #expect(PagePrices(costs, memoryPrice: 400).fault == 200.0 / 512)
  }

  @Test("does not grow with the number of pages")
  func steps() {
    let prices = PagePrices(rent: 1, release: 0.5, fault: 0.5, lazyWeight: 1)
    // A terabyte comes, goes and half of it comes back, twice a nanosecond for a million times it would not end by the page.
    let bound = LevelBound(prices, changes: 300_000)
    let terabyte = 1 << 28
    for round in 0..<100_000 {
      bound.need(terabyte, at: UInt64(round) * 2_000_000_000)
      bound.need(terabyte / 2, at: UInt64(round) * 2_000_000_000 + 1_000_000_000)
    }
    let parts = bound.parts(until: 200_000_000_000_000)
    #expect(abs(parts.firstFaults - Double(terabyte) * 0.5 / 1e6) < 1e-3)
    // A second of half of it, which costs as much either way; after the last fall it is only given away, for half of that.
    #expect(abs(parts.gaps / (99_999.5 * Double(terabyte / 2) / 1e6) - 1) < 1e-9)
  }
}
