// The memory of the simulated machine: reservations, pageblocks, totals, and what changes them.
//
// One array of blocks for all reservations, in address space that costs nothing until it is used, because addresses are handed
// out one behind the other. Whoever changes a block does so inside `change`, which takes it out of the totals before and
// counts it in again after, so that no total can drift from the blocks. Used by one thread: a replay has one.
//
// Time passes when the replay says so (`now`), and costs are booked as nanoseconds of CPU time; nothing here reads a clock.

import CHugeSpanShims
import HugeSpanCore

/// What is in memory, in pages, and what has happened.
package struct SimulatedTotals: Equatable, Sendable {
  package var present = 0
  package var phantom = 0
  package var lazy = 0
  package var swapped = 0
  package var hugeBlocks = 0
  package var splitBlocks = 0

  package var charged: Int { present + phantom }

  /// Page faults of the program, and what they cost.
  package var faults = 0
  package var hugeFaults = 0
  package var faultNanoseconds = 0.0
  /// Base pages that were lazily free, and that a write took back without a fault.
  package var lazyWrites = 0
  /// Touches of a block that brought base pages in, however many at once.
  package var faultRuns = 0
  package var swapIns = 0
  package var swapOuts = 0
  /// Lazily freed pages that reclaim took, hugepages that it split, and what it cost whoever asked for memory.
  package var lazyTaken = 0
  package var reclaimSplits = 0
  package var reclaimNanoseconds = 0.0
  package var khugepagedCollapses = 0
  package var longestFaultNanoseconds = 0.0
}

/// State of the machine, behind a pointer: class properties are checked for exclusive access at each use. There is one for
/// each machine, and nobody copies it; that it could be has a reason: the compiler crashes on it as `~Copyable` with the thread sanitizer.
struct SimulatedState {
  typealias Flag = SimulatedBlock.Flag
  static let pageCount = SimulatedBlock.pageCount
  static let base: UInt = 1 << 40
  /// Address space for the blocks of 16 TiB.
  static let capacity = 1 << 23

  let options: SimulationOptions
  let costs: CostModel
  let blocks: UnsafeMutablePointer<SimulatedBlock>
  let tables = SimulatedPageTables()
  /// Blocks that were ever reserved.
  var blockCount = 0
  var totals = SimulatedTotals()
  var random: SeededRandom
  /// Nanoseconds of simulated time.
  var now: UInt64 = 0
  /// Charged by others under the same limit, and by the heap's own tables.
  var otherBytes = 0
  var metadataBytes = 0
  var commits = 0
  var isOutOfMemory = false
  /// Hands of the walks of reclaim, one each for lazily freed, phantom, underused and cold memory, and khugepaged's.
  var hands = InlineArray<5, Int>(repeating: 0)
  var khugepagedCredit = 0.0

  init(_ options: SimulationOptions, _ costs: CostModel) {
    self.options = options
    self.costs = costs
    random = SeededRandom(seed: options.seed)
    blocks = mapHuge(Self.capacity * MemoryLayout<SimulatedBlock>.stride).assumingMemoryBound(to: SimulatedBlock.self)
  }

  /// Gives the blocks back.
  func destroy() { _ = hs_shim_unmap(UInt(bitPattern: blocks), Self.capacity * MemoryLayout<SimulatedBlock>.stride) }

  @inline(__always)
  func index(_ address: UInt) -> Int { Int((address &- Self.base) &>> 21) }

  func address(_ index: Int) -> UInt { Self.base + UInt(index) << 21 }

  func pages(_ index: Int) -> SimulatedPages { tables[blocks[index].side] }

  /// True with the probability `share`.
  mutating func happens(_ share: Double) -> Bool {
    share > 0 && Double(random.next() >> 11) / Double(1 << 53) < share
  }

  // MARK: Totals

  @inline(__always)
  private mutating func count(_ index: Int, _ sign: Int) {
    let block = blocks[index]
    totals.present &+= sign &* Int(block.present)
    totals.phantom &+= sign &* block.phantom
    totals.lazy &+= sign &* Int(block.lazy)
    totals.swapped &+= sign &* Int(block.swapped)
    if block.has(Flag.mappedHuge) { totals.hugeBlocks &+= sign }
    if block.side != 0 { totals.splitBlocks &+= sign }
  }

  /// Every change of a block goes through here.
  @inline(__always)
  mutating func change(_ index: Int, _ body: (inout SimulatedState) -> Void) {
    count(index, -1)
    let wasThere = blocks[index].present > 0
    body(&self)
    let block = blocks[index]
    if block.present == 0 && block.swapped == 0 && block.side != 0 { giveTable(index) }
    if block.present == 0 && wasThere { blocks[index].goneAt = UInt32(truncatingIfNeeded: now / 1_000_000) &+ 1 }
    count(index, 1)
  }

  private mutating func giveTable(_ index: Int) {
    tables.give(blocks[index].side)
    blocks[index].side = 0
  }

  // MARK: What blocks go through, each called inside `change`

