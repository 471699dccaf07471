// What madvise does to a block, and what it costs.
//
// The rules are the model's that the heap's tests check against the real kernel (see SimulatedBlock.swift): a part of a
// hugepage cannot be freed lazily, cooled or paged out without splitting it, and MADV_DONTNEED of a part only unmaps; while a child
// shares a folio, nothing but DONTNEED has an effect.

import HugeSpanCore

extension SimulatedState {
  private typealias Price = SimulationOptions.Prices

  /// Advises one range; the time that it takes is added to `microseconds`.
  mutating func advise(_ advice: Advice, _ range: AddressRange, _ microseconds: inout Double) -> KernelError? {
    guard range.byteCount > 0, range.start & 4095 == 0, range.byteCount & 4095 == 0 else { return .invalid }
    guard range.start >= Self.base, index(range.end - 1) < blockCount else { return .outOfMemory }
    microseconds += costs.releaseRange
    var address = range.start
    while address < range.end {
      let index = index(address)
      let start = self.address(index)
      let end = min(start + 1 << 21, range.end)
      let pages = Int(address - start) >> 12..<Int(end - start) >> 12
      guard advice == .hugepage || blocks[index].has(Flag.committed) else { return .outOfMemory }
      if let error = advise(advice, index, pages, &microseconds) { return error }
      address = end
    }
    return nil
  }

  private mutating func advise(
    _ advice: Advice, _ index: Int, _ range: Range<Int>, _ microseconds: inout Double
  ) -> KernelError? {
    switch advice {
    case .hugepage: blocks[index].flags |= Flag.advised
    case .populate: touch(address(index) + UInt(range.lowerBound) << 12, pages: range.count, changes: false)
    case .dontneed: microseconds += dontneed(index, range)
    case .decommit:
      microseconds += dontneed(index, range)
      if range.count == Self.pageCount { blocks[index].flags &= ~(Flag.committed | Flag.advised) }
    case .free: microseconds += free(index, range)
    case .cold: microseconds += cool(index, range)
    case .pageout: microseconds += pageOut(index, range)
    case .collapse:
      microseconds += costs.collapse
      if range.count < Self.pageCount || blocks[index].present == 0 { return .invalid }
      if blocks[index].has(Flag.mappedHuge) { return nil }
      if happens(options.collapseFailure) { return .tryAgain }
      if !collapse(index) { return .outOfMemory }
    }
    return nil
  }

  private mutating func dontneed(_ index: Int, _ range: Range<Int>) -> Double {
    let block = blocks[index]
    var price = 0.0
    if block.has(Flag.mappedHuge) {
      price =
        range.count == Self.pageCount ? costs.releaseBlock : Price.pmdSplit + Double(range.count) * costs.releasePage
    } else if block.side != 0 {
      price = Double(presentPages(index, range)) * costs.releasePage
    }
    change(index) { $0.unmap(index, range) }
    return price
  }

  @inline(__always)
  private func presentPages(_ index: Int, _ range: Range<Int>) -> Int {
    if blocks[index].side == 0 { return min(Int(blocks[index].present), range.count) }
    let pages = pages(index)
    var count = 0
    SimulatedPages.forEach(range) { word, mask in count += (pages.present[word] & mask).nonzeroBitCount }
    return count
  }

  private mutating func free(_ index: Int, _ range: Range<Int>) -> Double {
    let isShared = isFolioShared(index)
    if blocks[index].has(Flag.mappedHuge) {
      if range.count == Self.pageCount {
        if !isShared { change(index) { $0.blocks[index].lazy = 512 } }
        return Price.lazyBlock
      }
      if isShared { return Price.lazyBlock }
      change(index) { $0.split(index) }
      return costs.split + freePages(index, range, isShared: false)
    }
    return freePages(index, range, isShared: isShared)
  }

