// Hugepages move to where a span needs them.
//
// A span of several blocks needs blocks side by side. Often enough free ones are in memory, but apart; then the blocks that the
// run lacks would be faulted in, 100 to 200 us of zeroing each, while as many hugepages stay behind and wait for their release. The
// kernel moves a hugepage to another address for 6 us: one entry of a page table. So before a run is taken, free hugepages
// from anywhere in the heap go under those of its blocks that are not in memory. The address space has gaps; memory has none.
//
// The two blocks of a move change places in everything: state, knowledge of zeros, and what the policy keeps of them. Both are out
// of reach (`releasing`) while the lock is open, and whether the move was done is known before anybody gets them; a refused one
// changes nothing but time.
//
// The price is mappings. A page keeps the offset it had in its mapping, so a block that got one has a mapping of its own and
// cuts its surroundings in two. Such blocks are counted as displaced, and there may be 2,048: two mappings each are a
// sixteenth of what Linux allows a process by default. Ticks renew the mappings of displaced blocks that are
// empty again, all but a few, which lets them grow together with their neighbours (4 us each, on top of 9 for the release).
//
// Not moved: what a child may share (it would be copied), what was refused before (it may be locked), and blocks that are not committed.

/// Two blocks that change places: a free one in memory, and a free one that is not.
private struct BlockMove {
  var source: Block
  var destination: Block
  var sourceAddress: UInt
  var destinationAddress: UInt
}

/// What an empty block has for a mapping after it was to be mapped anew: a new one, one that is not committed, or what it had.
private enum BlockMapping {
  case new, reserved, old
}

/// Where the search for the moves of one round is.
private struct MoveSearch {
  /// Number of the block in its arena that is looked at next, and the free hugepage that is.
  var block: Int
  var source: Block?
  var found = 0
}

extension UnsafeMutablePointer where Pointee == BlockHeader {
  /// A wholly free hugepage that could as well be elsewhere.
  fileprivate var mayMove: Bool { !isBroken && pointee.released == 0 && !pointee.flags.contains(.refused) }
}

extension PageHeapCore {
  /// Displaced blocks that there may be.
  static var mostDisplacedBlocks: Int { 2048 }
  /// As many keep their mappings, empty or not: they may be moved to again.
  static var fewDisplacedBlocks: Int { 16 }
  private static var movesPerRound: Int { 32 }

  /// Moves free hugepages under the blocks of `place` that are not in memory, as many as there are; true if any was moved.
  /// Held lock on entry and return; open in between, so what was found before need not hold any more.
  ///
  /// - Complexity: O(blocks of the run); a system call of about 6 us for each block that is moved.
  @inline(__always)
  func moveUnder(_ place: SpanPlace) -> Bool {
    if state.pointee.freeIntact.count == 0 || !movesBlocks { return false }
    return moveSlowlyUnder(place)
  }

  @inline(never)
  private func moveSlowlyUnder(_ place: SpanPlace) -> Bool {
    let nowhere = state.pointee.arenas[place.arena].block(place.firstFree)
    let nothing = BlockMove(source: nowhere, destination: nowhere, sourceAddress: 0, destinationAddress: 0)
    var moves = InlineArray<32, BlockMove>(repeating: nothing)
    var hasMoved = false
    while state.pointee.sharedBlocks == 0 {
      var count = 0
      var search = MoveSearch(block: place.firstFree, source: state.pointee.freeIntact.head)
      while count < Self.movesPerRound, let move = state.pointee.nextMove(place, &search) {
        state.pointee.sendMove(move)
        moves[count] = move
        count += 1
      }
      if count == 0 { break }
      // The heap must not go meanwhile.
      state.pointee.pendingOperations += 1
      lock.unlock()
      var done = 0
      var nanoseconds: UInt64 = 0
      var isRefused = false
      while done < count && !isRefused {
        let source = AddressRange(start: moves[done].sourceAddress, byteCount: bytesPerBlock)
        let outcome = kernel.move(source, to: moves[done].destinationAddress)
        nanoseconds += outcome.nanoseconds
        isRefused = outcome.error != nil
        if !isRefused { done += 1 }
      }
      lock.lock()
      state.pointee.pendingOperations -= 1
      state.pointee.totals.moveNanoseconds += nanoseconds
      for index in 0..<count { state.pointee.book(moves[index], isDone: index < done) }
      hasMoved = hasMoved || done > 0
      if isRefused {
        // Out of mappings, or the memory is locked: not again before some ticks, or before others went.
        state.pointee.totals.movesRefused += 1
        state.pointee.displacedLimit = state.pointee.displacedBlocks
        break
      }
    }
    return hasMoved
  }

