// Free memory on its way to the kernel and back: taken out of reach before the lock is dropped, booked after.
//
// The batch knows ranges; where they came from is kept here, entry by entry. While the lock is open this is also the answer
// to the question whether a page is in flight.

/// Where one range of the batch came from.
struct FlightOrigin {
  /// The block, or the first of several wholly free ones.
  var block: Block
  /// Wholly free blocks in the range; 0 for a part of one occupied block.
  var wholeBlocks: Int
  /// The part, if it is one.
  var run: PageRun
  /// The block was intact until this part of it was chosen.
  var breaksBlock: Bool

  static let byteCount = ReleaseBatch.capacity * MemoryLayout<FlightOrigin>.stride
}

extension HeapState {
  /// Whether a page of `run` is in flight.
  @inline(__always)
  func isInFlight(_ block: Block, _ run: PageRun) -> Bool {
    for index in 0..<batch.count {
      let entry = origins + index
      if entry.pointee.block == block && entry.pointee.wholeBlocks == 0 && entry.pointee.run.start < run.end
        && run.start < entry.pointee.run.end
      {
        return true
      }
    }
    return false
  }

  /// Ranges of `block` that are in flight.
  func flightsOf(_ block: Block) -> Int {
    var count = 0
    for index in 0..<batch.count where origins[index].block == block && origins[index].wholeBlocks == 0 {
      count += 1
    }
    return count
  }

  // MARK: Into flight

  private mutating func send(_ range: AddressRange, _ origin: FlightOrigin) {
    (origins + batch.count).initialize(to: origin)
    batch.append(
      range,
      ReleaseRange(
        isWhole: origin.wholeBlocks > 0, backing: origin.block.pointee.backing.settled,
        wholeFolio: origin.wholeBlocks == 0 && origin.block.pointee.flags.contains(.wholeFolio),
        sharing: mayBeShared(origin.block, count: max(origin.wholeBlocks, 1)) ? .possible : .none, effect: .postponed))
  }

  /// Takes `run` of an occupied block out of reach: used in the map, a span of nobody's.
  mutating func sendPart(_ block: Block, _ run: PageRun) {
    if block.pointee.released != 0 { forgetReleased(block, run) }
    block.used.set(run)
    block.marks.setBit(run.start)
    // Broken from now on, not only when the release is booked: the next choice should go on in this block.
    let breaks = !block.isBroken
    if breaks { block.pointee.flags.insert(.broken) }
    block.pointee.inFlight += UInt16(run.count)
    inFlightPages += run.count
    block.pointee.longest = UInt16(block.used.longestClearRun().count)
    send(
      AddressRange(start: address(of: block, page: run.start), byteCount: run.count << pageShift),
      FlightOrigin(block: block, wholeBlocks: 0, run: run, breaksBlock: breaks))
    relist(block)
  }

  /// Lazily freed pages that go into flight are in flight and nothing else.
  private mutating func forgetReleased(_ block: Block, _ run: PageRun) {
    let count = block.marks.count(in: run)
    block.marks.clear(run)
    block.pointee.released -= UInt16(count)
    block.pointee.lazy -= UInt16(count)
    releasedPages -= count
    lazyPages -= count
  }

  /// Takes `count` wholly free resident blocks, from `block` on, out of every list.
  mutating func sendWhole(_ block: Block, count: Int) {
    let arena = Int(block.pointee.arena)
    let first = Int(block.pointee.index)
    for number in first..<(first + count) {
      let each = arenas[arena].block(number)
      if each.isBroken {
        freeBroken.remove(each)
      } else if each.pointee.released != 0 {
        freeLazy.remove(each)
      } else {
        freeIntact.remove(each)
      }
      arenas[arena].markTaken(number)
      each.pointee.kind = .releasing
      freeResidentBlocks -= 1
      releasingBlocks += 1
      releasedPages -= Int(each.pointee.released)
      lazyPages -= Int(each.pointee.lazy)
    }
    send(
      AddressRange(start: address(of: block), byteCount: count << bytesPerBlockShift),
      FlightOrigin(block: block, wholeBlocks: count, run: PageRun(start: 0, count: pagesPerBlock), breaksBlock: false))
  }

  // MARK: Back from flight

  /// Books what became of range `index` of `count`. Returns the pages that were released by it.
  mutating func book(_ index: Int, of count: Int, _ known: ReleaseRange) -> Int {
    let entry = origins[index]
    if known.sharing == .exclusive { unmarkShared(entry.block, count: max(entry.wholeBlocks, 1)) }
    if entry.wholeBlocks > 0 { return bookWhole(entry, known) }
    let pages = bookPart(entry, known)
    if entry.breaksBlock && pages == 0 && entry.block.pointee.inFlight > 0 {
      // Whether the block breaks is up to its next part.
      var next = index + 1
      while next < count && (origins[next].block != entry.block || origins[next].wholeBlocks > 0) { next += 1 }
      if next < count { origins[next].breaksBlock = true }
    }
    return pages
  }

