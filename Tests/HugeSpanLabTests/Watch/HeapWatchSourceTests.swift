// A process on a heap, as it is watched.

import Glibc
import HugeSpanCore
import Testing

@testable import HugeSpanLab

private func block(_ number: Int, _ change: (inout PublishedBlock) -> Void) -> PublishedBlock {
  var block = PublishedBlock()
  block.address = UInt64(0x7f00_0000_0000 + number << 21)
  change(&block)
  return block
}

@Suite struct ABlockOfAHeapThatIsWatched {
  @Test func isWhatTheHeapSaysOfIt() {
    let states: [(WatchBlockState, (inout PublishedBlock) -> Void)] = [
      (.full, { ($0.kind, $0.used, $0.backing) = (2, 512, 1) }),
      (.sparse, { ($0.kind, $0.used, $0.idle, $0.backing) = (2, 500, 12, 1) }),
      (.broken, { ($0.kind, $0.used, $0.released, $0.flags) = (2, 500, 12, 1) }),
      (.waiting, { ($0.kind, $0.idle) = (1, 512) }),
      (.lazilyFree, { ($0.kind, $0.released, $0.lazy) = (1, 512, 512) }),
      (.released, { ($0.kind, $0.released, $0.flags) = (0, 512, 16) }),
      (.empty, { ($0.kind, $0.released) = (0, 512) }),
    ]
    for (state, change) in states { #expect(block(0, change).watchState == state) }
  }

  @Test func isOnAHugepageOnlyByTheKernelsWord() {
    #expect(WatchBlockState.full.corrected(by: .broken) == .broken)
    #expect(WatchBlockState.broken.corrected(by: .full) == .full)
    #expect(WatchBlockState.full.corrected(by: .empty) == .empty)
    #expect(WatchBlockState.sparse.corrected(by: .full) == .sparse)
    #expect(WatchBlockState.waiting.corrected(by: .full) == .waiting)
  }

  @Test func isInTheMapAlsoWhereTheKernelHasNothing() {
    var sample = WatchSample(process: 1, name: "x")
    sample.blocks = [
      WatchBlock(address: 0x7f00_0020_0000, state: .full), WatchBlock(address: 0x7f00_0080_0000, state: .full),
    ]
    var heap = PublishedHeap()
    heap.usedPages = 600
    let blocks = [
      block(1) { ($0.kind, $0.used, $0.idle, $0.backing) = (2, 600 - 512, 424, 1) },
      block(2) { ($0.kind, $0.released, $0.flags) = (0, 512, 16) }, block(3) { $0.kind = 0 },
    ]
    HeapWatchSource.enter([PublishedSnapshot(heap: heap, blocks: blocks)], &sample)
    #expect(sample.usedBytes == 600 << 12 && sample.releasedBytes == 2 << 20)
    #expect(sample.blocks.map(\.state) == [.sparse, .released, .full])
  }

  @Test func isSeenFromOutside() throws {
    var options = HeapOptions()
    options.policy = .never
    options.firstArenaBytes = 64 << 21
    let heap = try LinuxHeap.create(options)
    defer { LinuxHeap.destroy(heap) }
    var source = HeapWatchSource(process: Int(getpid()))
    _ = try source.look(mappings: false)
    try #require(heap.pointee.openPage() == nil)
    let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 4 * 512)).span
    let rest = try heap.pointee.core.allocate(SpanRequest(pageCount: 512)).span
    memset(span.pointer, 1, span.pageCount << 12)
    memset(rest.pointer, 1, rest.pageCount << 12)
    heap.pointee.core.free(rest)
    heap.pointee.publishAtOnce()
    // The page is looked for now and then only; other tests have heaps, too.
    var sample: WatchSample?
    for _ in 0..<500 where sample == nil {
      usleep(10_000)
      let seen = try source.look(mappings: false)
      if seen.blocks.first(where: { $0.address == rest.address })?.state == .waiting { sample = seen }
    }
    let found = try #require(sample)
    #expect(try #require(found.usedBytes) >= span.pageCount << 12)
    heap.pointee.core.free(span)
  }
}
