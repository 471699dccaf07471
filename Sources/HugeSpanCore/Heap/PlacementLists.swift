// Where a span is placed: the argument, and the lists that carry it out.
//
// The aim is that blocks become either full or empty: a full block uses its hugepage well, an empty one can be released
// whole or reused for anything. So a request for n pages goes to the block that can lose n pages with the least harm:
//
//   1. The shortest sufficient longest free range. A long free range is an asset that only a large request needs; small
//      requests fill the crumbs first. This is best fit over blocks instead of over ranges.
//   2. Among equals, the fullest block, measured by its number of spans: a block empties when all of its spans have
//      died, and of two blocks the one with fewer spans has the better chance, if it is left alone. (By used pages the
//      deterministic program needs 270 blocks after churn, by spans 265.)
//   3. Intact before broken. Used pages should lie on hugepages; a broken block has to earn new spans last, so that it
//      drains and can be dropped whole. Before broken ones, and after the ordinary ones, come donated tails: a large
//      span's tail belongs to that span's fate, and dies with it when nobody has settled there.
//   4. Of broken blocks, those of which every page is resident come first: they cost no fault. Among those with released
//      pages fullness outweighs fit: their free ranges are no asset any more, and the aim is to fill some and drain
//      the others. (Fit first costs a tenth more refaults in the deterministic program, and one block in a hundred.)
//   5. A fresh block before a broken one, where the pages that would come back one by one cost more than the first touch
//      of a hugepage does, and most blocks are without released pages: then what is left of the fresh block is soon
//      filled by requests that go to such blocks first. Where most blocks have been released from, it would stand half
//      empty beside them, and in the deterministic program cost a tenth more blocks.
//
// Spans that are expected to live short (by hint, or because they hold few objects) have blocks of their own: one
// long-lived span among a hundred short ones keeps a block alive that would have emptied.
//
// Within the block, best fit again, by range; ties to the lowest address. (Beside released pages one could take the range of
// which most was released, so that blocks are soon whole again: three used pages in a hundred more are then in such blocks
// in the deterministic program; but where few spans come and go it brings released pages back and leaves resident ones free.)
//
// Each rank is an exact list: 512 lengths times 8 degrees of fullness (doubling), a bit per list and a bit per 64 lists, so the
// best block is found by two or three find-first-bit operations whatever the size of the heap. Relinking costs two or
// three cache lines of neighbours, and only when length or degree of fullness changed.

/// The ranks of blocks, best first.
enum PlacementRank: Int {
  case intact, donated, brokenResident, released
}

/// Doubly linked lists of blocks by rank, longest free range and fullness.
struct PlacementLists {
  /// Degrees of fullness that are told apart.
  static let degrees = 8
  static let listsPerRank = pagesPerBlock * degrees
  static let ranks = 4
  static let groups = 2
  static let listCount = listsPerRank * ranks * groups
  static let wordCount = listCount / 64
  static let summaryCount = (wordCount + 63) / 64

  static let byteCount =
    listCount * MemoryLayout<Block?>.stride + (wordCount + summaryCount) * MemoryLayout<UInt64>.stride

  let heads: UnsafeMutablePointer<Block?>
  let bits: UnsafeMutablePointer<UInt64>
  let summary: UnsafeMutablePointer<UInt64>
  /// Blocks with released pages: they have free pages, so they are all listed.
  private(set) var releasedBlocks = 0

  /// Lists in `byteCount` bytes of zeroed memory at `memory`.
  init(memory: UnsafeMutableRawPointer) {
    bits = memory.assumingMemoryBound(to: UInt64.self)
    summary = bits + PlacementLists.wordCount
    heads = UnsafeMutableRawPointer(summary + PlacementLists.summaryCount).assumingMemoryBound(to: Block?.self)
  }

