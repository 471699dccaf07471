// The deterministic placement program, against the figures of TCMalloc's hugepage filler for the same program.
//
// TCMalloc counts in pages of 8 KiB, 256 to a block, so each of its pages is two of ours, and page figures are halved
// before they are compared. The kernel is a fake one: every release succeeds.
//
// "Intact" is the share of used pages in blocks without released pages: the published figures can mean nothing else. A block
// that counted as broken until it has been wholly free would leave 0.004 in the last row by the filler's own rule (which
// fills what is there before it opens a block), where 0.537 is published; by this count the rule gives 0.52 there.

import HugeSpanCore
import Testing

/// Address space without memory; every advice succeeds and nothing is ever told.
private struct AgreeableKernel: Kernel {
  let geometry = PageGeometry(pageBytes: 4096, hugePageBytes: 1 << 21)

  func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    AddressRange(start: UInt(1) << 40, byteCount: byteCount)
  }
  func commit(_ range: AddressRange) throws(KernelError) {}
  func unreserve(_ range: AddressRange) {}
  func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    AdviseOutcome(completedRanges: ranges.count, error: nil, calls: 1, nanoseconds: 0, longestNanoseconds: 0)
  }
  func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    AdviseOutcome(completedRanges: 1, error: nil, calls: 1, nanoseconds: 0, longestNanoseconds: 0)
  }
  func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) { throw .notSupported }
  func zero(_ range: AddressRange) {}
  func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    return memory
  }
  func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) { pointer.deallocate() }
}

/// One row of the table, in pages of 8 KiB.
struct PlacementRow: CustomStringConvertible {
  var used: Int
  var blocks: Int
  var intact: Double
  var calls: Int
  var released: Int
  var refaulted: Int

  var callsPerPage: Double { released == 0 ? 0 : Double(calls) / Double(released) }

  var description: String {
    "used \(used) blocks \(blocks) ratio \(Double(blocks) * 256 / Double(used)) intact \(intact) "
      + "calls \(calls) released \(released) refaulted \(refaulted)"
  }
}

/// What the program runs on: the heap, or the filler's rule. Pages are of 8 KiB.
private protocol Placement: AnyObject {
  associatedtype Place
  var usedPages: Int { get }
  var row: PlacementRow { get }
  func allocate(_ pages: Int) throws -> Place
  func free(_ place: Place)
  /// Releases `numerator / denominator` of the free pages of blocks in use, as the filler's table does.
  func release(_ numerator: Int, of denominator: Int)
}

/// The heap under test, with the order of the `seed` policy.
private final class HeapPlacement: Placement {
  private let heap: PageHeapCore<AgreeableKernel>
  private(set) var usedPages = 0

  init() throws {
    var options = HeapOptions()
    options.firstArenaBytes = 8 << 30
    options.strategy = StrategyChoice(.dontneed)
    heap = try PageHeapCore(kernel: AgreeableKernel(), options: options)
  }

  func allocate(_ pages: Int) throws -> PageSpan {
    usedPages += pages
    return try heap.allocate(SpanRequest(pageCount: pages * 2)).span
  }

  func free(_ place: PageSpan) {
    usedPages -= place.pageCount / 2
    heap.free(place)
  }

  func release(_ numerator: Int, of denominator: Int) {
    let statistics = heap.statistics()
    let free = statistics.freeResidentPages - statistics.freeResidentBlocks * 512
    let pages = numerator == denominator ? Int.max : free * numerator / denominator
    _ = heap.release(pages: pages, order: ReleaseOrder(preferBroken: true, length: .longest))
  }

  var row: PlacementRow {
    heap.checkInvariants()
    let statistics = heap.statistics()
    return PlacementRow(
      used: statistics.usedPages / 2,
      blocks: statistics.fullBlocks + statistics.partialIntactBlocks + statistics.partialBrokenBlocks,
      intact: 1 - Double(statistics.usedBesideReleasedPages) / Double(statistics.usedPages),
      calls: statistics.releaseRanges, released: statistics.pagesReleased / 2,
      refaulted: (statistics.pagesRefaulted - statistics.pagesRefaultedWhole) / 2)
  }
}

/// The filler's rule.
private final class FillerPlacement: Placement {
  private let filler = FillerModel()
  var usedPages: Int { filler.usedPages }

  func allocate(_ pages: Int) -> (block: FillerBlock, start: Int, pages: Int) {
    let place = filler.allocate(pages)
    return (place.block, place.start, pages)
  }

  func free(_ place: (block: FillerBlock, start: Int, pages: Int)) {
    filler.free(place.block, place.start, place.pages)
  }

  func release(_ numerator: Int, of denominator: Int) {
    filler.release(pages: numerator == denominator ? Int.max : filler.freePages * numerator / denominator)
  }

  var row: PlacementRow {
    let occupied = filler.blocks.filter { $0.usedPages > 0 }
    let intact = occupied.reduce(0) { $0 + ($1.releasedPages == 0 ? $1.usedPages : 0) }
    return PlacementRow(
      used: usedPages, blocks: occupied.count, intact: Double(intact) / Double(usedPages), calls: filler.calls,
      released: filler.pagesReleased, refaulted: filler.pagesRefaulted)
  }
}

