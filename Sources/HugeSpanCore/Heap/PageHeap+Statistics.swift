// The snapshot: totals as they stand, and the figures that only a walk over all blocks can tell.

extension PageHeapCore {
  /// A snapshot. Totals are of one moment; the figures by block come from a walk that opens the lock every 256 blocks,
  /// so while other threads work they may be a few operations apart from the totals.
  ///
  /// - Complexity: O(blocks).
  package func statistics() -> HeapStatistics {
    lock.lock()
    defer { lock.unlock() }
    var result = totalsSnapshot()
    for index in 0..<state.pointee.arenaCount {
      for number in 0..<state.pointee.arenas[index].committedBlocks {
        result.count(state.pointee.arenas[index].block(number))
        if number & 255 == 255 {
          lock.unlock()
          lock.lock()
        }
      }
    }
    return result
  }

  /// The totals alone.
  ///
  /// - Complexity: O(1).
  package func totals() -> HeapStatistics {
    lock.lock()
    defer { lock.unlock() }
    return totalsSnapshot()
  }

  private func totalsSnapshot() -> HeapStatistics {
    var result = state.pointee.totals
    result.usedPages = state.pointee.usedPages
    result.freeResidentPages = state.pointee.freeResidentPages
    result.lazyPages = state.pointee.lazyPages
    result.releasedPages = state.pointee.releasedPages - state.pointee.lazyPages
    result.phantomPages = state.pointee.phantomPages
    result.discardedPages = state.pointee.discardedPages
    result.absentBlocks = state.pointee.absentBlocks
    result.decommittedBlocks = state.pointee.decommittedBlocks
    // Those that are in flight are in memory until they are booked.
    result.freeResidentBlocks = state.pointee.freeResidentBlocks + state.pointee.releasingBlocks
    result.blocks =
      state.pointee.occupiedBlocks + state.pointee.freeResidentBlocks + state.pointee.absentBlocks
      + state.pointee.releasingBlocks + state.pointee.emptyBlocksInFlight
    result.displacedBlocks = state.pointee.displacedBlocks
    result.metadataBytes = state.pointee.metadataBytes
    return result
  }
}

extension HeapStatistics {
  mutating func count(_ block: Block) {
    if block.pointee.kind == .occupied {
      let used = Int(block.pointee.used)
      if block.pointee.longest == 0 {
        fullBlocks += 1
      } else if block.isBroken {
        partialBrokenBlocks += 1
      } else {
        partialIntactBlocks += 1
      }
      if block.isBroken { usedOnBrokenPages += used }
      if block.pointee.released > 0 { usedBesideReleasedPages += used }
      if block.pointee.flags.contains(.donated) { donatedPages += block.freePages }
      switch block.pointee.backing {
      case .huge: usedOnHugePages += used
      case .split: usedOnSplitPages += used
      case .unknown, .absent, .takenBack: usedOnUnknownPages += used
      }
    }
    let longest = Int(block.pointee.longest)
    longestFreeHistogram[Int.bitWidth - longest.leadingZeroBitCount] += 1
  }
}
