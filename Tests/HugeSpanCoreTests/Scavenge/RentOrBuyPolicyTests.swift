// The priced policy's verdicts, from facts alone: each rule, and the arithmetic of its price.

import HugeSpanCore
import Testing

/// A policy, a block, and a clock.
private final class Trial {
  var policy: RentOrBuyPolicy
  var account = BlockAccount()
  var input = ScavengeInput()

  init(
    price: Double = 400, strategy: StrategyChoice = StrategyChoice(.splitDontneed),
    capabilities: KernelCapabilities = .all, rebuild: Bool = true, options given: RentOrBuyOptions = RentOrBuyOptions()
  ) {
    var options = given
    options.memoryPrice = price
    options.rebuild = rebuild
    policy = RentOrBuyPolicy(options, strategy: strategy, capabilities: capabilities)
    input.usedPages = 512 * 100
    _ = policy.begin(input, releasedParts: 0, refaultedParts: 0)
  }

  /// A tick after `seconds`, with `busy` CPUs in use since the last.
  func tick(_ facts: BlockFacts, seconds: Double = 0.25, busy: Double = 0) -> BlockVerdict {
    input.elapsed = UInt64(seconds * 1e9)
    input.now += input.elapsed
    input.processCPU += UInt64(seconds * busy * 1e9)
    _ = policy.begin(input, releasedParts: 0, refaultedParts: 0)
    return policy.judge(facts, &account)
  }

  /// Seconds until the verdict is `verdict`, or nil if it is not within `limit`.
  func seconds(until verdict: BlockVerdict, _ facts: BlockFacts, busy: Double = 0, limit: Double = 60)
    -> Double?
  {
    var facts = facts
    var time = 0.0
    while time <= limit {
      time += 0.05
      facts.age += 0.05
      if tick(facts, seconds: 0.05, busy: busy) == verdict { return time }
    }
    return nil
  }
}

private func emptyBlock(age: Double = 100) -> BlockFacts {
  var facts = BlockFacts()
  facts.isResident = true
  facts.idlePages = 512
  facts.age = age
  return facts
}

private func partlyFree(used: Int, broken: Bool = false, released: Int = 0) -> BlockFacts {
  var facts = BlockFacts()
  facts.isOccupied = true
  facts.isResident = true
  facts.isBroken = broken
  facts.usedPages = used
  facts.releasedPages = released
  facts.idlePages = 512 - used - released
  facts.idleRanges = min(4, facts.idlePages)
  return facts
}

@Suite struct RentOrBuy {
  /// 209 µs to release a block and fault it back, 217 µs of rent a second at price 400.
  @Test(arguments: [(400.0, 0.48), (100.0, 1.93), (1600.0, 0.12)])
  func releasesAnEmptyBlockAtHalfOfBreakEvenAtFirst(price: Double, seconds: Double) throws {
    let trial = Trial(price: price)
    let time = try #require(trial.seconds(until: .releaseWhole, emptyBlock()))
    #expect(abs(time - seconds) < 0.11 + seconds * 0.05)
  }

