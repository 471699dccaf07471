// What a kernel has under one pageblock, as far as the heap can cause it.
//
// Memory comes in folios: a hugepage is one folio of 512 pages, and stays one until the kernel splits it. That a page of
// it is unmapped frees nothing: it is charged until the folio is split or its last mapped page goes. So each page is
// absent, a page of the block's hugepage, or a base page of its own; and the phantom is what a whole folio has beyond
// its mapped pages. The page table of base pages outlives them: a block that has one gets no hugepage by a fault.
// A split gives pages that hold only zeros up for the shared page of zeros, as kernels since 6.12 do: a page of a hugepage
// that nobody wrote is gone with it. A forked child shares what is there: until it goes a shared folio is neither split
// nor lazily freed by advice, and a write to a part of a shared hugepage copies that part. Checked against the real kernel, step by step, in ModelKernelTests.

import HugeSpanCore

/// State of 512 pages of 4 KiB.
struct ModelBlock {
  enum Page: UInt8 {
    case absent, base, folio
  }

  static let pageCount = 512

  private(set) var pages = [Page](repeating: .absent, count: pageCount)
  /// Written since it is there, so that it is not zero.
  private var isWritten = [Bool](repeating: false, count: pageCount)
  /// The first word of each page, as far as anybody wrote it, and how often the page lost what was in it.
  private(set) var words = [UInt64](repeating: 0, count: pageCount)
  private(set) var drops = [Int](repeating: 0, count: pageCount)
  /// Given back lazily: still there, the kernel may take it.
  private(set) var isLazy = [Bool](repeating: false, count: pageCount)
  /// Handed out to somebody: releasing it is a violation.
  var isUsed = [Bool](repeating: false, count: pageCount)
  /// A child maps the page too.
  private(set) var isShared = [Bool](repeating: false, count: pageCount)
  /// In swap, with its contents; `pages` has it as absent.
  private(set) var isSwapped = [Bool](repeating: false, count: pageCount)
  /// One PMD entry maps the hugepage.
  private(set) var isMappedHuge = false
  private(set) var hasPageTable = false

  private(set) var presentPages = 0
  private var folioPages = 0
  private(set) var lazyPages = 0

  /// Pages that are charged though nothing maps them.
  var phantomPages: Int { folioPages == 0 ? 0 : Self.pageCount - folioPages }
  var chargedPages: Int { presentPages + phantomPages }

  private mutating func set(_ page: Int, to state: Page, lazy: Bool = false) {
    if pages[page] != .absent { presentPages -= 1 }
    if pages[page] != .absent && state == .absent { drops[page] += 1 }
    if pages[page] == .folio { folioPages -= 1 }
    if isLazy[page] { lazyPages -= 1 }
    pages[page] = state
    isSwapped[page] = false
    if state == .absent {
      words[page] = 0
      isWritten[page] = false
      isShared[page] = false
    }
    isLazy[page] = lazy
    if state != .absent { presentPages += 1 }
    if state == .folio { folioPages += 1 }
    if lazy { lazyPages += 1 }
  }

  private mutating func fill(_ state: Page, lazy: Bool = false) {
    for page in 0..<Self.pageCount { set(page, to: state, lazy: lazy) }
  }

  /// Writes to `range`, or dirties it without changing it. `givesHugePages` says whether an empty block becomes huge.
  mutating func touch(_ range: Range<Int>, givesHugePages: Bool, changes: Bool = true) {
    defer { if changes { for page in range { isWritten[page] = true } } }
    if isMappedHuge && isShared[0] {
      isMappedHuge = false
      hasPageTable = true
    }
    if isMappedHuge {
      if lazyPages > 0 { fill(.folio) }
    } else if !hasPageTable && givesHugePages {
      fill(.folio)
      isMappedHuge = true
    } else {
      hasPageTable = true
      for page in range {
        set(page, to: pages[page] == .absent || isShared[page] ? .base : pages[page])
        isShared[page] = false
      }
    }
  }

