// A 512-bit map of the pages of one block, and the questions that placement and release ask of it.
//
// The words live in the block table; this is a handle: a pointer and nothing else, because reading a fixed-size array
// through a copyable access copies all of it. Inner loops use wrapping arithmetic: every index is below 512 by the
// precondition of the entry, and one checked subtraction in the scan costs a third of its speed.

/// A run of pages within one block.
struct PageRun: Equatable {
  var start: Int
  var count: Int
  @inline(__always) var end: Int { start &+ count }
}

/// What a best-fit search found: where to place, and how long the longest free run is afterwards.
struct FitResult {
  var start: Int
  var longestAfter: Int
}

/// Handle of a 512-bit map.
struct PageMap {
  let words: UnsafeMutablePointer<UInt64>

  @inline(__always)
  init(_ words: UnsafeMutablePointer<UInt64>) { self.words = words }

  @inline(__always)
  subscript(page: Int) -> Bool {
    (words[page &>> 6] &>> UInt64(truncatingIfNeeded: page & 63)) & 1 != 0
  }

  @inline(__always)
  func setBit(_ page: Int) { words[page &>> 6] |= 1 &<< UInt64(truncatingIfNeeded: page & 63) }

  @inline(__always)
  func clearBit(_ page: Int) { words[page &>> 6] &= ~(1 &<< UInt64(truncatingIfNeeded: page & 63)) }

  /// Calls `body` with each word index and the mask of `run` in it. The run must not be empty.
  @inline(__always)
  static func forEachWord(of run: PageRun, _ body: (Int, UInt64) -> Void) {
    let last = run.end &- 1
    var word = run.start &>> 6
    let lastWord = last &>> 6
    var mask: UInt64 = ~0 &<< UInt64(truncatingIfNeeded: run.start & 63)
    while word < lastWord {
      body(word, mask)
      mask = ~0
      word &+= 1
    }
    body(word, mask & (~0 &>> UInt64(truncatingIfNeeded: 63 &- (last & 63))))
  }

  @inline(__always)
  func set(_ run: PageRun) { PageMap.forEachWord(of: run) { words[$0] |= $1 } }

  @inline(__always)
  func clear(_ run: PageRun) { PageMap.forEachWord(of: run) { words[$0] &= ~$1 } }

  /// Whether every bit of `run` is set.
  @inline(__always)
  func containsAll(_ run: PageRun) -> Bool {
    var missing: UInt64 = 0
    PageMap.forEachWord(of: run) { missing |= ~words[$0] & $1 }
    return missing == 0
  }

  /// Whether any bit of `run` is set.
  @inline(__always)
  func containsAny(_ run: PageRun) -> Bool {
    var found: UInt64 = 0
    PageMap.forEachWord(of: run) { found |= words[$0] & $1 }
    return found != 0
  }

  /// Set bits in `run`.
  @inline(__always)
  func count(in run: PageRun) -> Int {
    var total = 0
    PageMap.forEachWord(of: run) { total &+= (words[$0] & $1).nonzeroBitCount }
    return total
  }

  /// Clears the bits of `run` and returns how many were set.
  @inline(__always)
  func clearCounting(_ run: PageRun) -> Int {
    // Few bits are set where this is used, the starts of spans; a processor's population count cannot be relied on.
    var total = 0
    PageMap.forEachWord(of: run) { word, mask in
      var found = words[word] & mask
      words[word] &= ~mask
      while found != 0 {
        found &= found &- 1
        total &+= 1
      }
    }
    return total
  }

  /// Whether no bit is set.
  @inline(__always)
  var isEmpty: Bool {
    var any: UInt64 = 0
    for word in 0..<wordsPerMap { any |= words[word] }
    return any == 0
  }

  /// Set bits in the whole map.
  @inline(__always)
  var count: Int {
    var total = 0
    for word in 0..<wordsPerMap { total &+= words[word].nonzeroBitCount }
    return total
  }

  @inline(__always)
  func fill(_ value: Bool) {
    let word: UInt64 = value ? ~0 : 0
    for index in 0..<wordsPerMap { words[index] = word }
  }

  /// First set bit at or after `page`, or 512.
  @inline(__always)
  func firstSet(from page: Int) -> Int {
    if page >= pagesPerBlock { return pagesPerBlock }
    var word = page &>> 6
    var bits = words[word] & (~0 &<< UInt64(truncatingIfNeeded: page & 63))
    while bits == 0 {
      word &+= 1
      if word == wordsPerMap { return pagesPerBlock }
      bits = words[word]
    }
    return (word &<< 6) &+ bits.trailingZeroBitCount
  }

