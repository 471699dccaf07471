// Contents that stay as long as memory lasts: discarding them, and asking what is left.
//
// A discard marks each page (Discarding.swift) and gives it to the kernel with MADV_FREE. It stays where it is until memory
// is short. Undoing adds zero to the mark of each page in one locked step, which pins the page and tells whether it is still
// there (Pinning.swift); a page that the kernel says it does not have is lost without being touched, so that the answer costs
// no memory.
//
// Why the verdict is right, whatever the kernel does meanwhile: nothing is inferred from one page about another. The kernel
// may split the hugepage, take a part of it, put it together again with zeros in the place of what it took, before the
// discard looks, between its look and MADV_FREE, before the undo looks, and between any two of its steps. Each page's own
// word is read when the page can not go any more: not zero means that nobody took the page since it was marked, since a page
// that is taken comes back as zeros in every one of these ways. Whether memory is huge decides what a call costs, not what it
// answers. One mark for a hugepage would save 15 of 24 us, and a khugepaged at the wrong moment would make it lie.
//
// The lock is open in every system call, and while marks are written and read. The caller owns the span meanwhile, and the pages
// are used, so that no pass of the heap touches them: a release of other pages of the same block may be in flight, split
// the hugepage, or drop its neighbours. At worst the kernel finds the folio locked, and MADV_FREE passes over it, which
// costs the kernel a chance and nobody a byte. A rebuild would copy and so pin what is discarded: none is begun in a block
// that holds such pages.

extension PageHeapCore {
  /// Gives the contents of `span` up, as long as memory is short of nothing they stay. `span` may be any range of pages that are
  /// all handed out and of which none is discarded. They stay handed out, used and charged; nobody may read or write
  /// them until `undoDiscard`. They may be freed, and a span may be shrunk, at any time; a span whose last page is discarded does
  /// not grow.
  ///
  /// - Complexity: O(pages): 1 us and 25 ns a page for whole hugepages; a part of a hugepage costs its split (150 us).
  /// - Throws: `invalidRequest` if a page is not handed out or discarded already; `sharedWithChild` as long as a forked child
  ///   maps one of them; `kernel` if tables cannot be mapped, or the kernel refuses (locked memory). Nothing has changed then.
  package func discard(_ span: PageSpan) throws(HeapError) {
    guard let range = AddressRange(span) else { throw .invalidRequest }
    lock.lock()
    // The heap must not go while the lock is open.
    state.pointee.pendingOperations += 1
    defer {
      state.pointee.pendingOperations -= 1
      lock.unlock()
    }
    guard state.pointee.isHandedOut(range) else { throw .invalidRequest }
    try mapDiscardTables(for: range)
    guard state.pointee.beginDiscard(range) else { throw .invalidRequest }
    if isSharedWithChild(range) {
      state.pointee.endDiscard(range)
      throw .sharedWithChild
    }
    var position = range.start
    while position < range.end {
      let part = DiscardScratch.firstPart(
        of: AddressRange(start: position, byteCount: Int(bitPattern: range.end &- position)))
      // Later refusals leave pages that are marked and not taken, which is as good as pages that nobody wanted.
      if let error = mark(part), position == range.start, unmark(part) {
        state.pointee.endDiscard(range)
        throw .kernel(error)
      }
      position = part.end
    }
    state.pointee.totals.discards += 1
  }

