// Traces of spans on the heap: the pages in use are the trace's at every step, and the heap stays in order.

import Foundation
import HugeSpanCore
import Testing
import TraceFormat

@testable import HugeSpanLab

private let spanHeader = TraceHeader(program: "test", level: .span)

/// Events that an allocator could have caused, and the pages in use after each. Some requests free two spans at once,
/// whether they will lie side by side in the replay or not.
private struct RandomSpans {
  var events: [TraceEvent] = []
  var used: [Int] = []
  /// Spans that live, in no order, and the length of every span.
  private var live: [Int] = []
  private var lengths: [Int] = []
  private var livePages = 0
  private var time: UInt64 = 0
  private var random: SeededRandom

  init(seed: UInt64, count: Int) {
    random = SeededRandom(seed: seed)
    while events.count < count { step() }
  }

  private mutating func add(_ body: TraceEventBody, pages change: Int) {
    livePages += change
    events.append(TraceEvent(time: time, thread: 0, body: body))
    used.append(livePages)
  }

  private mutating func bear(_ pages: Int) -> Int {
    live.append(lengths.count)
    lengths.append(pages)
    return lengths.count - 1
  }

  /// Takes a span out, and returns its length.
  private mutating func kill(at index: Int) -> Int {
    live.swapAt(index, live.count - 1)
    return lengths[live.removeLast()]
  }

  private mutating func step() {
    time += UInt64.random(in: 0..<400, using: &random) * 1000
    let isLarge = Int.random(in: 0..<10, using: &random) == 0
    let pages = Int.random(in: 1...(isLarge ? 1500 : 40), using: &random)
    let index = live.isEmpty ? 0 : Int.random(in: 0..<live.count, using: &random)
    let span = live.isEmpty ? nil : live[index]
    switch (Int.random(in: 0..<20, using: &random), span) {
    case (10..<13, let span?): add(.free(object: span), pages: -kill(at: index))
    case (13..<15, let span?):
      let change = pages - lengths[span]
      lengths[span] = pages
      add(.resizeSpan(span: span, pages: pages, isZeroed: .random(using: &random)), pages: change)
    case (15..<18, let span?):
      let length = lengths[span]
      let first = Int.random(in: 0..<length, using: &random)
      let freed = Int.random(in: 1...length - first, using: &random)
      lengths[span] = first
      if first == 0 { _ = kill(at: index) }
      let tail = first + freed < length ? bear(length - first - freed) : nil
      add(.freePages(span: span, first: first, pages: freed, tail: tail, isJoined: false), pages: -freed)
    case (18, _): add(.refuseSpan(pages: pages, traits: SpanTraits()), pages: 0)
    case (19, let span?):
      if live.count < 2 { return }
      let length = kill(at: index)
      // The one born next, which may lie beside it.
      let second = live.firstIndex(of: span + 1) ?? index % live.count
      let other = live[second]
      add(.freePages(span: span, first: 0, pages: length, tail: nil, isJoined: true), pages: -length)
      add(.free(object: other), pages: -kill(at: second))
    default:
      let alignment = Int.random(in: 0..<5, using: &random) == 0 ? 1 << Int.random(in: 1...10, using: &random) : 1
      let traits = SpanTraits(
        alignmentPages: alignment, isZeroed: .random(using: &random),
        lifetime: SpanTraits.Lifetime.allCases.randomElement(using: &random)!)
      add(.allocateSpan(span: bear(pages), pages: pages, traits: traits), pages: pages)
    }
  }
}

private func makeFrontEnd(
  _ program: borrowing TraceProgram, touch: TouchMode
) throws -> FrontEnd<LinuxKernel> {
  var options = HeapOptions()
  options.policy = .immediate
  options.strategy = StrategyChoice(.dontneed)
  return FrontEnd(heap: try PageHeapCore(kernel: LinuxKernel(), options: options), program: program, touch: touch)
}

