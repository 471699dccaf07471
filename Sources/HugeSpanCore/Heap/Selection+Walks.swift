// Orders that no list has: by age and by address. Blocks are gone through, and the walk remembers where it is.
//
// By age: a first walk adds up what could be released by age, in classes, and finds the class at which it is enough. A
// second one sends what is older, a third what is of that class: so the order is true to a class, and each block is seen
// three times however much goes. By address: each block is seen once in a generation, from the top down, as one place is
// all that is kept. Both give up the lock after 512 blocks.

/// Where the walks are.
struct ReleaseWalk {
  /// The walk let go in the middle; it goes on when it is called again.
  var isPaused = false
  /// By address: blocks below this one are still to be seen.
  var highest = BlockCursor()
  /// By age: the block that is looked at, and the class that is enough.
  var oldest = BlockCursor()
  var enough = 0
  /// Older ones have gone; it is that class' turn.
  var isAtEnough = false

  /// Classes of age: a sixteenth of the age wide, or one unit (17 ms).
  static let ageClasses = 464

  /// The class of an age in units of 2^24 ns.
  static func ageClass(_ age: UInt32) -> Int {
    if age < 16 { return Int(age) }
    let exponent = 31 - age.leadingZeroBitCount
    return 16 * (exponent - 3) + Int((age >> UInt32(exponent - 4)) & 15)
  }
}

extension HeapState {
  /// Pages that a release of the block could give.
  private func releasablePages(of block: Block, wholeOnly: Bool) -> Int {
    switch block.pointee.kind {
    case .freeResident: block.hasNothingToRelease ? 0 : pagesPerBlock - Int(block.pointee.released)
    case .occupied: wholeOnly || block.pointee.flags.contains(.refused) ? 0 : block.freeResidentPages
    case .absent, .releasing: 0
    }
  }

  /// Sends the block, if it is wholly free, or of `run` as much as is `wanted`, from its end.
  private mutating func send(_ block: Block, _ run: PageRun, wanted: Int) -> Int {
    if block.pointee.kind == .freeResident {
      let pages = pagesPerBlock - Int(block.pointee.released)
      sendWhole(block, count: 1)
      return pages
    }
    let count = min(run.count, max(wanted, 1))
    sendPart(block, PageRun(start: run.end - count, count: count))
    return count
  }

  /// The last, or the first, run of free resident pages of an occupied block; for a wholly free block all of it.
  private func releasableRun(of block: Block, last: Bool) -> PageRun {
    if block.pointee.kind == .freeResident { return PageRun(start: 0, count: pagesPerBlock) }
    var found = PageRun(start: 0, count: 0)
    block.forEachReleasableRun { run in
      found = run
      return last
    }
    return found
  }

  // MARK: By address

  /// Begins the walk at the top.
  mutating func restartHighest() {
    walk.highest.arena = arenaCount - 1
    walk.highest.index = arenaCount > 0 ? arenas[arenaCount - 1].committedBlocks : 0
  }

  /// Sends the highest range below the place of the walk, at most `wanted` pages of a part.
  mutating func sendHighest(wanted: Int, wholeOnly: Bool) -> Int {
    walk.isPaused = false
    var seen = 0
    while walk.highest.arena >= 0 && walk.highest.arena < arenaCount {
      if walk.highest.index == 0 {
        walk.highest.arena -= 1
        if walk.highest.arena >= 0 { walk.highest.index = arenas[walk.highest.arena].committedBlocks }
        continue
      }
      if seen == blocksPerWalk {
        walk.isPaused = true
        return 0
      }
      seen += 1
      let block = arenas[walk.highest.arena].block(walk.highest.index - 1)
      let isDense = block.isDense || arenas[walk.highest.arena].wasDense(walk.highest.index - 1)
      if !isDense && releasablePages(of: block, wholeOnly: wholeOnly) > 0 {
        let run = releasableRun(of: block, last: true)
        // It is looked at again: it may have more.
        if run.count > 0 { return send(block, run, wanted: wanted) }
      }
      walk.highest.index -= 1
    }
    return 0
  }

  // MARK: By age

  /// Age of what is free in the block, by its last free, as a class.
  private func ageClass(of block: Block) -> Int {
    ReleaseWalk.ageClass(UInt32(truncatingIfNeeded: now >> 24) &- block.pointee.stamp)
  }

  /// Adds what blocks from `cursor` on could give to the sums by age; false when all were seen.
  mutating func addAges(
    from cursor: inout BlockCursor, wholeOnly: Bool, _ sums: inout InlineArray<464, Int>
  ) -> Bool {
    for _ in 0..<blocksPerWalk {
      guard let block = nextInOneWalk(&cursor) else { return false }
      let pages = releasablePages(of: block, wholeOnly: wholeOnly)
      if pages > 0 { sums[ageClass(of: block)] += pages }
    }
    return true
  }

  /// Sends the next range that is old enough.
  mutating func sendOldest(wholeOnly: Bool) -> Int {
    walk.isPaused = false
    var seen = 0
    while true {
      if seen == blocksPerWalk {
        walk.isPaused = true
        return 0
      }
      seen += 1
      let place = walk.oldest
      guard let block = nextInOneWalk(&walk.oldest) else {
        if walk.isAtEnough { return 0 }
        walk.isAtEnough = true
        walk.oldest = BlockCursor()
        continue
      }
      let age = ageClass(of: block)
      if age < walk.enough || (age == walk.enough && !walk.isAtEnough) { continue }
      if releasablePages(of: block, wholeOnly: wholeOnly) == 0 { continue }
      let run = releasableRun(of: block, last: false)
      if run.count == 0 { continue }
      walk.oldest = place
      return send(block, run, wanted: .max)
    }
  }

  /// The block at `cursor`, which moves on; nil after the last one.
  private func nextInOneWalk(_ cursor: inout BlockCursor) -> Block? {
    while cursor.arena < arenaCount {
      if cursor.index < arenas[cursor.arena].committedBlocks {
        cursor.index += 1
        return arenas[cursor.arena].block(cursor.index - 1)
      }
      cursor.arena += 1
      cursor.index = 0
    }
    return nil
  }
}

/// Blocks that a walk looks at before it lets others at the heap: some microseconds.
private let blocksPerWalk = 512

extension PageHeapCore {
  /// Finds how old `pages` pages are, so that the oldest go first. Held lock on entry and return; open in between.
  func findOldest(pages: Int) {
    var sums = InlineArray<464, Int>(repeating: 0)
    var cursor = BlockCursor()
    while state.pointee.addAges(from: &cursor, wholeOnly: state.pointee.options.strategy.wholeBlocksOnly, &sums) {
      lock.unlock()
      lock.lock()
    }
    var rest = pages
    var enough = ReleaseWalk.ageClasses - 1
    while enough > 0 && rest > sums[enough] {
      rest -= sums[enough]
      enough -= 1
    }
    state.pointee.walk.oldest = BlockCursor()
    state.pointee.walk.enough = enough
    state.pointee.walk.isAtEnough = false
  }

  /// Notes which blocks are dense, and lets the walk by address begin anew. Held lock on entry and return; open in between.
  func beginGeneration() {
    var seen = 0
    for arena in 0..<state.pointee.arenaCount {
      var number = 0
      while number < state.pointee.arenas[arena].committedBlocks {
        state.pointee.arenas[arena].noteDensity(number, state.pointee.arenas[arena].block(number).isDense)
        number += 1
        seen += 1
        if seen % blocksPerWalk == 0 {
          lock.unlock()
          lock.lock()
        }
      }
    }
    state.pointee.restartHighest()
  }
}