/// The program: its random numbers, its spans, its steps.
private struct PlacementProgram<Target: Placement> {
  let target: Target
  private var places: [Target.Place] = []
  private var state: UInt64

  init(_ target: Target, seed: UInt64) {
    self.target = target
    state = seed
  }

  private mutating func random() -> Int {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return Int((state >> 11) & 0xFFFF_FFFF)
  }

  private mutating func drawSize() -> Int {
    switch random() % 1000 {
    case ..<600: 1
    case ..<750: 2
    case ..<850: 4
    case ..<930: 8
    case ..<980: 16
    case ..<995: 32
    case ..<999: 64
    default: 128
    }
  }

  mutating func up(_ used: Int) throws {
    while target.usedPages < used { places.append(try target.allocate(drawSize())) }
  }

  mutating func down(_ used: Int) {
    while target.usedPages > used {
      let index = random() % places.count
      target.free(places[index])
      places[index] = places[places.count - 1]
      places.removeLast()
    }
  }

  mutating func churn(_ times: Int) throws {
    for _ in 0..<(times * places.count) {
      let index = random() % places.count
      target.free(places[index])
      places[index] = try target.allocate(drawSize())
    }
  }
}

/// TCMalloc's rows, in the order of the program.
private let published: [PlacementRow] = [
  PlacementRow(used: 65_536, blocks: 256, intact: 1, calls: 0, released: 0, refaulted: 0),
  PlacementRow(used: 65_039, blocks: 268, intact: 1, calls: 0, released: 0, refaulted: 0),
  PlacementRow(used: 131_074, blocks: 513, intact: 1, calls: 0, released: 0, refaulted: 0),
  PlacementRow(used: 65_530, blocks: 512, intact: 1, calls: 0, released: 0, refaulted: 0),
  PlacementRow(used: 65_530, blocks: 512, intact: 0.696, calls: 3671, released: 32_837, refaulted: 0),
  PlacementRow(used: 66_399, blocks: 501, intact: 0.964, calls: 3671, released: 32_837, refaulted: 0),
  PlacementRow(used: 81_927, blocks: 501, intact: 0.962, calls: 3671, released: 32_837, refaulted: 1289),
  PlacementRow(used: 65_522, blocks: 498, intact: 0, calls: 10_555, released: 65_008, refaulted: 1289),
  PlacementRow(used: 66_183, blocks: 381, intact: 0.537, calls: 10_555, released: 65_008, refaulted: 16_377),
]

/// Load of the program in pages of 8 KiB.
private let load = 65_536

/// Runs the whole program with one seed, each of its two heaps made by `make`; the second starts from the seed again.
private func rows<Target: Placement>(_ seed: UInt64, on make: () throws -> Target) throws -> [PlacementRow] {
  var rows: [PlacementRow] = []
  var first = PlacementProgram(try make(), seed: seed)
  try first.up(load)
  rows.append(first.target.row)
  try first.churn(10)
  rows.append(first.target.row)
  var second = PlacementProgram(try make(), seed: seed)
  try second.up(2 * load)
  rows.append(second.target.row)
  second.down(load)
  rows.append(second.target.row)
  second.target.release(1, of: 2)
  rows.append(second.target.row)
  try second.churn(2)
  rows.append(second.target.row)
  try second.up(load * 5 / 4)
  rows.append(second.target.row)
  second.down(load)
  second.target.release(1, of: 1)
  rows.append(second.target.row)
  try second.churn(2)
  rows.append(second.target.row)
  return rows
}

private let publishedSeed: UInt64 = 0x9E37_79B9_7F4A_7C15

/// The same sequence on the heap and on the filler's rule.
private func pair(_ seed: UInt64) throws -> (ours: [PlacementRow], filler: [PlacementRow]) {
  (try rows(seed, on: HeapPlacement.init), try rows(seed, on: FillerPlacement.init))
}

@Suite struct PlacementProgramTests {

  /// The published sequence of the first heap is that of the published seed, to the page. The model reproduces it to the
  /// block, which is why it may stand for the filler where the sequence is not known.
  @Test func packsTheFirstHeapNoWorseThanPublished() throws {
    let (ours, filler) = try pair(publishedSeed)
    for index in 0..<2 {
      #expect(ours[index].used == published[index].used)
      #expect(filler[index].used == published[index].used)
      #expect(filler[index].blocks == published[index].blocks)
      #expect(ours[index].blocks <= published[index].blocks)
    }
  }

