// `demand-window`: memory goes at a constant rate, but no hugepage is broken for memory that recent demand would want back.
//
// The rule of TCMalloc's adaptive subrelease (Maas et al., Adaptive Huge-Page Subrelease for Non-moving Memory Allocators
// in Warehouse-Scale Computers, ISMM 2021; huge_page_subrelease.h, huge_page_filler.h). Once a second the background
// thread asks for rate x elapsed bytes, less what the last time gave too much. Wholly free hugepages go first, whatever the
// demand. Parts of hugepages go only as far as mapped memory stays at or above what demand is expected to need:
//
//   short-term fluctuation   the largest rise and fall of demand within one second, over the short interval
//   + long-term trend        the largest of the seconds' least demands, over the long interval
//   at most                  the peak of demand in the last ten minutes
//
// Demand is kept per second for ten minutes: the least and the most. Of parts, those of hugepages that are broken already
// go before others, and of the others those of the emptiest.
//
// What differs: TCMalloc's default rate is 0, which releases nothing in the background; the default here is the one that
// YTsaurus, a storage system built with it, sets: 32 MiB a second. Demand is that of the whole heap, and looked at
// ten times a second; there it is that of the filler, which has what is not whole hugepages, at each change. Left out is a later
// addition that takes a tenth of the free memory of broken hugepages each time, whatever the rate.
//
// Ten minutes of seconds take 4.8 kB, which are copied at a tick.

/// TCMalloc's adaptive subrelease.
package struct DemandWindowPolicy: ScavengePolicy {
  static var seconds: Int { 600 }
  private static let second: UInt64 = 1_000_000_000

  /// Demand within a second, in pages. Nothing was seen where the least is above the most.
  private struct Second {
    var least = UInt32.max
    var most: UInt32 = 0
  }

  let options: DemandWindowOptions
  private var demand = InlineArray<600, Second>(repeating: Second())
  /// Place of the second that runs, and its number by the caller's clock.
  private var current = 0
  private var number: UInt64 = 0
  private var hasBegun = false
  private var lastPass: UInt64 = 0
  /// Bytes asked for in this pass, and what the last one gave too much.
  private var asked = 0
  private var surplus = 0

  /// The rule with the intervals and the rate of `options`.
  package init(_ options: DemandWindowOptions) { self.options = options }

  package mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    let isFirst = !hasBegun || input.now < lastPass
    report(input.usedPages, at: input.now)
    var order = ReleaseOrder(preferBroken: true, length: .longest)
    order.wholeFirst = true
    var plan = ScavengePlan(pages: 0, order: order, nextTick: 100_000_000)
    if isFirst {
      lastPass = input.now
      return plan
    }
    let elapsed = input.now - lastPass
    if elapsed < Self.second { return plan }
    lastPass = input.now
    asked = 0
    // A rate without bounds asks for all there is.
    let bytes = Int(min(Double(options.bytesPerSecond) * Double(elapsed) / 1e9, 0x1p52))
    if bytes <= surplus {
      surplus -= bytes
      return plan
    }
    asked = bytes - surplus
    plan.pages = max(asked >> pageShift, 1)
    plan.pagesWithParts = plan.pages
    if let required = requiredPages() {
      plan.pagesWithParts = max(input.usedPages + input.releasablePages - required, 0)
    }
    return plan
  }

  package mutating func booked(wanted: Int, released: Int) {
    if asked == 0 { return }
    surplus = max(released << pageShift - asked, 0)
    asked = 0
  }

  /// Notes demand in the second of `now`; seconds that nobody saw stay empty.
  private mutating func report(_ pages: Int, at now: UInt64) {
    let second = now / Self.second
    let passed = hasBegun && second >= number ? min(second - number, UInt64(Self.seconds)) : UInt64(Self.seconds)
    for _ in 0..<passed {
      current = current + 1 == Self.seconds ? 0 : current + 1
      demand[current] = Second()
    }
    hasBegun = true
    number = second
    let pages = UInt32(clamping: pages)
    demand[current].least = min(demand[current].least, pages)
    demand[current].most = max(demand[current].most, pages)
  }

  /// Pages that have to stay mapped by recent demand; nil if there is no such limit.
  package mutating func requiredPages() -> Int? {
    var short = seconds(options.shortNanoseconds)
    let long = seconds(options.longNanoseconds)
    if options.shortNanoseconds == 0 && options.longNanoseconds == 0 { return nil }
    if options.shortNanoseconds != 0 && options.longNanoseconds != 0 { short = min(short, long) }
    var fluctuation: UInt32 = 0
    var trend: UInt32 = 0
    var peak: UInt32 = 0
    var place = current
    for age in 0..<Self.seconds {
      let least = demand[place].least
      let most = demand[place].most
      if least <= most {
        if age < short { fluctuation = max(fluctuation, most - least) }
        if age < long { trend = max(trend, least) }
        peak = max(peak, most)
      }
      place = place == 0 ? Self.seconds - 1 : place - 1
    }
    let required = min(Int(peak), Int(fluctuation) + Int(trend))
    return required == 0 ? nil : required
  }

  private func seconds(_ nanoseconds: UInt64) -> Int { Int(min(nanoseconds / Self.second, UInt64(Self.seconds))) }
}