  /// The list where an occupied block belongs, or `noList` if it is full.
  @inline(__always)
  static func list(for block: Block) -> UInt16 {
    let longest = Int(block.pointee.longest)
    if longest == 0 { return noList }
    let flags = block.pointee.flags
    let group = flags.contains(.transient) ? ranks : 0
    if block.pointee.released != 0 {
      let base = (group &+ PlacementRank.released.rawValue) &* listsPerRank
      // Spans and pages, in about equal parts: a block drains when its last span dies, and is whole again when its last
      // released page is used. By spans alone the deterministic program ends with one block in 100 fewer, and a tenth
      // fewer of the pages beside no released one.
      let degree = doublingDegree((Int(block.pointee.spans) &* 8 &+ Int(block.pointee.used)) &>> 4)
      return UInt16(truncatingIfNeeded: base &+ degree &* pagesPerBlock &+ longest &- 1)
    }
    var rank = PlacementRank.intact.rawValue
    if flags.contains(.broken) {
      rank = PlacementRank.brokenResident.rawValue
    } else if flags.contains(.donated) {
      rank = PlacementRank.donated.rawValue
    }
    let base = (group &+ rank) &* listsPerRank
    return UInt16(truncatingIfNeeded: base &+ (longest &- 1) &* degrees &+ doublingDegree(Int(block.pointee.spans)))
  }

  /// Degrees double: 64 and more is 0, the fullest; 0 is 7.
  @inline(__always)
  private static func doublingDegree(_ fullness: Int) -> Int {
    max(0, degrees &- 1 &- (64 &- fullness.leadingZeroBitCount))
  }

  /// Whether the list is one of blocks with released pages.
  @inline(__always)
  static func isReleased(_ list: Int) -> Bool {
    list / listsPerRank % ranks == PlacementRank.released.rawValue
  }

  /// Number of the first list of a rank.
  @inline(__always)
  static func base(_ rank: PlacementRank, transient: Bool) -> Int {
    ((transient ? ranks : 0) &+ rank.rawValue) &* listsPerRank
  }

  @inline(__always)
  mutating func insert(_ block: Block, into list: UInt16) {
    block.pointee.list = list
    if list == noList { return }
    let index = Int(list)
    if PlacementLists.isReleased(index) { releasedBlocks &+= 1 }
    let head = heads[index]
    block.pointee.previous = nil
    block.pointee.next = head
    heads[index] = block
    if let head {
      head.pointee.previous = block
    } else {
      bits[index &>> 6] |= 1 &<< UInt64(truncatingIfNeeded: index & 63)
      summary[index &>> 12] |= 1 &<< UInt64(truncatingIfNeeded: (index &>> 6) & 63)
    }
  }

  @inline(__always)
  mutating func remove(_ block: Block) {
    let list = block.pointee.list
    if list == noList { return }
    if PlacementLists.isReleased(Int(list)) { releasedBlocks &-= 1 }
    block.pointee.list = noList
    let next = block.pointee.next
    let previous = block.pointee.previous
    if let next { next.pointee.previous = previous }
    if let previous {
      previous.pointee.next = next
    } else {
      let index = Int(list)
      heads[index] = next
      if next == nil {
        bits[index &>> 6] &= ~(1 &<< UInt64(truncatingIfNeeded: index & 63))
        if bits[index &>> 6] == 0 { summary[index &>> 12] &= ~(1 &<< UInt64(truncatingIfNeeded: (index &>> 6) & 63)) }
      }
    }
  }

  /// Puts the block where its counters say, if that is not where it is.
  @inline(__always)
  mutating func update(_ block: Block) {
    let list = PlacementLists.list(for: block)
    if list == block.pointee.list { return }
    remove(block)
    insert(block, into: list)
  }

  /// The first nonempty list in `from ..< end`, or nil. A rank is 64 words, exactly one word of the summary.
  @inline(__always)
  func firstList(from: Int, end: Int) -> Int? {
    let word = from &>> 6
    let here = bits[word] & (~0 &<< UInt64(truncatingIfNeeded: from & 63))
    if here != 0 { return (word &<< 6) &+ here.trailingZeroBitCount }
    if word & 63 == 63 { return nil }
    let above = summary[word &>> 6] & (~0 &<< UInt64(truncatingIfNeeded: (word & 63) &+ 1))
    if above == 0 { return nil }
    let found = (word & ~63) &+ above.trailingZeroBitCount
    return (found &<< 6) &+ bits[found].trailingZeroBitCount
  }

  /// The best block of a rank for `count` pages, or nil.
  @inline(__always)
  func best(_ rank: PlacementRank, transient: Bool, count: Int) -> Block? {
    let base = PlacementLists.base(rank, transient: transient)
    if rank == .released { return bestReleased(base, count) }
    let from = base &+ (count &- 1) &* PlacementLists.degrees
    guard let list = firstList(from: from, end: base &+ PlacementLists.listsPerRank) else { return nil }
    return heads[list]
  }

