// What the kernel really has under each block.
//
// The heap believes things: that a first touch brought a hugepage, that a released page is gone, that an intact block
// still is. Every belief can be wrong: hugepages fail to be allocated, khugepaged rebuilds what was split, reclaim splits
// what was whole and takes what was lazily free. A residency pass walks the arenas with the kernel's own scan, 128 MiB
// at a time with the lock open, and corrects the beliefs about free pages and backing. An observation is the same walk
// without corrections.
//
// Between scan and correction other threads go on. A free page may only be believed absent if no page of its block was
// freed since the scan began (each free counts the block's `version` up) and no release was booked (`releaseEpoch`).

extension PageHeapCore {
  /// Blocks per scan.
  static var blocksPerScan: Int { 64 }

  /// Corrects what the heap believes of backing and residency. About a millisecond for 8 GiB of hugepages.
  ///
  /// - Throws: the kernel's error when residency cannot be asked at all.
  package func residencyPass() throws(KernelError) -> ResidencyReport {
    let report = try walk(correcting: true)
    reviewAllShared()
    return report
  }

  /// The same figures without correcting anything: measuring does not change what the heap decides.
  package func observe() throws(KernelError) -> ResidencyReport { try walk(correcting: false) }

  private func walk(correcting: Bool) throws(KernelError) -> ResidencyReport {
    var report = ResidencyReport()
    lock.lock()
    state.pointee.pendingOperations += 1
    let arenas = state.pointee.arenaCount
    lock.unlock()
    defer {
      lock.lock()
      state.pointee.pendingOperations -= 1
      if correcting { state.pointee.totals.residencyPasses += 1 }
      lock.unlock()
    }
    for index in 0..<arenas {
      var first = 0
      while true {
        lock.lock()
        let committed = state.pointee.arenas[index].committedBlocks
        lock.unlock()
        if first >= committed { break }
        let count = min(Self.blocksPerScan, committed - first)
        try scan(arena: index, first: first, count: count, correcting: correcting, &report)
        first += count
      }
    }
    return report
  }

  private func scan(
    arena: Int, first: Int, count: Int, correcting: Bool, _ report: inout ResidencyReport
  ) throws(KernelError) {
    var versions = InlineArray<64, UInt16>(repeating: 0)
    lock.lock()
    let epoch = state.pointee.releaseEpoch
    var arenaCopy = state.pointee.arenas[arena]
    for offset in 0..<count { versions[offset] = arenaCopy.block(first + offset).pointee.version }
    lock.unlock()

    try withScanScratch { (scratch: ScanScratch) throws(KernelError) in
      try scratch.fill(
        AddressRange(start: arenaCopy.address(ofBlock: first), byteCount: count << bytesPerBlockShift), on: kernel)
      lock.lock()
      arenaCopy = state.pointee.arenas[arena]
      let mayCorrect = correcting && epoch == state.pointee.releaseEpoch
      for offset in 0..<count {
        let block = arenaCopy.block(first + offset)
        let seen = scratch.seen(offset)
        report.count(seen, used: block.pointee.kind == .occupied ? Int(block.pointee.used) : 0)
        if mayCorrect && versions[offset] == block.pointee.version {
          state.pointee.correct(block, seen, &report)
        }
      }
      lock.unlock()
    }
  }

  private func withScanScratch(_ body: (ScanScratch) throws(KernelError) -> Void) throws(KernelError) {
    // The memory outlives neither this call nor the lock's open time, and is not the batch's: both may run at once.
    var words = InlineArray<1024, UInt64>(repeating: 0)
    var regions = InlineArray<256, ResidentRegion>(
      repeating: ResidentRegion(range: AddressRange(start: 0, byteCount: 0), isHuge: false, isPresent: false))
    var bits = (huge: UInt64(0), unknown: UInt64(0))
    var error: KernelError? = nil
    withUnsafeMutablePointer(to: &words) { wordsPointer in
      withUnsafeMutablePointer(to: &regions) { regionsPointer in
        withUnsafeMutablePointer(to: &bits) { bitsPointer in
          let masks = UnsafeMutableRawPointer(bitsPointer).assumingMemoryBound(to: UInt64.self)
          let words = UnsafeMutableRawPointer(wordsPointer).assumingMemoryBound(to: UInt64.self)
          let scratch = ScanScratch(
            present: words, away: words + 512, huge: masks, unknown: masks + 1,
            regions: UnsafeMutableBufferPointer(
              start: UnsafeMutableRawPointer(regionsPointer).assumingMemoryBound(to: ResidentRegion.self), count: 256))
          do throws(KernelError) {
            try body(scratch)
          } catch let caught { error = caught }
        }
      }
    }
    if let error { throw error }
  }
}