  private mutating func bookPart(_ entry: FlightOrigin, _ known: ReleaseRange) -> Int {
    let effect = known.effect
    let block = entry.block
    let run = entry.run
    block.used.clear(run)
    block.marks.clearBit(run.start)
    block.pointee.inFlight -= UInt16(run.count)
    inFlightPages -= run.count
    let merged = block.used.clearRun(around: run).count
    if merged > Int(block.pointee.longest) { block.pointee.longest = UInt16(merged) }
    var pages = 0
    switch effect {
    case .refused, .postponed:
      if effect == .refused { noteRefusal(block) } else { wasPostponed = true }
      // Only if no other part of it was released meanwhile.
      if entry.breaksBlock && block.pointee.released == 0 && block.pointee.inFlight == 0 && known.backing != .split {
        lists.remove(block)
        releasable.remove(block)
        block.pointee.flags.remove(.broken)
      }
    case .gone, .goneFromWholeFolio, .lazy, .cold, .swapped, .decommitted:
      pages = run.count
      totals.pagesReleasedInParts += pages
      markReleased(block, run, lazily: effect.keepsContents)
      if effect == .goneFromWholeFolio { addPhantom(block, pages) }
      block.pointee.flags.insert(.wasReleased)
      block.pointee.stamp = UInt32(truncatingIfNeeded: now >> 24)
      if entry.breaksBlock {
        totals.splits += 1
        block.pointee.cause = releaseCause
      }
      block.pointee.backing = .split
    }
    if block.pointee.used == 0 && block.pointee.inFlight == 0 { settleEmpty(block) } else { relist(block) }
    return pages
  }

  private mutating func noteRefusal(_ block: Block) {
    block.pointee.flags.insert(.refused)
    refusalsToCheck = blockCount
  }

  /// Free pages of `run`, released or not, become released.
  private mutating func markReleased(_ block: Block, _ run: PageRun, lazily: Bool) {
    var before = 0
    var lazyBefore = 0
    PageMap.forEachWord(of: run) { word, mask in
      let bits = block.marks.words[word] & mask
      before += bits.nonzeroBitCount
      lazyBefore += (bits & ~block.zeroMap.words[word]).nonzeroBitCount
      block.marks.words[word] |= mask
    }
    block.pointee.released += UInt16(run.count - before)
    releasedPages += run.count - before
    if lazily {
      block.zeroMap.clear(run)
      if block.zeroMap.isEmpty { block.pointee.flags.remove(.hasZero) }
      block.pointee.lazy += UInt16(run.count - lazyBefore)
      lazyPages += run.count - lazyBefore
    } else {
      block.zeroMap.set(run)
      block.pointee.flags.insert(.hasZero)
      block.pointee.lazy -= UInt16(lazyBefore)
      lazyPages -= lazyBefore
    }
  }

  /// At most the whole folio can be phantom; which of its pages came back since is not kept (64 bytes a block).
  private mutating func addPhantom(_ block: Block, _ pages: Int) {
    let total = min(Int(block.pointee.phantom) + pages, pagesPerBlock)
    phantomPages += total - Int(block.pointee.phantom)
    block.pointee.phantom = UInt16(total)
    block.pointee.flags.insert(.wholeFolio)
  }

  mutating func clearPhantom(_ block: Block) {
    phantomPages -= Int(block.pointee.phantom)
    block.pointee.phantom = 0
    block.pointee.flags.remove(.wholeFolio)
  }

  private mutating func bookWhole(_ entry: FlightOrigin, _ known: ReleaseRange) -> Int {
    let effect = known.effect
    var pages = 0
    let arena = Int(entry.block.pointee.arena)
    let first = Int(entry.block.pointee.index)
    for number in first..<(first + entry.wholeBlocks) {
      let block = arenas[arena].block(number)
      releasingBlocks -= 1
      switch effect {
      case .gone, .goneFromWholeFolio:
        pages += pagesPerBlock - Int(block.pointee.released) + Int(block.pointee.lazy)
        makeAbsent(block)
      case .decommitted:
        pages += pagesPerBlock - Int(block.pointee.released) + Int(block.pointee.lazy)
        makeAbsent(block)
        markDecommitted(block)
      case .lazy, .cold, .swapped, .refused, .postponed:
        block.pointee.kind = .freeResident
        freeResidentBlocks += 1
        if effect.keepsContents {
          pages += pagesPerBlock - Int(block.pointee.released)
          makeLazy(block)
        }
        releasedPages += Int(block.pointee.released)
        lazyPages += Int(block.pointee.lazy)
        if effect == .refused { noteRefusal(block) }
        if effect == .postponed { wasPostponed = true }
        // A hugepage that was lost on the way; what is left is dropped before the block is used.
        let isPagedOut = options.strategy.kind == .pageout && known.backing == .split && effect != .postponed
        if effect == .swapped || isPagedOut {
          block.pointee.flags.insert(.broken)
          block.pointee.backing = .split
          block.pointee.cause = releaseCause
        }
        // A fork may have come between.
        if isLostToSharing(block) { block.pointee.flags.insert(.broken) }
        listFree(block)
        arenas[arena].markFree(number, resident: true)
      }
    }
    return pages
  }

  /// A wholly free block is lazily free as a whole, but for pages that had gone before.
  private func makeLazy(_ block: Block) {
    // Pages that are gone keep released and zero; every other page becomes released without zero.
    var zero = 0
    for word in 0..<wordsPerMap {
      block.zeroMap.words[word] &= block.marks.words[word]
      zero += block.zeroMap.words[word].nonzeroBitCount
    }
    block.marks.fill(true)
    if zero == 0 { block.pointee.flags.remove(.hasZero) }
    block.pointee.released = UInt16(pagesPerBlock)
    block.pointee.lazy = UInt16(pagesPerBlock - zero)
    block.pointee.flags.insert(.wasReleased)
    block.pointee.stamp = UInt32(truncatingIfNeeded: now >> 24)
  }
}
