// Discarded pages: handed out, given to the kernel for the taking, and wanted back if it has not taken them.
//
// Three bits for each page of a block, in a table of the arena that is mapped when the first page of it is discarded, so that
// heaps that never discard pay nothing for it:
//
//   discarded   the page's contents may be dropped by the kernel
//   planted     the page's first word was zero, and is 1 as long as the page is discarded
//   untouched   the page was not in memory: it reads as zero, dropped or not, and needs no mark
//
// A mark is a word that is not zero. Most pages begin with one, which is left as it is; only where the first word is zero
// a 1 is planted, and the bit says what it displaced. So 192 bytes for each block hold all that the marks displaced, no
// byte of a payload is lost to them, and a page of zeros has a mark as any other.
//
// The bits are set before anything is planted and cleared after the last mark is taken out. So whenever a fork comes between, a
// set bit with a zero word is taken for lost, and never is a planted 1 taken for payload.

/// What is known of the discarded pages of one block.
struct DiscardMaps {
  let discarded: PageMap
  let planted: PageMap
  let untouched: PageMap

  static let byteCount = 3 * wordsPerMap * MemoryLayout<UInt64>.stride

  init(_ memory: UnsafeMutableRawPointer) {
    let words = memory.assumingMemoryBound(to: UInt64.self)
    discarded = PageMap(words)
    planted = PageMap(words + wordsPerMap)
    untouched = PageMap(words + 2 * wordsPerMap)
  }
}

extension Arena {
  /// Bytes of the table of discarded pages.
  var discardBytes: Int { (totalBlocks * DiscardMaps.byteCount + 4095) & ~4095 }

  /// The maps of a block; nil if none of the arena's pages was ever discarded.
  @inline(__always)
  func discards(ofBlock index: Int) -> DiscardMaps? {
    guard let discards else { return nil }
    return DiscardMaps(discards + index &* DiscardMaps.byteCount)
  }
}

extension AddressRange {
  /// The pages of `span`; nil if it names no whole pages, or none that could exist.
  init?(_ span: PageSpan) {
    guard span.address & 4095 == 0, UInt(bitPattern: span.pageCount &- 1) < 1 << 40,
      span.address < UInt.max &- UInt(span.pageCount) &<< UInt(pageShift)
    else { return nil }
    self.init(start: span.address, byteCount: span.pageCount << pageShift)
  }
}

extension HeapState {
  func discards(of block: Block) -> DiscardMaps? {
    arenas[Int(block.pointee.arena)].discards(ofBlock: Int(block.pointee.index))
  }

  /// Whether a page of the block is discarded.
  @inline(__always)
  func holdsDiscarded(_ block: Block) -> Bool { discardedPages != 0 && discardedCount(block) != 0 }

  /// Pages of the block that are discarded.
  @inline(__always)
  func discardedCount(_ block: Block) -> Int {
    if discardedPages == 0 { return 0 }
    return discards(of: block)?.discarded.count ?? 0
  }

  /// Calls `body` with the part of `range` in each block, ascending, until it answers false; false then, and if a part is not
  /// of this heap.
  @inline(__always)
  func forEachPart(of range: AddressRange, _ body: (Block, PageRun) -> Bool) -> Bool {
    var address = range.start
    while address < range.end {
      guard let block = block(at: address) else { return false }
      let end = min((address | UInt(bytesPerBlock - 1)) &+ 1, range.end)
      let first = Int(bitPattern: address &>> UInt(pageShift)) & (pagesPerBlock - 1)
      if !body(block, PageRun(start: first, count: Int(bitPattern: end &- address) >> pageShift)) { return false }
      address = end
    }
    return true
  }

  /// Whether every page of `range` is handed out.
  @inline(__always)
  func isHandedOut(_ range: AddressRange) -> Bool {
    forEachPart(of: range) { block, run in
      block.pointee.kind == .occupied && block.used.containsAll(run)
        && (block.pointee.inFlight == 0 || !isInFlight(block, run))
    }
  }

  /// Whether every page of `range` is discarded.
  @inline(__always)
  func isDiscarded(_ range: AddressRange) -> Bool {
    forEachPart(of: range) { block, run in discards(of: block)?.discarded.containsAll(run) ?? false }
  }

  /// The first arena of `range` that has no table of discarded pages; the range is handed out.
  func arenaWithoutDiscards(_ range: AddressRange) -> Int? {
    var found: Int? = nil
    _ = forEachPart(of: range) { block, _ in
      if arenas[Int(block.pointee.arena)].discards == nil { found = Int(block.pointee.arena) }
      return found == nil
    }
    return found
  }

  /// Marks the pages of `range` as discarded; false, and nothing has changed, if they are not handed out or one already is.
  mutating func beginDiscard(_ range: AddressRange) -> Bool {
    let isFree =
      isHandedOut(range)
      && forEachPart(of: range) { block, run in !(discards(of: block)?.discarded.containsAny(run) ?? true) }
    if !isFree { return false }
    _ = forEachPart(of: range) { block, run in
      discards(of: block)?.discarded.set(run)
      return true
    }
    discardedPages += range.byteCount >> pageShift
    return true
  }

  /// The pages of `range` that are discarded are not any more: undone, freed, or never given away.
  @inline(never)
  mutating func endDiscard(_ range: AddressRange) {
    var ended = 0
    _ = forEachPart(of: range) { block, run in
      guard let maps = discards(of: block) else { return true }
      let count = maps.discarded.count(in: run)
      if count == 0 { return true }
      maps.discarded.clear(run)
      maps.planted.clear(run)
      maps.untouched.clear(run)
      ended += count
      return true
    }
    discardedPages -= ended
  }

  /// A part of the block was discarded, and its hugepage is gone with that.
  mutating func noteSplitByDiscard(_ block: Block) {
    if block.pointee.kind != .occupied { return }
    unlist(block)
    if !block.isBroken {
      totals.discardSplits += 1
      block.pointee.cause = .discard
    }
    block.pointee.flags.insert(.broken)
    block.pointee.backing = .split
    enlist(block)
  }
}
