// Each policy's releases, tick by tick, against an independent model of its published rule.
//
// The models see what the user does and the ranges that reach the kernel, and nothing of the heap.

import HugeSpanCore
import TestKernels
import Testing

/// gperftools' scavenge counter (IncrementalScavenge in its page heap), in pages of 4 KiB: each freed page counts down;
/// below zero a span is released and buys 1000 / rate pages of wait for each of its pages, at most 2^20 of 8 KiB; when
/// there is nothing to release the wait is 2^18 of them. The seed mail's third idea counts refaulted pages back up.
private struct ScavengeCounter {
  let rate: Double
  let discountsRefaults: Bool
  var counter = 0.0

  mutating func count(freed: Int, refaulted: Int) {
    counter -= Double(freed)
    if discountsRefaults { counter = min(counter + Double(refaulted), Double(1 << 21)) }
  }

  var isDue: Bool { counter < 0 }

  mutating func released(_ pages: Int) { counter += Double(pages) * 1000 / rate }
  mutating func finish(ranOut: Bool) { counter = ranOut ? Double(1 << 19) : min(counter, Double(1 << 21)) }
}

@Suite struct ThePolicy {
  static let seeds: ClosedRange<UInt64> = 1...3

  @Test func neverReleasesNothing() throws {
    var observed = try ObservedHeap(.never, seed: 1)
    for round in 0..<20 {
      _ = try observed.work(steps: 100, allocating: round % 2 == 0 ? 7 : 3)
      #expect(observed.tick() == [])
    }
  }

  @Test(arguments: seeds)
  func immediateReleasesAllThatIsFreeAtEachTick(seed: UInt64) throws {
    var observed = try ObservedHeap(.immediate, seed: seed)
    for round in 0..<30 {
      _ = try observed.work(steps: 60, allocating: round % 4 < 2 ? 7 : 3)
      let expected = observed.model.freePages
      let released = observed.tick().reduce(0) { $0 + observed.model.release($1, inScavenge: true) }
      try #require(released == expected && observed.model.freePages == 0, "seed \(seed), round \(round)")
    }
    #expect(observed.kernel.base.violations == [])
  }

  @Test(arguments: seeds, [50.0, 900.0])
  func gperftoolsReleasesWhenItsCounterSaysSo(seed: UInt64, rate: Double) throws {
    var observed = try ObservedHeap(.gperftools(rate: rate), seed: seed)
    var counter = ScavengeCounter(rate: rate, discountsRefaults: false)
    try follow(&observed, &counter, seed: seed) { _, _ in }
  }

  @Test(arguments: seeds, [true, false])
  func seedReleasesWhenItsCounterSaysSo(seed: UInt64, discountsRefaults: Bool) throws {
    var options = SeedOptions()
    options.rate = 300
    options.discountRefaults = discountsRefaults
    var observed = try ObservedHeap(.seed(options), seed: seed)
    var counter = ScavengeCounter(rate: 300, discountsRefaults: discountsRefaults)
    try follow(&observed, &counter, seed: seed) { _, _ in }
  }

