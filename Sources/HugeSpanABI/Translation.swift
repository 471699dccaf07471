// From the header's structures to the core's, and back.

import CHugeSpan

#if !hasFeature(Embedded)
  import HugeSpanCore
#endif

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// Options as the core wants them; nil if one makes no sense.
func heapOptions(_ given: hs_options) -> HeapOptions? {
  var options = HeapOptions()
  options.userData = given.user_data
  options.adviseHugePages = given.advise_huge_pages
  options.movesBlocks = given.move_blocks
  guard let arena = Int(exactly: given.first_arena_bytes), arena >= 1 << 21, arena <= 1 << 46 else { return nil }
  options.firstArenaBytes = arena
  guard let soft = Int(exactly: given.soft_limit_bytes), let hard = Int(exactly: given.hard_limit_bytes) else {
    return nil
  }
  // A soft limit above the hard one would never be reached.
  if soft > hard && hard > 0 { return nil }
  options.softLimitBytes = soft == 0 ? nil : soft
  options.hardLimitBytes = hard == 0 ? nil : hard
  guard given.rate.isFinite, given.rate >= 0, given.rate <= 1_000_000 else { return nil }

  switch given.policy_kind {
  case HS_POLICY_NEVER: options.policy = .never
  case HS_POLICY_IMMEDIATE: options.policy = .immediate
  case HS_POLICY_GPERFTOOLS: options.policy = .gperftools(rate: given.rate)
  case HS_POLICY_SEED:
    var seed = SeedOptions()
    seed.rate = given.rate
    seed.preferBroken = given.prefer_broken
    seed.preferLong = given.prefer_long
    seed.discountRefaults = given.discount_refaults
    options.policy = .seed(seed)
  case HS_POLICY_DEMAND_WINDOW:
    var demand = DemandWindowOptions()
    let longest = DemandWindowOptions.longestNanoseconds
    guard given.short_interval_nanoseconds <= longest, given.long_interval_nanoseconds <= longest else { return nil }
    demand.bytesPerSecond = given.release_rate
    demand.shortNanoseconds = given.short_interval_nanoseconds
    demand.longNanoseconds = given.long_interval_nanoseconds
    options.policy = .demandWindow(demand)
  case HS_POLICY_DECAY:
    var decay = DecayOptions()
    decay.decayNanoseconds = given.decay_nanoseconds
    options.policy = .decay(decay)
  case HS_POLICY_PACED:
    guard given.cpu_budget_percent > 0, given.cpu_budget_percent <= 100 else { return nil }
    var paced = PacedOptions()
    paced.budgetPercent = given.cpu_budget_percent
    paced.periodNanoseconds = given.goal_period_nanoseconds
    options.policy = .paced(paced)
  case HS_POLICY_RENT_OR_BUY:
    guard given.memory_price.isFinite, given.memory_price >= 0 else { return nil }
    var choice = RentOrBuyOptions()
    choice.memoryPrice = given.memory_price
    choice.rebuild = given.rebuild
    choice.steering = given.steering
    choice.costs = costModel(given.costs)
    for number in 0..<CostModel.Price.count {
      // A NaN is allowed by nothing.
      if let price = CostModel.Price(rawValue: number), !price.allows(choice.costs[price]) { return nil }
    }
    options.policy = .rentOrBuy(choice)
  case HS_POLICY_CUSTOM:
    guard let table = given.policy else { return nil }
    options.customPolicy = CustomPolicy(
      context: UnsafeMutableRawPointer(mutating: table), plan: { planByTable($0, $1, $2) },
      booked: { bookByTable($0, $1, $2) })
  default: return nil
  }

  let kind: StrategyKind
  switch given.strategy_kind {
  case HS_STRATEGY_KEEP: kind = .keep
  case HS_STRATEGY_DONTNEED: kind = .dontneed
  case HS_STRATEGY_FREE: kind = .free
  case HS_STRATEGY_FREE_THEN_DONTNEED: kind = .freeThenDontneed
  case HS_STRATEGY_SPLIT_DONTNEED: kind = .splitDontneed
  case HS_STRATEGY_COLD: kind = .cold
  case HS_STRATEGY_PAGEOUT: kind = .pageout
  case HS_STRATEGY_DECOMMIT: kind = .decommit
  case HS_STRATEGY_DEFERRED: kind = .deferred
  case HS_STRATEGY_CUSTOM:
    guard let table = given.strategy else { return nil }
    kind = .dontneed
    options.customStrategy = CustomStrategy(
      context: UnsafeMutableRawPointer(mutating: table), release: { releaseByTable($0, $1) })
  default: return nil
  }
  options.strategy = StrategyChoice(kind, wholeBlocksOnly: given.whole_blocks_only)
  options.strategy.secondStageNanoseconds = given.second_stage_nanoseconds
  options.strategy.freesWholeBlocks = given.free_whole_blocks
  guard let pressure = Int(exactly: given.pressure_limit_bytes) else { return nil }
  options.pressureLimitBytes = pressure == 0 ? nil : pressure
  return options
}