  /// The hugepage is mapped by pages from now on, and is one folio still.
  mutating func unmapHuge(_ index: Int) {
    let block = blocks[index]
    let number = tables.take()
    let pages = tables[number]
    pages.present.fill(true)
    pages.folio.fill(true)
    if block.lazy > 0 { pages.marks.fill(true) }
    if block.has(Flag.shared) { pages.shared.fill(true) }
    block.written.set(pages.written)
    blocks[index].side = number
    blocks[index].flags = block.flags & ~(Flag.mappedHuge | Flag.shared) | Flag.pageTable
  }

  /// The counts of a block with bitmaps, from its bitmaps.
  mutating func recount(_ index: Int) {
    let pages = pages(index)
    blocks[index].present = UInt16(pages.present.count)
    blocks[index].folio = UInt16(pages.folio.count)
    var (lazy, swapped) = (0, 0)
    for word in 0..<8 {
      lazy &+= pages.lazy(word).nonzeroBitCount
      swapped &+= pages.swapped(word).nonzeroBitCount
    }
    blocks[index].lazy = UInt16(lazy)
    blocks[index].swapped = UInt16(swapped)
  }

  /// Nothing is left of the block.
  mutating func drop(_ index: Int) {
    var block = blocks[index]
    if block.side != 0 { giveTable(index) }
    block = blocks[index]
    (block.present, block.folio, block.lazy, block.swapped, block.word) = (0, 0, 0, 0, 0)
    block.flags &= Flag.committed | Flag.advised
    blocks[index] = block
  }

  /// All of block `source` is at `destination` from now on, of which nothing was in memory; page tables go along.
  mutating func move(_ source: Int, to destination: Int) {
    change(destination) { state in
      state.drop(destination)
      let reservation = Flag.committed | Flag.advised
      let (from, to) = (state.blocks[source], state.blocks[destination])
      state.change(source) { state in
        state.blocks[source].side = 0
        state.drop(source)
      }
      state.blocks[destination] = from
      state.blocks[destination].flags = from.flags & ~reservation | to.flags & reservation
      state.blocks[destination].goneAt = to.goneAt
    }
  }

  /// Reclaim takes a hugepage that was lazily free. It maps it by pages first, and the page table stays: what is touched
  /// next gets base pages.
  mutating func takeLazyHuge(_ index: Int) {
    drop(index)
    blocks[index].flags |= Flag.pageTable
  }

  /// One hugepage, mapped by one entry.
  mutating func makeHuge(_ index: Int) {
    if blocks[index].side != 0 { giveTable(index) }
    var block = blocks[index]
    (block.present, block.folio, block.lazy, block.swapped) = (512, 512, 0, 0)
    block.flags = block.flags & ~(Flag.pageTable | Flag.cold | Flag.shared) | Flag.mappedHuge
    blocks[index] = block
  }

  /// The folio becomes base pages; of its pages what nothing maps or nobody wrote is freed.
  mutating func split(_ index: Int) {
    if blocks[index].has(Flag.mappedHuge) { unmapHuge(index) }
    if blocks[index].side == 0 { return }
    let pages = pages(index)
    for word in 0..<8 {
      let zero = pages.folio[word] & ~pages.written[word]
      pages.present[word] &= ~zero
      pages.marks[word] &= ~zero
      pages.folio[word] = 0
    }
    recount(index)
  }

  /// `range` is unmapped.
  mutating func unmap(_ index: Int, _ range: Range<Int>) {
    if range.count == Self.pageCount {
      drop(index)
      return
    }
    if blocks[index].has(Flag.mappedHuge) { unmapHuge(index) }
    if range.lowerBound == 0 { blocks[index].word = 0 }
    if blocks[index].side == 0 { return }
    let pages = pages(index)
    SimulatedPages.forEach(range) { word, mask in
      for bits in [pages.present, pages.folio, pages.marks, pages.shared, pages.written] { bits[word] &= ~mask }
    }
    recount(index)
  }

  // MARK: The program's writes

  /// Writes to pages from `address` on; `changes` says whether the contents become something else than zeros.
  @inline(__always)
  mutating func touch(_ address: UInt, pages count: Int, changes: Bool = true) {
    var first = Int((address &>> 12) & 511)
    var index = index(address)
    var rest = count
    while rest > 0 {
      let end = min(first &+ rest, Self.pageCount)
      let flags = blocks[index].flags
      if flags & (Flag.mappedHuge | Flag.shared) == Flag.mappedHuge && blocks[index].lazy == 0 {
        if flags & Flag.referenced == 0 { blocks[index].flags |= Flag.referenced }
        if changes { blocks[index].written.insert(first, end) }
      } else {
        touchSlowly(index, first..<end, changes)
      }
      rest &-= end &- first
      first = 0
      index &+= 1
    }
  }

