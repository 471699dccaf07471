// One pageblock: 256 bytes of table for 2 MiB of address space.
//
//   0   header, one cache line: counters, state, links
//   64  used    page is handed out (or in flight to the kernel)
//   128 marks   of a used page, that a span begins there; of a free page, that it was given to the kernel (`released`)
//   192 zero    page is free and reads as zero
//
// Spans need no descriptor: a span begins at a marked used page and ends before the next such page or the next free one, in
// whatever block that is. An allocation touches three cache lines: header, used, marks; the zero map is read only when
// the header says that it holds something. That starts and released pages share a map saves 64 bytes a block, and a line to touch in
// a broken one. It has one rule: whoever hands a page out clears its mark before the span's is set, and a page that
// is given back has none.
//
// What a free page is, from its two bits:
//   released 0, zero 0   resident, contents unknown        released 1, zero 0   lazily freed: charged until taken
//   released 0, zero 1   resident and untouched            released 1, zero 1   gone; reads as zero
//
// Blocks are linked by pointer, not by number: relinking happens on most frees, and a number would cost two loads.

let bytesPerBlockEntry = 256

/// What a block is, as a whole. Only `occupied` blocks have used pages or pages in flight.
package enum BlockKind: UInt8 {
  /// Free, and nothing of it is in memory.
  case absent
  /// Free, and some or all of it is in memory.
  case freeResident
  /// Has pages that are used, or in flight.
  case occupied
  /// The whole free block is in flight to the kernel.
  case releasing
}

/// Header of a block's table entry. Fields are guarded by the heap's lock.
struct BlockHeader {
  /// Links of the placement list (occupied) or of the free list (freeResident).
  var next: UnsafeMutablePointer<BlockHeader>?
  var previous: UnsafeMutablePointer<BlockHeader>?
  /// Links of the list of releasable broken blocks.
  var nextReleasable: UnsafeMutablePointer<BlockHeader>?
  var previousReleasable: UnsafeMutablePointer<BlockHeader>?
  /// Number of the block in its arena.
  var index: UInt32
  /// Time of the last free into the block, in units of 2^24 ns (about 17 ms).
  var stamp: UInt32
  /// Pages handed out.
  var used: UInt16
  /// Free pages that were given to the kernel, and how many of them lazily.
  var released: UInt16
  var lazy: UInt16
  /// Spans that begin in the block.
  var spans: UInt16
  /// Pages that are in flight to the kernel: marked used in the map, not counted as used.
  var inFlight: UInt16
  /// Longest run of pages clear in the used map.
  var longest: UInt16
  /// `phantom` in the lower ten bits, `cause` in the next four, `isDisplaced` and `wasClaimed`: the header is one cache line.
  var phantomAndCause: UInt16
  /// Number of the placement list the block is in, or `noList`.
  var list: UInt16
  /// Longest run of free pages that are not released; kept for broken blocks only.
  var releasable: UInt16
  /// Counts frees into the block, so that a residency pass knows what it may still believe. Wraps.
  var version: UInt16
  var kind: BlockKind
  var backing: Backing
  var arena: UInt8
  var flags: BlockFlags

  /// Pages unmapped from a hugepage that was not split: charged, though in no page table.
  var phantom: UInt16 {
    get { phantomAndCause & 0x3ff }
    set { phantomAndCause = phantomAndCause & ~0x3ff | newValue }
  }

  /// What made the block's backing what it is.
  var cause: BackingCause {
    get { BackingCause(rawValue: UInt8(truncatingIfNeeded: phantomAndCause >> 10 & 0xf)) ?? .none }
    set { phantomAndCause = phantomAndCause & ~0x3c00 | UInt16(newValue.rawValue) << 10 }
  }

  /// The block has a mapping of its own, since a hugepage was moved there (PageHeap+Moving.swift).
  var isDisplaced: Bool {
    get { phantomAndCause & 0x4000 != 0 }
    set { phantomAndCause = phantomAndCause & ~0x4000 | (newValue ? 0x4000 : 0) }
  }

  /// A use of the block began since a policy that looks at blocks last saw it.
  var wasClaimed: Bool {
    @inline(__always) get { phantomAndCause & 0x8000 != 0 }
    @inline(__always) set { phantomAndCause = phantomAndCause & ~0x8000 | (newValue ? 0x8000 : 0) }
  }
}

/// What last changed whether a block is on a hugepage. For people only: no decision depends on it.
package enum BackingCause: UInt8, Sendable {
  /// Nothing yet: as the first touch made it.
  case none
  /// Broken by a release that the policy ordered, that a limit made necessary, that the program asked for, or that
  /// others' need of memory (strategy `deferred`) brought about.
  case policy, limit, request, pressure
  /// Broken because a part of it was discarded.
  case discard
  /// Was huge, and the kernel split it.
  case lost
  /// On base pages when it was first looked at, without a release of ours.
  case neverHuge
  /// Taken for broken since a forked child shares it.
  case shared
  /// Was broken, and the kernel made it huge again.
  case reinflated
  /// Was broken, and we made it huge again.
  case rebuilt
}