  /// Among blocks with released pages, the fullest that has room, by degrees.
  @inline(never)
  private func bestReleased(_ base: Int, _ count: Int) -> Block? {
    for degree in 0..<PlacementLists.degrees {
      let first = base + degree * pagesPerBlock
      if let list = firstList(from: first + count - 1, end: first + pagesPerBlock), list < first + pagesPerBlock {
        return heads[list]
      }
    }
    return nil
  }

  /// The block of a rank with the longest free range of at most `limit` pages, the emptiest among those; or nil.
  func longest(_ rank: PlacementRank, transient: Bool, limit: Int = pagesPerBlock) -> Block? {
    let base = PlacementLists.base(rank, transient: transient)
    let last = base + limit * PlacementLists.degrees - 1
    var word = last >> 6
    let here = bits[word] & (~0 >> UInt64(63 - (last & 63)))
    if here != 0 { return heads[(word << 6) + 63 - here.leadingZeroBitCount] }
    if word & 63 == 0 { return nil }
    let below = summary[word >> 6] & ((1 << UInt64(word & 63)) - 1)
    if below == 0 { return nil }
    word = (word & ~63) + 63 - below.leadingZeroBitCount
    return heads[(word << 6) + 63 - bits[word].leadingZeroBitCount]
  }
}

extension PlacementLists {
  /// Of the `limit` blocks of a rank with the longest free ranges, the one that is least in use: by used pages, and
  /// by spans, since each of its free ranges will be a range of its own to release; or nil.
  func emptiest(_ rank: PlacementRank, transient: Bool, limit: Int) -> Block? {
    let first = PlacementLists.base(rank, transient: transient) >> 6
    var words = summary[first >> 6]
    var best: Block? = nil
    var examined = 0
    // Refused blocks must not hide the others, nor cost a walk over all of a locked heap each time.
    var passed = 0
    while words != 0 {
      let word = first + 63 - words.leadingZeroBitCount
      words &= ~(1 << UInt64(word - first))
      var here = bits[word]
      while here != 0 {
        let bit = 63 - here.leadingZeroBitCount
        here &= ~(1 << UInt64(bit))
        var block = heads[(word << 6) + bit]
        while let each = block {
          if each.pointee.flags.contains(.refused) {
            passed += 1
          } else {
            if best == nil || each.useToBreak < best!.useToBreak { best = each }
            examined += 1
          }
          if examined == limit || passed == 16 * limit { return best }
          block = each.pointee.next
        }
      }
    }
    return best
  }
}

/// Lists of broken blocks by the longest run that a release could give back.
struct ReleasableLists {
  static let byteCount = pagesPerBlock * MemoryLayout<Block?>.stride + wordsPerMap * MemoryLayout<UInt64>.stride

  let heads: UnsafeMutablePointer<Block?>
  let bits: UnsafeMutablePointer<UInt64>

  /// Lists in `byteCount` bytes of zeroed memory at `memory`.
  init(memory: UnsafeMutableRawPointer) {
    bits = memory.assumingMemoryBound(to: UInt64.self)
    heads = UnsafeMutableRawPointer(bits + wordsPerMap).assumingMemoryBound(to: Block?.self)
  }

  mutating func insert(_ block: Block, length: Int) {
    block.pointee.releasable = UInt16(length)
    if length == 0 { return }
    let index = length - 1
    let head = heads[index]
    block.pointee.previousReleasable = nil
    block.pointee.nextReleasable = head
    heads[index] = block
    if let head { head.pointee.previousReleasable = block } else { PageMap(bits).setBit(index) }
  }

  mutating func remove(_ block: Block) {
    let length = Int(block.pointee.releasable)
    if length == 0 { return }
    block.pointee.releasable = 0
    let next = block.pointee.nextReleasable
    let previous = block.pointee.previousReleasable
    if let next { next.pointee.previousReleasable = previous }
    if let previous {
      previous.pointee.nextReleasable = next
    } else {
      heads[length - 1] = next
      if next == nil { PageMap(bits).clearBit(length - 1) }
    }
  }

  /// The block whose releasable run is the longest of at most `limit` pages, or nil.
  func longest(limit: Int = pagesPerBlock) -> Block? {
    let index = PageMap(bits).lastSet(before: limit)
    return index < 0 ? nil : heads[index]
  }
}
