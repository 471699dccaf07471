// A model of TCMalloc's hugepage filler: the published placement rule, and nothing else of an allocator.
//
// The placement program's published figures are of one run, and the sequence of its second heap is not known. So the
// heap is held against the rule itself, run on the same sequence, and this model is that rule: blocks of 256 pages of 8 KiB;
// blocks without released pages first, then those that have free pages besides the released ones, then those that have not; in
// each the shortest sufficient longest free range, then most allocations by powers of two, then the block that has waited
// longest; best fit within. A release gives back every free page of a block, partly released blocks first, then by used pages.
// It is written from that description, shares nothing with the heap, and gives the published 256 and 268 blocks of
// the first heap exactly.
//
// Source: the filler's description in "Beyond malloc efficiency to fleet efficiency" (OSDI 2021), and its figures.

/// One block of the model.
final class FillerBlock {
  /// Bit maps of 256 pages.
  var used: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  var released: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  var usedPages = 0
  var releasedPages = 0
  var allocations = 0
  var longest = 256
  var rank = -1
  var key = 0
  /// Its place in time among the blocks of a list.
  var next: FillerBlock?
  unowned(unsafe) var previous: FillerBlock?

  /// Calls `body` with start and length of each run of pages that are clear in `map`, ascending.
  static func forEachRun(_ map: (UInt64, UInt64, UInt64, UInt64), _ body: (Int, Int) -> Void) {
    var open = 0
    withUnsafeBytes(of: map) { bytes in
      let words = bytes.bindMemory(to: UInt64.self)
      for index in 0..<4 {
        var rest = words[index]
        var position = 0
        while position < 64 {
          let clear = min(rest.trailingZeroBitCount, 64 - position)
          open += clear
          position += clear
          if position == 64 { break }
          if open > 0 { body(index * 64 + position - open, open) }
          open = 0
          rest = clear == 64 ? 0 : rest >> UInt64(clear)
          let set = (~rest).trailingZeroBitCount
          position += set
          rest = set == 64 ? 0 : rest >> UInt64(set)
        }
      }
    }
    if open > 0 { body(256 - open, open) }
  }

  /// Sets or clears `count` pages from `start` on, and returns how many were set before.
  static func mark(_ map: inout (UInt64, UInt64, UInt64, UInt64), _ start: Int, _ count: Int, _ value: Bool) -> Int {
    withUnsafeMutableBytes(of: &map) { bytes in
      let words = bytes.bindMemory(to: UInt64.self)
      var before = 0
      var page = start
      while page < start + count {
        let width = min(64 - page % 64, start + count - page)
        let ones: UInt64 = width == 64 ? ~0 : (1 << UInt64(width)) - 1
        let mask = ones << UInt64(page % 64)
        before += (words[page / 64] & mask).nonzeroBitCount
        if value { words[page / 64] |= mask } else { words[page / 64] &= ~mask }
        page += width
      }
      return before
    }
  }
}

/// The filler: a placement by the published rule, in pages of 8 KiB.
final class FillerModel {
  private struct List {
    var first: FillerBlock?
    var last: FillerBlock?
  }
  private static let keys = 257 * 8
  private var lists = Array(repeating: List(), count: 3 * keys)
  private var occupied = Array(repeating: UInt64(0), count: (3 * keys + 63) / 64)
  private(set) var blocks: [FillerBlock] = []
  private var empty: [FillerBlock] = []
  private(set) var usedPages = 0
  private(set) var calls = 0
  private(set) var pagesReleased = 0
  private(set) var pagesRefaulted = 0

  func allocate(_ count: Int) -> (block: FillerBlock, start: Int) {
    let block = find(count) ?? fresh()
    var start = -1
    var length = Int.max
    FillerBlock.forEachRun(block.used) { from, pages in
      if pages >= count && pages < length { (start, length) = (from, pages) }
    }
    unlink(block)
    _ = FillerBlock.mark(&block.used, start, count, true)
    let refaulted = FillerBlock.mark(&block.released, start, count, false)
    block.releasedPages -= refaulted
    pagesRefaulted += refaulted
    block.usedPages += count
    block.allocations += 1
    usedPages += count
    link(block)
    return (block, start)
  }

