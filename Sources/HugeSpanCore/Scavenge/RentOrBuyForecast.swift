// What the priced policy waits for, block by block: told to people, never used to decide.
//
// A verdict is made of an account, a price and what speaks for the step in a second. The same three terms, without the
// verdict, say how far a block is on its way and when it will be there if nothing changes. Both come from the same functions, so
// that what is told cannot differ from what is done.

/// The next step of a block, if one accrues.
package struct BlockForecast: Equatable {
  /// What would be done with the block.
  package enum Step: UInt8, Sendable {
    case none
    /// The wholly free block goes.
    case releaseWhole
    /// The block is broken, and its idle pages go.
    case breakBlock
    /// The idle pages of a block that is broken already go.
    case releaseIdle
    /// The block is made huge again.
    case rebuild
  }
  package var step = Step.none
  /// Microseconds that speak for it so far, those at which it is done, and how many accrue in a second (may be below zero).
  package var accrued: Double = 0
  package var price: Double = 0
  package var rate: Double = 0

  /// Nothing accrues.
  package init() {}

  package init(_ step: Step, accrued: Double, price: Double, rate: Double) {
    self.step = step
    self.accrued = accrued
    self.price = price
    self.rate = rate
  }

  /// Seconds until the step if nothing changes; infinite if it does not come.
  package var seconds: Double {
    if step == .none { return .infinity }
    if accrued >= price { return 0 }
    return rate > 0 ? (price - accrued) / rate : .infinity
  }
}

extension RentOrBuyPolicy {
  /// What `judge` would be waiting for at a block with these facts and this account.
  package func forecast(_ facts: BlockFacts, _ account: BlockAccount) -> BlockForecast {
    // Where memory costs nothing there is nothing to wait for.
    if blockRent <= 0 && !facts.isOccupied { return BlockForecast() }
    if !facts.isOccupied { return forecastEmpty(facts, account) }
    // An account of another phase says nothing of this one, and `judge` begins a new one.
    let isCurrent = account.phase == .occupied && account.wasBroken == facts.isBroken
    let accrued = isCurrent ? Double(account.accrued) : 0
    if !facts.isBroken {
      if !breaksIntact || facts.idlePages == 0 { return BlockForecast() }
      let use = account.phase == .occupied ? Double(account.seconds) : 0
      return BlockForecast(
        .breakBlock, accrued: accrued, price: priceOfBreaking(facts, accrued: accrued, after: use),
        rate: gainOfBreaking(facts))
    }
    let gain = gainOfRebuilding(facts)
    let mayRebuild = rebuilds && facts.mayRebuild
    if mayRebuild && gain > 0 {
      return BlockForecast(.rebuild, accrued: accrued, price: rebuildWait(facts), rate: gain)
    }
    if releasesParts && facts.idlePages > 0 {
      let rent = Double(facts.idlePages) * pageRent
      return BlockForecast(.releaseIdle, accrued: facts.age * rent, price: priceOfIdle(facts), rate: rent)
    }
    if mayRebuild && accrued > 0 {
      return BlockForecast(.rebuild, accrued: accrued, price: rebuildWait(facts), rate: gain)
    }
    return BlockForecast()
  }

  /// Blocks that a tick which comes so long after the last one may rebuild at most.
  package func rebuildsDue(withinSeconds seconds: Double) -> Int {
    rebuildPause > seconds
      ? 0 : max(1, Int(min(seconds * 1e6 * RentOrBuyPolicy.rebuildShare / max(costs.rebuild, 1), 1e6)))
  }

  /// What will have accrued when the block is broken. The use goes on meanwhile, and may become long enough for the lower price.
  private func priceOfBreaking(_ facts: BlockFacts, accrued: Double, after use: Double) -> Double {
    let full = priceOfBreaking(facts)
    let gain = gainOfBreaking(facts)
    if gain <= 0 { return full }
    let becomesLong = accrued + gain * max(0, gapThatPays(facts) - use)
    return min(full, max(RentOrBuyPolicy.longUseShare * full, becomesLong))
  }

  private func forecastEmpty(_ facts: BlockFacts, _ account: BlockAccount) -> BlockForecast {
    if !facts.isResident || facts.idlePages == 0 { return BlockForecast() }
    // What is left of a broken block goes at the next look.
    if facts.isBroken { return BlockForecast(.releaseWhole, accrued: 0, price: 0, rate: blockRent) }
    if account.phase == .occupied {
      // Not seen empty yet: its wait begins, and depends on how many are empty then.
      let wait = wholeWait(WaitLearner.GapKind(emptyBlocks: 1, afterLongUse: wasUsedLong(account)))
      return BlockForecast(.releaseWhole, accrued: 0, price: wait * blockRent, rate: blockRent)
    }
    return BlockForecast(
      .releaseWhole, accrued: Double(account.accrued) * blockRent, price: wholeWait(account.gap) * blockRent,
      rate: blockRent)
  }
}