  /// A child maps what is there too.
  mutating func fork() { for page in 0..<Self.pageCount where pages[page] != .absent { isShared[page] = true } }
  /// No child does any more.
  mutating func endChildren() { for page in 0..<Self.pageCount { isShared[page] = false } }

  /// The hugepage, whether one entry maps it or not, is a child's too.
  private var isFolioShared: Bool { (0..<Self.pageCount).contains { pages[$0] == .folio && isShared[$0] } }

  /// The kernel, or the heap, wrote zeros.
  mutating func clearWritten(_ range: Range<Int>) {
    for page in range {
      isWritten[page] = false
      words[page] = 0
    }
  }

  /// The first word of a page that has been touched.
  mutating func setWord(_ word: UInt64, of page: Int) { words[page] = word }

  func readsAsZero(_ range: Range<Int>) -> Bool { range.allSatisfy { !isWritten[$0] } }

  mutating func dontneed(_ range: Range<Int>) {
    if isMappedHuge && range.count == Self.pageCount {
      fill(.absent)
      isMappedHuge = false
      return
    }
    if isMappedHuge {
      isMappedHuge = false
      hasPageTable = true
    }
    for page in range { set(page, to: .absent) }
    // An emptied page table is freed only by a call that spans all of it.
    if range.count == Self.pageCount { hasPageTable = false }
  }

  /// Marks present pages as free for the taking. A part of a hugepage cannot be: it is split.
  mutating func free(_ range: Range<Int>) {
    let isFolioShared = isFolioShared
    if isMappedHuge && range.count < Self.pageCount && !isFolioShared { split() }
    for page in range where pages[page] != .absent {
      if pages[page] == .folio ? isFolioShared : isShared[page] { continue }
      set(page, to: pages[page], lazy: true)
    }
  }

  /// Cooling or paging out a part of a hugepage splits it.
  mutating func cool(_ range: Range<Int>) {
    if isFolioShared { return }
    if range.count < Self.pageCount || !isMappedHuge, range.contains(where: { pages[$0] == .folio }) {
      if folioPages < Self.pageCount || range.count < Self.pageCount { split() }
    }
  }

  /// Paging out takes what was lazily freed, and moves the rest to swap if there is any. It splits hugepages in any case.
  mutating func pageOut(_ range: Range<Int>, hasSwap: Bool) {
    if isMappedHuge && range.count == Self.pageCount && !isFolioShared && lazyPages > 0 {
      takeLazyHuge()
      return
    }
    if isMappedHuge && !isFolioShared { split() }
    cool(range)
    for page in range where pages[page] != .absent && !isShared[page] {
      let isKept = !isLazy[page]
      if isKept && !hasSwap { continue }
      set(page, to: .absent)
      if isKept {
        isSwapped[page] = true
        isWritten[page] = true
      }
    }
  }

  /// The hugepage becomes base pages; what nothing maps or nobody wrote is freed.
  mutating func split() {
    isMappedHuge = false
    hasPageTable = true
    for page in 0..<Self.pageCount where pages[page] == .folio {
      set(page, to: isWritten[page] ? .base : .absent, lazy: isWritten[page] && isLazy[page])
    }
  }

  /// Copies what is there into a hugepage; false if nothing is there.
  mutating func collapse() -> Bool {
    guard presentPages > 0 else { return false }
    if isMappedHuge { return true }
    fill(.folio)
    endChildren()  // a copy, and ours alone
    isMappedHuge = true
    hasPageTable = false
    return true
  }

  /// Reclaim maps the hugepage by pages before it takes it, and leaves the page table behind.
  private mutating func takeLazyHuge() {
    dontneed(0..<Self.pageCount)
    hasPageTable = true
  }

  /// The kernel takes what it was given lazily: of a hugepage all, else what is in `range`.
  mutating func reclaimLazy(_ range: Range<Int> = 0..<pageCount) {
    guard lazyPages > 0 else { return }
    if isMappedHuge {
      takeLazyHuge()
    } else {
      for page in range where isLazy[page] { set(page, to: .absent) }
    }
  }
}