/// What was seen of one block: which pages are in memory, and whether one hugepage maps them.
struct SeenBlock {
  var present: PageMap
  /// Pages that are elsewhere with their contents: swapped out, or being moved by the kernel just now.
  var away: PageMap
  var presentCount: Int
  var isHuge: Bool
  /// The kernel said what maps the pages, not only that they are there.
  var isBackingKnown: Bool
}

/// Room for the kernel's answer about 64 blocks.
struct ScanScratch {
  /// 512 bits per block.
  let present: UnsafeMutablePointer<UInt64>
  let away: UnsafeMutablePointer<UInt64>
  /// A bit per block.
  let huge: UnsafeMutablePointer<UInt64>
  /// A bit per block: pages are there, and nobody knows on what.
  let unknown: UnsafeMutablePointer<UInt64>
  let regions: UnsafeMutableBufferPointer<ResidentRegion>

  func fill<K: Kernel>(_ range: AddressRange, on kernel: K) throws(KernelError) {
    var start = range.start
    while start < range.end {
      let answer = try kernel.residency(
        of: AddressRange(start: start, byteCount: Int(range.end - start)), into: regions)
      for index in 0..<answer.count { enter(regions[index], base: range.start) }
      if answer.walkedTo <= start { return }
      start = answer.walkedTo
    }
  }

  private func enter(_ region: ResidentRegion, base: UInt) {
    let map = region.isPresent ? present : away
    var page = Int((region.range.start - base) >> UInt(pageShift))
    let end = Int((region.range.end - base) >> UInt(pageShift))
    while page < end {
      let block = page / pagesPerBlock
      let stop = min(end, (block + 1) * pagesPerBlock)
      let run = PageRun(start: page - block * pagesPerBlock, count: stop - page)
      PageMap(map + block * wordsPerMap).set(run)
      if region.isHuge && run.count == pagesPerBlock { huge.pointee |= 1 << UInt64(block) }
      if !region.isBackingKnown { unknown.pointee |= 1 << UInt64(block) }
      page = stop
    }
  }

  func seen(_ offset: Int) -> SeenBlock {
    let map = PageMap(present + offset * wordsPerMap)
    return SeenBlock(
      present: map, away: PageMap(away + offset * wordsPerMap), presentCount: map.count,
      isHuge: huge.pointee >> UInt64(offset) & 1 != 0,
      isBackingKnown: unknown.pointee >> UInt64(offset) & 1 == 0)
  }
}

extension ResidencyReport {
  mutating func count(_ seen: SeenBlock, used: Int) {
    scannedBlocks += 1
    residentBytes += seen.presentCount << pageShift
    usedPages += used
    if seen.isHuge {
      hugeBlocks += 1
      hugeBytes += bytesPerBlock
      usedPagesOnHuge += used
    } else if seen.presentCount > 0 && seen.isBackingKnown {
      splitBlocks += 1
    } else if seen.presentCount == 0 {
      absentBlocks += 1
    }
  }
}

