// How long an empty pageblock is kept before it is released: break-even, or better where the past tells.
//
// Holding a block is rent, releasing it and faulting it back is a purchase of price B. Without knowledge of the future the
// best deterministic rule is to hold until the rent paid equals B: it never pays more than twice what a clairvoyant
// would for that gap (the ski-rental argument). Waiting a factor of B is better where gaps repeat, so six of them are tried on
// every gap that is seen, each with its own account, and the cheapest of the recent past is used.
//
// The guard. All factors lie in [1/4, 4], so on one gap the learned wait costs at most five times the clairvoyant's. In total a
// shadow account of plain break-even is kept on the same gaps: while what the learned waits have cost exceeds the
// shadow's by more than a slack of 16 B and a twentieth of the shadow, the wait is break-even again, whose excess over the shadow is
// nothing. So with n gaps open at a time
//
//     learned <= 21/20 shadow + 16 B + 4 n B,
//
// since only gaps that were open when the guard fell can still add to the excess, at most 4 B each; and the shadow is at most twice
// the clairvoyant's cost. The guard lifts as the shadow's account grows: what has been lost in vain is earned back in
// twenty times as much ordinary cost.

/// Chooses the wait before an empty block is released, in units of break-even.
package struct WaitLearner: Sendable {
  /// A learner that has seen nothing: break-even.
  package init() {}

  static let factorCount = 5
  /// The waits that are tried, in units of the purchase price; ascending by doubling from a quarter.
  package static func factor(_ index: Int) -> Double { Double(1 << index) / 4 }
  static let breakEven = 2
  /// Seconds after which what was seen counts half.
  static let halfLife: Double = 120
  package static let slack: Double = 16
  package static let allowance: Double = 0.05

  /// Recent cost of each wait on the gaps that were seen, in units of the purchase price.
  private var costs = InlineArray<5, Double>(repeating: 0)
  /// What the waits in use have cost beyond plain break-even on the same gaps, and what that cost; in purchase prices.
  package private(set) var excess: Double = 0
  package private(set) var shadow: Double = 0
  private(set) var chosen = WaitLearner.breakEven

  /// Break-even has been outdone in vain: it is used until that is earned back.
  package var isGuarded: Bool { excess > WaitLearner.slack + WaitLearner.allowance * shadow }

  /// The wait to use now, in units of the purchase price.
  package var wait: Double { isGuarded ? 1 : WaitLearner.factor(chosen) }

  /// Longest wait that is told apart: a gap that is longer need not be followed further.
  package static let longest: Double = 4

  /// Books a gap of `length` (its rent in units of the purchase price), during which `wait` was used.
  package mutating func book(gap length: Double, wait: Double) {
    for index in 0..<WaitLearner.factorCount { costs[index] += WaitLearner.cost(of: length, WaitLearner.factor(index)) }
    let plain = WaitLearner.cost(of: length, 1)
    shadow += plain
    excess += WaitLearner.cost(of: length, wait) - plain
    choose()
  }

  /// Time goes by: what was seen counts less.
  package mutating func age(seconds: Double) {
    let factor = 1 / (1 + 0.6931 * seconds / WaitLearner.halfLife)
    for index in 0..<WaitLearner.factorCount { costs[index] *= factor }
  }

  /// Rent until the gap ends or the wait is over, and then the purchase.
  package static func cost(of gap: Double, _ wait: Double) -> Double { gap <= wait ? gap : wait + 1 }

  private mutating func choose() {
    // Break-even unless another is cheaper by a tenth of it and by one purchase: a single gap proves nothing.
    var best = WaitLearner.breakEven
    let plain = costs[best]
    for index in 0..<WaitLearner.factorCount where costs[index] < costs[best] {
      if plain - costs[index] > max(1, plain * 0.1) { best = index }
    }
    chosen = best
  }
}
