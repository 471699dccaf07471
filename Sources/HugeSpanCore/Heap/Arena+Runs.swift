// Runs of free blocks: where a span of more than a block goes.
//
// To blocks that are in memory, as far as there are any: one that is not costs a fault of a hugepage now, and one that is
// and stays behind costs its rent until it is released. Address space costs nothing. So the shortest run of blocks in memory that
// suffices is the best; where none does, of the free runs that suffice the one with most blocks in memory where the span would
// lie, the shortest of those. (Best fit in address space, with memory as the tie-break, left large buffers' blocks
// behind in runs that were a little too long: on the bundled images trace a tenth more excess cost.)
//
// A heap of 100 GiB may have 25,000 runs, and no index of them is kept: a list by length would have to be mended whenever a block
// is taken or freed, the commonest large operation, 30 ns; a span of several blocks is rarer and dearer, and the map is small: a
// word for 128 MiB. So the map is searched, a word at a time and not a run at a time: runs that cross words are added up
// from the ends of the words, and those inside a word are found by shifting it against itself, which passes over all that
// are too short, or no shorter than the best one yet, at once. In 100 GiB of which every other block is free a span of
// 4 MiB takes 1.4 us, its free included (`hugespan-bench`).

/// A run of free blocks, and where in it a span can begin.
struct BlockRun: Equatable {
  /// First block of the span.
  var first: Int
  /// Blocks of the whole run: of the one in memory, if the span would be in memory as a whole.
  var length: Int
  /// Of the span's blocks, those in memory.
  var resident: Int
}

/// What a search for a run has found so far.
private struct RunSearch {
  let count: Int
  let alignment: UInt
  /// The map that is searched, and whether it is that of the blocks in memory.
  let words: UnsafeMutablePointer<UInt64>
  let isOfResident: Bool
  /// Free runs of any length that are looked at, to see which has most blocks in memory: a microsecond or two.
  static let looks = 256

  var best: BlockRun? = nil
  var looksLeft: Int

  init(_ count: Int, alignment: UInt, words: UnsafeMutablePointer<UInt64>, isOfResident: Bool) {
    self.count = count
    self.alignment = alignment
    self.words = words
    self.isOfResident = isOfResident
    looksLeft = isOfResident ? 0 : RunSearch.looks
  }

  /// Runs of this length and longer need not be looked at.
  @inline(__always)
  var bound: Int {
    guard let best, looksLeft <= 0 else { return .max }
    return best.length
  }

  /// Nothing better is to be found.
  @inline(__always)
  var isOver: Bool {
    guard let best else { return false }
    return best.length == count && looksLeft <= 0
  }
}

extension Arena {
  /// The shortest run of free blocks in memory that suffices for `count` blocks whose first block's address is a multiple of
  /// `alignment` bytes.
  ///
  /// - Complexity: O(blocks / 64).
  func shortestResidentRun(count: Int, alignment: UInt) -> BlockRun? {
    freeBlocks < count
      ? nil : bestRun(RunSearch(count, alignment: alignment, words: residentWords, isOfResident: true))
  }

  /// The free run that suffices for them and has most blocks in memory where the span would lie.
  ///
  /// - Complexity: O(blocks / 64), and O(blocks in memory) of the free runs that are looked at.
  func mostResidentRun(count: Int, alignment: UInt) -> BlockRun? {
    freeBlocks < count ? nil : bestRun(RunSearch(count, alignment: alignment, words: freeWords, isOfResident: false))
  }

  private func bestRun(_ begun: RunSearch) -> BlockRun? {
    var search = begun
    let count = begun.count
    let words = begun.words
    // Free blocks right before the word.
    var before = 0
    let end = (committedBlocks &+ 63) &>> 6
    var word = 0
    while word < end {
      if before == 0 && count > 1 {
        // Words without neighbours that end with no free block either: most of them, in a heap in pieces.
        while word < end && words[word] & (words[word] &>> 1 | 1 &<< 63) == 0 { word &+= 1 }
        if word == end { break }
      }
      let bits = words[word]
      let start = word &<< 6
      word &+= 1
      if bits & (bits &>> 1) == 0 && count > 1 {
        // No two neighbours in it.
        if before != 0 { consider(start &- before, before &+ Int(truncatingIfNeeded: bits & 1), &search) }
        before = Int(truncatingIfNeeded: bits &>> 63)
        continue
      }
      if bits == ~0 {
        before &+= 64
        continue
      }
      let head = (~bits).trailingZeroBitCount
      consider(start &- before, before &+ head, &search)
      before = (~bits).leadingZeroBitCount
      if bits != 0 && count <= 62 {
        // Without the runs at its ends.
        let inner = bits & (~0 &<< UInt64(truncatingIfNeeded: head)) & (~0 &>> UInt64(truncatingIfNeeded: before))
        considerInside(inner, start, &search)
      }
      if search.isOver { break }
    }
    if !search.isOver { consider((end &<< 6) &- before, before, &search) }
    return search.best
  }

