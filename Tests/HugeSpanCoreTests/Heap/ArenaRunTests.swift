// Runs of free blocks are searched a word of the map at a time; here they are searched a block at a time.

import TestKernels
import Testing

@testable import HugeSpanCore

/// An arena that has a map and nothing else.
private final class MapOnly {
  var arena: Arena

  init(blocks: Int, start: UInt, isFree: (Int) -> Bool, isResident: (Int) -> Bool) {
    let words = UnsafeMutablePointer<UInt64>.allocate(capacity: 4 * ((blocks + 63) / 64))
    words.initialize(repeating: 0, count: 4 * ((blocks + 63) / 64))
    arena = Arena(
      range: AddressRange(start: start, byteCount: blocks << 21), committedBlocks: blocks, totalBlocks: blocks,
      freeWords: words, residentWords: words + (blocks + 63) / 64, sharedWords: words + 2 * ((blocks + 63) / 64),
      denseWords: words + 3 * ((blocks + 63) / 64), entries: UnsafeMutableRawPointer(words), userData: nil,
      accounts: nil, metadata: UnsafeMutableRawPointer(words),
      metadataBytes: 0, freeBlocks: 0, absentHint: 0)
    for block in 0..<blocks where isFree(block) { arena.markFree(block, resident: isResident(block)) }
  }

  deinit { arena.freeWords.deallocate() }

  /// What they should find: the shortest run in memory that suffices; where none does, of the free runs that suffice the one
  /// with a place that has most blocks in memory, the shortest of those.
  func expected(_ count: Int, _ alignment: UInt) -> BlockRun? {
    if let run = runs({ arena.isResident($0) }, count, alignment).min(by: { $0.length < $1.length }) { return run }
    return runs({ arena.isFree($0) }, count, alignment).min { ($1.resident, $0.length) < ($0.resident, $1.length) }
  }

  /// Whether the span's blocks are free, aligned, and as many of them in memory as it is said.
  func holds(_ run: BlockRun, _ count: Int, _ alignment: UInt) -> Bool {
    let blocks = run.first..<(run.first + count)
    return blocks.allSatisfy { arena.isFree($0) } && arena.address(ofBlock: run.first) % alignment == 0
      && blocks.filter { arena.isResident($0) }.count == run.resident
  }

  /// The runs of such blocks that suffice, each with its best place.
  private func runs(_ isIn: (Int) -> Bool, _ count: Int, _ alignment: UInt) -> [BlockRun] {
    var found: [BlockRun] = []
    var block = 0
    while block < arena.committedBlocks {
      var length = 0
      while block + length < arena.committedBlocks && isIn(block + length) { length += 1 }
      var best: BlockRun? = nil
      for first in block..<(block + max(length - count + 1, 0)) where arena.address(ofBlock: first) % alignment == 0 {
        let resident = (first..<(first + count)).filter { arena.isResident($0) }.count
        if best == nil || resident > best!.resident {
          best = BlockRun(first: first, length: length, resident: resident)
        }
      }
      if let best { found.append(best) }
      block += length + 1
    }
    return found
  }

  func bestRun(count: Int, alignment: UInt) -> BlockRun? {
    arena.shortestResidentRun(count: count, alignment: alignment)
      ?? arena.mostResidentRun(count: count, alignment: alignment)
  }

  var expectedTail: Int { (0..<arena.committedBlocks).reversed().prefix { arena.isFree($0) }.count }
}

private let block: UInt = 1 << 21

@Suite struct RunsOfFreeBlocks {
  /// Runs of every length up to some words' worth, as dense as `used` in 100 makes them; few enough for each to be looked at.
  @Test(arguments: [1, 3, 10, 30, 50, 70, 95])
  func areFoundAsByCountingBlocks(used: UInt64) {
    var random = SeededGenerator(seed: used)
    for _ in 0..<10 {
      let blocks = Int.random(in: 1...500, using: &random)
      let inMemory = UInt64.random(in: 0...100, using: &random)
      var taken: [Int] = []
      var resident: [Int] = []
      for number in 0..<blocks {
        if UInt64.random(in: 0..<100, using: &random) < used { taken.append(number) }
        if UInt64.random(in: 0..<100, using: &random) < inMemory { resident.append(number) }
      }
      let map = MapOnly(
        blocks: blocks, start: 37 * block, isFree: { !taken.contains($0) }, isResident: { resident.contains($0) })
      for count in Array(1...70) + [127, 128, 129, 200, 400] {
        for alignment in [block, 2 * block, 8 * block, 128 * block] {
          let found = map.bestRun(count: count, alignment: alignment)
          let expected = map.expected(count, alignment)
          let `case` = "\(count) blocks at \(alignment) of \(blocks) without \(taken), \(resident) in memory"
          #expect(found?.length == expected?.length && found?.resident == expected?.resident, "\(`case`)")
          #expect(found.map { map.holds($0, count, alignment) } != false, "\(`case`)")
        }
      }
      #expect(map.arena.freeTail == map.expectedTail, "\(blocks) without \(taken)")
    }
  }

  @Test func ofWholeWordsAreFound() {
    for blocks in [63, 64, 65, 127, 128, 129, 192] {
      let map = MapOnly(blocks: blocks, start: 0, isFree: { _ in true }, isResident: { _ in false })
      #expect(map.bestRun(count: blocks, alignment: block) == BlockRun(first: 0, length: blocks, resident: 0))
      #expect(map.bestRun(count: blocks + 1, alignment: block) == nil)
      #expect(map.arena.freeTail == blocks)
    }
  }

  /// Thousands of equal runs, none wholly in memory: some are looked at, and the shortest is found behind all of them.
  @Test func areFoundBehindManyThatFitWorse() {
    let map = MapOnly(
      blocks: 40_000, start: 0, isFree: { $0 % 4 != 3 && $0 != 39_000 }, isResident: { $0 % 2 == 0 })
    #expect(map.bestRun(count: 2, alignment: block) == BlockRun(first: 39_001, length: 2, resident: 1))
    #expect(map.bestRun(count: 3, alignment: block) == BlockRun(first: 0, length: 3, resident: 2))
  }

  /// An exact fit that is not in memory, and blocks in memory in the middle of a run that is longer.
  @Test func inMemoryComeFirst() {
    let map = MapOnly(
      blocks: 100, start: 0, isFree: { (10..<13).contains($0) || (20..<90).contains($0) },
      isResident: { (50..<53).contains($0) || (60..<64).contains($0) })
    #expect(map.bestRun(count: 3, alignment: block) == BlockRun(first: 50, length: 3, resident: 3))
    #expect(map.bestRun(count: 4, alignment: block) == BlockRun(first: 60, length: 4, resident: 4))
    #expect(map.bestRun(count: 6, alignment: block) == BlockRun(first: 60, length: 70, resident: 4))
    #expect(map.bestRun(count: 14, alignment: block) == BlockRun(first: 50, length: 70, resident: 7))
    #expect(map.bestRun(count: 35, alignment: block) == BlockRun(first: 50, length: 70, resident: 7))
  }
}