@Suite("A replay of spans")
struct SpanReplayTests {
  @Test("has the trace's pages in use after every event, and the heap is in order", arguments: 1...4)
  func model(seed: UInt64) throws {
    let spans = RandomSpans(seed: seed, count: 4000)
    let program = try TraceProgram(traceFile(spans.events, header: spanHeader))
    var frontEnd = try makeFrontEnd(program, touch: seed == 1 ? .all : .none)
    var index = 0
    for (number, event) in spans.events.enumerated() {
      var isJoined = false
      let steps: Int
      switch event.body {
      case .refuseSpan: steps = 0
      case .freePages(_, let first, _, let tail, let joined):
        steps = 1 + (first > 0 ? 1 : 0) + (tail == nil ? 0 : 1)
        isJoined = joined
      default: steps = 1
      }
      for _ in 0..<steps {
        try frontEnd.perform(program.steps[index])
        index += 1
      }
      let needed = frontEnd.demand.touchedPages
      if isJoined { continue }
      // Every page of every span is touched, or none.
      try #require(needed == (seed == 1 ? spans.used[number] : 0), "seed \(seed), event \(number), \(event.body)")
      let used = frontEnd.heap.statistics().usedPages
      try #require(
        used == spans.used[number] && used == frontEnd.meter.usedPages, "seed \(seed), event \(number), \(event.body)")
      if number % 200 == 0 {
        frontEnd.heap.checkInvariants()
        _ = frontEnd.heap.tick(at: event.time, processCPU: 0)
        frontEnd.heap.checkInvariants()
      }
    }
    #expect(index == program.steps.count)
    #expect(frontEnd.meter.peakUsedPages == spans.used.max(), "seed \(seed)")
    let counters = frontEnd.counters
    #expect(counters.cut > 100 && counters.moved > 0 && counters.grownInPlace > 0, "seed \(seed): \(counters)")
    #expect(program.summary.peakLiveBytes == spans.used.max()! * 4096)
  }

  /// What the kernel says of a block before it is split is an answer about residency as well: without hugepages to be had, or
  /// with a split that failed, decisions differ. So all runs are given the answers of the first.
  @Test("takes the same decisions from run to run, whatever is touched, if the kernel's answers are the same")
  func deterministic() throws {
    let file = try traceFile(RandomSpans(seed: 9, count: 5000).events, header: spanHeader)
    let log = NSTemporaryDirectory() + "spans-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: log) }
    func decisions(_ touch: TouchMode, _ mode: ResidencyLog.Mode) throws -> [String: Int] {
      var options = ReplayOptions()
      options.residencyEvery = nil
      options.residencyLog = mode
      options.heap.effectSamplePeriod = 0
      options.touch = touch
      let program = try TraceProgram(file)
      return try replay(program, options: options, group: nil).decisions
    }
    let first = try decisions(.all, .writing(path: log))
    #expect(first["cut"]! > 100 && first["ticks"]! > 5 && first["spansCarved"] == 0 && first["splits"]! > 0)
    #expect(try decisions(.all, .reading(path: log)) == first)
    #expect(try decisions(.none, .reading(path: log)) == first)
  }

  @Test("frees neighbours of one request together where they are neighbours, and alone where not")
  func joined() throws {
    let events: [TraceEventBody] = [
      .allocateSpan(span: 0, pages: 9, traits: SpanTraits()),
      // The middle and the end of a span that is whole in the heap: side by side for sure.
      .freePages(span: 0, first: 3, pages: 2, tail: 1, isJoined: true),
      .free(object: 1), .free(object: 0),
    ]
    let program = try TraceProgram(
      traceFile(events.map { TraceEvent(time: 0, thread: 0, body: $0) }, header: spanHeader))
    var frontEnd = try makeFrontEnd(program, touch: .none)
    for index in 0..<program.steps.count { try frontEnd.perform(program.steps[index]) }
    let statistics = frontEnd.heap.statistics()
    #expect(frontEnd.counters.joined == 1 && statistics.frees == 2 && statistics.usedPages == 0)
  }

  @Test("asks for zeros where the front end did, and for its alignment")
  func traits() throws {
    let traits = SpanTraits(alignmentPages: 64, isZeroed: true)
    let events: [TraceEventBody] = [
      .allocateSpan(span: 0, pages: 64, traits: SpanTraits(alignmentPages: 64)), .free(object: 0),
      .allocateSpan(span: 1, pages: 3, traits: SpanTraits()),
      .allocateSpan(span: 2, pages: 64, traits: traits),
    ]
    let program = try TraceProgram(
      traceFile(events.map { TraceEvent(time: 0, thread: 0, body: $0) }, header: spanHeader))
    var frontEnd = try makeFrontEnd(program, touch: .all)
    for index in 0..<3 { try frontEnd.perform(program.steps[index]) }
    // Touching writes the first word of each page, so the second tells.
    func words(_ slot: UInt32) -> [UInt64] {
      (0..<64).map { page in
        UnsafePointer<UInt64>(bitPattern: frontEnd.objects[Int(slot)].address + UInt(page * 4096 + 8))!.pointee
      }
    }
    let used = frontEnd.objects[Int(program.steps[0].slot)].address
    for page in 0..<64 { UnsafeMutablePointer<UInt64>(bitPattern: used + UInt(page * 4096 + 8))?.pointee = 7 }
    try frontEnd.perform(program.steps[3])
    let slot = program.steps[3].slot
    #expect(frontEnd.objects[Int(slot)].address % (64 * 4096) == 0)
    #expect(words(slot).allSatisfy { $0 == 0 })
  }

  @Test("of large spans touches what the program had in memory, of small ones all")
  func touching() throws {
    let sample = ProgramSample(
      cpuNanoseconds: 0, anonymousBytes: 8 << 20, hugeBytes: 0, minorFaults: 0, majorFaults: 0)
    let file = try traceFile(
      [
        TraceEvent(time: 0, thread: 0, body: .allocateSpan(span: 0, pages: 8192, traits: SpanTraits())),
        TraceEvent(time: 1_000_000, thread: 0, body: .sample(sample)),
        TraceEvent(time: 2_000_000, thread: 0, body: .free(object: 0)),
      ], header: spanHeader)
    let program = try TraceProgram(file)
    #expect(program.touchedFractions == [0.25])
    var frontEnd = try makeFrontEnd(program, touch: .recorded)
    frontEnd.touchedFraction = 0.25
    try frontEnd.perform(program.steps[0])
    let resident = try frontEnd.heap.observe().residentBytes
    #expect(resident >= 8 << 20 && resident <= 10 << 20)
  }

  @Test("of pages that are larger than the heap's has as many bytes; of smaller ones there is none")
  func pageSizes() throws {
    let events = [TraceEvent(time: 0, thread: 0, body: .allocateSpan(span: 0, pages: 3, traits: SpanTraits()))]
    var header = spanHeader
    header.pageBytes = 16384
    let program = try TraceProgram(traceFile(events, header: header))
    #expect(program.steps[0].bytes == 3 * 16384)
    header.pageBytes = 1024
    #expect(throws: TraceError.self) { _ = try TraceProgram(traceFile(events, header: header)) }
  }
}
