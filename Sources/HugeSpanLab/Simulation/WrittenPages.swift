// Which pages of a hugepage somebody wrote, in 38 bytes.
//
// A split gives pages of zeros up, and what was given up has to be faulted again: 60 faults of a replay that has 1,500.
// A bit for each page would take the whole line that a block has. Spans are written as a whole, so what is written comes in
// runs, and most pairs of pages are alike: a bit for each pair, and beside it the few pages that were left out of a written
// pair. In replays of the bundled traces half of the hugepages had none of these when they were split, and six in seven
// at most three. What finds no place counts as written.

/// Pages of one hugepage that were written.
struct WrittenPages: BitwiseCopyable {
  private var pairs = InlineArray<4, UInt64>(repeating: 0)
  /// Pages of written pairs that were not written themselves, plus one; 0 is none.
  private var exceptions = InlineArray<3, UInt16>(repeating: 0)

  /// Nobody wrote any.
  init() {}

  /// Those whose bits are set.
  init(_ bits: SimulatedPages.Bits) {
    for word in 0..<8 {
      var rest = bits[word]
      while rest != 0 {
        let first = rest.trailingZeroBitCount
        let count = (~(rest >> UInt64(first))).trailingZeroBitCount
        insert(word * 64 + first, word * 64 + first + count)
        rest &= count + first >= 64 ? 0 : ~0 << UInt64(first + count)
      }
    }
  }

  /// Pages that count as written.
  var count: Int {
    var sum = 0
    for word in 0..<4 { sum += 2 * pairs[word].nonzeroBitCount }
    for slot in 0..<3 where exceptions[slot] != 0 { sum -= 1 }
    return sum
  }

  /// The pages from `first` up to `end` are written.
  @inline(__always)
  mutating func insert(_ first: Int, _ end: Int) {
    if exceptions[0] | exceptions[1] | exceptions[2] != 0 { strike(first, end) }
    if first & 1 != 0 { leaveOut(first &- 1) }
    if end & 1 != 0 { leaveOut(end) }
    var pair = first &>> 1
    let last = (end &- 1) &>> 1
    while pair <= last {
      let word = pair &>> 6
      let wordEnd = min(last, (word &<< 6) | 63)
      let mask = (~0 &<< UInt64(pair & 63)) & (~0 &>> UInt64(63 &- (wordEnd & 63)))
      pairs[word] |= mask
      pair = wordEnd &+ 1
    }
  }

  /// Sets the bits of all written pages; none is set before.
  func set(_ bits: SimulatedPages.Bits) {
    for pair in 0..<256 where pairs[pair >> 6] >> UInt64(pair & 63) & 1 != 0 {
      bits[pair >> 5] |= 3 << UInt64(pair & 31 &* 2)
    }
    for slot in 0..<3 where exceptions[slot] != 0 {
      let page = Int(exceptions[slot]) - 1
      bits[page >> 6] &= ~(1 << UInt64(page & 63))
    }
  }

  @inline(never)
  private mutating func strike(_ first: Int, _ end: Int) {
    for slot in 0..<3 where first < Int(exceptions[slot]) && Int(exceptions[slot]) <= end { exceptions[slot] = 0 }
  }

  /// The other page of the pair of `page` is about to be written.
  @inline(__always)
  private mutating func leaveOut(_ page: Int) {
    let pair = page &>> 1
    if pairs[pair &>> 6] &>> UInt64(pair & 63) & 1 != 0 { return }
    if exceptions[0] == 0 {
      exceptions[0] = UInt16(truncatingIfNeeded: page &+ 1)
    } else if exceptions[1] == 0 {
      exceptions[1] = UInt16(truncatingIfNeeded: page &+ 1)
    } else if exceptions[2] == 0 {
      exceptions[2] = UInt16(truncatingIfNeeded: page &+ 1)
    }
  }
}
