import HugeSpanCore
import Testing
import TraceFormat

@testable import HugeSpanLab

/// A front end over a heap of the real kernel, for traces of `slots` slots and at most `bytes` bytes each.
private func makeFrontEnd(_ events: [TraceEvent], touch: TouchMode = .none) throws -> FrontEnd<LinuxKernel> {
  var options = HeapOptions()
  options.policy = .never
  options.strategy = StrategyChoice(.keep)
  return FrontEnd(
    heap: try PageHeapCore(kernel: LinuxKernel(), options: options), program: try TraceProgram(traceFile(events)),
    touch: touch, logsPlacement: true)
}

private func slots(_ count: Int) -> [TraceEvent] { (0..<count).map { allocation($0, 64) } }

@Suite("The front end of a replay")
struct FrontEndTests {
  @Test("random events against a model: no overlap, alignment kept, every page accounted for", arguments: 1...4)
  func model(seed: Int) throws {
    var random = SeededRandom(seed: UInt64(seed))
    let count = 300
    var frontEnd = try makeFrontEnd(slots(count), touch: seed.isMultiple(of: 2) ? .all : .none)
    var live: [Int: (bytes: Int, alignment: Int)] = [:]
    for step in 0..<20_000 {
      let slot = Int.random(in: 0..<count, using: &random)
      let kind = Int.random(in: 0..<20, using: &random)
      let bytes =
        kind < 12
        ? Int.random(in: 0...2000, using: &random)
        : Int.random(in: 0...(kind < 18 ? 70_000 : 1_500_000), using: &random)
      if live[slot] == nil {
        let shift = Int.random(in: 0..<6, using: &random) == 0 ? Int.random(in: 4...14, using: &random) : 0
        try frontEnd.allocate(slot: slot, bytes: bytes, alignmentShift: UInt8(shift), isMapped: kind == 19)
        live[slot] = (bytes, 1 << shift)
      } else if kind % 3 == 0 {
        try frontEnd.resize(slot: slot, bytes: bytes)
        live[slot]!.bytes = bytes
      } else {
        frontEnd.free(slot: slot)
        live[slot] = nil
      }
      if step % 500 == 499 { check(frontEnd, live, "seed \(seed), step \(step)") }
    }
    for slot in live.keys { frontEnd.free(slot: slot) }
    #expect(frontEnd.heap.statistics().usedPages == 0, "seed \(seed)")
    #expect(frontEnd.meter.usedPages == 0)
    let (demand, isLogged) = (frontEnd.demand, frontEnd.placement.isComplete)
    let balance = frontEnd.placement.balance()
    #expect(demand == Demand() && isLogged && balance == [:], "seed \(seed)")
    #expect(frontEnd.counters.spansCarved == frontEnd.counters.spansReturned)
  }

  private func check(
    _ frontEnd: borrowing FrontEnd<LinuxKernel>, _ live: [Int: (bytes: Int, alignment: Int)], _ what: String
  ) {
    #expect(frontEnd.heap.statistics().usedPages == frontEnd.meter.usedPages, "\(what)")
    let demand = frontEnd.demand
    let bytes = frontEnd.touch == .none ? 0 : live.values.reduce(0) { $0 + $1.bytes }
    #expect(demand.touchedBytes == bytes, "\(what)")
    #expect(demand.touchedPages <= frontEnd.meter.usedPages && demand.packedPages <= demand.touchedPages, "\(what)")
    var ranges: [(start: UInt, end: UInt)] = []
    for (slot, object) in live {
      let entry = frontEnd.objects[slot]
      #expect(entry.bytes == object.bytes && entry.address % UInt(object.alignment) == 0, "\(what), slot \(slot)")
      let end = entry.address + UInt(max(object.bytes, 1))
      ranges.append((entry.address, end))
      let span = frontEnd.heap.span(containing: entry.address)
      let spanEnd = span.map { $0.address + UInt($0.pageCount * 4096) } ?? 0
      #expect(span != nil && entry.address >= span!.address && end <= spanEnd, "\(what), slot \(slot)")
    }
    ranges.sort { $0.start < $1.start }
    for (first, second) in zip(ranges, ranges.dropFirst()) {
      #expect(first.end <= second.start, "\(what): objects overlap")
    }
  }

