// Reuse of pageblocks that strategy `deferred` had freed lazily.
//
// The kernel may have dropped such a block at any time, and nobody told the heap. Its first word was given a mark before (see
// Pinning.swift); who takes the block back adds zero to that word in one atomic operation. That makes the hugepage dirty as a
// whole, so that it stays from now on, and reads what was there: the mark, and the block is the hugepage that it was; or zero, and it
// was dropped and has just been faulted in anew.
//
// The block is taken from the list under the lock, as any other, and settled here with the lock open, since what was dropped is a page
// fault, hundreds of microseconds. The first span of a block begins at its beginning, so the mark's page is the caller's; of a span
// at a wished address it may not be, and then the block waits for whoever gets that page. Should a residency pass come
// between, it has seen what there is, and the mark says nothing new.
//
// The mark speaks for its hugepage. Where reclaim split that first and took other pages of it than the first, the answer is
// that the block was kept; the next residency pass sees that it is split. No contents depend on it: memory that has to be zero is zeroed.

extension HeapState {
  /// The first block of `range` that was taken back and is to be settled.
  fileprivate func takenBack(in range: AddressRange) -> (block: Block, address: UInt)? {
    var address = (range.start &+ UInt(bytesPerBlock - 1)) & ~UInt(bytesPerBlock - 1)
    while address < range.end {
      guard let block = block(at: address) else { return nil }
      if block.pointee.backing == .takenBack { return (block, address) }
      address &+= UInt(bytesPerBlock)
    }
    return nil
  }
}

extension PageHeapCore {
  /// `span`, whose blocks are settled if any were lazily free. On the slow ways of an allocation only: the quick ones take blocks in use,
  /// or intact ones (asked there, it would be eleven instructions of each).
  @inline(__always)
  func settled(_ span: AllocatedSpan) -> AllocatedSpan {
    if marksLazyBlocks {
      settleTakenBack(AddressRange(start: span.span.address, byteCount: span.span.pageCount &<< pageShift))
    }
    return span
  }

  /// Pins the lazily freed blocks that begin in `range`, which its caller has just been given, and books which of them the
  /// kernel had dropped. Lock open on entry and return.
  ///
  /// - Complexity: O(blocks that begin in the range); an atomic operation for each that was lazily free.
  @inline(never)
  func settleTakenBack(_ range: AddressRange) {
    var rest = range
    if rest.start & UInt(bytesPerBlock - 1) != 0 && rest.byteCount < bytesPerBlock { return }
    while true {
      lock.lock()
      let found = state.pointee.takenBack(in: rest)
      lock.unlock()
      guard let (block, address) = found else { return }
      let isKept = kernel.pin(at: address) == K.lazyMark(of: address)
      // All of it is the caller's, who has not written to it yet.
      let isWhole = rest.end - address >= UInt(bytesPerBlock)
      if !isKept && isWhole { clearPageTable(AddressRange(start: address, byteCount: bytesPerBlock)) }
      lock.lock()
      // A residency pass that came between knows better.
      if block.pointee.backing == .takenBack { state.pointee.settle(block, isKept: isKept) }
      lock.unlock()
      let next = address &+ UInt(bytesPerBlock)
      if next >= rest.end { return }
      rest = AddressRange(start: next, byteCount: Int(rest.end - next))
    }
  }
}

extension PageHeapCore {
  /// Empties `block` for good. Reclaim maps a hugepage by pages before it takes it, and leaves the page table behind, with which the
  /// next 512 touches would bring base pages (measured, Linux 6.18: 8,192 faults for 16 blocks, and 16 after this). MADV_DONTNEED of
  /// all of a block frees the page table too. Of a block that others may have pages in by now it would be their contents.
  private func clearPageTable(_ block: AddressRange) {
    let outcome = withUnsafePointer(to: block) {
      kernel.advise(.dontneed, UnsafeBufferPointer(start: $0, count: 1))
    }
    lock.lock()
    state.pointee.totals.releaseCalls += outcome.calls
    state.pointee.totals.releaseNanoseconds += outcome.nanoseconds
    lock.unlock()
  }
}

extension HeapState {
  fileprivate mutating func settle(_ block: Block, isKept: Bool) {
    if isKept {
      block.pointee.backing = .huge
      return
    }
    block.pointee.backing = .unknown
    totals.lazyPagesReused -= pagesPerBlock
    totals.lazyPagesTaken += pagesPerBlock
    totals.pagesRefaultedWhole += pagesPerBlock
  }
}
