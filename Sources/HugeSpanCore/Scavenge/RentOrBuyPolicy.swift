// `rent-or-buy`: is this free page worth more here or with the kernel?
//
// Every other policy says how many pages to release; this one looks at each block and compares two sums of CPU time. Holding a
// page is rent, at the memory price, the one knob. Releasing and faulting it back is a purchase. Running on base pages is a
// tax in TLB misses, in proportion to how busy the program is. What accrues is compared with what ends it:
//
//   empty block          its rent against releasing it whole and faulting it back; how long to wait is learned (WaitLearner)
//   intact, partly free  the rent of the pages that stayed free, less the tax that breaking it would bring for as long as it
//                        stays broken, against a share of what breaking it costs: the split, the release, the expected
//                        refaults, and what is to be expected when the load returns (below). While the tax is the higher of
//                        the two it is never broken.
//   broken, partly free  the rent of its free pages against a share of the release and the expected refaults
//   broken               the tax, less the rent of what a rebuild would bring back into memory, against a share of the rebuild:
//                        half of it, or a quarter while a busy time goes on of which the last was long enough to pay for it (BusyTime)
//   phantom              its rent against the cure
//
// The shares (`breakShare` and so on) are less than one, the break-even of a gap of unknown length, because idle pages of a block in use are not
// such a gap: the longer they have been idle the longer they will be. They were found on the bundled traces at three prices, and the
// cost is flat around them. Four things of the block and the program say that a step pays more or less surely, and change its share:
//
//   a long use before    what was in use for long is idle for long (WaitLearner): if a gap as long as the use before would pay
//                        for breaking a block, 0.3 of the wait suffices
//   a program that rests what is free is not wanted soon: half of the wait of an empty block (BusyTime)
//   a block that fills   a page that comes back to a broken block says that more will; each speaks for a rebuild as four faults.
//                        (Without it blocks were filled fault by fault in the morning, and then rebuilt.)
//   a busy time that was long enough once (BusyTime)
//
// What breaking costs later is in proportion to the pages that stay in use: a block that is broken when
// the load returns pays tax on them until a rebuild is worth its price, and then the rebuild. Without that term blocks that
// are half in use were broken at the end of idle times that were about as long as the wait (the redis trace at price 100: twice the excess).
//
// Source: the ski-rental problem (Karlin et al., Competitive Snoopy Caching, 1988) for the waits; the prices are measured.
// The policy is a value without a clock or a reference to the heap: it is told a block's facts and answers with a verdict.

/// What the heap knows of one block, as far as prices depend on it.
package struct BlockFacts {
  package var isOccupied = false
  /// A use of it began since the last look.
  package var wasClaimed = false
  /// In memory: occupied, or wholly free and resident.
  package var isResident = false
  package var isBroken = false
  /// Handed out, and not discarded.
  package var usedPages = 0
  /// A rebuild would keep nothing in memory that the kernel may take.
  package var mayRebuild = true
  /// Free pages in memory that were not given to the kernel.
  package var idlePages = 0
  /// Ranges that releasing them would take, at most.
  package var idleRanges = 0
  package var releasedPages = 0
  package var phantomPages = 0
  /// Seconds since the last free into the block.
  package var age: Double = 0

  /// An absent block.
  package init() {}
}

/// What is kept of each block between ticks: twelve bytes.
package struct BlockAccount {
  /// Microseconds that speak for the next step: rent of idle pages, or tax of a broken block. For an empty block
  /// the seconds since it was first seen empty.
  package var accrued: Float = 0
  /// Seconds for which the block was seen in use. For an empty block the wait after which it was released, in seconds; infinite if
  /// it was not.
  package var seconds: Float = 0
  /// When it was last seen, idle pages of an intact block, or released ones of a broken block; of an empty block the kind of its gap.
  package var pages: UInt16 = 0
  package var phase: Phase = .occupied
  /// Whether the block was broken when it was last seen.
  package var wasBroken: Bool = false

  /// Nothing seen yet.
  package init() {}

  /// What is known of an empty block's gap.
  var gap: WaitLearner.GapKind { WaitLearner.GapKind(index: UInt8(truncatingIfNeeded: pages)) }

  package enum Phase: UInt8 {
    case occupied
    /// Seen empty; the gap is not booked yet.
    case gap
    /// The gap has outlasted every wait and is booked.
    case booked
  }
}

