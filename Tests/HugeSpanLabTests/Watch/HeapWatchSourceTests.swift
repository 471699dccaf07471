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
  @Test func isWhatTheHeapSaysOfItsUseAndTheKernelOfItsPages() {
    let occupied: (inout PublishedBlock) -> Void = { ($0.kind, $0.used, $0.idle) = (2, 300, 212) }
    let cases: [(WatchBlockState, WatchBlockState, (inout PublishedBlock) -> Void)] = [
      (.full, .full, occupied), (.full, .sparse, { ($0.kind, $0.used, $0.idle) = (2, 200, 312) }),
      (.broken, .broken, occupied), (.sparse, .broken, occupied), (.empty, .empty, occupied),
      (.released, .released, occupied), (.lazilyFree, .lazilyFree, occupied),
      // Made huge again behind the heap's back.
      (.full, .sparse, { ($0.kind, $0.used, $0.released, $0.flags) = (2, 20, 492, 1) }),
      (.full, .waiting, { ($0.kind, $0.idle) = (1, 512) }),
      (.full, .lazilyFree, { ($0.kind, $0.released, $0.lazy) = (1, 512, 512) }),
      (.empty, .released, { ($0.kind, $0.released, $0.flags) = (0, 512, 16) }),
      (.empty, .empty, { ($0.kind, $0.released) = (0, 512) }),
    ]
    for (kernel, state, change) in cases { #expect(block(0, change).watchState(kernel: kernel) == state, "\(kernel)") }
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
