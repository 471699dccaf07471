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

  /// What `bestRun` should find: the shortest run that suffices, then the one with most blocks in memory, then the lowest.
  func expected(_ count: Int, _ alignment: UInt) -> BlockRun? {
    var best: BlockRun? = nil
    var block = 0
    while block < arena.committedBlocks {
      var length = 0
      while block + length < arena.committedBlocks && arena.isFree(block + length) { length += 1 }
      var first = block
      while first < block + length && arena.address(ofBlock: first) % alignment != 0 { first += 1 }
      if block + length - first >= count {
        let run = BlockRun(
          first: first, length: length, resident: (first..<(first + count)).filter { arena.isResident($0) }.count)
        if best == nil || run.length < best!.length
          || (run.length == best!.length && run.resident > best!.resident)
        {
          best = run
        }
      }
      block += length + 1
    }
    return best
  }

  var expectedTail: Int { (0..<arena.committedBlocks).reversed().prefix { arena.isFree($0) }.count }
}

private let block: UInt = 1 << 21

@Suite struct RunsOfFreeBlocks {
  /// Runs of every length up to some words' worth, as dense as `used` in 100 makes them; few enough for every tie to be seen.
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
          #expect(
            map.arena.bestRun(count: count, alignment: alignment) == map.expected(count, alignment),
            "\(count) blocks at \(alignment) of \(blocks) without \(taken), \(resident) in memory")
        }
      }
      #expect(map.arena.freeTail == map.expectedTail, "\(blocks) without \(taken)")
    }
  }

  @Test func ofWholeWordsAreFound() {
    for blocks in [63, 64, 65, 127, 128, 129, 192] {
      let map = MapOnly(blocks: blocks, start: 0, isFree: { _ in true }, isResident: { _ in false })
      #expect(map.arena.bestRun(count: blocks, alignment: block) == BlockRun(first: 0, length: blocks, resident: 0))
      #expect(map.arena.bestRun(count: blocks + 1, alignment: block) == nil)
      #expect(map.arena.freeTail == blocks)
    }
  }

  /// Thousands of equal runs, none wholly in memory: some are looked at, and the shortest is found behind all of them.
  @Test func areFoundBehindManyThatFitWorse() {
    let map = MapOnly(
      blocks: 40_000, start: 0, isFree: { $0 % 4 != 3 && $0 != 39_000 }, isResident: { $0 % 2 == 0 })
    #expect(map.arena.bestRun(count: 2, alignment: block) == BlockRun(first: 39_001, length: 2, resident: 1))
    #expect(map.arena.bestRun(count: 3, alignment: block)?.length == 3)
  }
}
