// What a caller must never do ends the program, with a message that names the address.

import HugeSpanCore
import TestKernels
import Testing

@Suite struct AFreeOf {
  @Test func aSpanThatIsFreeAlreadyNamesIt() async throws {
    let said = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
      _ = try heap.allocate(SpanRequest(pageCount: 3))
      let span = try heap.allocate(SpanRequest(pageCount: 5)).span
      say("expected \(String(span.address, radix: 16))")
      heap.free(span)
      heap.free(span)
    }
    expectMessage(said.standardErrorContent, "double free")
  }

  @Test func aRangeWithOneFreePageNamesThatPage() async throws {
    let said = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
      let span = try heap.allocate(SpanRequest(pageCount: 100)).span
      say("expected \(String(span.address + 50 * 4096, radix: 16))")
      heap.free(PageSpan(address: span.address + 50 * 4096, pageCount: 1))
      heap.free(span)
    }
    expectMessage(said.standardErrorContent, "double free")
  }

  @Test func aForeignAddressNamesIt() async throws {
    let said = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
      _ = try heap.allocate(SpanRequest(pageCount: 5))
      say("expected 7f0000123000")
      heap.free(PageSpan(address: 0x7f00_0012_3000, pageCount: 1))
    }
    expectMessage(said.standardErrorContent, "not of this heap")
  }

  @Test func anAddressWithinAPageNamesIt() async throws {
    let said = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
      let span = try heap.allocate(SpanRequest(pageCount: 5)).span
      say("expected \(String(span.address + 8, radix: 16))")
      heap.free(PageSpan(address: span.address + 8, pageCount: 1))
    }
    expectMessage(said.standardErrorContent, "something else than whole pages")
  }

  @Test func moreThanTheHeapHasNamesTheEnd() async throws {
    let said = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
      let span = try heap.allocate(SpanRequest(pageCount: 512)).span
      say("expected \(String(span.end, radix: 16))")
      heap.free(PageSpan(address: span.address, pageCount: 513))
    }
    expectMessage(said.standardErrorContent, "free of")
  }

  /// The line of the heap contains `words` and the address that the child announced before.
  private func expectMessage(_ content: [UInt8], _ words: String, sourceLocation: SourceLocation = #_sourceLocation) {
    let lines = String(decoding: content, as: UTF8.self).split(separator: "\n")
    let address = lines.first { $0.hasPrefix("expected ") }?.dropFirst("expected ".count) ?? "nothing"
    let message = lines.first { $0.hasPrefix("hugespan: ") } ?? "no message"
    #expect(message.contains(words) && message.hasSuffix("0x\(address)"), sourceLocation: sourceLocation)
  }
}

@Suite struct ARequest {
  @Test(arguments: [0, -1, .min, .max, 1 << 50])
  func forASenselessNumberOfPagesIsAnError(pages: Int) throws {
    let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
    #expect(throws: HeapError.self) { try heap.allocate(SpanRequest(pageCount: pages)) }
    heap.checkInvariants()
  }

  @Test(arguments: [0, -4, 3, 6, .max, .min])
  func forASenselessAlignmentIsAnError(alignment: Int) throws {
    let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
    var request = SpanRequest(pageCount: 4)
    request.alignmentPages = alignment
    #expect(throws: HeapError.invalidRequest) { try heap.allocate(request) }
  }

  @Test(arguments: [0, 1, 0x1234, UInt.max, UInt.max & ~4095, 0x5000])
  func forAnAddressThatIsNotOursIsAnError(address: UInt) throws {
    let heap = try PageHeapCore(kernel: ModelKernel(), options: HeapOptions())
    _ = try heap.allocate(SpanRequest(pageCount: 4))
    var request = SpanRequest(pageCount: 4)
    request.wishedAddress = address
    #expect(throws: HeapError.self) { try heap.allocate(request) }
    #expect(heap.span(containing: address) == nil)
    heap.checkInvariants()
  }

  @Test func forLimitsBelowZeroIsAnError() {
    var options = HeapOptions()
    options.hardLimitBytes = -1
    #expect(throws: HeapError.invalidRequest) { _ = try PageHeapCore(kernel: ModelKernel(), options: options) }
    options.hardLimitBytes = nil
    options.firstArenaBytes = 4096
    #expect(throws: HeapError.invalidRequest) { _ = try PageHeapCore(kernel: ModelKernel(), options: options) }
  }
}
