// What hints are good for: spans that go soon have blocks of their own, and leave them empty.

import HugeSpanCore
import TestKernels
import Testing

private func request(
  _ pages: Int, _ lifetime: ExpectedLifetime = .unknown, _ objects: ObjectsPerSpan = .unknown, alignment: Int = 1
) -> SpanRequest {
  var request = SpanRequest(pageCount: pages)
  request.lifetime = lifetime
  request.objectsPerSpan = objects
  request.alignmentPages = alignment
  return request
}

private func block(_ span: PageSpan) -> UInt { span.address >> 21 }

/// Requests that say that the span goes soon, and those that do not.
private let transient: [(ExpectedLifetime, ObjectsPerSpan)] = [
  (.short, .unknown), (.short, .few), (.short, .many), (.unknown, .few),
]
private let lasting: [(ExpectedLifetime, ObjectsPerSpan)] = [
  (.unknown, .unknown), (.unknown, .many), (.long, .unknown), (.long, .few), (.long, .many),
]

@Suite struct SpansThatAreExpectedToGoSoon {
  @Test func shareNoBlockWithOthers() throws {
    let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
    var soon = Set<UInt>()
    var later = Set<UInt>()
    for number in 0..<400 {
      for (lifetime, objects) in transient {
        soon.insert(
          block(try heap.allocate(request(1 + number % 7, lifetime, objects, alignment: 1 << (number % 3))).span))
      }
      for (lifetime, objects) in lasting {
        later.insert(
          block(try heap.allocate(request(1 + number % 7, lifetime, objects, alignment: 1 << (number % 3))).span))
      }
    }
    #expect(soon.isDisjoint(with: later))
    #expect(soon.count > 5 && later.count > 5)
    heap.checkInvariants()
  }

  /// The same spans, some of which go, with and without a word about which: how many blocks are whole again.
  @Test func leaveWholeBlocksBehind() throws {
    func emptiedBlocks(hints: Bool) throws -> Int {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
      var random = SeededGenerator(seed: 7)
      var soon: [PageSpan] = []
      for number in 0..<4096 {
        let goesSoon = number % 2 == 0
        let span = try heap.allocate(request(.random(in: 1...8, using: &random), hints && goesSoon ? .short : .unknown))
        if goesSoon { soon.append(span.span) }
      }
      for span in soon { heap.free(span) }
      heap.checkInvariants()
      return heap.statistics().freeResidentBlocks
    }
    #expect(try emptiedBlocks(hints: false) == 0)
    #expect(try emptiedBlocks(hints: true) >= 17, "about half of 36")
  }

  /// A block that was theirs is anybody's when it is empty.
  @Test func giveTheirBlocksBack() throws {
    let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
    let soon = try heap.allocate(request(10, .short)).span
    heap.free(soon)
    let later = try heap.allocate(request(10, .long)).span
    #expect(block(later) == block(soon))
    let other = try heap.allocate(request(10, .short)).span
    #expect(block(other) != block(soon))
    heap.checkInvariants()
  }

  /// Memory that is there is better than more memory under a limit, hint or no hint.
  @Test func shareWhereALimitLeavesNothingElse() throws {
    var options = HeapOptions()
    options.hardLimitBytes = 1 << 21
    let heap = try PageHeapCore(kernel: ModelKernel(), options: options)
    let later = try heap.allocate(request(10, .long)).span
    let soon = try heap.allocate(request(10, .short)).span
    #expect(block(soon) == block(later))
    heap.checkInvariants()
  }
}
