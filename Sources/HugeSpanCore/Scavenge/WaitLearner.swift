// How long an empty pageblock is kept before it is released: break-even, or better where the past tells.
//
// Holding a block is rent, releasing it and faulting it back is a purchase of price B. Without knowledge of the future the
// best deterministic rule is to hold until the rent paid equals B: it never pays more than twice what a clairvoyant
// would for that gap (the ski-rental argument). Waiting a factor of B is better where gaps repeat, so six of them are tried on
// every gap that is seen, each with its own account, and the cheapest of the recent past is used.
//
// Three things make the past tell more:
//
//   - The use before. A block that was in use for long stays empty for long, and one that a buffer came to and left is wanted again
//     soon. On four bundled traces, of 653 gaps after a use of two seconds or longer 10 were over before break-even, and of 7,202 after
//     one of less than half a second 6,599. So the use is a prediction of the gap, and waits follow it as in the ski-rental problem
//     with predictions (Kumar, Purohit, Svitkina, Improving Online Algorithms via ML Predictions, 2018): if it was as long as
//     break-even, the block goes at once until something else was learned. Gaps after long uses have accounts of their own.
//   - Depth. Of the blocks that are empty at one time the first few are wanted again by the next wave of a program's load, and the
//     hundredth by the next phase, if at all. So gaps are told apart by how many blocks were empty when they began, in classes that
//     double, and each class has its own accounts. (One account for all took a long time to unlearn the short gaps of a growing
//     heap when half of it fell empty: a fifth more memory on the bundled compiler trace.)
//   - Accounts follow a gap while it is open. A gap that has outlasted two waits has shown what each of them costs, and that the
//     longer was dearer; to book it only when it ends would teach the dearest waits last. Of a wait that is not over nothing is known yet but
//     what it has cost so far, so two waits are compared on a gap only when both are over, or the gap is. (Counting what they had cost so far
//     made longer waits look cheap in the middle of every gap: when half of a heap fell empty for the first time, the wait went from a half to
//     twice break-even before it was found to be in vain. An eighth of the excess on the bundled compiler trace at price 400, a quarter at 100.)
//
// The guard. No factor is above 4, so on one gap a learned wait costs at most 4 B more than break-even. In total a
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
  /// A learner that has seen nothing.
  package init() {}

  /// What is known of a gap when it begins: how many blocks were empty, by doublings (0, 1, 2–3, 4–7 … 64 and more), and whether
  /// the use before it was long.
  package struct GapKind: Sendable, Equatable {
    package let index: UInt8

    /// The kind of a gap that began when `emptyBlocks` were empty, its own block counted.
    package init(emptyBlocks: Int, afterLongUse: Bool = false) {
      let doublings = Int.bitWidth - max(emptyBlocks, 0).leadingZeroBitCount
      index = UInt8(min(WaitLearner.depthCount - 1, doublings) + (afterLongUse ? WaitLearner.depthCount : 0))
    }

    /// The kind with this number, as it was kept.
    init(index: UInt8) { self.index = index }

    /// The wait until something was learned: half of break-even (the best randomised rule waits 0.58 of it in the mean), and none
    /// after a long use.
    var unlearned: UInt8 { index < WaitLearner.depthCount ? 2 : 0 }
  }

  /// How long a use has to last to be a long one, in rent, in units of the purchase price.
  package static let longUse: Double = 1
  static let depthCount = 8
  static let kindCount = 16
  static let factorCount = 6
  /// The waits that are tried, in units of the purchase price: none, and ascending by doubling from a quarter.
  package static func factor(_ index: Int) -> Double { index == 0 ? 0 : Double(1 << index) / 8 }
  /// Seconds after which what was seen counts half.
  static let halfLife: Double = 120
  package static let slack: Double = 16
  package static let allowance: Double = 0.05

  /// What each wait would have saved lately against the unlearned one on the gaps of each kind, in units of the purchase price;
  /// and what the unlearned one cost on them.
  private var savings = InlineArray<96, Double>(repeating: 0)
  private var plain = InlineArray<16, Double>(repeating: 0)
  private var chosen = InlineArray<16, UInt8> { GapKind(index: UInt8($0)).unlearned }
  /// What the waits in use have cost beyond plain break-even on the same gaps, and what that cost; in purchase prices.
  package private(set) var excess: Double = 0
  package private(set) var shadow: Double = 0

  /// Break-even has been outdone in vain: it is used until that is earned back.
  package var isGuarded: Bool { excess > WaitLearner.slack + WaitLearner.allowance * shadow }

  /// The wait to use now for a gap of this kind, in units of the purchase price.
  package func wait(of kind: GapKind) -> Double {
    isGuarded ? 1 : WaitLearner.factor(Int(chosen[Int(kind.index)]))
  }

  /// The shortest wait in use after short uses: for the others, that begin with none, a look now and then is soon enough.
  package var shortestWait: Double {
    if isGuarded { return 1 }
    var least = chosen[0]
    for kind in 1..<WaitLearner.depthCount where chosen[kind] < least { least = chosen[kind] }
    return WaitLearner.factor(Int(least))
  }

  /// Longest wait that is told apart: a gap that is longer need not be followed further.
  package static let longest: Double = 4

  /// A gap that is still open went on from a rent of `start` to one of `end`, in purchase prices.
  package mutating func follow(_ kind: GapKind, from start: Double, to end: Double) {
    if end <= start || start > WaitLearner.longest { return }
    let first = Int(kind.index) * WaitLearner.factorCount
    let unlearned = WaitLearner.factor(Int(kind.unlearned))
    func passes(_ rent: Double) -> Bool { start <= rent && rent < end }
    if passes(unlearned) { plain[Int(kind.index)] += unlearned + 1 }
    for index in 0..<WaitLearner.factorCount {
      let factor = WaitLearner.factor(index)
      // Both waits are over, and what each costs is settled.
      if passes(max(factor, unlearned)) { savings[first + index] += unlearned - factor }
    }
    choose(kind)
  }

  /// A gap of `length` (its rent in units of the purchase price) has ended, in which the block was released after `wait`, or was to be.
  package mutating func book(_ kind: GapKind, gap length: Double, wait: Double) {
    let breakEven = WaitLearner.cost(of: length, 1)
    shadow += breakEven
    excess += WaitLearner.cost(of: length, wait) - breakEven
    let first = Int(kind.index) * WaitLearner.factorCount
    let unlearned = WaitLearner.factor(Int(kind.unlearned))
    let cost = WaitLearner.cost(of: length, unlearned)
    if length <= unlearned { plain[Int(kind.index)] += cost }
    for index in 0..<WaitLearner.factorCount {
      let factor = WaitLearner.factor(index)
      // What was settled while the gap was open is in the account.
      if length <= max(factor, unlearned) { savings[first + index] += cost - WaitLearner.cost(of: length, factor) }
    }
    choose(kind)
  }

  /// Time goes by: what was seen counts less.
  package mutating func age(seconds: Double) {
    let factor = 1 / (1 + 0.6931 * seconds / WaitLearner.halfLife)
    for index in 0..<(WaitLearner.kindCount * WaitLearner.factorCount) { savings[index] *= factor }
    for index in 0..<WaitLearner.kindCount { plain[index] *= factor }
  }

  /// Rent until the gap ends or the wait is over, and then the purchase.
  package static func cost(of gap: Double, _ wait: Double) -> Double { gap <= wait ? gap : wait + 1 }

  private mutating func choose(_ kind: GapKind) {
    // The unlearned wait unless another is cheaper by a tenth of it and by one purchase: a single gap proves nothing.
    let first = Int(kind.index) * WaitLearner.factorCount
    var best = Int(kind.unlearned)
    let least = max(1, plain[Int(kind.index)] * 0.1)
    for index in 0..<WaitLearner.factorCount
    where savings[first + index] > least && savings[first + index] > savings[first + best] { best = index }
    chosen[Int(kind.index)] = UInt8(best)
  }
}