  /// Renews the mappings of empty displaced blocks. The scavenging thread only; held lock on entry and
  /// return, open in between.
  func restoreMappings() {
    if state.pointee.totals.ticks % Self.ticksPerRetry == 0 { state.pointee.displacedLimit = Self.mostDisplacedBlocks }
    var examined = 0
    let blocks = min(state.pointee.blockCount, 4096)
    let advisesHugePages = advisesHugePages
    while examined < blocks && state.pointee.displacedBlocks > Self.fewDisplacedBlocks {
      examined += 1
      if examined % Self.blocksPerStretch == 0 {
        lock.unlock()
        lock.lock()
      }
      guard let block = state.pointee.next(&state.pointee.displacedCursor) else { return }
      if !block.pointee.isDisplaced || block.pointee.kind != .absent || block.isDecommitted { continue }
      let range = AddressRange(start: state.pointee.address(of: block), byteCount: bytesPerBlock)
      state.pointee.sendEmpty(block)
      lock.unlock()
      let mapping = renewMapping(range, advisesHugePages: advisesHugePages)
      lock.lock()
      state.pointee.bookEmpty(block)
      // At the limit of mappings not even this can be had.
      if mapping == .old { return }
      state.pointee.setDisplaced(block, false)
      // Whoever wants it tries again.
      if mapping == .reserved { state.pointee.markDecommitted(block) }
    }
  }

  /// Maps an empty block anew.
  private func renewMapping(_ range: AddressRange, advisesHugePages: Bool) -> BlockMapping {
    let isGone = withUnsafePointer(to: range) {
      kernel.advise(.decommit, UnsafeBufferPointer(start: $0, count: 1)).error == nil
    }
    if !isGone { return .old }
    do throws(KernelError) { try kernel.commit(range) } catch { return .reserved }
    if advisesHugePages {
      _ = withUnsafePointer(to: range) { kernel.advise(.hugepage, UnsafeBufferPointer(start: $0, count: 1)) }
    }
    return .new
  }
}

extension HeapState {
  /// The next block of `place` that is not in memory and a free hugepage from elsewhere; nil if either is missing. The newest one: older
  /// ones are the sooner released.
  fileprivate func nextMove(_ place: SpanPlace, _ search: inout MoveSearch) -> BlockMove? {
    let end = place.firstFree + place.freeCount
    let arena = arenas[place.arena]
    while search.block < end {
      let block = arena.block(search.block)
      if block.pointee.kind == .absent && !block.isDecommitted
        && (displacedBlocks + search.found < displacedLimit || block.pointee.isDisplaced)
      {
        break
      }
      search.block += 1
    }
    if search.block >= end { return nil }
    let destination = arena.block(search.block)
    while let source = search.source {
      search.source = source.pointee.next
      let isInside =
        Int(source.pointee.arena) == place.arena && (place.firstFree..<end).contains(Int(source.pointee.index))
      if isInside || !source.mayMove { continue }
      search.block += 1
      search.found += 1
      return BlockMove(
        source: source, destination: destination, sourceAddress: address(of: source),
        destinationAddress: address(of: destination))
    }
    return nil
  }