  /// Looks at the runs of `bits`, a word of the map from block `start` on, that could be the best.
  @inline(__always)
  private func considerInside(_ bits: UInt64, _ start: Int, _ search: inout RunSearch) {
    var starts = Self.starts(ofRuns: search.count, in: bits)
    if starts == 0 { return }
    // Of each run only where it begins, and of those that are too long nothing.
    starts &= ~(bits &<< 1)
    if search.bound <= 64 { starts &= ~Self.starts(ofRuns: search.bound, in: bits) }
    while starts != 0 {
      let first = starts.trailingZeroBitCount
      starts &= starts &- 1
      let length = (~(bits &>> UInt64(truncatingIfNeeded: first))).trailingZeroBitCount
      consider(start &+ first, length, &search)
      if search.isOver { return }
    }
  }

  /// The bits of `bits` that begin `count` set ones (of 1 to 64), found in as many steps as `count` has digits.
  @inline(__always)
  private static func starts(ofRuns count: Int, in bits: UInt64) -> UInt64 {
    var found = bits
    var length = 1
    while length < count && found != 0 {
      let step = length < count &- length ? length : count &- length
      found &= found &>> UInt64(truncatingIfNeeded: step)
      length &+= step
    }
    return found
  }

  /// Takes the run of `length` blocks from `start` if it is better than the best.
  @inline(__always)
  private func consider(_ start: Int, _ length: Int, _ search: inout RunSearch) {
    if length < search.count || length >= search.bound { return }
    weigh(start, length, &search)
  }

  @inline(never)
  private func weigh(_ start: Int, _ length: Int, _ search: inout RunSearch) {
    let step = max(1, Int(search.alignment &>> UInt(bytesPerBlockShift)))
    let address = self.address(ofBlock: start)
    let beyond = step == 1 ? 0 : Int((address &>> UInt(bytesPerBlockShift)) % UInt(step))
    let first = beyond == 0 ? start : start + step - beyond
    let room = start + length - search.count - first
    if room < 0 { return }
    if search.isOfResident {
      search.best = BlockRun(first: first, length: length, resident: search.count)
      return
    }
    search.looksLeft -= 1
    var found = BlockRun(first: first, length: length, resident: resident(first, search.count))
    // A place with most blocks in memory begins where blocks in memory begin (further right it would lose one for each that it
    // gains), or at the last possible place; where places have to be aligned, at the last one before a block in memory.
    let last = first + room / step * step
    PageMap.forEachWord(of: PageRun(start: first, count: start + length - first)) { word, mask in
      var bits = residentWords[word] & mask
      if step == 1 { bits &= ~(bits &<< 1) }
      while bits != 0 {
        let block = word &<< 6 &+ bits.trailingZeroBitCount
        bits &= bits &- 1
        let place = min(first + (block - first) / step * step, last)
        let count = place == found.first ? 0 : resident(place, search.count)
        if count > found.resident {
          found.first = place
          found.resident = count
        }
      }
    }
    if let best = search.best, (best.resident, -best.length) >= (found.resident, -length) { return }
    search.best = found
  }

  /// Blocks in memory among the `count` from `first` on.
  private func resident(_ first: Int, _ count: Int) -> Int {
    PageMap(residentWords).count(in: PageRun(start: first, count: count))
  }

  /// Length of the free run that ends with the last committed block.
  var freeTail: Int {
    var index = committedBlocks
    while index > 0 {
      // The word's bits up to the last block, moved to its top.
      let last = (index &- 1) & 63
      let bits = freeWords[(index &- 1) &>> 6] &<< UInt64(truncatingIfNeeded: 63 &- last)
      let free = (~bits).leadingZeroBitCount
      if free <= last { return committedBlocks &- index &+ free }
      index &-= last &+ 1
    }
    return committedBlocks
  }

  /// Calls `body` with start and end of each maximal run of set bits from `first` on, ascending, until it answers false.
  @inline(__always)
  func forEachRun(of words: UnsafeMutablePointer<UInt64>, from first: Int = 0, _ body: (Int, Int) -> Bool) {
    let end = committedBlocks
    var index = first
    while index < end {
      var bits = words[index &>> 6] &>> UInt64(truncatingIfNeeded: index & 63)
      if bits == 0 {
        index = ((index &>> 6) &+ 1) &<< 6
        continue
      }
      index &+= bits.trailingZeroBitCount
      let start = index
      while index < end {
        bits = ~words[index &>> 6] &>> UInt64(truncatingIfNeeded: index & 63)
        if bits != 0 {
          index &+= bits.trailingZeroBitCount
          break
        }
        index = ((index &>> 6) &+ 1) &<< 6
      }
      if !body(start, min(index, end)) { return }
    }
  }
}
