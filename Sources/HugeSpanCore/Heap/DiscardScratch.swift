// What a discard and its undoing know of their pages while the lock is open: which are in memory, which are marked and how.
//
// On the stack, since any number of threads discard at once and the heap has no memory to give.

/// Maps of up to 32 blocks, relative to the first block of a range.
struct DiscardScratch {
  /// Blocks that are looked at, marked and freed at a time.
  static let blockCount = 32

  /// Pages that are in memory, or elsewhere with their contents (swapped out, being moved).
  private let thereWords: UnsafeMutablePointer<UInt64>
  private let plantedWords: UnsafeMutablePointer<UInt64>
  private let untouchedWords: UnsafeMutablePointer<UInt64>
  /// A bit per block: a hugepage maps it.
  private let huge: UnsafeMutablePointer<UInt64>
  private let regions: UnsafeMutableBufferPointer<ResidentRegion>

  /// Calls `body` with zeroed maps.
  @inline(__always)
  static func with<Result>(_ body: (DiscardScratch) -> Result) -> Result {
    var words = InlineArray<769, UInt64>(repeating: 0)
    var regions = InlineArray<64, ResidentRegion>(
      repeating: ResidentRegion(range: AddressRange(start: 0, byteCount: 0), isHuge: false, isPresent: false))
    return withUnsafeMutableBytes(of: &words) { words in
      withUnsafeMutableBytes(of: &regions) { regions -> Result in
        let first = words.assumingMemoryBound(to: UInt64.self).baseAddress!
        return body(DiscardScratch(first, regions.assumingMemoryBound(to: ResidentRegion.self)))
      }
    }
  }

  private init(_ words: UnsafeMutablePointer<UInt64>, _ regions: UnsafeMutableBufferPointer<ResidentRegion>) {
    let count = DiscardScratch.blockCount * wordsPerMap
    thereWords = words
    plantedWords = words + count
    untouchedWords = words + 2 * count
    huge = words + 3 * count
    self.regions = regions
  }

  func there(_ block: Int) -> PageMap { PageMap(thereWords + block &* wordsPerMap) }
  func planted(_ block: Int) -> PageMap { PageMap(plantedWords + block &* wordsPerMap) }
  func untouched(_ block: Int) -> PageMap { PageMap(untouchedWords + block &* wordsPerMap) }

  /// Whether a hugepage was seen in the block.
  func isHuge(_ block: Int) -> Bool { huge.pointee &>> UInt64(truncatingIfNeeded: block) & 1 != 0 }

  /// The first part of a range that is as long as the maps reach.
  static func firstPart(of range: AddressRange) -> AddressRange {
    let end = (range.start & ~UInt(bytesPerBlock - 1)) &+ UInt(blockCount << bytesPerBlockShift)
    return AddressRange(start: range.start, byteCount: Int(bitPattern: min(end, range.end) &- range.start))
  }

  /// Calls `body` with number, run and first address of each block's part of `range`.
  @inline(__always)
  static func forEachPart(of range: AddressRange, _ body: (Int, PageRun, UInt) -> Void) {
    var address = range.start
    var block = 0
    while address < range.end {
      let end = min((address | UInt(bytesPerBlock - 1)) &+ 1, range.end)
      let first = Int(bitPattern: address &>> UInt(pageShift)) & (pagesPerBlock - 1)
      body(block, PageRun(start: first, count: Int(bitPattern: end &- address) >> pageShift), address)
      address = end
      block &+= 1
    }
  }

  /// Asks the kernel which pages of `range` are there. If it does not say, all count as there: they are looked at then.
  func look<K: Kernel>(at range: AddressRange, on kernel: K) {
    let base = range.start & ~UInt(bytesPerBlock - 1)
    var position = range.start
    do throws(KernelError) {
      while position < range.end {
        let answer = try kernel.residency(
          of: AddressRange(start: position, byteCount: Int(bitPattern: range.end &- position)), into: regions)
        for index in 0..<answer.count { enter(regions[index], base: base) }
        if answer.walkedTo <= position { throw .invalid }
        position = answer.walkedTo
      }
    } catch { enter(ResidentRegion(range: range, isHuge: false, isPresent: true), base: base) }
  }

  private func enter(_ region: ResidentRegion, base: UInt) {
    let first = Int(bitPattern: (region.range.start &- base) &>> UInt(bytesPerBlockShift))
    DiscardScratch.forEachPart(of: region.range) { block, run, _ in
      there(first &+ block).set(run)
      if region.isHuge { huge.pointee |= 1 &<< UInt64(truncatingIfNeeded: first &+ block) }
    }
  }
}
