// The learned wait: what it learns, and that it never costs much more than break-even.

import HugeSpanCore
import TestKernels
import Testing

private let shallow = WaitLearner.GapKind(emptyBlocks: 1)
private let deep = WaitLearner.GapKind(emptyBlocks: 100)

extension WaitLearner {
  /// A gap from its beginning to its end, looked at in steps of an eighth of a purchase.
  fileprivate mutating func see(gap: Double, at kind: WaitLearner.GapKind = shallow) {
    let wait = wait(of: kind)
    var rent = 0.0
    while rent < min(gap, 5) {
      let end = min(rent + 0.125, gap)
      follow(kind, from: rent, to: end)
      rent = end
    }
    book(kind, gap: gap, wait: wait)
  }
}

@Suite struct TheWaitOfAnEmptyBlock {
  @Test func isHalfOfBreakEvenUntilSomethingWasLearned() {
    var learner = WaitLearner()
    #expect(learner.wait(of: shallow) == 0.5)
    learner.see(gap: 0.6)
    #expect(learner.wait(of: shallow) == 0.5, "a single gap proves nothing")
  }

  /// Long uses have accounts of their own: that blocks are wanted again soon after short ones says nothing of them.
  @Test func isNoneAfterALongUseUntilGapsTurnOutToBeShort() {
    let long = WaitLearner.GapKind(emptyBlocks: 1, afterLongUse: true)
    var learner = WaitLearner()
    #expect(learner.wait(of: long) == 0)
    for _ in 0..<20 { learner.see(gap: 0.8) }
    #expect(learner.wait(of: shallow) >= 1)
    #expect(learner.wait(of: long) == 0)
    for _ in 0..<20 { learner.see(gap: 0.8, at: long) }
    #expect(learner.wait(of: long) >= 1)
    for _ in 0..<80 { learner.see(gap: 100, at: long) }
    #expect(learner.wait(of: long) == 0)
  }

  @Test func getsShortWhereGapsAreLong() {
    var learner = WaitLearner()
    for _ in 0..<20 { learner.see(gap: 100) }
    #expect(learner.wait(of: shallow) == 0)
    #expect(learner.shortestWait == 0)
  }

  @Test func getsLongWhereGapsEndBeforeBreakEven() {
    var learner = WaitLearner()
    for _ in 0..<20 { learner.see(gap: 0.8) }
    #expect(learner.wait(of: shallow) >= 1)
  }

  /// Many blocks fall empty at once: long before their gaps end it is clear that they are long.
  @Test func learnsFromGapsThatAreStillOpen() {
    var learner = WaitLearner()
    for _ in 0..<80 { learner.follow(deep, from: 0, to: 0.45) }
    #expect(learner.wait(of: deep) == 0.5, "nothing is settled yet")
    for _ in 0..<80 { learner.follow(deep, from: 0.45, to: 0.9) }
    #expect(learner.wait(of: deep) == 0)
    for _ in 0..<80 { learner.follow(deep, from: 0.9, to: 3) }
    #expect(learner.wait(of: deep) == 0)
  }

  /// In the middle of a gap a longer wait has cost no more than the gap so far, and may be in vain all the same.
  @Test func getsNoLongerWhileGapsAreOpen() {
    var learner = WaitLearner()
    for tick in 0..<40 {
      for _ in 0..<80 { learner.follow(deep, from: Double(tick) * 0.1, to: Double(tick + 1) * 0.1) }
      #expect(learner.wait(of: deep) <= 0.5)
    }
    // When they end just behind break-even's half, it was right to wait longer.
    for _ in 0..<80 { learner.see(gap: 0.6, at: WaitLearner.GapKind(emptyBlocks: 8)) }
    #expect(learner.wait(of: WaitLearner.GapKind(emptyBlocks: 8)) >= 1)
  }

  @Test func isLearnedForEachDepth() {
    var learner = WaitLearner()
    for _ in 0..<20 {
      learner.see(gap: 0.8, at: shallow)
      learner.see(gap: 100, at: deep)
    }
    #expect(learner.wait(of: shallow) >= 1)
    #expect(learner.wait(of: deep) == 0)
    #expect(learner.wait(of: WaitLearner.GapKind(emptyBlocks: 10)) == 0.5)
  }

  /// Whatever the steps in which it was looked at, a gap costs each wait the same.
  @Test(arguments: [0.05, 0.3, 1.7, 5.0])
  func isLearnedAlikeByFineAndByCoarseTicks(step: Double) {
    var learner = WaitLearner()
    for gap in [0.3, 0.8, 0.8, 0.8, 0.9, 0.8, 0.7, 0.6, 1.6, 0.9] {
      var rent = 0.0
      while rent < gap {
        let end = min(rent + step, gap)
        learner.follow(shallow, from: rent, to: end)
        rent = end
      }
      learner.book(shallow, gap: gap, wait: 0.5)
    }
    #expect(learner.wait(of: shallow) == 2)
  }

  @Test func forgetsWhatWasLongAgo() {
    var learner = WaitLearner()
    for _ in 0..<20 { learner.see(gap: 100) }
    for _ in 0..<60 { learner.age(seconds: 60) }
    for _ in 0..<10 { learner.see(gap: 0.8) }
    #expect(learner.wait(of: shallow) >= 1)
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
      let wait = learner.wait(of: shallow)
      // Long gaps teach short waits, which are then punished by gaps that end just after them.
      let gap = round % 50 < 8 ? 50 : max(wait * 1.0001, 0.01)
      learned += WaitLearner.cost(of: gap, wait)
      shadow += WaitLearner.cost(of: gap, 1)
      learner.follow(shallow, from: 0, to: min(gap, 5))
      learner.book(shallow, gap: gap, wait: wait)
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
        case 0: max(waits[index] * 1.001, 0.01)
        case 1: Double.random(in: 0...6, using: &random)
        case 2: 40.0
        default: max(learner.wait(of: shallow) * 1.001, 0.01)
        }
      learned += WaitLearner.cost(of: gap, waits[index])
      shadow += WaitLearner.cost(of: gap, 1)
      learner.follow(shallow, from: 0, to: min(gap, 5))
      learner.book(shallow, gap: gap, wait: waits[index])
      waits[index] = learner.wait(of: shallow)
      let bound = (1 + WaitLearner.allowance) * shadow + WaitLearner.slack + 4 * Double(open) + 5
      #expect(learned <= bound, "seed \(seed)")
      if learned > bound { return }
    }
  }
}