  @Test("a span goes back to the heap with its last object, and not before")
  func emptySpan() throws {
    var frontEnd = try makeFrontEnd(slots(64))
    let perSpan = SizeClasses.standard.classes[SizeClasses.standard.index(for: 2048)].objectsPerSpan
    for slot in 0..<perSpan { try frontEnd.allocate(slot: slot, bytes: 2048, alignmentShift: 0, isMapped: false) }
    #expect(frontEnd.counters.spansCarved == 1)
    for slot in 0..<(perSpan - 1) { frontEnd.free(slot: slot) }
    #expect(frontEnd.meter.usedPages == 2)
    frontEnd.free(slot: perSpan - 1)
    #expect(frontEnd.meter.usedPages == 0)
    #expect(frontEnd.counters.spansReturned == 1)
  }

  @Test("the fuller of two spans serves first, so that the other can empty")
  func fullestFirst() throws {
    var frontEnd = try makeFrontEnd(slots(200))
    let bytes = 512  // 16 objects to a span
    for slot in 0..<32 { try frontEnd.allocate(slot: slot, bytes: bytes, alignmentShift: 0, isMapped: false) }
    #expect(frontEnd.counters.spansCarved == 2)
    for slot in 0..<2 { frontEnd.free(slot: slot) }  // first span: 14 in use
    for slot in 16..<30 { frontEnd.free(slot: slot) }  // second span: 2 in use
    let full = frontEnd.objects[2].span
    try frontEnd.allocate(slot: 100, bytes: bytes, alignmentShift: 0, isMapped: false)
    try frontEnd.allocate(slot: 101, bytes: bytes, alignmentShift: 0, isMapped: false)
    #expect(frontEnd.objects[100].span == full && frontEnd.objects[101].span == full)
  }

  @Test("large objects are resized in place where the heap can, and whole pages shrink away")
  func resizeInPlace() throws {
    var frontEnd = try makeFrontEnd(slots(4))
    try frontEnd.allocate(slot: 0, bytes: 1 << 20, alignmentShift: 0, isMapped: false)
    let address = frontEnd.objects[0].address
    try frontEnd.resize(slot: 0, bytes: 512 << 10)
    #expect(frontEnd.objects[0].address == address && frontEnd.meter.usedPages == 128)
    #expect(frontEnd.counters.shrunkInPlace == 1)
    try frontEnd.resize(slot: 0, bytes: 768 << 10)
    #expect(frontEnd.objects[0].address == address && frontEnd.meter.usedPages == 192)
    #expect(frontEnd.counters.grownInPlace == 1 && frontEnd.counters.moved == 0)
    try frontEnd.resize(slot: 0, bytes: 100)
    #expect(frontEnd.counters.moved == 1 && frontEnd.meter.usedPages == 2)
  }

  @Test("touching makes what is allocated resident, and nothing else does")
  func touching() throws {
    for (touch, least, most) in [(TouchMode.none, 0, 0), (.all, 8 << 20, 10 << 20)] {
      var frontEnd = try makeFrontEnd(slots(2), touch: touch)
      try frontEnd.allocate(slot: 0, bytes: 8 << 20, alignmentShift: 0, isMapped: false)
      let resident = try frontEnd.heap.observe().residentBytes
      #expect(resident >= least && resident <= most, "\(touch)")
      #expect((frontEnd.meter.touchNanoseconds > 0) == (touch == .all))
    }
  }

  @Test("recorded touching writes the share of a large object that the program had in memory")
  func recordedTouching() throws {
    var frontEnd = try makeFrontEnd(slots(2), touch: .recorded)
    frontEnd.touchedFraction = 0.25
    try frontEnd.allocate(slot: 0, bytes: 32 << 20, alignmentShift: 0, isMapped: true)
    let resident = try frontEnd.heap.observe().residentBytes
    #expect(resident >= 8 << 20 && resident <= 10 << 20)
  }
}