  func free(_ block: FillerBlock, _ start: Int, _ count: Int) {
    unlink(block)
    _ = FillerBlock.mark(&block.used, start, count, false)
    block.usedPages -= count
    block.allocations -= 1
    usedPages -= count
    if block.usedPages == 0 {
      block.released = (0, 0, 0, 0)
      block.releasedPages = 0
      empty.append(block)
    } else {
      link(block)
    }
  }

  /// Free pages of occupied blocks that are not released.
  var freePages: Int { blocks.reduce(0) { $0 + ($1.usedPages > 0 ? 256 - $1.usedPages - $1.releasedPages : 0) } }

  /// Releases block by block until `pages` are.
  func release(pages: Int) {
    let goal = pages == Int.max ? Int.max : pagesReleased + pages
    for partly in [true, false] {
      let candidates = blocks.enumerated().filter { _, block in
        block.usedPages > 0 && block.usedPages + block.releasedPages < 256 && (block.releasedPages > 0) == partly
      }
      for (_, block) in candidates.sorted(by: { ($0.1.usedPages, $0.0) < ($1.1.usedPages, $1.0) }) {
        if pagesReleased >= goal { return }
        release(block)
      }
    }
  }

  private func release(_ block: FillerBlock) {
    unlink(block)
    let taken = (
      block.used.0 | block.released.0, block.used.1 | block.released.1, block.used.2 | block.released.2,
      block.used.3 | block.released.3
    )
    FillerBlock.forEachRun(taken) { start, count in
      _ = FillerBlock.mark(&block.released, start, count, true)
      block.releasedPages += count
      pagesReleased += count
      calls += 1
    }
    link(block)
  }

  private func fresh() -> FillerBlock {
    if let block = empty.popLast() { return block }
    let block = FillerBlock()
    blocks.append(block)
    return block
  }

  private func find(_ count: Int) -> FillerBlock? {
    for rank in 0..<3 {
      var index = rank * FillerModel.keys + count * 8
      let end = (rank + 1) * FillerModel.keys
      while index < end {
        let rest = occupied[index / 64] >> UInt64(index % 64)
        if rest == 0 {
          index = (index / 64 + 1) * 64
          continue
        }
        index += rest.trailingZeroBitCount
        if index < end { return lists[index].first }
      }
    }
    return nil
  }

  private func link(_ block: FillerBlock) {
    block.longest = 0
    FillerBlock.forEachRun(block.used) { block.longest = max(block.longest, $1) }
    let chunk = 7 - min(7, Int.bitWidth - 1 - block.allocations.leadingZeroBitCount)
    block.rank = block.releasedPages == 0 ? 0 : 256 - block.usedPages > block.releasedPages ? 1 : 2
    block.key = block.rank * FillerModel.keys + block.longest * 8 + chunk
    block.previous = lists[block.key].last
    block.next = nil
    if let last = block.previous { last.next = block } else { lists[block.key].first = block }
    lists[block.key].last = block
    occupied[block.key / 64] |= 1 << UInt64(block.key % 64)
  }

  private func unlink(_ block: FillerBlock) {
    if block.rank < 0 { return }
    block.rank = -1
    if let next = block.next { next.previous = block.previous } else { lists[block.key].last = block.previous }
    if let previous = block.previous { previous.next = block.next } else { lists[block.key].first = block.next }
    block.next = nil
    if lists[block.key].first == nil { occupied[block.key / 64] &= ~(1 << UInt64(block.key % 64)) }
  }

  deinit {
    // Long chains must not be freed by recursion.
    for block in blocks { block.next = nil }
  }
}
