// What the priced policy says it waits for, against what it then does.

import HugeSpanCore
import TestKernels
import Testing

@Suite struct AForecast {
  /// Blocks at random, that do not change but for their age: what is foretold for the next tick is what the tick does.
  @Test(arguments: 1...40)
  func comesTrueAtTheNextTick(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var options = RentOrBuyOptions()
    options.memoryPrice = [100, 400, 1600].randomElement(using: &random)!
    var policy = RentOrBuyPolicy(options, strategy: StrategyChoice(.splitDontneed), capabilities: .all)
    var input = ScavengeInput()
    input.usedPages = 30_000
    _ = policy.begin(input, releasedParts: 0, refaultedParts: 0)
    let busy = [0, 0.3, 2].randomElement(using: &random)!
    var facts = BlockFacts()
    facts.isOccupied = Bool.random(using: &random)
    facts.isResident = true
    facts.isBroken = facts.isOccupied && Bool.random(using: &random)
    facts.usedPages = facts.isOccupied ? .random(in: 1...511, using: &random) : 0
    facts.releasedPages = facts.isBroken ? .random(in: 0...(512 - facts.usedPages), using: &random) : 0
    facts.idlePages = 512 - facts.usedPages - facts.releasedPages
    facts.idleRanges = min(5, facts.idlePages)
    facts.age = 100
    var account = BlockAccount()
    let step = 0.25
    var ticks = 0
    while ticks < 400 {
      input.elapsed = UInt64(step * 1e9)
      input.now += input.elapsed
      input.processCPU += UInt64(step * busy * 1e9)
      let foretold = policy.forecast(facts, account)
      let isBegun = ticks > 2
      facts.age += step
      _ = policy.begin(input, releasedParts: 0, refaultedParts: 0)
      let verdict = policy.judge(facts, &account)
      ticks += 1
      // The first ticks learn how busy the program is, and see the block for the first time.
      if !isBegun { continue }
      if verdict == .leave {
        // A step that is just due may miss by rounding, and a rebuild may have to pause or find its price grown with the time that a
        // busy stretch has left.
        if foretold.step != .rebuild { #expect(foretold.seconds > step - 1e-3, "\(foretold) \(facts)") }
        continue
      }
      #expect(verdict == expected(foretold.step), "\(foretold) \(facts)")
      #expect(foretold.seconds <= step + 1e-3 || foretold.step == .rebuild, "\(foretold) \(facts)")
      return
    }
    // Nothing happened in a hundred seconds: none was foretold either.
    let foretold = policy.forecast(facts, account)
    #expect(foretold.seconds > step || foretold.step == .rebuild)
  }

  private func expected(_ step: BlockForecast.Step) -> BlockVerdict {
    switch step {
    case .none: .leave
    case .releaseWhole: .releaseWhole
    case .breakBlock, .releaseIdle: .releaseIdle
    case .rebuild: .rebuild
    }
  }

  @Test func isNothingWhereMemoryCostsNothing() {
    var options = RentOrBuyOptions()
    options.memoryPrice = 0
    let policy = RentOrBuyPolicy(options, strategy: StrategyChoice(.splitDontneed), capabilities: .all)
    var facts = BlockFacts()
    facts.isResident = true
    facts.idlePages = 512
    #expect(policy.forecast(facts, BlockAccount()) == BlockForecast())
    var account = BlockAccount()
    account.accrued = 3
    account.phase = .gap
    #expect(policy.forecast(facts, account) == BlockForecast())
  }

  @Test func ofRebuildsKeepsToThePauseAfterAFailure() {
    var policy = RentOrBuyPolicy(RentOrBuyOptions(), strategy: StrategyChoice(.splitDontneed), capabilities: .all)
    #expect(policy.rebuildsDue(withinSeconds: 0.25) == 125)
    policy.rebuilt(false)
    #expect(policy.rebuildsDue(withinSeconds: 0.25) == 0 && policy.rebuildsDue(withinSeconds: 2) > 0)
  }

  @Test func isInfiniteWhereTheTaxIsAboveTheRent() {
    var policy = RentOrBuyPolicy(
      RentOrBuyOptions(), strategy: StrategyChoice(.splitDontneed), capabilities: .all)
    var input = ScavengeInput()
    input.usedPages = 512
    _ = policy.begin(input, releasedParts: 0, refaultedParts: 0)
    input.elapsed = 1_000_000_000
    input.processCPU = 1_000_000_000
    _ = policy.begin(input, releasedParts: 0, refaultedParts: 0)
    var facts = BlockFacts()
    facts.isOccupied = true
    facts.isResident = true
    facts.usedPages = 500
    facts.idlePages = 12
    facts.idleRanges = 2
    let forecast = policy.forecast(facts, BlockAccount())
    #expect(forecast.step == .breakBlock && forecast.rate < 0 && forecast.seconds == .infinity)
  }
}
