// Every counter and list, recomputed from the maps.
//
// Tests call this after every step. It ends the program at the first contradiction, naming the block, because a heap
// that contradicts itself must not go on.

extension PageHeapCore {
  /// Recomputes every counter and list from the maps and ends the program where one disagrees.
  ///
  /// - Complexity: O(pages).
  package func checkInvariants() {
    lock.lock()
    defer { lock.unlock() }
    var seen = InvariantTotals()
    var edges = 0
    var decommitted = 0
    for index in 0..<state.pointee.arenaCount {
      let arena = state.pointee.arenas[index]
      var free = 0
      var wasDecommitted = false
      for number in 0..<arena.committedBlocks {
        let block = arena.block(number)
        let address = arena.address(ofBlock: number)
        require(
          Int(block.pointee.index) == number && Int(block.pointee.arena) == index, "block is misnumbered", address)
        let isFree = block.pointee.kind == .absent || block.pointee.kind == .freeResident
        require(arena.isFree(number) == isFree, "free bit is wrong", address)
        require(arena.isResident(number) == (block.pointee.kind == .freeResident), "resident bit is wrong", address)
        if isFree { free += 1 }
        require(!block.isDecommitted || block.pointee.kind == .absent, "decommitted block is not absent", address)
        if block.isDecommitted { decommitted += 1 }
        if block.isDecommitted != wasDecommitted { edges += 1 }
        wasDecommitted = block.isDecommitted
        if arena.mayBeShared(number) {
          seen.shared += 1
          require(block.pointee.kind != .absent, "absent block is believed shared", address)
          let isListed = block.pointee.kind == .freeResident && !block.isBroken && state.pointee.strategyReleases
          require(!isListed, "shared block is free as an intact one", address)
        }
        check(block, address)
        seen.add(block)
        seen.discarded += state.pointee.discards(of: block)?.discarded.count ?? 0
      }
      if wasDecommitted { edges += 1 }
      require(free == arena.freeBlocks, "count of free blocks is wrong", arena.range.start)
      for word in 0..<min(arena.absentHint, arena.wordCount) {
        require(arena.freeWords[word] & ~arena.residentWords[word] == 0, "absent hint is too high", arena.range.start)
      }
    }
    require(decommitted == state.pointee.decommittedBlocks, "total of decommitted blocks is wrong", UInt(decommitted))
    require(edges == state.pointee.decommittedEdges, "count of decommitted edges is wrong", UInt(edges))
    checkTotals(seen)
    checkLists(seen)
  }

  @inline(__always)
  private func require(_ condition: Bool, _ message: StaticString, _ address: UInt) {
    if !condition { fail(message, address: address) }
  }

  private func check(_ block: Block, _ address: UInt) {
    let header = block.pointee
    let used = block.used.count
    var (starts, marked) = (0, 0)
    for word in 0..<wordsPerMap {
      starts += block.starts(word: word).nonzeroBitCount
      marked += block.released(word: word).nonzeroBitCount
    }
    switch header.kind {
    case .occupied:
      require(used == Int(header.used) + Int(header.inFlight), "used count is wrong", address)
      require(
        starts == Int(header.spans) + state.pointee.flightsOf(block), "count of spans is wrong", address)
      require(used > 0, "block is occupied by nothing", address)
      require(Int(header.longest) == block.used.longestClearRun().count, "longest free range is wrong", address)
      require(PlacementLists.list(for: block) == header.list, "block is in the wrong list", address)
    case .absent, .freeResident, .releasing:
      require(used == 0 && header.used == 0 && header.inFlight == 0, "free block has used pages", address)
      require(header.spans == 0, "free block has spans", address)
      require(Int(header.longest) == pagesPerBlock, "free block is not free as a whole", address)
      require(header.list == noList && header.releasable == 0, "free block is in a list of occupied ones", address)
      require(!header.flags.contains(.donated) && !header.flags.contains(.transient), "free block has a role", address)
    }
    if header.kind == .absent {
      require(
        header.released == 0 && !header.flags.contains(.hasZero) && header.phantom == 0, "absent block has pages",
        address)
    }
    require(marked == Int(header.released), "released count is wrong", address)
    require(header.flags.contains(.hasZero) != block.zeroMap.isEmpty, "zero map is not what its flag says", address)
    var lazy = 0
    // Whether the page before is used. Of the first page's it is another block that knows.
    var isUsedBefore: UInt64 = 1
    for word in 0..<wordsPerMap {
      let pages = block.used.words[word]
      let firsts = pages & ~(pages << 1 | isUsedBefore)
      isUsedBefore = pages >> 63
      require(firsts & ~block.marks.words[word] == 0, "no span starts behind a free page", address)
      let released = block.released(word: word)
      // Pages in flight are marked used, and keep what is known of them in case they come back as they were.
      let isUsedZero = block.zeroMap.words[word] & block.used.words[word] != 0
      require(!isUsedZero || header.inFlight > 0, "used page is believed zero", address)
      lazy += (released & ~block.zeroMap.words[word]).nonzeroBitCount
    }
    require(lazy == Int(header.lazy), "lazy count is wrong", address)
    if let maps = state.pointee.discards(of: block) {
      for word in 0..<wordsPerMap {
        let discarded = maps.discarded.words[word]
        let marks = maps.planted.words[word] | maps.untouched.words[word]
        require(discarded & ~block.used.words[word] == 0, "discarded page is free", address)
        require(marks & ~discarded == 0, "page has a mark and is not discarded", address)
      }
    }
    if header.kind == .occupied {
      require(block.isBroken || header.released == 0, "intact block has released pages", address)
      let releasable =
        block.isBroken && !header.flags.contains(.refused) && block.freeResidentPages > 0
        ? block.longestReleasableRun().count : 0
      require(Int(header.releasable) == releasable, "longest releasable run is wrong", address)
    }
  }