  /// Takes the contents of `span` back and says what is left of them. `span` may be any range of pages that are all discarded. From
  /// now on nothing of them is lost any more. Lost pages read as zero; a page that was not in memory when it was
  /// discarded is never lost.
  ///
  /// If `lostPages` is given it has a word for each 64 pages of the span, and each page's bit is set if it was lost.
  ///
  /// - Complexity: O(pages): 1 us and 20 ns a page that is there.
  /// - Throws: `invalidRequest` if a page is not discarded; nothing has changed then.
  package func undoDiscard(
    _ span: PageSpan, lostPages: UnsafeMutablePointer<UInt64>? = nil
  ) throws(HeapError) -> UndoneDiscard {
    guard let range = AddressRange(span) else { throw .invalidRequest }
    lock.lock()
    state.pointee.pendingOperations += 1
    defer {
      state.pointee.pendingOperations -= 1
      lock.unlock()
    }
    guard state.pointee.isDiscarded(range) else { throw .invalidRequest }
    if let lostPages { lostPages.update(repeating: 0, count: (span.pageCount + 63) / 64) }
    var lost = 0
    var position = range.start
    while position < range.end {
      let part = DiscardScratch.firstPart(
        of: AddressRange(start: position, byteCount: Int(bitPattern: range.end &- position)))
      lost += take(part, takesMarksOut: true, lostPages, base: range.start)
      position = part.end
    }
    state.pointee.endDiscard(range)
    state.pointee.totals.discardedPagesLost += lost
    if lost == 0 {
      state.pointee.totals.undoneIntact += 1
      return UndoneDiscard(verdict: .intact, lostPages: 0)
    }
    if lost == span.pageCount { state.pointee.totals.undoneLost += 1 } else { state.pointee.totals.undonePartly += 1 }
    return UndoneDiscard(verdict: lost == span.pageCount ? .lost : .partlyLost, lostPages: lost)
  }

  // MARK: Steps of a discard. Each with the lock held on entry and return, and open in between.

  private func mapDiscardTables(for range: AddressRange) throws(HeapError) {
    while let index = state.pointee.arenaWithoutDiscards(range) {
      let bytes = state.pointee.arenas[index].discardBytes
      lock.unlock()
      let memory: UnsafeMutableRawPointer
      do throws(KernelError) {
        memory = try kernel.mapMetadata(byteCount: bytes)
      } catch {
        lock.lock()
        throw .kernel(error)
      }
      lock.lock()
      if state.pointee.arenas[index].discards == nil {
        state.pointee.arenas[index].discards = memory
        state.pointee.metadataBytes += bytes
      } else {
        // Another thread was first.
        lock.unlock()
        kernel.unmapMetadata(memory, byteCount: bytes)
        lock.lock()
      }
    }
  }

  /// Whether a child maps a block of `range` too, as far as forks are known. A mark would copy its page, and MADV_FREE do nothing.
  private func isSharedWithChild(_ range: AddressRange) -> Bool {
    if state.pointee.sharedBlocks == 0 { return false }
    var address = range.start & ~UInt(bytesPerBlock - 1)
    while address < range.end {
      if let block = state.pointee.block(at: address), state.pointee.mayBeShared(block), !reviewShared(block) {
        return true
      }
      address &+= UInt(bytesPerBlock)
    }
    return false
  }

  /// Marks the pages of `range` and gives them to the kernel.
  private func mark(_ range: AddressRange) -> KernelError? {
    DiscardScratch.with { scratch in
      lock.unlock()
      scratch.look(at: range, on: kernel)
      var isThere = false
      DiscardScratch.forEachPart(of: range) { block, run, address in
        PageMap.forEachWord(of: run) { word, mask in
          let there = scratch.there(block).words[word] & mask
          scratch.untouched(block).words[word] = mask & ~there
          isThere = isThere || there != 0
        }
        forEachSetPage(of: scratch.there(block), in: run, at: address) { page, address in
          if kernel.word(at: address) == 0 { scratch.planted(block).setBit(page) }
        }
      }
      lock.lock()
      // Before a mark is planted: a fork may come at any time.
      DiscardScratch.forEachPart(of: range) { block, run, address in
        guard let each = state.pointee.block(at: address), let maps = state.pointee.discards(of: each) else { return }
        PageMap.forEachWord(of: run) { word, mask in
          let discarded = maps.discarded.words[word] & mask
          maps.planted.words[word] |= scratch.planted(block).words[word] & discarded
          maps.untouched.words[word] |= scratch.untouched(block).words[word] & discarded
        }
      }
      lock.unlock()
      defer { lock.lock() }
      if !isThere { return nil }
      DiscardScratch.forEachPart(of: range) { block, run, address in
        forEachSetPage(of: scratch.planted(block), in: run, at: address) { _, address in kernel.setWord(1, at: address)
        }
      }
      let outcome = withUnsafePointer(to: range) { kernel.advise(.free, UnsafeBufferPointer(start: $0, count: 1)) }
      DiscardScratch.forEachPart(of: range) { block, run, address in
        if run.count < pagesPerBlock && scratch.isHuge(block) { noteSplit(at: address) }
      }
      return outcome.error
    }
  }