  /// First clear bit at or after `page`, or 512.
  @inline(__always)
  func firstClear(from page: Int) -> Int {
    if page >= pagesPerBlock { return pagesPerBlock }
    var word = page &>> 6
    var bits = ~words[word] & (~0 &<< UInt64(truncatingIfNeeded: page & 63))
    while bits == 0 {
      word &+= 1
      if word == wordsPerMap { return pagesPerBlock }
      bits = ~words[word]
    }
    return (word &<< 6) &+ bits.trailingZeroBitCount
  }

  /// Last set bit before `page`, or -1.
  @inline(__always)
  func lastSet(before page: Int) -> Int {
    if page <= 0 { return -1 }
    let last = page &- 1
    var word = last &>> 6
    var bits = words[word] & (~0 &>> UInt64(truncatingIfNeeded: 63 &- (last & 63)))
    while bits == 0 {
      word &-= 1
      if word < 0 { return -1 }
      bits = words[word]
    }
    return (word &<< 6) &+ (63 &- bits.leadingZeroBitCount)
  }

  /// The maximal run of clear bits that contains the clear `run`.
  @inline(__always)
  func clearRun(around run: PageRun) -> PageRun {
    let start = lastSet(before: run.start) &+ 1
    return PageRun(start: start, count: firstSet(from: run.end) &- start)
  }

  /// Calls `body` with each maximal run of clear bits, ascending, until it answers false.
  @inline(__always)
  func forEachClearRun(_ body: (PageRun) -> Bool) {
    var page = firstClear(from: 0)
    while page < pagesPerBlock {
      let end = firstSet(from: page)
      if !body(PageRun(start: page, count: end &- page)) { return }
      page = firstClear(from: end)
    }
  }

  /// The longest run of clear bits, the first of them if several; count 0 if there is none.
  func longestClearRun() -> PageRun {
    var best = PageRun(start: 0, count: 0)
    forEachClearRun { run in
      if run.count > best.count { best = run }
      return true
    }
    return best
  }

  /// The shortest run of clear bits of at least `count` pages, the first of them if several, and the longest run
  /// that would remain when its first `count` pages were taken. `longest` is the length of the longest run now.
  ///
  /// One pass over the runs: the two longest are kept, so that the answer after taking needs no second look.
  @inline(__always)
  func bestFit(count: Int, longest: Int) -> FitResult? {
    if longest < count { return nil }
    var search = FitSearch(count: count, longest: longest)
    var index = 0
    while index < wordsPerMap {
      var bits = words[index]
      let base = index &<< 6
      index &+= 1
      if bits == ~0 {
        if search.close() { return search.result }
        continue
      }
      if bits == 0 {
        search.extend(by: 64, at: base)
        continue
      }
      var position = 0
      while true {
        let free = bits.trailingZeroBitCount
        if free != 0 {
          let room = 64 &- position
          // Zeros shifted in from above are not free pages.
          if free >= room {
            search.extend(by: room, at: base &+ position)
            break
          }
          search.extend(by: free, at: base &+ position)
          position &+= free
          bits &>>= UInt64(truncatingIfNeeded: free)
        }
        if search.close() { return search.result }
        let used = (~bits).trailingZeroBitCount
        position &+= used
        if position >= 64 { break }
        bits &>>= UInt64(truncatingIfNeeded: used)
      }
    }
    _ = search.close()
    return search.bestStart < 0 ? nil : search.result
  }
}

/// The state of a best-fit pass.
private struct FitSearch {
  let count: Int
  let longest: Int
  var bestStart = -1
  var bestCount = pagesPerBlock + 1
  /// The longest run closed so far other than the best fit.
  var otherLongest = 0
  /// The run that is open.
  var open = 0
  var openStart = 0

  @inline(__always)
  init(count: Int, longest: Int) {
    self.count = count
    self.longest = longest
  }

  @inline(__always)
  mutating func extend(by pages: Int, at page: Int) {
    if open == 0 { openStart = page }
    open &+= pages
  }

  /// Ends the open run; true when the rest of the map cannot change the answer: the fit is exact, and a run as long as
  /// the longest is left beside it.
  @inline(__always)
  mutating func close() -> Bool {
    if open == 0 { return false }
    if open >= count && open < bestCount {
      if bestStart >= 0 && bestCount > otherLongest { otherLongest = bestCount }
      bestCount = open
      bestStart = openStart
    } else if open > otherLongest {
      otherLongest = open
    }
    open = 0
    if bestCount != count { return false }
    if longest > count { otherLongest = longest }
    return otherLongest == longest
  }

  @inline(__always)
  var result: FitResult { FitResult(start: bestStart, longestAfter: max(otherLongest, bestCount &- count)) }
}