  private func checkTotals(_ seen: InvariantTotals) {
    let state = state.pointee
    require(state.usedPages == seen.used, "total of used pages is wrong", UInt(seen.used))
    require(state.inFlightPages == seen.inFlight, "total of pages in flight is wrong", UInt(seen.inFlight))
    require(state.releasedPages == seen.released, "total of released pages is wrong", UInt(seen.released))
    require(state.lazyPages == seen.lazy, "total of lazy pages is wrong", UInt(seen.lazy))
    require(state.discardedPages == seen.discarded, "total of discarded pages is wrong", UInt(seen.discarded))
    require(state.phantomPages == seen.phantom, "total of phantom pages is wrong", UInt(seen.phantom))
    require(state.occupiedBlocks == seen.occupied, "total of occupied blocks is wrong", UInt(seen.occupied))
    require(state.freeResidentBlocks == seen.freeResident, "total of free blocks is wrong", UInt(seen.freeResident))
    require(state.sharedBlocks == seen.shared, "total of shared blocks is wrong", UInt(seen.shared))
    require(state.absentBlocks == seen.absent, "total of absent blocks is wrong", UInt(seen.absent))
    require(state.displacedBlocks == seen.displaced, "total of displaced blocks is wrong", UInt(seen.displaced))
    let inFlight = state.releasingBlocks + state.emptyBlocksInFlight
    require(inFlight == seen.releasing, "total of blocks in flight is wrong", UInt(seen.releasing))
  }

  private func checkLists(_ seen: InvariantTotals) {
    var listed = 0
    var releasable = 0
    for list in 0..<PlacementLists.listCount {
      var block = state.pointee.lists.heads[list]
      let bit = state.pointee.lists.bits[list >> 6] >> UInt64(list & 63) & 1 != 0
      require(bit == (block != nil), "bit of a placement list is wrong", UInt(list))
      var previous: Block? = nil
      while let each = block {
        require(
          Int(each.pointee.list) == list && each.pointee.previous == previous, "placement list is torn", UInt(list))
        listed += 1
        previous = each
        block = each.pointee.next
      }
    }
    for word in 0..<PlacementLists.wordCount {
      let bit = state.pointee.lists.summary[word >> 6] >> UInt64(word & 63) & 1 != 0
      require(bit == (state.pointee.lists.bits[word] != 0), "summary of the placement lists is wrong", UInt(word))
    }
    for index in 0..<pagesPerBlock {
      var block = state.pointee.releasable.heads[index]
      while let each = block {
        require(Int(each.pointee.releasable) == index + 1, "releasable list is torn", UInt(index))
        releasable += 1
        block = each.pointee.nextReleasable
      }
    }
    require(
      state.pointee.lists.releasedBlocks == seen.besideReleased, "count of blocks with released pages is wrong", 0)
    require(listed == seen.listed, "a block is missing from the placement lists", UInt(listed))
    require(releasable == seen.releasable, "a block is missing from the releasable lists", UInt(releasable))
    checkFree(state.pointee.freeIntact, seen.freeIntact)
    checkFree(state.pointee.freeLazy, seen.freeLazy)
    checkFree(state.pointee.freeBroken, seen.freeBroken)
  }

  private func checkFree(_ list: FreeBlockList, _ expected: Int) {
    var count = 0
    var previous: Block? = nil
    var block = list.head
    while let each = block {
      require(each.pointee.kind == .freeResident && each.pointee.previous == previous, "free list is torn", UInt(count))
      count += 1
      previous = each
      block = each.pointee.next
    }
    require(count == list.count && count == expected && list.tail == previous, "free list is incomplete", UInt(count))
  }
}

/// What the blocks add up to.
struct InvariantTotals {
  var used = 0
  var inFlight = 0
  var released = 0
  var lazy = 0
  var phantom = 0
  var discarded = 0
  var occupied = 0
  var freeResident = 0
  var absent = 0
  var shared = 0
  var releasing = 0
  var displaced = 0
  var listed = 0
  var besideReleased = 0
  var releasable = 0
  var freeIntact = 0
  var freeLazy = 0
  var freeBroken = 0

  mutating func add(_ block: Block) {
    let header = block.pointee
    used += Int(header.used)
    inFlight += Int(header.inFlight)
    phantom += Int(header.phantom)
    if header.isDisplaced { displaced += 1 }
    if header.kind != .releasing {
      released += Int(header.released)
      lazy += Int(header.lazy)
    }
    switch header.kind {
    case .occupied:
      occupied += 1
      if header.list != noList { listed += 1 }
      if header.released != 0 { besideReleased += 1 }
      if header.releasable != 0 { releasable += 1 }
    case .absent: absent += 1
    case .releasing: releasing += 1
    case .freeResident:
      freeResident += 1
      if block.isBroken {
        freeBroken += 1
      } else if header.released != 0 {
        freeLazy += 1
      } else {
        freeIntact += 1
      }
    }
  }
}
