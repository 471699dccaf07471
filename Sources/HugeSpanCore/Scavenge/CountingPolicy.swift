// `gperftools` and `seed`: scavenging driven by a count of freed pages.
//
// The rule of gperftools' page heap (page_heap.cc, IncrementalScavenge): every freed page is progress; when the progress
// has used up the wait, one span is released, and the next wait is 1000 / rate pages for each page that it gave, at
// most 2^20 of its 8 KiB pages; if there was nothing to release, the wait is 2^18 of them. Which span: one of each
// length in turn. gperftools does this at each free; here a tick does at once what the frees since the last tick would
// have done, so the wait is the same and the moment up to one tick later.
//
// The seed mail puts three ideas on top, each a switch here:
//   preferBroken      (its "First":) blocks that lost their hugepage give first, so that a scavenge splits no further one.
//   preferLong        (its "Second":) the longest span is next; and as the wait grows with what a span gave, a long
//                     span buys a long wait, in which more free pages can coalesce.
//   discountRefaults  (its "Third":) pages that come back from released state are taken from the progress, so that vain
//                     releases slow the scavenger down.

/// gperftools' scavenge counter, with or without the ideas of the seed mail.
package struct CountingPolicy: ScavengePolicy {
  /// Pages of wait per released page.
  let multiplier: Double
  let order: ReleaseOrder
  let discountRefaults: Bool
  /// Freed pages until the next release; below zero it is due.
  package private(set) var wait: Double = 0

  /// gperftools counts in pages of 8 KiB; these are its bounds in pages of 4 KiB.
  static var longestWait: Double { 2_097_152 }
  static var idleWait: Double { 524_288 }

  /// The counter of gperftools with its release rate: pages released per thousand freed; at or below 0 nothing is.
  package init(gperftoolsRate rate: Double) {
    multiplier = rate > 0 ? max(1000 / rate, .leastNormalMagnitude) : 0
    order = ReleaseOrder(preferBroken: false, length: .roundRobin)
    discountRefaults = false
  }

  /// The counter with the seed mail's ideas.
  package init(seed options: SeedOptions) {
    multiplier = options.rate > 0 ? max(1000 / options.rate, .leastNormalMagnitude) : 0
    order = ReleaseOrder(
      preferBroken: options.preferBroken, length: options.preferLong ? .longest : .roundRobin)
    discountRefaults = options.discountRefaults
  }

  package mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    var plan = ScavengePlan(pages: 0, order: order, cures: 0, nextTick: 100_000_000)
    if multiplier == 0 { return plan }
    wait -= Double(input.freedPages)
    if discountRefaults { wait = min(wait + Double(input.refaultedPages), CountingPolicy.longestWait) }
    // As many pages as bring the wait back to zero; a tick without frees releases nothing.
    if wait < 0 && input.freedPages > 0 { plan.pages = pagesDue }
    return plan
  }

  /// The least number of pages, at least 1, whose wait covers the debt. Rounded by hand: the C library has no ceil.
  private var pagesDue: Int {
    let pages = -wait / multiplier
    // A rate without bounds asks for all there is; more pages than this have no address.
    if !(pages < 0x1p40) { return 1 << 40 }
    let whole = Int(pages)
    return max(Double(whole) < pages ? whole + 1 : whole, 1)
  }

  package mutating func booked(wanted: Int, released: Int) {
    if wanted == 0 { return }
    if released < wanted {
      wait = CountingPolicy.idleWait
    } else {
      wait = min(wait + multiplier * Double(released), CountingPolicy.longestWait)
    }
  }
}
