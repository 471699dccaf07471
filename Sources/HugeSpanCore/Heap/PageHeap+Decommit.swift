// Blocks that were decommitted, and their way back.
//
// A decommitted block is an absent one with a flag. Whoever takes absent blocks commits them first, under the lock, as a
// growing heap does: a short call. It can fail, for want of promised memory or of mappings; then nothing has been taken yet, and the
// allocation fails as any other. What was committed on the way stays committed, and is as absent as before.

/// Edges between committed and decommitted blocks.
extension HeapState {
  /// Whether the neighbour `index` of a block of arena `arena` is decommitted. There is none outside of the arena.
  private func isDecommitted(_ arena: Int, _ index: Int) -> Bool {
    index >= 0 && index < arenas[arena].committedBlocks && arenas[arena].block(index).isDecommitted
  }

  /// Decommitted or committed, a block has edges to those neighbours that are the other.
  private func decommittedNeighbours(_ block: Block) -> Int {
    let index = Int(block.pointee.index)
    let arena = Int(block.pointee.arena)
    return (isDecommitted(arena, index - 1) ? 1 : 0) + (isDecommitted(arena, index + 1) ? 1 : 0)
  }

  /// An absent block is not committed any more.
  mutating func markDecommitted(_ block: Block) {
    decommittedEdges += 2 - 2 * decommittedNeighbours(block)
    decommittedBlocks += 1
    // Its place was taken by a mapping like those around it.
    setDisplaced(block, false)
    block.pointee.flags.insert(.decommitted)
  }

  /// An absent block is committed again.
  mutating func markCommitted(_ block: Block) {
    block.pointee.flags.remove(.decommitted)
    decommittedBlocks -= 1
    decommittedEdges += 2 * decommittedNeighbours(block) - 2
  }

  /// The run of decommitted blocks around block `index` of an arena.
  fileprivate func decommittedRun(_ arena: Int, around index: Int) -> (first: Int, count: Int) {
    var first = index
    var end = index + 1
    while isDecommitted(arena, first - 1) { first -= 1 }
    while isDecommitted(arena, end) { end += 1 }
    return (first, end - first)
  }
}

extension UnsafeMutablePointer where Pointee == BlockHeader {
  @inline(__always) var isDecommitted: Bool { pointee.flags.contains(.decommitted) }
}

extension PageHeapCore {
  /// Mappings that decommitted blocks may cost: a sixteenth of what Linux allows a process by default.
  static var mostDecommittedEdges: Int { 4096 }

  /// Whether the heap asks for hugepages with madvise.
  var advisesHugePages: Bool {
    state.pointee.options.adviseHugePages && !kernel.capabilities.contains(.hugePagesUnasked)
  }

  /// Commits those of the `count` free blocks from block `first` of an arena on that are not, or returns why not. Under the lock.
  @inline(__always)
  func recommit(arena: Int, first: Int, count: Int) -> KernelError? {
    state.pointee.decommittedBlocks == 0 ? nil : recommitSlowly(arena, first, count)
  }

  @inline(never)
  private func recommitSlowly(_ arena: Int, _ first: Int, _ count: Int) -> KernelError? {
    var index = first
    while index < first + count {
      guard state.pointee.arenas[arena].block(index).isDecommitted else {
        index += 1
        continue
      }
      let run = state.pointee.decommittedRun(arena, around: index)
      let end = min(run.first + run.count, first + count)
      if let error = recommitExactly(arena, index, end - index) {
        // To commit a piece of a mapping takes more of them; to commit all of it takes less.
        let isAll = run.first == index && run.count == end - index
        if isAll || recommitExactly(arena, run.first, run.count) != nil { return error }
      }
      index = end
    }
    return nil
  }

  private func recommitExactly(_ arena: Int, _ first: Int, _ count: Int) -> KernelError? {
    let start = state.pointee.arenas[arena].address(ofBlock: first)
    do throws(KernelError) {
      try kernel.commit(AddressRange(start: start, byteCount: count << bytesPerBlockShift))
    } catch { return error }
    for index in first..<(first + count) { state.pointee.markCommitted(state.pointee.arenas[arena].block(index)) }
    return nil
  }

  /// The lowest absent block, committed; nil if there is none, or none that could be.
  func absentBlock() -> Block? {
    for arena in 0..<state.pointee.arenaCount {
      guard let number = state.pointee.arenas[arena].lowestAbsent() else { continue }
      if recommit(arena: arena, first: number, count: 1) == nil { return state.pointee.arenas[arena].block(number) }
      for other in number..<state.pointee.arenas[arena].committedBlocks {
        let block = state.pointee.arenas[arena].block(other)
        if block.pointee.kind == .absent && !block.isDecommitted { return block }
      }
    }
    return nil
  }
}
