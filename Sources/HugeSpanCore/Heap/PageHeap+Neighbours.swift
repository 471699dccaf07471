// Large spans beside others: where the rest of a span of several blocks goes.
//
// A span of 5.1 blocks needs five blocks and a tenth. To open a sixth for the tenth leaves nine tenths of a hugepage to whoever
// comes, and in programs with large buffers nobody small enough does: a fifth of the memory of the bundled images trace was such
// tails. So the rest goes into the free end of the occupied block before a run of free blocks, or into the free beginning of
// the one behind it, if that is intact and has room: the tightest that is found. Then a block holds the ends of two large spans,
// as long as the longer-lived of them; a donated tail would have been held as long by whoever settled in it.
//
// Tried and refused: to look at every run (each costs two cache lines of its neighbours, and a heap of 100 GiB may have 25,000);
// neighbours that are broken (the span would begin on base pages).

/// Where a span of several blocks begins, and which free blocks it takes.
struct SpanPlace {
  var arena: Int
  /// Block and page of the span's first page.
  var block: Int
  var page: Int
  /// The wholly free blocks that it takes.
  var firstFree: Int
  var freeCount: Int
}

/// What the search has found so far: the tightest neighbour; among those, most of the free blocks in memory. (Memory first
/// costs the images trace 4 % more: it spends the neighbours on whatever run is there.)
private struct NeighbourSearch {
  /// Runs of free blocks whose neighbours are looked at: some microseconds.
  static let runsExamined = 64

  let rest: Int
  let whole: Int
  var best: SpanPlace? = nil
  var bestAbsent = Int.max
  var bestFree = Int.max
  var examined = 0

  init(rest: Int, whole: Int) {
    self.rest = rest
    self.whole = whole
  }

  var isOver: Bool { examined >= Self.runsExamined || (bestFree == rest && bestAbsent == 0) }

  @inline(__always)
  mutating func consider(_ arena: Arena, free: Int, firstFree: Int, _ place: () -> SpanPlace) {
    if free < rest { return }
    let absent = whole - PageMap(arena.residentWords).count(in: PageRun(start: firstFree, count: whole))
    if (free, absent) >= (bestFree, bestAbsent) { return }
    bestAbsent = absent
    bestFree = free
    best = place()
  }
}

extension PageHeapCore {
  /// A place for `count` pages, of more than one block, whose rest lies in a block that is in use; or nil. Under the lock.
  func placeBesideOthers(_ count: Int) -> SpanPlace? {
    let rest = count & (pagesPerBlock - 1)
    let whole = count / pagesPerBlock
    // Blocks that a forked child may share are renewed as wholes.
    if rest == 0 || whole == 0 || state.pointee.sharedBlocks > 0 { return nil }
    var search = NeighbourSearch(rest: rest, whole: whole)
    for index in 0..<state.pointee.arenaCount {
      let arena = state.pointee.arenas[index]
      if arena.freeBlocks < whole { continue }
      arena.forEachRun(of: arena.freeWords) { start, end in
        if end - start < whole { return true }
        search.examined += 1
        if start > 0 {
          search.consider(arena, free: arena.block(start - 1).freeEnd, firstFree: start) {
            SpanPlace(arena: index, block: start - 1, page: pagesPerBlock - rest, firstFree: start, freeCount: whole)
          }
        }
        if end < arena.committedBlocks {
          search.consider(arena, free: arena.block(end).freeBeginning, firstFree: end - whole) {
            SpanPlace(arena: index, block: end - whole, page: 0, firstFree: end - whole, freeCount: whole)
          }
        }
        return !search.isOver
      }
      if search.isOver { break }
    }
    return search.best
  }

  /// Takes `count` pages from `place` on. Under the lock.
  func takeSpan(_ count: Int, at place: SpanPlace) -> AllocatedSpan {
    let arena = state.pointee.arenas + place.arena
    let before = state.pointee.totals.pagesRefaulted
    var isZero = true
    var rest = count
    var number = place.block
    var page = place.page
    while rest > 0 {
      let block = arena.pointee.block(number)
      let pages = min(rest, pagesPerBlock - page)
      let taken: (refaulted: Int, zero: Bool)
      if block.pointee.kind == .occupied {
        taken = state.pointee.take(
          block, PageRun(start: page, count: pages), startsSpan: rest == count, longest: nil)
      } else {
        state.pointee.claim(block, transient: false)
        if pages < pagesPerBlock { block.pointee.flags.insert(.donated) }
        taken = state.pointee.fill(block, count: pages, startsSpan: rest == count)
      }
      isZero = isZero && taken.zero
      state.pointee.relist(block)
      rest -= pages
      number += 1
      page = 0
    }
    state.pointee.totals.allocations &+= 1
    return AllocatedSpan(
      span: PageSpan(
        address: state.pointee.address(of: arena.pointee.block(place.block), page: place.page), pageCount: count),
      isZero: isZero, refaultedPages: min(state.pointee.totals.pagesRefaulted - before, count))
  }
}

extension Block {
  /// Free pages at the end of an occupied intact block; 0 of any other.
  fileprivate var freeEnd: Int { isGoodNeighbour ? pagesPerBlock - 1 - used.lastSet(before: pagesPerBlock) : 0 }

  /// Free pages at its beginning.
  fileprivate var freeBeginning: Int { isGoodNeighbour ? used.firstSet(from: 0) : 0 }

  private var isGoodNeighbour: Bool {
    pointee.kind == .occupied && !isBroken && pointee.released == 0 && !pointee.flags.contains(.transient)
  }
}