  /// Takes both blocks of a move out of reach.
  fileprivate mutating func sendMove(_ move: BlockMove) {
    let source = move.source
    freeIntact.remove(source)
    arenas[Int(source.pointee.arena)].markTaken(Int(source.pointee.index))
    source.pointee.kind = .releasing
    freeResidentBlocks -= 1
    releasingBlocks += 1
    sendEmpty(move.destination)
  }

  /// Takes an absent block out of reach. It stays empty, so it is not counted as one that is in memory.
  fileprivate mutating func sendEmpty(_ block: Block) {
    arenas[Int(block.pointee.arena)].markTaken(Int(block.pointee.index))
    block.pointee.kind = .releasing
    absentBlocks -= 1
    emptyBlocksInFlight += 1
  }

  fileprivate mutating func bookEmpty(_ block: Block) {
    // A fork that came between has taken it for one in memory.
    if sharedBlocks != 0 { unmarkShared(block) }
    emptyBlocksInFlight -= 1
    absentBlocks += 1
    block.pointee.kind = .absent
    arenas[Int(block.pointee.arena)].markFree(Int(block.pointee.index), resident: false)
  }

  fileprivate mutating func book(_ move: BlockMove, isDone: Bool) {
    if isDone {
      exchange(move)
      totals.blocksMoved += 1
      releaseEpoch += 1
    }
    let (full, empty) = isDone ? (move.destination, move.source) : (move.source, move.destination)
    bookEmpty(empty)
    releasingBlocks -= 1
    freeResidentBlocks += 1
    full.pointee.kind = .freeResident
    // A fork may have come between.
    if isLostToSharing(full) { full.pointee.flags.insert(.broken) }
    listFree(full)
    arenas[Int(full.pointee.arena)].markFree(Int(full.pointee.index), resident: true)
  }

  /// The memory is at the destination now, and all that is known of it goes along.
  private mutating func exchange(_ move: BlockMove) {
    let (source, destination) = (move.source, move.destination)
    swap(&source.pointee.flags, &destination.pointee.flags)
    swap(&source.pointee.stamp, &destination.pointee.stamp)
    swap(&source.pointee.backing, &destination.pointee.backing)
    let cause = source.pointee.cause
    source.pointee.cause = destination.pointee.cause
    destination.pointee.cause = cause
    let wasClaimed = source.pointee.wasClaimed
    source.pointee.wasClaimed = destination.pointee.wasClaimed
    destination.pointee.wasClaimed = wasClaimed
    source.pointee.version &+= 1
    destination.pointee.version &+= 1
    if destination.pointee.flags.contains(.hasZero) {
      for word in 0..<wordsPerMap { destination.zeroMap.words[word] = source.zeroMap.words[word] }
      source.zeroMap.fill(false)
    }
    if let from = arenas[Int(source.pointee.arena)].accounts, let to = arenas[Int(destination.pointee.arena)].accounts {
      swap(&from[Int(source.pointee.index)], &to[Int(destination.pointee.index)])
    }
    setDisplaced(destination, true)
  }

  mutating func setDisplaced(_ block: Block, _ isDisplaced: Bool) {
    if block.pointee.isDisplaced == isDisplaced { return }
    block.pointee.isDisplaced = isDisplaced
    displacedBlocks += isDisplaced ? 1 : -1
  }

  /// In a child: whoever moved blocks is gone, and whether it did is not known. What was in flight may be in memory, and nothing is
  /// known of it but that it is free.
  mutating func abandonMoves() {
    if releasingBlocks + emptyBlocksInFlight == 0 { return }
    emptyBlocksInFlight = 0
    for arena in 0..<arenaCount {
      for number in 0..<arenas[arena].committedBlocks where arenas[arena].block(number).pointee.kind == .releasing {
        let block = arenas[arena].block(number)
        block.pointee.kind = .freeResident
        block.pointee.flags = .broken
        block.pointee.backing = .unknown
        block.zeroMap.fill(false)
        freeResidentBlocks += 1
        setDisplaced(block, true)
        listFree(block)
        arenas[arena].markFree(number, resident: true)
      }
    }
    releasingBlocks = 0
  }
}
