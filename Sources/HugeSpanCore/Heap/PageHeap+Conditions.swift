// What each pageblock is like, for pictures of a heap.
//
// Statistics say how many blocks are broken; a picture has to say which. One condition stands for a block: the first of
// the list below that holds, what is lost before what is used, because a picture is looked at for what went wrong. The
// caller brings the memory, so that the heap allocates none, and says how many blocks it leaves out between two, so that
// a large heap fits into it and the lock is held for no longer than that.

/// What a block is like, as a whole.
package enum BlockCondition: UInt8, Sendable {
  /// Free, and nothing of it is in memory.
  case absent
  /// Some of its free pages are lazily freed: charged until the kernel takes them.
  case lazilyFree
  /// Some of its free pages were given to the kernel; what is left lies on base pages.
  case released
  /// All that is not given back is in memory, on base pages: the hugepage is lost.
  case broken
  /// Free, in memory, whole.
  case free
  /// Less than half of it is used, and it is whole.
  case sparse
  /// At least half of it is used, but not all, and it is whole.
  case dense
  /// No page of it is free, and it is whole.
  case full
}

extension PageHeapCore {
  /// Writes the condition of every `stride`th block, arena by arena and by address, into `buffer`, as far as it reaches.
  ///
  /// - Returns: How many blocks the heap has, whether they were written or not.
  /// - Complexity: O(arenas + written conditions), under the lock.
  package func blockConditions(every stride: Int, into buffer: UnsafeMutableBufferPointer<BlockCondition>) -> Int {
    precondition(stride > 0)
    lock.lock()
    defer { lock.unlock() }
    var written = 0
    var before = 0
    for index in 0..<state.pointee.arenaCount {
      let arena = state.pointee.arenas + index
      let committed = arena.pointee.committedBlocks
      while written < buffer.count, written &* stride < before &+ committed {
        buffer[written] = arena.pointee.block(written &* stride &- before).condition
        written &+= 1
      }
      before &+= committed
    }
    return before
  }
}

extension UnsafeMutablePointer where Pointee == BlockHeader {
  fileprivate var condition: BlockCondition {
    if pointee.kind == .absent { return .absent }
    if pointee.lazy > 0 { return .lazilyFree }
    if pointee.released > 0 { return .released }
    if isBroken || pointee.backing == .split { return .broken }
    // What is in flight to the kernel is in memory until it is booked.
    if pointee.kind != .occupied { return .free }
    if pointee.longest == 0 { return .full }
    return Int(pointee.used) >= pagesPerBlock / 2 ? .dense : .sparse
  }
}