/// A price list as the core wants it.
func costModel(_ given: hs_costs) -> CostModel {
  var costs = CostModel()
  costs.releaseCall = given.release_call
  costs.releaseRange = given.release_range
  costs.releasePage = given.release_page
  costs.releaseBlock = given.release_block
  costs.split = given.split
  costs.pageFault = given.page_fault
  costs.blockFault = given.block_fault
  costs.coldBlockFault = given.cold_block_fault
  costs.coldAfter = given.cold_after_seconds
  costs.collapse = given.collapse
  costs.cure = given.cure
  costs.taxShare = given.tax_share
  return costs
}

extension hs_costs {
  /// A price list of the core's.
  init(_ costs: CostModel) {
    self.init(
      release_call: costs.releaseCall, release_range: costs.releaseRange, release_page: costs.releasePage,
      release_block: costs.releaseBlock, split: costs.split, page_fault: costs.pageFault, block_fault: costs.blockFault,
      cold_block_fault: costs.coldBlockFault, cold_after_seconds: costs.coldAfter, collapse: costs.collapse,
      cure: costs.cure, tax_share: costs.taxShare)
  }
}

/// A request as the core wants it; nil if it makes no sense.
func spanRequest(_ given: hs_request) -> SpanRequest? {
  guard given.pages > 0, given.pages <= 1 << 40 else { return nil }
  var request = SpanRequest(pageCount: given.pages)
  request.alignmentPages = max(given.alignment_pages, 1)
  request.wishedAddress = given.wished_address.map { UInt(bitPattern: $0) }
  request.mustBeZero = given.must_be_zero
  switch given.lifetime {
  case HS_LIFETIME_UNKNOWN: break
  case HS_LIFETIME_SHORT: request.lifetime = .short
  case HS_LIFETIME_LONG: request.lifetime = .long
  default: return nil
  }
  switch given.objects {
  case HS_OBJECTS_UNKNOWN: break
  case HS_OBJECTS_FEW: request.objectsPerSpan = .few
  case HS_OBJECTS_MANY: request.objectsPerSpan = .many
  default: return nil
  }
  return request
}

// MARK: Tables of the embedder's

private func planByTable(
  _ context: UnsafeMutableRawPointer?, _ input: UnsafeRawPointer, _ plan: UnsafeMutableRawPointer
) {
  let table = context!.assumingMemoryBound(to: hs_policy.self).pointee
  let given = input.assumingMemoryBound(to: ScavengeInput.self).pointee
  var translated = hs_scavenge_input(
    now: given.now, elapsed: given.elapsed, process_cpu: given.processCPU, freed_pages: UInt64(given.freedPages),
    refaulted_pages: UInt64(given.refaultedPages), releasable_pages: UInt64(given.releasablePages),
    used_pages: UInt64(given.usedPages), phantom_pages: UInt64(given.phantomPages),
    release_nanoseconds: given.releaseNanoseconds)
  var answer = hs_scavenge_plan()
  answer.next_tick = 1_000_000_000
  table.plan(table.context, &translated, &answer)
  var order = ReleaseOrder(
    preferBroken: answer.prefer_broken, length: answer.longest_first ? .longest : .roundRobin)
  order.wholeFirst = answer.whole_first
  let result = plan.assumingMemoryBound(to: ScavengePlan.self)
  result.pointee.pages = Int(clamping: answer.pages)
  result.pointee.order = order
  result.pointee.cures = Int(answer.cures)
  result.pointee.nextTick = answer.next_tick
}

private func bookByTable(_ context: UnsafeMutableRawPointer?, _ wanted: Int, _ released: Int) {
  let table = context!.assumingMemoryBound(to: hs_policy.self).pointee
  table.booked?(table.context, UInt64(wanted), UInt64(released))
}

private func releaseByTable(_ context: UnsafeMutableRawPointer?, _ pointer: UnsafeRawPointer) -> UInt32 {
  let table = context!.assumingMemoryBound(to: hs_strategy.self).pointee
  let batch = pointer.assumingMemoryBound(to: ReleaseBatch.self).pointee
  if batch.count == 0 { return 0 }
  let first = hs_release_range(
    address: UnsafeMutableRawPointer(bitPattern: batch.ranges[0].start)!, bytes: 0, is_whole: false, is_shared: false,
    backing: HS_BACKING_UNKNOWN, effect: HS_EFFECT_POSTPONED)
  // As many as a batch can have; the compiler checks no such thing, so the bound is asserted.
  var ranges = InlineArray<128, hs_release_range>(repeating: first)
  precondition(batch.count <= 128)
  for index in 0..<batch.count {
    let known = batch.known[index]
    ranges[index].address = UnsafeMutableRawPointer(bitPattern: batch.ranges[index].start)!
    ranges[index].bytes = batch.ranges[index].byteCount
    ranges[index].is_whole = known.isWhole
    ranges[index].is_shared = known.sharing == .shared
    ranges[index].backing = hs_backing(UInt32(known.backing.rawValue))
  }
  let calls = withUnsafeMutablePointer(to: &ranges) {
    table.release(
      table.context, UnsafeMutableRawPointer($0).assumingMemoryBound(to: hs_release_range.self), batch.count)
  }
  for index in 0..<batch.count {
    batch.known[index].effect =
      ReleaseEffect(embedder: UInt8(truncatingIfNeeded: ranges[index].effect.rawValue))
  }
  return calls
}
