// What the heap's tables cost: memory that the kernel says is there, for a gibibyte of one-page spans.

import HugeSpanCore
import TestKernels
import Testing

@Suite struct TheTablesOfAGibibyteOfPages {
  static let managed = 1 << 30

  @Test(arguments: [false, true])
  func stayWithinTheirShare(userData: Bool) throws {
    let kernel = FaultInjectingKernel(realKernel)
    var options = HeapOptions()
    options.userData = userData
    let heap = try PageHeapCore(kernel: kernel, options: options)
    var spans: [PageSpan] = []
    for index in 0..<(Self.managed >> 12) {
      let span = try heap.allocate(SpanRequest(pageCount: 1)).span
      if userData { heap.setUserData(UInt(index), of: span.address) }
      spans.append(span)
    }
    let limit = userData ? Self.managed / 400 + 65_536 : Self.managed / 2000 + 65_536
    var cost = try residentTables(kernel)
    #expect(cost <= limit, "\(cost) bytes after filling")

    // Thinned out at random, so that every list has been used.
    var random = SeededGenerator(seed: 1)
    spans.shuffle(using: &random)
    for span in spans.prefix(spans.count * 9 / 10) { heap.free(span) }
    cost = try residentTables(kernel)
    #expect(cost <= limit, "\(cost) bytes after thinning out")
    // What the heap says of itself is an upper bound: tables that are mapped and never used cost nothing.
    #expect(heap.statistics().metadataBytes >= cost)
  }

  private func residentTables(_ kernel: FaultInjectingKernel<LinuxKernel>) throws -> Int {
    try kernel.faults.metadata.reduce(0) { $0 + (try kernel.presentBytes(of: $1)) }
  }
}