  /// No figure of the published seed's own sequence is worse than published by more than one percent, and what a sequence
  /// does not decide is not worse at all. The second heap's published sequence is none of this seed's (its used pages are
  /// those of no offset in the first three million random numbers, nor of 900,000 related seeds), and this one leaves no
  /// placement a choice in two rows: filling it ends with a span of 32 pages when 23 are free in 512 blocks, so that it needs
  /// a 513th, and that span is the one of them that lives through `down`.
  @Test func isNotWorseThanPublishedOnThePublishedSeed() throws {
    let ours = try rows(publishedSeed, on: HeapPlacement.init)
    expectWithinOnePercent(ours, "published seed")
    for (index, row) in ours.enumerated() {
      let line = "row \(index + 1): \(row)"
      if index < 3 { #expect(row.blocks <= published[index].blocks, "\(line)") }
      if index < 4 || index > 5 { #expect(row.intact >= published[index].intact, "\(line)") }
      #expect(row.callsPerPage <= published[index].callsPerPage, "\(line)")
      #expect(row.refaulted <= published[index].refaulted, "\(line)")
    }
  }

  /// Three sequences that share nothing with the published one but its program.
  @Test(arguments: [1, 42, 0xDEAD_BEEF] as [UInt64])
  func staysWithinOnePercentOfPublished(seed: UInt64) throws {
    expectWithinOnePercent(try rows(seed, on: HeapPlacement.init), "seed \(seed)")
  }

  /// Holds every figure against its published row. Blocks are compared by number, to the nearest whole block (one percent
  /// of 498 is 4.98 of them); divided by used pages, of which a sequence has up to three percent more or fewer than the
  /// published one, they are another sequence's figure. In the sixth row no placement could reach it: 502 of the blocks that
  /// seed 0xDEADBEEF has filled hold a span that is never freed until then, where 494 would be the published ratio.
  private func expectWithinOnePercent(_ ours: [PlacementRow], _ name: String) {
    for (index, row) in ours.enumerated() {
      let line = "\(name), row \(index + 1): \(row)"
      let limit = published[index]
      #expect(row.blocks <= Int((Double(limit.blocks) * 1.01).rounded()), "\(line)")
      #expect(row.intact >= limit.intact * 0.99, "\(line)")
      #expect(row.callsPerPage <= limit.callsPerPage * 1.01, "\(line)")
      #expect(Double(row.refaulted) <= Double(limit.refaulted) * 1.01, "\(line)")
    }
  }

  /// Sequence by sequence: the published seed, and three more.
  @Test(arguments: [publishedSeed, 1, 42, 0xDEAD_BEEF])
  func isNoWorseThanTheFillerOnTheSameSequence(seed: UInt64) throws {
    let (ours, filler) = try pair(seed)
    for index in published.indices {
      let line = "seed \(seed), row \(index + 1): \(ours[index]), filler \(filler[index])"
      #expect(ours[index].used == filler[index].used, "\(line)")
      #expect(Double(ours[index].blocks) <= Double(filler[index].blocks) * 1.01, "\(line)")
      #expect(ours[index].callsPerPage <= filler[index].callsPerPage, "\(line)")
      if index < 7 { #expect(ours[index].intact >= filler[index].intact * worstIntact(index), "\(line)") }
    }
    #expect(ours[5].refaulted <= filler[5].refaulted)
    #expect(ours[8].refaulted <= filler[8].refaulted)
    // What a release leads to in the end is better, not only no worse.
    #expect(ours[8].blocks < filler[8].blocks && ours[8].intact > filler[8].intact)
  }

  /// Of the filler's share on intact blocks, what the heap may have right after half has been released: it breaks blocks of
  /// few spans rather than of few pages, which drain sooner. No other row pays for it.
  private func worstIntact(_ index: Int) -> Double { index == 4 ? 0.97 : 0.99 }

  /// In the mean over sequences that nothing was tuned on, no figure is worse but the two that were traded: a fortieth of the
  /// pages on intact blocks right after half has been released, and one block in 400 after the churn, for which no request
  /// there goes to released pages, calls are a sixteenth fewer, and fewer blocks and more intact pages are left at the end.
  @Test func isNoWorseThanTheFillerInTheMean() throws {
    let pairs = try (401...424).map { try pair($0) }
    for index in published.indices {
      func mean(_ value: (PlacementRow) -> Double) -> (ours: Double, filler: Double) {
        let count = Double(pairs.count)
        return (
          pairs.map { value($0.ours[index]) }.reduce(0, +) / count,
          pairs.map { value($0.filler[index]) }.reduce(0, +) / count
        )
      }
      let blocks = mean { Double($0.blocks) }
      #expect(blocks.ours <= blocks.filler * ((5...7).contains(index) ? 1.0025 : 1), "row \(index + 1)")
      let intact = mean(\.intact)
      #expect(intact.ours >= intact.filler * (index == 4 ? 0.97 : 0.999), "row \(index + 1)")
      let calls = mean(\.callsPerPage)
      #expect(calls.ours <= calls.filler * 0.97, "row \(index + 1)")
      let refaulted = mean { Double($0.refaulted) }
      #expect(refaulted.ours <= refaulted.filler * (index == 5 ? 0.1 : 1), "row \(index + 1)")
      if index == 8 {
        #expect(blocks.ours <= blocks.filler * 0.99)
        #expect(intact.ours >= intact.filler * 1.05)
      }
    }
  }
}
