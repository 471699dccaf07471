// What a statistics page says, read from its bytes: checked, since they come from another process.
//
// The page is written while it is read. Its count is odd while somebody writes and different afterwards, so that a copy is good if
// the count was even and the same before and after (`PageReader` reads again otherwise). Later versions may append to both
// structures; their sizes are in the header.

#if canImport(HugeSpanCore)
  import HugeSpanCore
#endif

/// Why bytes are no statistics page.
package enum SnapshotError: Error, Equatable, Sendable {
  /// Too short, or another magic word.
  case foreign
  /// Sizes or counts that cannot be; of the header, or of the record with this number.
  case damaged(record: Int?)

  package var description: String {
    switch self {
    case .foreign: "is no statistics page"
    case .damaged(nil): "the statistics page is damaged in its header"
    case .damaged(let record?): "the statistics page is damaged in record \(record)"
    }
  }
}

/// A heap at one time.
package struct PublishedSnapshot: Equatable, Sendable {
  package var heap: PublishedHeap
  /// Ascending by their place in the page; those of an arena by address.
  package var blocks: [PublishedBlock]

  package init(heap: PublishedHeap, blocks: [PublishedBlock]) {
    self.heap = heap
    self.blocks = blocks
  }

  private static let pagesPerBlock = 512
  private static let knownBlockBytes = MemoryLayout<PublishedBlock>.stride

  /// Reads a page from its bytes, of which there may be fewer than the page has room for.
  package init(_ bytes: UnsafeRawBufferPointer) throws(SnapshotError) {
    heap = try PublishedSnapshot.header(bytes)
    let size = Int(heap.blockBytes)
    let count = Int(heap.recordsEnd)
    guard PublishedHeap.recordsOffset + count * size <= bytes.count else { throw .damaged(record: nil) }
    blocks = []
    blocks.reserveCapacity(min(count, 4096))
    for number in 0..<count {
      var block = PublishedBlock()
      withUnsafeMutableBytes(of: &block) {
        $0.copyMemory(
          from: UnsafeRawBufferPointer(
            rebasing: bytes[(PublishedHeap.recordsOffset + number * size)...].prefix(PublishedSnapshot.knownBlockBytes))
        )
      }
      if block.address == 0 { continue }
      guard block.isPlausible else { throw .damaged(record: number) }
      blocks.append(block)
    }
  }

  /// The header alone.
  package static func header(_ bytes: UnsafeRawBufferPointer) throws(SnapshotError) -> PublishedHeap {
    guard bytes.count >= PublishedHeap.recordsOffset else { throw .foreign }
    var heap = PublishedHeap()
    // What an older writer did not know stays at its default.
    let size = Int(bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    guard bytes.loadUnaligned(as: UInt64.self) == PublishedHeap.magicWord else { throw .foreign }
    guard size >= 64, size <= PublishedHeap.recordsOffset else { throw .damaged(record: nil) }
    withUnsafeMutableBytes(of: &heap) {
      $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(min(size, $0.count))))
    }
    guard heap.blockBytes >= knownBlockBytes, heap.blockBytes <= 256, heap.capacity <= UInt32(PublishedHeap.capacity),
      heap.recordsEnd <= UInt64(heap.capacity), heap.memoryPrice >= 0, heap.memoryPrice <= 1e12,
      heap.taxPerPage >= 0, heap.taxPerPage <= 1e12, heap.busyCPUs >= 0, heap.busyCPUs <= 1e9
    else { throw .damaged(record: nil) }
    let amounts = [
      heap.blocks, heap.usedPages, heap.idlePages, heap.lazyPages, heap.releasedPages, heap.phantomPages,
      heap.discardedPages, heap.metadataBytes, heap.nextWholeBlocks, heap.nextBreaks, heap.nextIdleBlocks,
      heap.nextRebuilds, heap.nextPages, heap.nextCures,
    ]
    // No process has so much (pages of 256 TiB), and sums and bytes of it have to fit.
    if amounts.contains(where: { $0 > 1 << 36 }) { throw .damaged(record: nil) }
    let counts = [
      heap.allocations, heap.frees, heap.pagesReleased, heap.pagesReleasedInParts, heap.pagesRefaulted,
      heap.pagesRefaultedWhole, heap.pagesDrained, heap.lazyPagesTaken, heap.splits, heap.discardSplits, heap.collapses,
      heap.cures, heap.drains, heap.rebuiltBlocks, heap.releaseCalls, heap.ticks, heap.residencyPasses, heap.lostBlocks,
      heap.reinflatedBlocks,
    ]
    if counts.contains(where: { $0 > 1 << 56 }) { throw .damaged(record: nil) }
    return heap
  }
}

extension PublishedBlock {
  fileprivate var isPlausible: Bool {
    let pages = 512
    let counts = [used, idle, released, lazy, phantom, discarded, longestFree, spans]
    return address & 0x1f_ffff == 0 && address <= UInt64(Int64.max) && counts.allSatisfy { $0 <= pages } && kind <= 3
      && Int(used) + Int(idle) <= pages && age >= 0 && age.isFinite && accrued.isFinite && price.isFinite
      && wait.isFinite
  }
}