  /// What was in use for longer than it pays to wait for it is idle for long; unless the use was many short ones.
  @Test func releasesAnEmptyBlockAtOnceAfterALongUse() throws {
    let long = Trial()
    for _ in 0..<6 { #expect(long.tick(partlyFree(used: 512)) == .leave) }
    #expect(long.tick(emptyBlock(age: 0.1)) == .releaseWhole)

    let short = Trial()
    for _ in 0..<3 { #expect(short.tick(partlyFree(used: 512)) == .leave) }
    #expect(short.tick(emptyBlock(age: 0.1)) == .leave)

    let many = Trial()
    var facts = partlyFree(used: 512)
    facts.wasClaimed = true
    for _ in 0..<20 { #expect(many.tick(facts) == .leave) }
    #expect(many.tick(emptyBlock(age: 0.1)) == .leave)

    // And a long use whose end was not seen, since another one began and ended after it.
    let other = Trial()
    for _ in 0..<20 { #expect(other.tick(partlyFree(used: 512)) == .leave) }
    var empty = emptyBlock(age: 0.1)
    empty.wasClaimed = true
    #expect(other.tick(empty) == .leave)
  }

  @Test func waitsHalfAsLongWhileTheProgramRests() throws {
    func wait(rest: Double) throws -> Double {
      let trial = Trial()
      for _ in 0..<20 { _ = trial.tick(BlockFacts(), seconds: 0.1, busy: 0.5) }
      for _ in 0..<Int(rest * 10) { _ = trial.tick(BlockFacts(), seconds: 0.1) }
      return try #require(trial.seconds(until: .releaseWhole, emptyBlock()))
    }
    // 0.48 s, and a look that finds the block empty.
    #expect(abs(try wait(rest: 0) - 0.53) < 0.06)
    #expect(abs(try wait(rest: 1) - 0.29) < 0.06)
  }

  @Test func breaksABlockSoonerThatWasInUseForLong() throws {
    let facts = partlyFree(used: 256)
    let fresh = try #require(Trial().seconds(until: .releaseIdle, facts))
    let old = Trial()
    // 768 µs for a split, what is released and comes back, and the load's return, at 108 µs of rent a second: 7.1 s.
    for _ in 0..<32 { #expect(old.tick(partlyFree(used: 512)) == .leave) }
    let time = try #require(old.seconds(until: .releaseIdle, facts))
    #expect(abs(time - fresh * 0.3) < 0.2, "\(time), \(fresh)")
  }

  /// Where pages come back one by one, a rebuild brings the rest at once; unless what is left costs less than a rebuild.
  @Test func rebuildsABlockSoonerThatFillsAgain() throws {
    func rebuilt(released: Int, fills: Bool) -> Double? {
      let trial = Trial()
      for step in 0..<200 {
        let back = fills ? min(step * 10, released) : 0
        let facts = partlyFree(used: 512 - released + back, broken: true, released: released - back)
        if trial.tick(facts, seconds: 0.1, busy: 0.02) == .rebuild { return Double(step) * 0.1 }
      }
      return nil
    }
    // Some forty pages, as four faults each, are half of a rebuild.
    let filling = try #require(rebuilt(released: 400, fills: true))
    #expect(filling < 0.7, "\(filling)")
    #expect(rebuilt(released: 400, fills: false) == nil)
    // A hundred faults are 130 µs.
    let small = rebuilt(released: 100, fills: true)
    #expect(small == nil || small! > 3, "\(small!)")
  }

  @Test func keepsEverythingWhereMemoryCostsNothing() {
    let trial = Trial(price: 0)
    #expect(trial.seconds(until: .releaseWhole, emptyBlock()) == nil)
    let other = Trial(price: 0)
    #expect(other.seconds(until: .releaseIdle, partlyFree(used: 1)) == nil)
  }

  @Test func releasesWhatIsLeftOfAnEmptiedBrokenBlockAtOnce() {
    let trial = Trial()
    var facts = emptyBlock()
    facts.isBroken = true
    #expect(trial.tick(facts) == .releaseWhole)
  }

  @Test func breaksAnIdleProgramsBlockWhenTheRentHasPaidForIt() throws {
    let trial = Trial()
    // Half a block: 108 µs a second, against 0.3 of 170 for the split, 4 for its ranges and 256 x (0.12 + 0.65) for the
    // pages, and half of 1.2 x 400 for the rebuild of half a block and the tax before it.
    let time = try #require(trial.seconds(until: .releaseIdle, partlyFree(used: 256)))
    #expect(abs(time - 3.25) < 0.2)
  }

  /// What stays in use pays tax when the load returns.
  @Test func breaksLaterTheMoreOfABlockIsInUse() throws {
    let much = try #require(Trial().seconds(until: .releaseIdle, partlyFree(used: 384)))
    let little = try #require(Trial().seconds(until: .releaseIdle, partlyFree(used: 64)))
    // 432 against 54 a second, and 91 against 189 of rent.
    #expect(abs(much - 8.1) < 0.3, "\(much)")
    #expect(abs(little - 1.13) < 0.2, "\(little)")
  }

  @Test func neverBreaksABlockWhoseTaxIsAboveItsRent() {
    let trial = Trial()
    // One CPU busy: a full block of a hundred pays 1,500 µs a second, more than any rent.
    #expect(trial.seconds(until: .releaseIdle, partlyFree(used: 256), busy: 1) == nil)
    // A page of a block hardly pays any.
    #expect(trial.seconds(until: .releaseIdle, partlyFree(used: 1), busy: 1) != nil)
  }

  @Test func breaksNothingWithoutAnHonestSplit() {
    for strategy in [
      StrategyChoice(.dontneed), StrategyChoice(.free), StrategyChoice(.splitDontneed, wholeBlocksOnly: true),
    ] {
      let trial = Trial(strategy: strategy)
      #expect(trial.seconds(until: .releaseIdle, partlyFree(used: 1)) == nil)
      #expect(trial.seconds(until: .releaseWhole, emptyBlock()) != nil)
    }
  }

  @Test func pagesThatAreTakenTakeTheirRentAlong() {
    let trial = Trial()
    _ = trial.seconds(until: .releaseIdle, partlyFree(used: 256), limit: 2)
    let before = trial.account.accrued
    #expect(before > 0)
    _ = trial.tick(partlyFree(used: 384), seconds: 0.05)
    #expect(trial.account.accrued < before * 0.55)
  }

  @Test func releasesFromABrokenBlockWithoutPayingForASplit() throws {
    let intact = Trial()
    let broken = Trial()
    let long = try #require(intact.seconds(until: .releaseIdle, partlyFree(used: 256)))
    let short = try #require(broken.seconds(until: .releaseIdle, partlyFree(used: 256, broken: true)))
    #expect(short < long - 1)
  }

  @Test func rebuildsABusyBlockWhenTheTaxHasPaidForIt() throws {
    let trial = Trial()
    // Nearly full, in a program that keeps one CPU busy: some 1,300 µs a second against 400.
    let facts = partlyFree(used: 448, broken: true, released: 64)
    let time = try #require(trial.seconds(until: .rebuild, facts, busy: 1))
    #expect(time < 0.5)
  }

  /// Where the host takes free memory back, a hugepage given away is dear, and so is one that a rebuild asks for.
  @Test func keepsHugePagesLongerWhereIdleOnesAreDear() throws {
    var options = RentOrBuyOptions()
    options.costs.coldBlockFault = 4800
    let empty = Trial(options: options)
    let time = try #require(empty.seconds(until: .releaseWhole, emptyBlock()))
    #expect(abs(time - (9 + 4800) / 217 / 2) < 1)
    let busy = Trial(options: options)
    let facts = partlyFree(used: 448, broken: true, released: 64)
    let cold = try #require(busy.seconds(until: .rebuild, facts, busy: 1))
    #expect(cold > 1 && cold < 3)
  }

  /// The second morning: the day before promises that a rebuild will be paid for.
  @Test func rebuildsSoonerWhenTheLastBusyTimeWasLongEnough() throws {
    let facts = partlyFree(used: 512, broken: true)
    func morning(after day: Double, _ night: Double = 5) throws -> Double {
      let trial = Trial()
      var whole = facts
      whole.isBroken = false
      for _ in 0..<Int(day / 0.25) { _ = trial.tick(whole, busy: 0.2) }
      // A night with chores.
      for _ in 0..<Int(night / 0.25) { _ = trial.tick(facts, busy: 0.002) }
      return try #require(trial.seconds(until: .rebuild, facts, busy: 0.2))
    }
    let first = try morning(after: 0)
    #expect(try morning(after: 5) < first * 0.6)
    // A day that would not have paid for it promises nothing; nor does one that is not over.
    #expect(abs(try morning(after: 0.25) - first) < 0.06)
    #expect(abs(try morning(after: 5, 0.5) - first) < 0.06)
  }

  /// What was promised and did not come costs once.
  @Test func believesTheLastBusyTimeOnly() throws {
    let facts = partlyFree(used: 512, broken: true)
    let trial = Trial()
    for _ in 0..<40 { _ = trial.tick(partlyFree(used: 512), busy: 1) }
    for _ in 0..<20 { _ = trial.tick(facts) }
    _ = trial.tick(facts, seconds: 0.05, busy: 1)
    for _ in 0..<20 { _ = trial.tick(facts) }
    let first = try #require(Trial().seconds(until: .rebuild, facts, busy: 1))
    #expect(abs(try #require(trial.seconds(until: .rebuild, facts, busy: 1)) - first) < 0.06)
  }

  @Test func ticksFinerWhileBrokenBlocksCost() {
    let trial = Trial()
    let idle = trial.policy.begin(trial.input, releasedParts: 0, refaultedParts: 0).nextTick
    trial.input.elapsed = 250_000_000
    trial.input.processCPU += 500_000_000
    let busy = trial.policy.begin(trial.input, releasedParts: 0, refaultedParts: 0).nextTick
    #expect(busy < idle && busy >= 50_000_000)
  }

  @Test func rebuildsNothingInAnIdleProgramOrWithoutTheMeans() {
    let facts = partlyFree(used: 448, broken: true, released: 64)
    let idle = Trial()
    #expect(idle.seconds(until: .rebuild, facts) == nil)
    let off = Trial(rebuild: false)
    #expect(off.seconds(until: .rebuild, facts, busy: 1) == nil)
    var capabilities = KernelCapabilities.all
    capabilities.remove(.collapse)
    let lacking = Trial(capabilities: capabilities)
    #expect(lacking.seconds(until: .rebuild, facts, busy: 1) == nil)
  }

  @Test func pausesLongerAfterEachRebuildThatFails() throws {
    let trial = Trial()
    let facts = partlyFree(used: 448, broken: true, released: 64)
    var times: [Double] = []
    for _ in 0..<4 {
      times.append(try #require(trial.seconds(until: .rebuild, facts, busy: 1)))
      trial.policy.rebuilt(false)
    }
    #expect(times[1] > 0.9 && times[2] > 1.9 && times[3] > 3.9)
    _ = trial.seconds(until: .rebuild, facts, busy: 1)
    trial.policy.rebuilt(true)
    #expect(try #require(trial.seconds(until: .rebuild, facts, busy: 1)) < 0.5)
  }

  @Test func learnsWhichShareOfReleasedPagesComesBack() {
    let trial = Trial()
    #expect(trial.policy.refaultShare == 0.5)
    trial.input.elapsed = 1_000_000_000
    _ = trial.policy.begin(trial.input, releasedParts: 100_000, refaultedParts: 0)
    #expect(trial.policy.refaultShare < 0.02)
    for _ in 0..<30 { _ = trial.policy.begin(trial.input, releasedParts: 10_000, refaultedParts: 10_000) }
    #expect(trial.policy.refaultShare > 0.7)
  }

  @Test func learnsToLetGoSoonerWhereBlocksStayEmpty() throws {
    let trial = Trial()
    for _ in 0..<20 {
      trial.account = BlockAccount()
      _ = trial.seconds(until: .leave, emptyBlock(), limit: 0.01)
      // Past every wait: booked as a long gap.
      for _ in 0..<25 { _ = trial.tick(emptyBlock(), seconds: 0.25) }
    }
    trial.account = BlockAccount()
    let time = try #require(trial.seconds(until: .releaseWhole, emptyBlock()))
    #expect(time < 0.4)
  }

  @Test func tellsWhenItsPriceHasToBeLookedAtAgain() {
    for (price, seconds) in [(400.0, 0.12), (1600.0, 0.05), (1e6, 0.05), (1.0, 1.0), (0.0, 0.25)] {
      var options = RentOrBuyOptions()
      options.memoryPrice = price
      var policy = RentOrBuyPolicy(options, strategy: StrategyChoice(.splitDontneed), capabilities: .all)
      let plan = policy.begin(ScavengeInput(), releasedParts: 0, refaultedParts: 0)
      #expect(abs(Double(plan.nextTick) / 1e9 - seconds) < 0.01)
    }
  }

  @Test func curesPhantomWhenItsRentHasPaidForIt() {
    var policy = RentOrBuyPolicy(RentOrBuyOptions(), strategy: StrategyChoice(.dontneed), capabilities: .all)
    var input = ScavengeInput()
    input.phantomPages = 512
    input.elapsed = 1_000_000_000
    #expect(policy.begin(input, releasedParts: 0, refaultedParts: 0).cures == 0)
    #expect(policy.begin(input, releasedParts: 0, refaultedParts: 0).cures == 1)
  }
}