  /// "Prefer to release spans in pageblocks that are already not THP-backed", then "prefer to release longer spans".
  @Test(arguments: seeds)
  func seedPrefersBrokenBlocksAndThenLongSpans(seed: UInt64) throws {
    var options = SeedOptions()
    options.rate = 150
    var observed = try ObservedHeap(.seed(options), seed: seed)
    var counter = ScavengeCounter(rate: 150, discountsRefaults: true)
    var broken = 0
    // Few blocks empty, so that parts have to go.
    observed.longest = 100
    try follow(&observed, &counter, seed: seed, allocatingAtLeast: 5) { model, range in
      let block = range.start & ~UInt(0x1f_ffff)
      let longest = model.broken.flatMap { model.runs($0) }.max() ?? 0
      if model.broken.contains(block) {
        broken += 1
        // A block that is free as a whole goes as a whole; of the others the longest span.
        if !model.isWhollyFree(block) { try #require(range.byteCount >> 12 == longest) }
      } else {
        try #require(longest == 0, "an intact block gives while a broken one has \(longest) pages")
        if !model.isWhollyFree(block) { try #require(range.byteCount >> 12 == model.runs(block).max()) }
      }
    }
    #expect(broken > 10)
  }

  /// Without the first idea: whatever block it is in, the longest span goes.
  @Test(arguments: seeds)
  func seedWithoutBrokenFirstReleasesTheLongestSpanOfAll(seed: UInt64) throws {
    var options = SeedOptions()
    options.rate = 150
    options.preferBroken = false
    var observed = try ObservedHeap(.seed(options), seed: seed)
    var counter = ScavengeCounter(rate: 150, discountsRefaults: true)
    observed.longest = 100
    var intactWhileBroken = 0
    try follow(&observed, &counter, seed: seed, allocatingAtLeast: 5) { model, range in
      let block = range.start & ~UInt(0x1f_ffff)
      let longest = model.blocks.keys.flatMap { model.runs($0) }.max() ?? 0
      if !model.isWhollyFree(block) { try #require(range.byteCount >> 12 == longest) }
      let hasBroken = model.broken.contains { !model.runs($0).isEmpty }
      if hasBroken && !model.broken.contains(block) { intactWhileBroken += 1 }
    }
    #expect(intactWhileBroken > 10)
  }

  /// Without the second idea a release goes down through the lengths as gperftools' does, and at each step broken blocks
  /// come first: an intact one gives only when no broken one's longest span fits into what is left of the turn.
  @Test(arguments: seeds)
  func seedWithoutLongFirstPrefersBrokenBlocksInEachTurn(seed: UInt64) throws {
    var options = SeedOptions()
    options.rate = 150
    options.preferLong = false
    var observed = try ObservedHeap(.seed(options), seed: seed)
    var counter = ScavengeCounter(rate: 150, discountsRefaults: true)
    observed.longest = 100
    var last = 0
    var broken = 0
    var shorter = 0
    try follow(&observed, &counter, seed: seed, allocatingAtLeast: 5) { model, range in
      let block = range.start & ~UInt(0x1f_ffff)
      let length = range.byteCount >> 12
      let limit = length < last ? last - 1 : 512
      last = length
      let spans = model.broken.compactMap { model.runs($0).max() }
      if model.broken.contains(block) {
        broken += 1
        if length < spans.max()! { shorter += 1 }
      } else if !model.isWhollyFree(block) {
        try #require(!spans.contains { $0 <= limit }, "an intact block gives \(length) pages before a broken one")
      }
    }
    #expect(broken > 10 && shorter > broken / 4, "\(shorter) of \(broken)")
  }

  /// "One of each length in turn": between two spans of one length all other lengths come.
  @Test(arguments: seeds)
  func gperftoolsGoesThroughTheLengths(seed: UInt64) throws {
    var observed = try ObservedHeap(.gperftools(rate: 60), seed: seed)
    var counter = ScavengeCounter(rate: 60, discountsRefaults: false)
    var last = 0
    var turns = 0
    var lengths = 0
    try follow(&observed, &counter, seed: seed) { _, range in
      let length = range.byteCount >> 12
      // A round goes down through the lengths there are; then the longest begins another.
      if length >= last { turns += 1 }
      last = length
      lengths += 1
    }
    // Many lengths to a round, or it would be the longest (or the shortest) span each time.
    #expect(lengths > 3 * turns, "\(lengths) spans in \(turns) rounds")
  }

  /// Runs a user under a policy with a counter, and checks each released span before the model learns of it.
  private func follow(
    _ observed: inout ObservedHeap, _ counter: inout ScavengeCounter, seed: UInt64, allocatingAtLeast low: Int = 3,
    _ check: (FreeMemoryModel, AddressRange) throws -> Void
  ) throws {
    var released = 0
    for round in 0..<60 {
      let freed = try observed.work(steps: 40, allocating: round % 6 < 3 ? 7 : low)
      counter.count(freed: freed, refaulted: observed.model.refaultedPages)
      observed.model.refaultedPages = 0
      let wasDue = counter.isDue && freed > 0
      for range in observed.tick().flatMap(pieces) {
        try #require(counter.isDue, "seed \(seed), round \(round): \(range) is released too early")
        try check(observed.model, range)
        let pages = observed.model.release(range, inScavenge: true)
        counter.released(pages)
        released += pages
      }
      let ranOut = counter.isDue && observed.model.freePages == 0
      try #require(!wasDue || !counter.isDue || ranOut, "seed \(seed), round \(round): a release is missing")
      if wasDue { counter.finish(ranOut: ranOut) }
    }
    #expect(released > 0)
    #expect(observed.kernel.base.violations == [])
  }
}