extension HeapState {
  /// Brings what is believed of `block` in line with what was seen of it.
  mutating func correct(_ block: Block, _ seen: SeenBlock, _ report: inout ResidencyReport) {
    switch block.pointee.kind {
    case .absent, .releasing: return
    case .occupied: if block.pointee.inFlight != 0 { return }
    case .freeResident: break
    }
    // Presence alone says nothing of splits, and without that nothing is worth a correction.
    if !seen.isBackingKnown { return }
    // A hugepage that is being moved is not there for a moment; it is neither lost nor gone.
    if seen.presentCount == 0 && !seen.away.isEmpty { return }
    unlist(block)
    if seen.isHuge {
      foundHuge(block, &report)
    } else if seen.presentCount > 0 {
      foundSplit(block, seen, &report)
    } else if block.pointee.kind == .freeResident {
      // Free as a whole and not in memory: taken by the kernel, or never touched.
      freeResidentBlocks -= 1
      releasedPages -= Int(block.pointee.released)
      lazyPages -= Int(block.pointee.lazy)
      totals.lazyPagesTaken += Int(block.pointee.lazy)
      arenas[Int(block.pointee.arena)].markTaken(Int(block.pointee.index))
      let wasReleased = block.pointee.flags.contains(.wasReleased)
      makeAbsent(block)
      if !wasReleased { block.pointee.flags.remove(.wasReleased) }
      return
    }
    enlist(block)
  }

  mutating func unlist(_ block: Block) {
    if block.pointee.kind == .occupied {
      lists.remove(block)
      releasable.remove(block)
    } else if block.isBroken {
      freeBroken.remove(block)
    } else if block.pointee.released != 0 {
      freeLazy.remove(block)
    } else {
      freeIntact.remove(block)
    }
  }

  mutating func enlist(_ block: Block) {
    if block.pointee.kind == .occupied { relist(block) } else { listFree(block) }
  }

  private mutating func foundHuge(_ block: Block, _ report: inout ResidencyReport) {
    let believed = block.pointee.backing
    block.pointee.backing = .huge
    // Huge and no good while it is shared: the first write would copy it page by page.
    let isLost = block.pointee.kind == .freeResident && isLostToSharing(block)
    if (isLost || !block.isBroken) && block.pointee.released == 0 { return }
    // Lazily free as a whole, and still huge.
    if block.pointee.kind == .freeResident && (!block.isBroken || Int(block.pointee.lazy) == pagesPerBlock) { return }
    if believed == .split {
      report.reinflatedBlocks += 1
      totals.reinflatedBlocks += 1
    }
    becomeHuge(block)
    if believed == .split { block.pointee.cause = .reinflated }
    if isLost { block.pointee.flags.insert(.broken) }
  }

  private mutating func foundSplit(_ block: Block, _ seen: SeenBlock, _ report: inout ResidencyReport) {
    if block.pointee.backing == .huge {
      report.lostBlocks += 1
      totals.lostBlocks += 1
      block.pointee.cause = .lost
    } else if !block.isBroken {
      // After a fork the first write to each page copies it: that was no want of hugepages.
      block.pointee.cause = mayBeShared(block) ? .shared : .neverHuge
    }
    block.pointee.backing = .split
    block.pointee.flags.insert(.broken)
    // Free pages that are nowhere are gone, and read as zero when they come back. Those that are away come back with
    // what was in them.
    var released = 0
    var lazy = 0
    var zero = 0
    var hasComeBack = false
    for word in 0..<wordsPerMap {
      let somewhere = seen.present.words[word] | seen.away.words[word]
      let absent = ~somewhere & ~block.used.words[word]
      // What was gone and is there again came back as zeros, in a hugepage that has been split since.
      let before = block.released(word: word)
      let back = before & block.zeroMap.words[word] & somewhere
      hasComeBack = hasComeBack || back != 0
      totals.lazyPagesTaken += (before & ~block.zeroMap.words[word] & absent).nonzeroBitCount
      let after = before & ~back | absent
      block.marks.words[word] = block.starts(word: word) | after
      block.zeroMap.words[word] |= absent
      released += after.nonzeroBitCount
      zero += block.zeroMap.words[word].nonzeroBitCount
      lazy += (after & ~block.zeroMap.words[word]).nonzeroBitCount
    }
    if hasComeBack {
      report.reinflatedBlocks += 1
      totals.reinflatedBlocks += 1
    }
    releasedPages += released - Int(block.pointee.released)
    lazyPages += lazy - Int(block.pointee.lazy)
    block.pointee.released = UInt16(released)
    block.pointee.lazy = UInt16(lazy)
    if zero != 0 { block.pointee.flags.insert(.hasZero) }
  }
}
