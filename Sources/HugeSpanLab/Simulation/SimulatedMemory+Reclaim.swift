// What the simulated kernel does without being asked: reclaim at its limit, khugepaged, and forks.
//
// Reclaim takes in the kernel's order: what was freed lazily, which is at the end of the inactive file list and needs no swap
// (mm/swap.c: lru_lazyfree); what is phantom, by the shrinker of partially mapped folios (mm/huge_memory.c:
// deferred_split_scan); hugepages of which most is zeros, by the same shrinker (thp_underused); then what is cold, and at last what was
// not touched since it last passed by, to swap. If nothing is left, the program is killed.

import HugeSpanCore

extension SimulatedState {
  private enum Hand { static let (lazy, phantom, underused, swap, khugepaged) = (0, 1, 2, 3, 4) }

  /// Bytes that are charged, everybody's included.
  var chargedBytes: Int { totals.charged << 12 + metadataBytes + otherBytes }

  /// Sees to it that `pages` more may be charged. If they may not, and it `mayFail`, false; else the program is out of memory.
  @inline(__always)
  mutating func makeRoom(_ pages: Int, mayFail: Bool, keeping: Int = -1) -> Bool {
    guard let limit = options.limitBytes else { return true }
    let excess = chargedBytes + pages << 12 - limit
    if excess <= 0 { return true }
    return reclaim((excess + 4095) >> 12, mayFail, keeping)
  }

  @inline(never)
  private mutating func reclaim(_ pages: Int, _ mayFail: Bool, _ keeping: Int) -> Bool {
    let goal = totals.charged - pages
    func isDone(_ state: SimulatedState) -> Bool { state.totals.charged <= goal }
    if totals.lazy > 0 {
      walk(Hand.lazy, keeping, until: isDone) { state, index in state.takeLazy(index) }
    }
    if !isDone(self) && totals.phantom > 0 {
      walk(Hand.phantom, keeping, until: isDone) { state, index in
        if state.blocks[index].phantom > 0 && !state.isFolioShared(index) { state.splitInReclaim(index) }
      }
    }
    if !isDone(self) && options.splitsUnderused && options.maxPtesNone < 511 {
      walk(Hand.underused, keeping, until: isDone) { state, index in
        if state.isUnderused(index) { state.splitInReclaim(index) }
      }
    }
    if !isDone(self) && options.swapBytes > 0 {
      for round in 0..<3 where !isDone(self) {
        walk(Hand.swap, keeping, until: isDone) { state, index in state.swapOut(index, round: round) }
      }
    }
    if isDone(self) { return true }
    if !mayFail { isOutOfMemory = true }
    return false
  }

  /// Goes once around all blocks from where hand `hand` was, until it is enough.
  private mutating func walk(
    _ hand: Int, _ keeping: Int, until isDone: (SimulatedState) -> Bool,
    _ body: (inout SimulatedState, Int) -> Void
  ) {
    for _ in 0..<blockCount {
      if isDone(self) { return }
      if hands[hand] >= blockCount { hands[hand] = 0 }
      if hands[hand] != keeping { body(&self, hands[hand]) }
      hands[hand] += 1
    }
  }

  private mutating func takeLazy(_ index: Int) {
    let block = blocks[index]
    if block.lazy == 0 { return }
    totals.lazyTaken += Int(block.lazy)
    totals.reclaimNanoseconds += costs.releaseBlock * 1000
    if block.has(Flag.mappedHuge) {
      change(index) { $0.takeLazyHuge(index) }
      return
    }
    let pages = pages(index)
    change(index) {
      for word in 0..<8 {
        let lazy = pages.lazy(word)
        for bits in [pages.present, pages.folio, pages.marks, pages.written, pages.shared] { bits[word] &= ~lazy }
        if word == 0 && lazy & 1 != 0 { $0.blocks[index].word = 0 }
      }
      $0.recount(index)
    }
  }

  private mutating func splitInReclaim(_ index: Int) {
    change(index) { $0.split(index) }
    totals.reclaimSplits += 1
    totals.reclaimNanoseconds += costs.split * 1000
  }

  private func isUnderused(_ index: Int) -> Bool {
    let block = blocks[index]
    guard block.has(Flag.mappedHuge), !block.has(Flag.shared) else { return false }
    return Self.pageCount - block.written.count > options.maxPtesNone
  }

  /// First what was said to be cold, then what was not touched for a round, then anything.
  private mutating func swapOut(_ index: Int, round: Int) {
    let block = blocks[index]
    if block.present == 0 { return }
    if round == 0 && !block.has(Flag.cold) { return }
    if round == 1 && block.has(Flag.referenced) {
      blocks[index].flags &= ~Flag.referenced
      return
    }
    if block.has(Flag.mappedHuge) { splitInReclaim(index) }
    let gone = evict(index, 0..<Self.pageCount)
    totals.reclaimNanoseconds += Double(gone) * SimulationOptions.Prices.swapOut * 1000
  }

  // MARK: Time

  /// Simulated time goes on to `time`: khugepaged does what it gets to.
  mutating func advance(to time: UInt64) {
    if time <= now { return }
    let elapsed = Double(time - now) / 1e9
    now = time
    if options.khugepagedPagesPerSecond == 0 || blockCount == 0 { return }
    khugepagedCredit += elapsed * options.khugepagedPagesPerSecond
    // It does not save up more than a walk around.
    khugepagedCredit = min(khugepagedCredit, Double(blockCount * Self.pageCount))
    while khugepagedCredit >= Double(Self.pageCount) {
      khugepagedCredit -= Double(Self.pageCount)
      if hands[Hand.khugepaged] >= blockCount { hands[Hand.khugepaged] = 0 }
      let index = hands[Hand.khugepaged]
      hands[Hand.khugepaged] += 1
      if khugepagedTakes(index) && !happens(options.collapseFailure) && collapse(index) {
        totals.khugepagedCollapses += 1
      }
    }
  }

  private func khugepagedTakes(_ index: Int) -> Bool {
    let block = blocks[index]
    guard block.has(Flag.committed), block.has(Flag.advised), block.has(Flag.pageTable), block.present > 0 else {
      return false
    }
    // Of lazily freed memory it keeps off (mm/khugepaged.c: SCAN_PAGE_LAZYFREE since 6.19, before it copied it).
    let absent = Self.pageCount - Int(block.present) - Int(block.swapped)
    return absent <= options.maxPtesNone && Int(block.swapped) <= options.maxPtesSwap && !isFolioShared(index)
  }

  // MARK: Forks

  /// A child maps everything that is there.
  mutating func fork() {
    for index in 0..<blockCount where blocks[index].present > 0 {
      if blocks[index].has(Flag.mappedHuge) {
        blocks[index].flags |= Flag.shared
      } else {
        let pages = pages(index)
        for word in 0..<8 { pages.shared[word] = pages.present[word] }
      }
    }
  }

  /// No child is left.
  mutating func endChildren() {
    for index in 0..<blockCount {
      blocks[index].flags &= ~Flag.shared
      if blocks[index].side != 0 { pages(index).shared.fill(false) }
    }
  }
}
