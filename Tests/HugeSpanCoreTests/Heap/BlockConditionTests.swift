// What a heap says each of its blocks is like.

import HugeSpanCore
import TestKernels
import Testing

private let longest = ReleaseOrder(preferBroken: true, length: .longest)

private func heap(_ kernel: ModelKernel, _ strategy: StrategyKind) throws -> PageHeapCore<ModelKernel> {
  var options = HeapOptions()
  options.firstArenaBytes = 8 << 21
  options.policy = .never
  options.strategy = StrategyChoice(strategy)
  // A sample would take what is lazily free.
  options.effectSamplePeriod = 0
  return try PageHeapCore(kernel: kernel, options: options)
}

/// The conditions of every `stride`th block in room for `room`, and the number of blocks.
private func conditions<K: Kernel>(
  _ heap: borrowing PageHeapCore<K>, every stride: Int = 1, room: Int = 64
) -> (found: [BlockCondition], blocks: Int) {
  var blocks = 0
  let found = [BlockCondition](unsafeUninitializedCapacity: room) { buffer, count in
    blocks = heap.blockConditions(every: stride, into: buffer)
    count = min(room, (blocks + stride - 1) / stride)
  }
  return (found, blocks)
}

@Suite struct AConditionOfABlock {
  @Test func saysHowMuchIsUsedWhileTheBlockIsWhole() throws {
    let kernel = ModelKernel()
    let heap = try heap(kernel, .splitDontneed)
    #expect(conditions(heap).blocks == 0)
    let full = try heap.allocate(SpanRequest(pageCount: 512)).span
    let dense = try heap.allocate(SpanRequest(pageCount: 300)).span
    let sparse = try heap.allocate(SpanRequest(pageCount: 512)).span
    let free = try heap.allocate(SpanRequest(pageCount: 512)).span
    for span in [full, dense, sparse, free] { kernel.touch(span.range) }
    heap.free(PageSpan(address: sparse.address + 255 << 12, pageCount: 257))
    heap.free(free)
    let expected: [BlockCondition] = [.full, .dense, .sparse, .free]
    let places = [full, dense, sparse, free].map { Int(($0.address - full.address) >> 21) }
    #expect(places == [0, 1, 2, 3])
    let all = conditions(heap)
    #expect(Array(all.found.prefix(4)) == expected)
    #expect(all.found.dropFirst(4).allSatisfy { $0 == .absent })
  }

  @Test func isReleasedThenBrokenWhereAPartWasGivenBackAndTakenAgain() throws {
    let kernel = ModelKernel()
    let heap = try heap(kernel, .splitDontneed)
    let span = try heap.allocate(SpanRequest(pageCount: 400)).span
    kernel.touch(span.range)
    #expect(heap.release(pages: 112, order: longest) == 112)
    #expect(conditions(heap).found[0] == .released)
    var request = SpanRequest(pageCount: 112)
    request.wishedAddress = span.address + 400 << 12
    _ = try heap.allocate(request)
    #expect(conditions(heap).found[0] == .broken)
  }

  @Test func isAbsentWhereTheWholeBlockWasGivenBack() throws {
    let kernel = ModelKernel()
    let heap = try heap(kernel, .dontneed)
    let span = try heap.allocate(SpanRequest(pageCount: 512)).span
    kernel.touch(span.range)
    heap.free(span)
    #expect(heap.release(pages: 512, order: longest) == 512)
    #expect(conditions(heap).found[0] == .absent)
  }

  @Test func isLazilyFreeUntilTheKernelTookIt() throws {
    let kernel = ModelKernel()
    let heap = try heap(kernel, .free)
    let span = try heap.allocate(SpanRequest(pageCount: 512)).span
    kernel.touch(span.range)
    heap.free(span)
    #expect(heap.release(pages: 512, order: longest) == 512)
    #expect(conditions(heap).found[0] == .lazilyFree)
  }
}

@Suite struct TheConditionsOfAHeap {
  @Test func skipAsManyBlocksAsIsAskedAndGoOnInTheNextArena() throws {
    let kernel = ModelKernel()
    let heap = try heap(kernel, .splitDontneed)
    // The first arena has eight blocks, and the second begins with the ninth.
    let spans = try (0..<20).map { index in
      try heap.allocate(SpanRequest(pageCount: index % 3 == 0 ? 512 : 511)).span
    }
    #expect(Set(spans.map { $0.address >> 21 }).count == 20 && heap.arenaCount > 1)
    let all = conditions(heap)
    #expect(all.found.count == all.blocks && all.found.filter { $0 == .full }.count == 7)
    for stride in [2, 3, 5, 7, 9, 100] {
      let some = conditions(heap, every: stride)
      #expect(some.blocks == all.blocks)
      #expect(some.found == all.found.indices.filter { $0 % stride == 0 }.map { all.found[$0] }, "\(stride)")
    }
  }

  @Test func writeNoMoreThanThereIsRoomFor() throws {
    let heap = try heap(ModelKernel(), .splitDontneed)
    _ = try heap.allocate(SpanRequest(pageCount: 6 * 512))
    let memory = UnsafeMutableBufferPointer<BlockCondition>.allocate(capacity: 4)
    defer { memory.deallocate() }
    memory.initialize(repeating: .lazilyFree)
    let blocks = heap.blockConditions(every: 1, into: UnsafeMutableBufferPointer(rebasing: memory[..<3]))
    #expect(blocks >= 6)
    #expect(Array(memory) == [.full, .full, .full, .lazilyFree])
  }
}
