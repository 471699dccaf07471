// Which free pages are in memory, kept page by page and told by the calls of user and heap alone.

import HugeSpanCore
import TestKernels

/// The free memory of a heap as an outsider can know it.
struct FreeMemoryModel {
  enum Page { case used, free, gone }

  /// Blocks of which something is in memory, or in use.
  private(set) var blocks: [UInt: [Page]] = [:]
  /// Blocks that lost their hugepage to a release.
  private(set) var broken: Set<UInt> = []
  /// Blocks that went as a whole in a scavenge, so that their next use is a refault.
  private var released: Set<UInt> = []
  var refaultedPages = 0

  static func forEachPiece(of range: AddressRange, _ body: (UInt, Range<Int>) -> Void) {
    var address = range.start
    while address < range.end {
      let block = address & ~UInt(0x1f_ffff)
      let end = min(block + 0x20_0000, range.end)
      body(block, Int(address - block) / 4096..<Int(end - block) / 4096)
      address = end
    }
  }

  mutating func allocate(_ range: AddressRange) {
    Self.forEachPiece(of: range) { block, pages in
      if blocks[block] == nil {
        // The first touch of a block brings all of it.
        blocks[block] = Array(repeating: .free, count: 512)
        if released.remove(block) != nil { refaultedPages += 512 }
      }
      refaultedPages += pages.count { blocks[block]![$0] == .gone }
      for page in pages { blocks[block]![page] = .used }
    }
  }

  mutating func free(_ range: AddressRange) {
    Self.forEachPiece(of: range) { block, pages in for page in pages { blocks[block]![page] = .free } }
  }

  /// Pages that a release of `range` takes out of memory; `inScavenge` tells whether their next use is a refault.
  mutating func release(_ range: AddressRange, inScavenge: Bool) -> Int {
    var count = 0
    Self.forEachPiece(of: range) { block, pages in
      count += pages.count { blocks[block]![$0] == .free }
      for page in pages { blocks[block]![page] = .gone }
      broken.insert(block)
      if blocks[block]!.allSatisfy({ $0 == .gone }) {
        blocks[block] = nil
        broken.remove(block)
        if inScavenge { released.insert(block) }
      }
    }
    return count
  }

  func isWhollyFree(_ block: UInt) -> Bool { blocks[block]?.allSatisfy { $0 != .used } ?? true }

  /// Free pages in memory of blocks of which nothing is used.
  var wholeFreePages: Int {
    blocks.values.reduce(0) { $0 + ($1.contains(.used) ? 0 : $1.count { $0 == .free }) }
  }

  /// Blocks of which 96.875 % are used.
  var denseBlocks: Set<UInt> { Set(blocks.filter { $0.value.count { $0 == .used } >= 496 }.keys) }

  /// Lengths of the runs of free pages in memory of `block`.
  func runs(_ block: UInt) -> [Int] {
    blocks[block]!.split { $0 != .free }.map(\.count)
  }

  var freePages: Int { blocks.values.reduce(0) { $0 + $1.count { $0 == .free } } }
}