/// Switches of a block. Not an `OptionSet`: its array literals would need an allocation.
package struct BlockFlags {
  package var rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }
  @inline(__always) package func contains(_ flag: BlockFlags) -> Bool { rawValue & flag.rawValue != 0 }
  @inline(__always) mutating func insert(_ flag: BlockFlags) { rawValue |= flag.rawValue }
  @inline(__always) mutating func remove(_ flag: BlockFlags) { rawValue &= ~flag.rawValue }

  static let none = BlockFlags(rawValue: 0)
  /// Lost its hugepage: subreleased by us, or learned from the kernel.
  package static let broken = BlockFlags(rawValue: 1)
  /// The tail of a large span, open to others.
  static let donated = BlockFlags(rawValue: 2)
  /// Serves spans that are expected to be short-lived.
  static let transient = BlockFlags(rawValue: 4)
  /// The kernel refused a release; left alone for a while.
  static let refused = BlockFlags(rawValue: 8)
  /// An absent block that had been released (its next use is a refault, not a first touch).
  package static let wasReleased = BlockFlags(rawValue: 16)
  /// The hugepage is still one folio although not mapped as one: partial releases become phantom.
  static let wholeFolio = BlockFlags(rawValue: 32)
  /// Some free page reads as zero; without it the zero map is empty and need not be read.
  static let hasZero = BlockFlags(rawValue: 64)
  /// An absent block that must be committed before it is used.
  static let decommitted = BlockFlags(rawValue: 128)
  /// What an occupied block is to its spans; a free one is nothing of it.
  static let roles = BlockFlags(rawValue: 2 | 4 | 8)
}

let noList = UInt16.max

typealias Block = UnsafeMutablePointer<BlockHeader>

extension UnsafeMutablePointer where Pointee == BlockHeader {
  @inline(__always)
  private func map(_ offset: Int) -> PageMap {
    PageMap((UnsafeMutableRawPointer(self) + offset).assumingMemoryBound(to: UInt64.self))
  }
  @inline(__always) var used: PageMap { map(64) }
  @inline(__always) var marks: PageMap { map(128) }
  @inline(__always) var zeroMap: PageMap { map(192) }

  /// Of 64 pages those that are free and were given to the kernel.
  @inline(__always) func released(word: Int) -> UInt64 { marks.words[word] & ~used.words[word] }

  /// Of 64 pages those where a span begins.
  func starts(word: Int) -> UInt64 { marks.words[word] & used.words[word] }

  /// The first page at or after `page` that is free and was given to the kernel, or 512.
  func firstReleased(from page: Int) -> Int {
    var page = marks.firstSet(from: page)
    while page < pagesPerBlock && used[page] { page = marks.firstSet(from: page &+ 1) }
    return page
  }

  /// No free page is one that was given to the kernel any more.
  func forgetAllReleased() {
    for word in 0..<wordsPerMap { marks.words[word] &= used.words[word] }
  }

  @inline(__always) var isBroken: Bool { pointee.flags.contains(.broken) }

  /// Free pages, in flight ones not counted.
  @inline(__always)
  var freePages: Int { pagesPerBlock &- Int(pointee.used) &- Int(pointee.inFlight) }

  /// How much it would cost to break the block, in quarters of a page: pages that lose their hugepage, and four and a
  /// quarter for each span, since each of its free ranges is one more to release, and each span one more that must die before
  /// the block can be whole again. (With one page for a span the deterministic program has two used pages in a hundred more
  /// on hugepages right after a release, hardly one in 500 after the next churn, makes four calls in a hundred more, and is
  /// left with four blocks more of 381.)
  @inline(__always)
  var useToBreak: Int { 4 &* Int(pointee.used) &+ 17 &* Int(pointee.spans) }

  /// At least 96.875 % of the block are in use.
  var isDense: Bool { Int(pointee.used) >= 496 }

  /// Less than a quarter of the block is in use: left alone, it may empty and come back as a hugepage.
  var mayDrain: Bool { Int(pointee.used) < pagesPerBlock / 4 }

  /// Free pages that are believed resident and were not given to the kernel.
  @inline(__always)
  var freeResidentPages: Int { freePages &- Int(pointee.released) }

  /// Free pages that were released and are gone.
  @inline(__always)
  var gonePages: Int { Int(pointee.released) &- Int(pointee.lazy) }

  /// For a wholly free block: all of it is released already, or the kernel refused it.
  var hasNothingToRelease: Bool {
    Int(pointee.released) == pagesPerBlock || pointee.flags.contains(.refused)
  }

  /// The longest run of free pages that are not released.
  func longestReleasableRun() -> PageRun {
    if pointee.released == 0 { return used.longestClearRun() }
    var best = PageRun(start: 0, count: 0)
    forEachReleasableRun { run in
      if run.count > best.count { best = run }
      return true
    }
    return best
  }

  /// Calls `body` with each maximal run of pages that are free and not released, ascending.
  @inline(__always)
  func forEachReleasableRun(_ body: (PageRun) -> Bool) {
    let used = self.used
    let marks = self.marks
    var page = 0
    while page < pagesPerBlock {
      // Both maps have to be clear: skip to the next page where they are, then to the first where one is not.
      let start = used.firstClear(from: page)
      if start >= pagesPerBlock { return }
      if marks[start] {
        page = min(marks.firstClear(from: start), used.firstSet(from: start))
        continue
      }
      let end = min(used.firstSet(from: start), marks.firstSet(from: start))
      if !body(PageRun(start: start, count: end &- start)) { return }
      page = end
    }
  }
}