/// What to do with a block.
package enum BlockVerdict: Equatable {
  case leave
  /// Release the wholly free block.
  case releaseWhole
  /// Release every idle page, which breaks the block if it is intact.
  case releaseIdle
  /// Make the block huge again.
  case rebuild
}

/// Decides block by block by prices.
package struct RentOrBuyPolicy: Sendable {
  let options: RentOrBuyOptions
  let costs: CostModel
  /// Microseconds for holding a page for a second.
  let pageRent: Double
  /// Partial releases can be had: some of a block's pages may go, and an intact block may be broken honestly.
  let releasesParts: Bool
  let breaksIntact: Bool
  let rebuilds: Bool

  package private(set) var learner = WaitLearner()
  /// Pages released from blocks in use and pages that came back, both fading.
  private var releasedParts: Double = RentOrBuyPolicy.priorPages
  private var refaultedParts: Double = RentOrBuyPolicy.priorPages / 2
  /// Empty blocks in memory: as the last tick left them, with those that fell empty since; and as counted in this tick.
  private var emptyBlocks = 0
  private var emptyCounted = 0
  private var lastCPU: UInt64 = 0
  private var hasCPU = false
  /// CPUs that the program kept busy since the last tick.
  package private(set) var busyCPUs: Double = 0
  private var seconds: Double = 0
  private(set) var taxPerPage: Double = 0
  private var phantomRent: Double = 0
  private var busyTime = BusyTime()
  /// Seconds until a rebuild may be tried again, and how long to pause after the next failure.
  private(set) var rebuildPause: Double = 0
  private var nextPause: Double = 1
  private(set) var rebuildBudget = 0

  /// Pages of prior belief that half of what is released comes back.
  static let priorPages: Double = 1024
  /// Share of time that rebuilding may take: it has to be done while the load is up, or its gain is gone, but a program
  /// that faults meanwhile waits for each.
  static let rebuildShare: Double = 0.2
  /// Shares of its price at which the next step of a block in use is taken.
  static let breakShare: Double = 0.3
  static let releaseShare: Double = 0.25
  /// Of the wait for breaking a block, if a gap as long as the use before would pay for it.
  static let longUseShare: Double = 0.3
  /// Of the wait of an empty block, while the program rests.
  static let restShare: Double = 0.5
  /// How many faults a page that comes back to a broken block stands for: there are more to come.
  static let fillWeight: Double = 4
  static let unpromisedShare: Double = 0.5
  /// Share of a rebuild's price that has to have accrued when the busy time that goes on promises to pay the rest.
  static let promisedShare: Double = 0.25
  /// Share of what a full block pays when the load returns, its rebuild and as much in tax before, that counts when it is broken.
  static let returnShare: Double = 0.6

  package init(_ options: RentOrBuyOptions, strategy: StrategyChoice, capabilities: KernelCapabilities) {
    self.options = options
    costs = options.costs
    pageRent = CostModel.rentPerPage(memoryPrice: options.memoryPrice)
    releasesParts = !strategy.releasesWholeOnly
    breaksIntact = releasesParts && strategy.kind == .splitDontneed
    rebuilds = options.rebuild && capabilities.contains(.collapse)
  }

  /// Rent of a whole block for a second.
  var blockRent: Double { pageRent * Double(pagesPerBlock) }

  /// Share of partially released pages that is expected to come back.
  package var refaultShare: Double { min(refaultedParts / releasedParts, 1) }

  /// The wait of an empty block in seconds.
  func wholeWait(_ gap: WaitLearner.GapKind) -> Double {
    if blockRent <= 0 { return .infinity }
    // The guard's promise is for break-even, so that is not shortened.
    let share = busyTime.isOver && !learner.isGuarded ? RentOrBuyPolicy.restShare : 1
    return share * learner.wait(of: gap) * costs.wholeBlock / blockRent
  }

  /// A tick begins. `refaultedParts` and `releasedParts` are pages since the last one, of blocks in use.
  package mutating func begin(_ input: ScavengeInput, releasedParts released: Int, refaultedParts refaulted: Int)
    -> ScavengePlan
  {
    // A tick after a long sleep is one tick: nobody looked meanwhile.
    seconds = min(Double(input.elapsed) / 1e9, 60)
    busyCPUs = 0
    if hasCPU && input.elapsed > 0 && input.processCPU > lastCPU {
      busyCPUs = min(Double(input.processCPU - lastCPU) / Double(input.elapsed), 4096)
    }
    hasCPU = true
    lastCPU = input.processCPU
    taxPerPage = input.usedPages == 0 ? 0 : costs.taxShare * busyCPUs * 1e6 / Double(input.usedPages)
    busyTime.note(busyCPUs: busyCPUs, tax: taxPerPage * seconds, seconds: seconds)
    learner.age(seconds: seconds)
    let fading = 1 / (1 + 0.6931 * seconds / WaitLearner.halfLife)
    releasedParts =
      RentOrBuyPolicy.priorPages + (releasedParts - RentOrBuyPolicy.priorPages) * fading + Double(released)
    refaultedParts =
      RentOrBuyPolicy.priorPages / 2 + (refaultedParts - RentOrBuyPolicy.priorPages / 2) * fading + Double(refaulted)
    emptyBlocks = emptyCounted
    emptyCounted = 0
    rebuildPause = max(0, rebuildPause - seconds)
    rebuildBudget = max(1, Int(seconds * 1e6 * RentOrBuyPolicy.rebuildShare / max(costs.rebuild, 1)))

    var plan = ScavengePlan()
    phantomRent = input.phantomPages == 0 ? 0 : phantomRent + pageRent * Double(input.phantomPages) * seconds
    if phantomRent >= costs.cure {
      plan.cures = Int(min(phantomRent / max(costs.cure, 1), 64))
      phantomRent = 0
    }
    // A quarter of the time in which the first decision can come due: an empty block's, a broken and fully used one's. Where
    // blocks are given away at once, an eighth of break-even is soon enough.
    var due = blockRent > 0 ? costs.wholeBlock / blockRent * min(max(learner.shortestWait, 0.125), 1) : 1
    let tax = taxPerPage * Double(pagesPerBlock)
    if rebuilds && tax > 0 { due = min(due, RentOrBuyPolicy.unpromisedShare * costs.rebuild / tax) }
    plan.nextTick = UInt64(max(0.05, min(due / 4, 1)) * 1e9)
    return plan
  }

  /// What to do with one block. Called once a tick for each.
  package mutating func judge(_ facts: BlockFacts, _ account: inout BlockAccount) -> BlockVerdict {
    if !facts.isOccupied { return judgeEmpty(facts, &account) }
    if account.phase != .occupied {
      if account.phase == .gap { book(account, isOver: true) }
      account = BlockAccount()
    }
    account.seconds = facts.wasClaimed ? 0 : account.seconds + Float(seconds)
    if facts.isBroken != account.wasBroken {
      account.accrued = 0
      account.pages = 0
      account.wasBroken = facts.isBroken
    }
    return facts.isBroken ? judgeBroken(facts, &account) : judgeIntact(facts, &account)
  }

  private mutating func judgeEmpty(_ facts: BlockFacts, _ account: inout BlockAccount) -> BlockVerdict {
    if account.phase != .occupied && facts.isResident && facts.age < 1.5 * seconds {
      // It was used in between: one gap ended, another began.
      if account.phase == .gap { book(account, isOver: true) }
      account = BlockAccount()
    }
    if facts.isResident { emptyCounted += 1 }
    if account.phase == .occupied {
      // A block that nobody ever used waits for nothing.
      if !facts.isResident { return .leave }
      emptyBlocks += 1
      let wasLong = !facts.wasClaimed && wasUsedLong(account)
      let gap = WaitLearner.GapKind(emptyBlocks: emptyBlocks, afterLongUse: wasLong)
      account = BlockAccount()
      account.pages = UInt16(gap.index)
      account.seconds = .infinity
      account.phase = .gap
    } else if account.phase == .gap {
      let before = Double(account.accrued)
      account.accrued += Float(seconds)
      learner.follow(account.gap, from: inPurchases(before), to: inPurchases(Double(account.accrued)))
      if inPurchases(Double(account.accrued)) >= WaitLearner.longest {
        book(account, isOver: false)
        account.phase = .booked
      }
    } else {
      account.accrued += Float(seconds)
    }
    if !facts.isResident || facts.idlePages == 0 { return .leave }
    // What is left of a broken block keeps it from coming back huge.
    if facts.isBroken { return .releaseWhole }
    if Double(account.accrued) < wholeWait(account.gap) { return .leave }
    account.seconds = min(account.seconds, account.accrued)
    return .releaseWhole
  }

  /// Whether the use of a block that is or was in use has lasted for as long as it pays to wait for an empty one.
  func wasUsedLong(_ account: BlockAccount) -> Bool {
    inPurchases(Double(account.seconds)) >= WaitLearner.longUse
  }

  /// The rent of an empty block for `seconds`, in units of its purchase.
  private func inPurchases(_ seconds: Double) -> Double { seconds * blockRent / costs.wholeBlock }

  /// A gap is over, or has outlasted every wait. A block that is still there at its end was waited for all the time; one that could not be
  /// released in all that time counts as if it had been when it was to be.
  private mutating func book(_ account: BlockAccount, isOver: Bool) {
    var wait = Double.infinity
    if account.seconds.isFinite {
      wait = inPurchases(Double(account.seconds))
    } else if !isOver {
      wait = learner.wait(of: account.gap)
    }
    learner.book(account.gap, gap: isOver ? inPurchases(Double(account.accrued)) : .infinity, wait: wait)
  }

  /// The rent of pages that stayed free, less the tax of a broken block, until it has paid for breaking it.
  private mutating func judgeIntact(_ facts: BlockFacts, _ account: inout BlockAccount) -> BlockVerdict {
    if !breaksIntact || facts.idlePages == 0 {
      account.accrued = 0
      return .leave
    }
    // Pages that were taken since the last look take their share of the rent along; pages that were freed have paid none.
    if facts.idlePages < Int(account.pages) { account.accrued *= Float(facts.idlePages) / Float(account.pages) }
    account.pages = UInt16(truncatingIfNeeded: facts.idlePages)
    account.accrued = max(0, account.accrued + Float(gainOfBreaking(facts) * seconds))
    let share = Double(account.seconds) >= gapThatPays(facts) ? RentOrBuyPolicy.longUseShare : 1
    return Double(account.accrued) < share * priceOfBreaking(facts) ? .leave : .releaseIdle
  }

  /// What speaks for breaking an intact block, in microseconds a second.
  func gainOfBreaking(_ facts: BlockFacts) -> Double {
    Double(facts.idlePages) * pageRent - taxPerPage * Double(facts.usedPages)
  }

  /// What has to accrue before an intact block is broken, whatever its use before was.
  func priceOfBreaking(_ facts: BlockFacts) -> Double {
    RentOrBuyPolicy.breakShare * (costs.split + purchase(facts)) + afterReturn(facts)
  }

  /// How long the pages of an intact block have to stay idle to pay for all that breaking it costs, in seconds. If the block was in
  /// use for that long before, a share of the price suffices.
  func gapThatPays(_ facts: BlockFacts) -> Double {
    let gain = gainOfBreaking(facts)
    if gain <= 0 { return .infinity }
    return (costs.split + purchase(facts) + afterReturn(facts) / RentOrBuyPolicy.returnShare) / gain
  }

  /// What a broken block pays when the load returns, as far as it is to be expected: a rebuild and as much in tax before it, in
  /// proportion to its used pages. Where nothing is rebuilt the tax is all.
  private func afterReturn(_ facts: BlockFacts) -> Double {
    let rebuilt = 2 * RentOrBuyPolicy.returnShare * costs.rebuild * Double(facts.usedPages) / Double(pagesPerBlock)
    guard let tax = busyTime.taxOfBusyTime else { return rebuilt }
    return min(rebuilt, tax * Double(facts.usedPages))
  }

  /// Releasing the idle pages of a block, and those faults that are to be expected.
  private func purchase(_ facts: BlockFacts) -> Double {
    costs.releaseRange * Double(facts.idleRanges)
      + Double(facts.idlePages) * (costs.releasePage + costs.pageFault * refaultShare)
  }

  private mutating func judgeBroken(_ facts: BlockFacts, _ account: inout BlockAccount) -> BlockVerdict {
    let rate = gainOfRebuilding(facts)
    account.accrued = max(0, account.accrued + Float(rate * seconds))
    let back = Int(account.pages) - facts.releasedPages
    if back > 0 && fillingPays(facts) {
      account.accrued += Float(RentOrBuyPolicy.fillWeight * costs.pageFault * Double(back))
    }
    account.pages = UInt16(truncatingIfNeeded: facts.releasedPages)
    let rebuilds = rebuilds && facts.mayRebuild
    if rebuilds && rebuildPause == 0 && rebuildBudget > 0 && Double(account.accrued) >= rebuildWait(facts) {
      rebuildBudget -= 1
      return .rebuild
    }
    // What a rebuild is going to bring back is not worth releasing.
    if releasesParts && facts.idlePages > 0 && !(rebuilds && rate > 0) {
      let rent = facts.age * Double(facts.idlePages) * pageRent
      if rent >= priceOfIdle(facts) { return .releaseIdle }
    }
    return .leave
  }

  /// Whether a rebuild costs no more than to fill the rest of the block fault by fault and to work on it as long as the program is
  /// expected to.
  private func fillingPays(_ facts: BlockFacts) -> Bool {
    let faults = Double(facts.releasedPages) * costs.pageFault
    return faults + (busyTime.taxOfBusyTime ?? 0) * Double(facts.usedPages) >= costs.rebuild
  }

  /// What speaks for rebuilding a broken block, in microseconds a second: a rebuild brings back what was released, and ends the
  /// phantom that is held besides.
  func gainOfRebuilding(_ facts: BlockFacts) -> Double {
    taxPerPage * Double(facts.usedPages) - pageRent * Double(facts.releasedPages)
      + pageRent * Double(facts.phantomPages)
  }

  /// The rent at which the idle pages of a broken block go.
  func priceOfIdle(_ facts: BlockFacts) -> Double { RentOrBuyPolicy.releaseShare * purchase(facts) }

  /// What has to accrue before a block is rebuilt: half of its price, or less of it if the program is expected to go on for as long
  /// as it did last time and that would pay for it.
  func rebuildWait(_ facts: BlockFacts) -> Double {
    let promised =
      busyTime.promisedTax * Double(facts.usedPages)
      - busyTime.promisedSeconds * pageRent * Double(facts.releasedPages - facts.phantomPages)
    return costs.rebuild
      * (promised >= costs.rebuild ? RentOrBuyPolicy.promisedShare : RentOrBuyPolicy.unpromisedShare)
  }

  /// A rebuild was tried.
  package mutating func rebuilt(_ succeeded: Bool) {
    if succeeded {
      nextPause = 1
    } else {
      rebuildPause = nextPause
      nextPause = min(nextPause * 2, 60)
    }
  }
}