  @inline(never)
  private mutating func touchSlowly(_ index: Int, _ range: Range<Int>, _ changes: Bool) {
    let block = blocks[index]
    precondition(
      index < blockCount && block.has(Flag.committed),
      "a write to 0x\(String(address(index), radix: 16)), which is not committed")
    blocks[index].flags = block.flags & ~Flag.cold | Flag.referenced
    if block.has(Flag.mappedHuge) && !block.has(Flag.shared) {
      // Taken back: a dirty page is no longer free for the taking.
      change(index) { $0.blocks[index].lazy = 0 }
    } else if !block.has(Flag.mappedHuge | Flag.pageTable) && block.has(Flag.advised) && faultHuge(index) {
    } else {
      faultPages(index, range)
    }
    if !changes { return }
    if blocks[index].has(Flag.mappedHuge) {
      blocks[index].written.insert(range.lowerBound, range.upperBound)
    } else {
      let pages = pages(index)
      SimulatedPages.forEach(range) { word, mask in pages.written[word] |= mask }
    }
  }

  /// False if there is no hugepage to be had.
  private mutating func faultHuge(_ index: Int) -> Bool {
    if happens(options.hugeFailure) || !makeRoom(Self.pageCount, mayFail: true) { return false }
    let goneAt = blocks[index].goneAt
    var price = costs.blockFault
    if options.reportsFreePages && goneAt > 0 {
      price = costs.blockFault(afterSeconds: (Double(now / 1_000_000) - Double(goneAt - 1)) / 1000)
    }
    change(index) {
      $0.makeHuge(index)
      $0.blocks[index].written = WrittenPages()
      $0.blocks[index].word = 0
    }
    totals.faults += 1
    totals.hugeFaults += 1
    bookFault(price)
    return true
  }

  private mutating func bookFault(_ microseconds: Double) {
    totals.faultNanoseconds += microseconds * 1000
    totals.longestFaultNanoseconds = max(totals.longestFaultNanoseconds, microseconds * 1000)
  }

  /// How many of `range` are not there, or are there and shared with a child.
  @inline(__always)
  private func missingPages(_ index: Int, _ range: Range<Int>) -> Int {
    if blocks[index].side == 0 { return range.count }
    let pages = pages(index)
    var missing = 0
    SimulatedPages.forEach(range) { word, mask in
      missing += (mask & ~(pages.present[word] & ~pages.shared[word])).nonzeroBitCount
    }
    return missing
  }

  /// Base pages for those of `range` that are not there, copies of those that a child shares.
  private mutating func faultPages(_ index: Int, _ range: Range<Int>) {
    // Reclaim may take pages of this very range, so that more are wanted.
    var wanted = missingPages(index, range)
    while wanted > 0 && makeRoom(wanted, mayFail: false) {
      let missing = missingPages(index, range)
      if missing == wanted { break }
      wanted = missing
    }
    var (fresh, swappedIn, takenBack) = (0, 0, 0)
    var (mapped, copiedOfFolio, wereLazy) = (0, 0, 0)
    change(index) {
      if $0.blocks[index].has(Flag.mappedHuge) { $0.unmapHuge(index) }
      if $0.blocks[index].side == 0 { $0.blocks[index].side = $0.tables.take() }
      $0.blocks[index].flags |= Flag.pageTable
      let pages = $0.pages(index)
      SimulatedPages.forEach(range) { word, mask in
        let copied = mask & pages.present[word] & pages.shared[word]
        let absent = mask & ~pages.present[word]
        mapped += absent.nonzeroBitCount
        copiedOfFolio += (copied & pages.folio[word]).nonzeroBitCount
        let swapped = absent & pages.marks[word]
        fresh += (absent & ~swapped).nonzeroBitCount + copied.nonzeroBitCount
        swappedIn += swapped.nonzeroBitCount
        let lazy = mask & pages.lazy(word)
        wereLazy += lazy.nonzeroBitCount
        takenBack += (lazy & ~copied).nonzeroBitCount
        pages.present[word] |= mask
        pages.folio[word] &= ~copied
        pages.shared[word] &= ~copied
        pages.marks[word] &= ~mask
      }
      // As `recount` would find them, of the words that were touched.
      $0.blocks[index].present += UInt16(mapped)
      $0.blocks[index].folio -= UInt16(copiedOfFolio)
      $0.blocks[index].lazy -= UInt16(wereLazy)
      $0.blocks[index].swapped -= UInt16(swappedIn)
    }
    totals.faults += fresh + swappedIn
    totals.lazyWrites += takenBack
    if fresh > 0 { totals.faultRuns += 1 }
    totals.swapIns += swappedIn
    totals.faultNanoseconds +=
      (Double(fresh) * costs.pageFault + Double(swappedIn) * SimulationOptions.Prices.swapIn) * 1000
  }

  /// Whether the block's folio is a child's too.
  @inline(__always)
  func isFolioShared(_ index: Int) -> Bool {
    let block = blocks[index]
    if block.has(Flag.mappedHuge) { return block.has(Flag.shared) }
    if block.side == 0 { return false }
    let pages = pages(index)
    for word in 0..<8 where pages.folio[word] & pages.shared[word] != 0 { return true }
    return false
  }
}
