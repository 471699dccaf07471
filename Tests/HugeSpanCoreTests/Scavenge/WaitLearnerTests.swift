// The learned wait: what it learns, and that it never costs much more than break-even.

import HugeSpanCore
import TestKernels
import Testing

@Suite struct TheWaitOfAnEmptyBlock {
  @Test func isBreakEvenUntilSomethingWasLearned() {
    var learner = WaitLearner()
    #expect(learner.wait == 1)
    learner.book(gap: 3, wait: learner.wait)
    #expect(learner.wait == 1, "a single gap proves nothing")
  }

  @Test func getsShortWhereGapsAreLong() {
    var learner = WaitLearner()
    for _ in 0..<20 { learner.book(gap: 100, wait: learner.wait) }
    #expect(learner.wait == 0.25)
  }

  @Test func getsLongWhereGapsEndSoonAfterBreakEven() {
    var learner = WaitLearner()
    for _ in 0..<20 { learner.book(gap: 1.1, wait: learner.wait) }
    #expect(learner.wait >= 2)
  }

  @Test func forgetsWhatWasLongAgo() {
    var learner = WaitLearner()
    for _ in 0..<20 { learner.book(gap: 100, wait: learner.wait) }
    for _ in 0..<60 { learner.age(seconds: 60) }
    for _ in 0..<10 { learner.book(gap: 1.1, wait: learner.wait) }
    #expect(learner.wait >= 1)
  }

  /// Break-even is at most twice a clairvoyant's cost, which is the lesser of the gap and the purchase.
  @Test(arguments: [0.1, 0.9, 1.0, 1.0001, 1.5, 7.0, 1e9])
  func atBreakEvenCostsAtMostTwiceTheClairvoyants(gap: Double) {
    #expect(WaitLearner.cost(of: gap, 1) <= 2 * min(gap, 1))
  }

  /// Whoever knows the wait ends each gap just after it, or lets it go on for ever when the wait is long.
  @Test func isGuardedAgainstAnAdversary() {
    var learner = WaitLearner()
    var learned = 0.0
    var shadow = 0.0
    var wasGuarded = false
    for round in 0..<100_000 {
      let wait = learner.wait
      // Long gaps teach short waits, which are then punished by gaps that end just after them.
      let gap = round % 50 < 8 ? 50 : wait * 1.0001
      learned += WaitLearner.cost(of: gap, wait)
      shadow += WaitLearner.cost(of: gap, 1)
      learner.book(gap: gap, wait: wait)
      wasGuarded = wasGuarded || learner.isGuarded
      #expect(learned <= (1 + WaitLearner.allowance) * shadow + WaitLearner.slack + 5)
    }
    #expect(learned > shadow, "the adversary did nothing")
    #expect(wasGuarded, "the guard was never needed")
  }

  /// Random gaps of all kinds, and many at a time: what is chosen for a gap is old when the gap ends.
  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func isGuardedWhateverComes(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var learner = WaitLearner()
    var learned = 0.0
    var shadow = 0.0
    let open = Int.random(in: 1...30, using: &random)
    var waits = Array(repeating: 1.0, count: open)
    for _ in 0..<20_000 {
      let index = Int.random(in: 0..<open, using: &random)
      let gap =
        switch Int.random(in: 0..<4, using: &random) {
        case 0: waits[index] * 1.001
        case 1: Double.random(in: 0...6, using: &random)
        case 2: 40.0
        default: learner.wait * 1.001
        }
      learned += WaitLearner.cost(of: gap, waits[index])
      shadow += WaitLearner.cost(of: gap, 1)
      learner.book(gap: gap, wait: waits[index])
      waits[index] = learner.wait
      let bound = (1 + WaitLearner.allowance) * shadow + WaitLearner.slack + 4 * Double(open) + 5
      #expect(learned <= bound, "seed \(seed)")
      if learned > bound { return }
    }
  }
}
