// Which blocks a forked child may share, and what they are good for meanwhile.
//
// After a fork both processes map every page that was in memory, until one of them writes to it and gets a copy. A write
// to a shared hugepage splits our mapping of it and copies one base page; the kernel ignores MADV_FREE and MADV_COLD of
// shared pages and says that all is well. So each arena has a bit per block: it was in memory at a fork, and has not been
// seen to be ours alone since. One bitmap, because the header of a block has no room, because a fork then
// costs a word for each 64 blocks, and because nobody reads it while there was no fork.
//
// A bit goes when the block is dropped whole (what comes back is new), or when the kernel says that no page of it is mapped
// by anyone else: asked before a release where the answer decides, and a few blocks in each tick until all are seen.
//
// Wholly free blocks that may be shared are listed with those that were broken. They still are hugepages, but not for
// whoever writes to them: as with broken ones, what is left is dropped before they are handed out again, so that the first
// touch brings a new hugepage and not 512 copies. A heap that never releases (`keep`) leaves them as they are.

extension Arena {
  @inline(__always)
  func mayBeShared(_ index: Int) -> Bool {
    sharedWords[index &>> 6] &>> UInt64(truncatingIfNeeded: index & 63) & 1 != 0
  }

  /// The first block at `first` or behind it that may be shared.
  func firstShared(from first: Int) -> Int? {
    var index = first
    while index < committedBlocks {
      let bits = sharedWords[index &>> 6] &>> UInt64(truncatingIfNeeded: index & 63)
      if bits != 0 { return index &+ bits.trailingZeroBitCount }
      index = ((index &>> 6) &+ 1) &<< 6
    }
    return nil
  }

  /// Marks every block that has something in memory; returns how many are marked.
  func markShared() -> Int {
    var count = 0
    for word in 0..<((committedBlocks &+ 63) &>> 6) {
      let rest = committedBlocks - word * 64
      let committed: UInt64 = rest >= 64 ? ~0 : (1 &<< UInt64(truncatingIfNeeded: rest)) &- 1
      let absent = freeWords[word] & ~residentWords[word]
      sharedWords[word] |= committed & ~absent
      count += sharedWords[word].nonzeroBitCount
    }
    return count
  }
}

extension HeapState {
  /// Whether a child may share pages of the `count` blocks from `block` on.
  @inline(__always)
  func mayBeShared(_ block: Block, count: Int = 1) -> Bool {
    if sharedBlocks == 0 { return false }
    let arena = arenas[Int(block.pointee.arena)]
    for index in Int(block.pointee.index)..<(Int(block.pointee.index) + count) where arena.mayBeShared(index) {
      return true
    }
    return false
  }

  /// Whether a wholly free block has to be dropped before it is used again, because a child may share it.
  @inline(__always)
  func isLostToSharing(_ block: Block) -> Bool { mayBeShared(block) && strategyReleases }

  /// A fork is about to happen, or has: everything in memory may be shared from now on.
  mutating func markShared() {
    forks += 1
    runBound = 0
    sharedBlocks = 0
    for index in 0..<arenaCount { sharedBlocks += arenas[index].markShared() }
    if !strategyReleases { return }
    while let block = freeIntact.head { demote(block) }
    while let block = freeLazy.head { demote(block) }
  }

  private mutating func demote(_ block: Block) {
    unlist(block)
    block.pointee.flags.insert(.broken)
    block.pointee.cause = .shared
    listFree(block)
  }

  /// The blocks are ours alone, or not in memory any more.
  mutating func unmarkShared(_ block: Block, count: Int = 1) {
    let words = arenas[Int(block.pointee.arena)].sharedWords
    let first = Int(block.pointee.index)
    for index in first..<(first + count) {
      let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: index & 63)
      if words[index &>> 6] & bit == 0 { continue }
      words[index &>> 6] &= ~bit
      sharedBlocks -= 1
    }
  }

  /// The kernel said that nobody else maps the block: what was held against it is forgotten.
  mutating func regain(_ block: Block, isHuge: Bool) {
    unmarkShared(block)
    if block.pointee.kind != .freeResident && block.pointee.kind != .occupied { return }
    unlist(block)
    block.pointee.flags.remove(.refused)
    // Free, and all of it in memory as far as is known, lazily or not: it was only its sharing that spoke against it.
    let released = Int(block.pointee.released)
    let isIntact = released == 0 || (released == pagesPerBlock && Int(block.pointee.lazy) == released)
    if block.pointee.kind == .freeResident && isHuge && isIntact { block.pointee.flags.remove(.broken) }
    enlist(block)
  }

  /// The next block that may be shared, in a walk around all arenas; nil if there is none.
  mutating func nextShared() -> Block? {
    if sharedBlocks == 0 { return nil }
    for _ in 0...arenaCount {
      if sharedCursor.arena >= arenaCount { sharedCursor = BlockCursor() }
      if let index = arenas[sharedCursor.arena].firstShared(from: sharedCursor.index) {
        sharedCursor.index = index + 1
        return arenas[sharedCursor.arena].block(index)
      }
      sharedCursor.arena += 1
      sharedCursor.index = 0
    }
    return nil
  }
}
