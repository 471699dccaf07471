// A fork: what must hold while it happens, what it leaves behind in both processes, and how it is forgotten.
//
// Before it the heap's lock is taken, so that the tables are copied between two operations and not in one; and everything in
// memory is marked as shared, for parent and child alike. After it the parent lets the lock go and that is all: a release that
// was with the kernel comes back in its own thread, which sees by `forks` that something came between.
//
// In the child that thread does not exist. What was in flight lies in `origins` still; the call may have been made,
// or in part, or not at all. So those ranges come back as free pages of which nothing is known but what was known before and
// stays true either way: a page that read as zero still does. Their blocks count as broken with unknown backing.
// Whoever waited or scavenged is gone, so nobody waits or scavenges.

extension PageHeapCore {
  // MARK: The three handlers

  /// Before a fork: takes the heap's lock and keeps it. Waits for operations under the lock, not for releases.
  ///
  /// - Complexity: O(blocks / 64 + wholly free blocks in memory).
  package func prepareForFork() {
    lock.lock()
    state.pointee.markShared()
  }

  /// After a fork, in the parent; also when it failed.
  package func resumeInParent() { lock.unlock() }

  /// After a fork, in the child.
  package func resumeInChild() {
    state.pointee.abandonFlights()
    state.pointee.abandonMoves()
    state.pointee.scavenging = false
    state.pointee.pendingOperations = 0
    state.pointee.waitingScavengers = 0
    lock.unlock()
  }

  // MARK: Asking whether it is over

  /// Asks about up to `limit` blocks that may be shared, and gives up after some that still are: then a child lives, and
  /// the others are likely no better. The scavenging thread only; held lock on entry and return, open in between.
  func reviewShared(blocks limit: Int, giveUpAfter patience: Int) {
    var rest = min(limit, state.pointee.sharedBlocks)
    var shared = 0
    while rest > 0, shared < patience, let block = state.pointee.nextShared() {
      if !reviewShared(block) { shared += 1 }
      rest -= 1
    }
  }

  /// Asks about one block; true if nobody else maps it. Any thread; held lock on entry and return, open in between.
  func reviewShared(_ block: Block) -> Bool {
    let range = AddressRange(start: state.pointee.address(of: block), byteCount: bytesPerBlock)
    let forks = state.pointee.forks
    let batch = state.pointee.batch
    lock.unlock()
    let isShared = batch.isShared(range, on: kernel)
    let isHuge = !isShared && isHuge(range)
    lock.lock()
    if isShared || forks != state.pointee.forks { return false }
    state.pointee.regain(block, isHuge: isHuge)
    return true
  }

  /// Whether one hugepage maps the block `range`. With memory of its own, for any thread.
  func isHuge(_ range: AddressRange) -> Bool {
    var region = ResidentRegion(range: range, isHuge: false, isPresent: false)
    return withUnsafeMutablePointer(to: &region) { pointer in
      do throws(KernelError) {
        let answer = try kernel.residency(of: range, into: UnsafeMutableBufferPointer(start: pointer, count: 1))
        return answer.count == 1 && pointer.pointee.isHuge && pointer.pointee.range == range
      } catch { return false }
    }
  }

  /// Asks about all blocks that may be shared.
  func reviewAllShared() {
    lock.lock()
    if state.pointee.sharedBlocks > 0 {
      awaitScavenging()
      reviewShared(blocks: .max, giveUpAfter: .max)
      endScavenging()
    }
    lock.unlock()
  }

  // MARK: Large spans

  /// Drops the blocks that fill with a new span and that a child shares, so that its first touch brings hugepages and
  /// copies nothing. The span is the caller's and nobody else's yet; its contents are unspecified.
  @inline(never)
  func renewShared(_ span: PageSpan) {
    lock.lock()
    defer { lock.unlock() }
    if state.pointee.sharedBlocks == 0 || !state.pointee.strategyReleases { return }
    // The heap must not go meanwhile.
    state.pointee.pendingOperations += 1
    defer { state.pointee.pendingOperations -= 1 }
    var address = (span.address &+ UInt(bytesPerBlock - 1)) & ~UInt(bytesPerBlock - 1)
    let end = span.address &+ UInt(span.pageCount) &<< UInt(pageShift)
    while address &+ UInt(bytesPerBlock) <= end, let block = state.pointee.block(at: address) {
      if state.pointee.mayBeShared(block) { renewShared(block, at: address) }
      address &+= UInt(bytesPerBlock)
    }
  }

  private func renewShared(_ block: Block, at address: UInt) {
    var range = AddressRange(start: address, byteCount: bytesPerBlock)
    let forks = state.pointee.forks
    let batch = state.pointee.batch
    lock.unlock()
    let isShared = batch.isShared(range, on: kernel)
    let isHuge = !isShared && isHuge(range)
    let isDropped =
      isShared
      && withUnsafePointer(to: &range) {
        kernel.advise(.dontneed, UnsafeBufferPointer(start: $0, count: 1)).error == nil
      }
    lock.lock()
    if forks != state.pointee.forks || (isShared && !isDropped) { return }
    state.pointee.unmarkShared(block)
    if (isDropped || isHuge) && block.isBroken && block.pointee.released == 0 && block.pointee.inFlight == 0 {
      state.pointee.unlist(block)
      block.pointee.flags.remove(.broken)
      block.pointee.backing = isHuge ? .huge : .unknown
      block.pointee.cause = .none
      state.pointee.clearPhantom(block)
      state.pointee.enlist(block)
    }
  }
}

extension HeapState {
  /// Takes everything out of flight, not knowing whether it was released.
  mutating func abandonFlights() {
    let count = batch.count
    batch.count = 0
    runBound = 0
    releaseEpoch += 1
    for index in 0..<count {
      // Broken, as it has to be taken for, and stays so.
      origins[index].breaksBlock = false
      for number in 0..<max(origins[index].wholeBlocks, 1) {
        let block = arenas[Int(origins[index].block.pointee.arena)].block(
          Int(origins[index].block.pointee.index) + number)
        block.pointee.flags.insert(.broken)
        block.pointee.backing = .unknown
      }
      batch.known[index].effect = .postponed
      batch.known[index].sharing = .possible
      _ = book(index, of: count, batch.known[index])
    }
    wasPostponed = false
  }
}