  private mutating func freePages(_ index: Int, _ range: Range<Int>, isShared: Bool) -> Double {
    if blocks[index].side == 0 { return 0 }
    let pages = pages(index)
    var count = 0
    change(index) {
      SimulatedPages.forEach(range) { word, mask in
        var freed = mask & pages.present[word] & ~(pages.shared[word] & ~pages.folio[word])
        if isShared { freed &= ~pages.folio[word] }
        pages.marks[word] |= freed
        count += freed.nonzeroBitCount
      }
      $0.recount(index)
    }
    return Double(count) * Price.lazyPage
  }

  /// Splits the hugepage if a part of it is meant; marks what is cold.
  private mutating func cool(_ index: Int, _ range: Range<Int>) -> Double {
    if isFolioShared(index) { return Price.coldBlock }
    let block = blocks[index]
    blocks[index].flags |= Flag.cold
    let isWhole = range.count == Self.pageCount
    if block.has(Flag.mappedHuge) {
      if isWhole { return Price.coldBlock }
    } else {
      if block.folio == 0 || (isWhole && block.folio == 512) { return Price.coldBlock }
      let pages = pages(index)
      var isTouched = false
      SimulatedPages.forEach(range) { word, mask in if pages.folio[word] & mask != 0 { isTouched = true } }
      if !isTouched { return Price.coldBlock }
    }
    change(index) { $0.split(index) }
    return costs.split
  }

  private mutating func pageOut(_ index: Int, _ range: Range<Int>) -> Double {
    let block = blocks[index]
    // Of a folio that is shared nothing goes; base pages beside it may.
    if block.has(Flag.mappedHuge) && block.has(Flag.shared) { return Price.coldBlock }
    if block.has(Flag.mappedHuge) && range.count == Self.pageCount && block.lazy > 0 {
      change(index) { $0.takeLazyHuge(index) }
      return costs.releaseBlock
    }
    var price = 0.0
    if block.has(Flag.mappedHuge) {
      change(index) { $0.split(index) }
      price = costs.split
    }
    price += cool(index, range)
    return price + Double(evict(index, range)) * Price.swapOut
  }

  /// Takes the pages of `range` out of memory: those that are lazily free for nothing, the others to swap as far as there is
  /// any. Returns how many went.
  mutating func evict(_ index: Int, _ range: Range<Int>) -> Int {
    if blocks[index].side == 0 { return 0 }
    let pages = pages(index)
    var room = options.swapBytes >> 12 - totals.swapped
    var gone = 0
    var swapped = 0
    var isWordGone = false
    change(index) {
      SimulatedPages.forEach(range) { word, mask in
        let there = pages.present[word] & mask & ~pages.shared[word]
        let lazy = there & pages.marks[word]
        var kept = there & ~lazy
        while kept.nonzeroBitCount > max(room, 0) { kept &= kept &- 1 }
        room -= kept.nonzeroBitCount
        pages.present[word] &= ~(lazy | kept)
        pages.folio[word] &= ~(lazy | kept)
        pages.marks[word] = pages.marks[word] & ~lazy | kept
        pages.written[word] &= ~lazy
        // What was in swap is no zero page when it comes back.
        pages.written[word] |= kept
        gone += lazy.nonzeroBitCount + kept.nonzeroBitCount
        swapped += kept.nonzeroBitCount
        if word == 0 && lazy & 1 != 0 { isWordGone = true }
      }
      if isWordGone { $0.blocks[index].word = 0 }
      $0.recount(index)
    }
    totals.swapOuts += swapped
    return gone
  }

  /// Copies what is there into a hugepage; false if there is no memory for it.
  mutating func collapse(_ index: Int) -> Bool {
    if !makeRoom(Self.pageCount, mayFail: true, keeping: index) { return false }
    // Making room may have taken the block's own pages.
    if blocks[index].present == 0 { return false }
    let written = blocks[index].side != 0 ? WrittenPages(pages(index).written) : WrittenPages()
    change(index) {
      $0.makeHuge(index)
      $0.blocks[index].written = written
    }
    return true
  }
}