  /// MADV_FREE of a part of a hugepage splits it, unless it could not. With the lock open.
  private func noteSplit(at address: UInt) {
    let start = address & ~UInt(bytesPerBlock - 1)
    if isHuge(AddressRange(start: start, byteCount: bytesPerBlock)) { return }
    lock.lock()
    if let block = state.pointee.block(at: start) { state.pointee.noteSplitByDiscard(block) }
    lock.unlock()
  }

  /// Takes the marks of a range out again that the kernel refused; false if it took pages of it nevertheless.
  private func unmark(_ range: AddressRange) -> Bool {
    if take(range, takesMarksOut: false, nil, base: range.start) > 0 { return false }
    _ = take(range, takesMarksOut: true, nil, base: range.start)
    return true
  }

  /// Pins the pages of `range` and answers how many were lost; sets their bits, counted from `base`.
  private func take(
    _ range: AddressRange, takesMarksOut: Bool, _ lostPages: UnsafeMutablePointer<UInt64>?, base: UInt
  ) -> Int {
    DiscardScratch.with { scratch in
      DiscardScratch.forEachPart(of: range) { block, run, address in
        guard let each = state.pointee.block(at: address), let maps = state.pointee.discards(of: each) else { return }
        PageMap.forEachWord(of: run) { word, mask in
          scratch.planted(block).words[word] = maps.planted.words[word] & mask
          scratch.untouched(block).words[word] = maps.untouched.words[word] & mask
        }
      }
      lock.unlock()
      defer { lock.lock() }
      scratch.look(at: range, on: kernel)
      var lost = 0
      DiscardScratch.forEachPart(of: range) { block, run, address in
        let planted = scratch.planted(block)
        // What is left of the map of pages that are there: those that survived. Untouched pages are not looked at.
        let there = scratch.there(block)
        PageMap.forEachWord(of: run) { word, _ in there.words[word] &= ~scratch.untouched(block).words[word] }
        forEachSetPage(of: there, in: run, at: address) { page, address in
          if kernel.pin(at: address) == 0 {
            there.clearBit(page)
          } else if takesMarksOut && planted[page] {
            kernel.setWord(0, at: address)
          }
        }
        let offset = Int(bitPattern: (address &- base) &>> UInt(pageShift))
        PageMap.forEachWord(of: run) { word, mask in
          var gone = mask & ~there.words[word] & ~scratch.untouched(block).words[word]
          lost += gone.nonzeroBitCount
          guard let lostPages else { return }
          while gone != 0 {
            let page = offset &+ word &* 64 &+ gone.trailingZeroBitCount &- run.start
            lostPages[page &>> 6] |= 1 &<< UInt64(truncatingIfNeeded: page & 63)
            gone &= gone &- 1
          }
        }
      }
      return lost
    }
  }

  /// Calls `body` with number and address of each page of `run` whose bit is set; `start` is the address of the first of the run.
  @inline(__always)
  private func forEachSetPage(of map: PageMap, in run: PageRun, at start: UInt, _ body: (Int, UInt) -> Void) {
    var page = map.firstSet(from: run.start)
    while page < run.end {
      body(page, start &+ UInt(bitPattern: page &- run.start) &<< UInt(pageShift))
      page = map.firstSet(from: page &+ 1)
    }
  }
}
