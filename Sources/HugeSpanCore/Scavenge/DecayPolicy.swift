// `decay`: what has been free for a while goes along a smooth curve, so that none of it is left after a given time.
//
// The rule of jemalloc 5.3 (decay.c, pac.c): time is cut into steps, 200 to the decay time. At the end of a step the pages
// that became unused in it are noted, and of the pages noted k steps ago a share h(1 - k/200) may stay, with
// h(x) = 6x^5 - 15x^4 + 10x^3 ("smootherstep") in fixed point of 24 bits. The sum over the 200 steps is the limit;
// what is unused beyond it is purged, the longest unused first. "Became unused" is the growth over the higher of the last
// step's unused pages (before its purge) and its limit: what is used and freed again within a step counts for nothing.
//
// Memory goes in one stage, as it does there by default (muzzy_decay_ms 0); the second one is strategy free-then-dontneed.
// What differs: jemalloc puts each purge off by a random part of a step, so that its arenas do not purge together; a heap has
// one decay, and decides the same each time. The longest unused is told by blocks (ReleaseOrder.Walk.oldest), there by
// extents.
//
// A noted step takes four bytes, the whole policy 850, which are copied at a tick.

/// jemalloc's decay of unused pages.
package struct DecayPolicy: ScavengePolicy {
  /// Steps that a decay time has.
  static var steps: Int { 200 }
  /// Bits of fraction in a share.
  static var fractionBits: UInt64 { 24 }

  /// Nanoseconds of a step; 0 if nothing is to stay unused at all.
  let step: UInt64
  private var hasBegun = false
  /// When the last step ended.
  private var epoch: UInt64 = 0
  /// Pages that became unused in each step, the oldest first.
  private var backlog = InlineArray<200, UInt32>(repeating: 0)
  /// Unused pages that were noted at the last step.
  private var noted = 0
  /// Pages that may stay unused.
  package private(set) var limit = 0

  /// A decay in the time of `options`.
  package init(_ options: DecayOptions) {
    // A time of less than 200 ns is none.
    step = options.decayNanoseconds / UInt64(DecayPolicy.steps)
  }

  package mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    var order = ReleaseOrder(preferBroken: false, length: .longest)
    order.walk = .oldest
    if step == 0 { return ScavengePlan(pages: input.releasablePages, order: order, nextTick: 100_000_000) }
    if !hasBegun || input.now < epoch {
      hasBegun = true
      epoch = input.now
    }
    var plan = ScavengePlan(pages: 0, order: order)
    let passed = (input.now - epoch) / step
    if passed > 0 {
      epoch += passed * step
      advance(by: passed, unused: input.releasablePages)
      plan.pages = max(input.releasablePages - limit, 0)
    }
    // A later tick ends several steps at once; a hundred a second are enough for anybody.
    plan.nextTick = min(max(epoch + step - input.now, 10_000_000), 1_000_000_000)
    return plan
  }

  package mutating func booked(wanted: Int, released: Int) {}

  /// Ends `passed` steps, of which the last one saw the growth.
  private mutating func advance(by passed: UInt64, unused: Int) {
    let last = DecayPolicy.steps - 1
    let shift = Int(min(passed, UInt64(DecayPolicy.steps)))
    for index in 0..<DecayPolicy.steps {
      backlog[index] = index + shift < DecayPolicy.steps ? backlog[index + shift] : 0
    }
    // Eight tebibytes in a step are as good as more, and the sum has room for them.
    backlog[last] = UInt32(min(max(unused - noted, 0), 1 << 31))
    var sum: UInt64 = 0
    for index in 0..<DecayPolicy.steps where backlog[index] != 0 {
      sum += UInt64(backlog[index]) * DecayPolicy.share(step: index + 1)
    }
    limit = Int(sum >> DecayPolicy.fractionBits)
    noted = max(limit, unused)
  }

  /// h(step / 200) in units of 2^-24, rounded down. In integers: with n = 200, n^5 h(k/n) = k^3 (6k^2 - 15nk + 10n^2).
  package static func share(step k: Int) -> UInt64 {
    let k = UInt64(k)
    // At k = 200 this is 3.2e11 << 24 = 5.4e18.
    let scaled = k * k * k * (6 * k * k + 400_000 - 3000 * k)
    return (scaled << fractionBits) / 320_000_000_000
  }
}
