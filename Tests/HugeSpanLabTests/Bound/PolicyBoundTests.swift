// No policy with any strategy costs less than the bound, on random programs.

import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

/// Every policy and strategy that has a name, and a few settings that release sooner.
let policyNotations =
  PolicyChoice.knownNames.map(\.name) + ["gperftools:rate=100", "seed:rate=2000", "rent-or-buy:price=4000"]
let strategyNotations = StrategyChoice.knownNames.flatMap { choice in
  [choice.name, choice.name + "-whole"].filter { (try? StrategyChoice(notation: $0)) != nil }
}

@Suite("No policy costs less than the bound") struct PolicyBoundTests {
  private struct Reckoning {
    var memoryPrice: Double
    var weights: CostWeights
    var costs = CostModel()

    static let all: [Reckoning] = [0, 100, 400, 1600].flatMap { price in
      [0.0, 0.3, 1].map { lazy in
        var weights = CostWeights()
        weights.lazy = lazy
        weights.tax = 0
        var reckoning = Reckoning(memoryPrice: price, weights: weights)
        if price == 100 { reckoning.costs.coldBlockFault = 4000 }
        if price == 1600 { reckoning.costs.collapse = 50 }
        return reckoning
      }
    }

    func bound(_ changes: Int) -> LevelBound {
      LevelBound(
        PagePrices(costs, memoryPrice: memoryPrice, lazyWeight: weights.lazy), changes: changes)
    }
  }

  @Test("with any strategy, on any random program", arguments: policyNotations)
  func holds(_ policy: String) throws {
    // Each policy with a quarter of the strategies, each pair on a program of its own: all of them with all would take minutes.
    let number = policyNotations.firstIndex(of: policy)!
    for (index, strategy) in strategyNotations.enumerated() where index % 4 == number % 4 {
      for seed in [UInt64(number * strategyNotations.count + index + 1)] {
        let program = RandomProgram(seed: seed)
        var need: [(pages: Int, time: UInt64)] = []
        let (run, end) = try program.run(try PolicyChoice(notation: policy), try StrategyChoice(notation: strategy)) {
          need.append(($0, $1))
        }
        #expect(run.violations == [])
        for reckoning in Reckoning.all {
          let bound = reckoning.bound(need.count)
          for change in need { bound.need(change.pages, at: change.time) }
          let cost = run.cost(reckoning.costs, memoryPrice: reckoning.memoryPrice, reckoning.weights)
          let least = bound.parts(until: end).total
          #expect(
            cost >= least * (1 - 1e-9),
            "\(policy)/\(strategy), seed \(seed), price \(reckoning.memoryPrice), \(reckoning.weights): \(cost) < \(least)"
          )
        }
      }
    }
  }

  @Test("which is below what holding everything costs: a bound that cannot give memory away is undercut")
  func wouldNotHoldWithoutReleases() throws {
    var undercut = 0
    for seed in UInt64(1)...6 {
      var highest = 0
      var need: [(pages: Int, time: UInt64)] = []
      let (run, end) = try RandomProgram(seed: seed).run(.immediate, StrategyChoice(.splitDontneed)) { pages, time in
        highest = max(highest, pages)
        need.append((highest, time))
      }
      var weights = CostWeights()
      weights.tax = 0
      let bound = LevelBound(PagePrices(CostModel(), memoryPrice: 400), changes: need.count)
      for change in need { bound.need(change.pages, at: change.time) }
      if run.cost(CostModel(), memoryPrice: 400, weights) < bound.parts(until: end).total { undercut += 1 }
    }
    #expect(undercut > 0)
  }
}
