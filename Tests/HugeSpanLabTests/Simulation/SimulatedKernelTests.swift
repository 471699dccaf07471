// The simulated kernel does what the model does that is checked against the real one, and what the model has no notion of: limits,
// reclaim, khugepaged, hugepages that are not to be had, prices.

import HugeSpanCore
import TestKernels
import Testing

@testable import HugeSpanLab

private let block = 1 << 21

/// A committed reservation of a simulated kernel, advised for hugepages.
private struct SimulatedMemory {
  let kernel: SimulatedKernel
  let range: AddressRange

  init(_ options: SimulationOptions = SimulationOptions(), blocks: Int) throws {
    kernel = SimulatedKernel(options)
    range = try kernel.reserve(byteCount: blocks * block, alignment: block)
    try kernel.commit(range)
    #expect(advise(.hugepage, range) == nil)
  }

  func pages(_ first: Int, _ count: Int) -> AddressRange {
    AddressRange(start: range.start + UInt(first * 4096), byteCount: count * 4096)
  }

  func touch(_ range: AddressRange) { kernel.touch(range.start, pages: range.byteCount / 4096) }

  @discardableResult
  func advise(_ advice: Advice, _ range: AddressRange) -> KernelError? {
    withUnsafePointer(to: range) { kernel.advise(advice, UnsafeBufferPointer(start: $0, count: 1)) }.error
  }

  var totals: SimulatedTotals { kernel.totals }
}

/// What a kernel says is resident, from the start of `range`.
private func residency(_ kernel: some Kernel, _ range: AddressRange) throws -> [String] {
  try withUnsafeTemporaryAllocation(of: ResidentRegion.self, capacity: 7) { regions in
    var lines: [String] = []
    var start = range.start
    while start < range.end {
      let answer = try kernel.residency(
        of: AddressRange(start: start, byteCount: Int(range.end - start)), into: regions)
      for region in regions[0..<answer.count] {
        for page in 0..<region.range.byteCount / 4096 {
          let offset = Int(region.range.start - range.start) / 4096 + page
          lines.append("\(offset)\(region.isHuge ? "h" : "")\(region.isPresent ? "" : "s")")
        }
      }
      start = answer.walkedTo
    }
    return lines
  }
}

@Suite struct ASimulatedKernel {
  @Test("does what the model of the real one does, step by step", arguments: 1...24)
  func agreesWithTheModel(seed: Int) throws {
    var random = SeededRandom(seed: UInt64(seed))
    let hasSwap = seed % 2 == 0
    let blocks = 3
    let model = ModelKernel(hasSwap: hasSwap)
    var options = SimulationOptions()
    options.swapBytes = hasSwap ? 1 << 40 : 0
    let memory = try SimulatedMemory(options, blocks: blocks)
    let modelRange = try model.reserve(byteCount: blocks * block, alignment: block)
    try model.commit(modelRange)
    _ = withUnsafePointer(to: modelRange) { model.advise(.hugepage, UnsafeBufferPointer(start: $0, count: 1)) }
    var hasChild = false
    var done: [String] = []
    for _ in 0..<300 {
      // Pairs of pages: of a hugepage that is known of what was written, whatever the pattern. (WrittenPagesTests has the rest.)
      var first = Int.random(in: 0..<blocks * 256, using: &random) * 2
      var count = min(Int.random(in: 1...40, using: &random) * 2, blocks * 512 - first)
      if Int.random(in: 0..<3, using: &random) == 0 { (first, count) = (first / 512 * 512, 512) }
      let ours = memory.pages(first, count)
      let theirs = AddressRange(start: modelRange.start + UInt(first * 4096), byteCount: count * 4096)
      let advice: Advice
      switch Int.random(in: 0..<17, using: &random) {
      case 0..<6:
        done.append("touch \(first) \(count)")
        memory.touch(ours)
        model.touch(theirs)
        advice = .hugepage
      case 6..<9: advice = .dontneed
      case 9, 10: advice = .free
      case 11: advice = .cold
      case 12: advice = .pageout
      case 13: advice = .collapse
      case 16:
        // Any block, to one that is emptied before.
        let (from, to) = (first / 512, (first / 512 + 1) % blocks)
        done.append("move \(from) \(to)")
        func whole(_ number: Int) -> (ours: AddressRange, theirs: AddressRange) {
          (
            memory.pages(number * 512, 512),
            AddressRange(start: modelRange.start + UInt(number * block), byteCount: block)
          )
        }
        memory.advise(.dontneed, whole(to).ours)
        _ = withUnsafePointer(to: whole(to).theirs) {
          model.advise(.dontneed, UnsafeBufferPointer(start: $0, count: 1))
        }
        #expect(memory.kernel.move(whole(from).ours, to: whole(to).ours.start).completedRanges == 1)
        _ = model.move(whole(from).theirs, to: whole(to).theirs.start)
        advice = .hugepage
      case 14 where !hasChild:
        hasChild = true
        done.append("fork")
        memory.kernel.fork()
        model.fork()
        advice = .hugepage
      default:
        hasChild = false
        done.append("end")
        memory.kernel.endChildren()
        model.endChildren()
        advice = .hugepage
      }
      if advice != .hugepage {
        done.append("\(advice) \(first) \(count)")
        let error = memory.advise(advice, ours)
        let expected = withUnsafePointer(to: theirs) {
          model.advise(advice, UnsafeBufferPointer(start: $0, count: 1)).error
        }
        try #require(error == expected, "seed \(seed): \(done)")
      }
      let totals = memory.totals
      try #require(
        totals.present * 4096 == model.presentBytes && totals.phantom * 4096 == model.phantomBytes
          && totals.lazy * 4096 == model.lazyBytes && totals.hugeBlocks * block == model.hugeBytes,
        "seed \(seed): \(totals) against \(model.presentBytes / 4096) present, \(model.phantomBytes / 4096) phantom, \(model.lazyBytes / 4096) lazy, \(model.hugeBytes / block) huge; \(done)"
      )
      let (seen, expected) = (try residency(memory.kernel, memory.range), try residency(model, modelRange))
      try #require(seen == expected, "seed \(seed): \(done)")
      let sharing = try memory.kernel.sharedPages(of: ours, limit: .max)
      let expectedSharing = try model.sharedPages(of: theirs, limit: .max)
      try #require(sharing == expectedSharing, "seed \(seed): \(done)")
    }
  }

  @Test("has no total that its blocks do not add up to", arguments: 1...4)
  func addsUp(seed: Int) throws {
    var random = SeededRandom(seed: UInt64(seed))
    var options = SimulationOptions()
    options.limitBytes = 9 * block
    options.swapBytes = 20 * block
    options.maxPtesNone = 100
    options.khugepagedPagesPerSecond = 2000
    options.hugeFailure = 0.2
    options.collapseFailure = 0.3
    let memory = try SimulatedMemory(options, blocks: 16)
    for step in 0..<3000 {
      let first = Int.random(in: 0..<16 * 512, using: &random)
      let range = memory.pages(first, min(Int.random(in: 1...600, using: &random), 16 * 512 - first))
      switch Int.random(in: 0..<8, using: &random) {
      case 0..<4: memory.touch(range)
      case 4: memory.advise(.dontneed, range)
      case 5: memory.advise(.free, range)
      case 6: memory.advise(.cold, range)
      default: memory.kernel.advance(to: UInt64(step) * 10_000_000)
      }
      let state = memory.kernel.state
      var sum = (present: 0, phantom: 0, lazy: 0, swapped: 0)
      for index in 0..<state.pointee.blockCount {
        let block = state.pointee.blocks[index]
        sum.present += Int(block.present)
        sum.phantom += block.phantom
        sum.lazy += Int(block.lazy)
        sum.swapped += Int(block.swapped)
        if block.side == 0 { continue }
        let pages = state.pointee.pages(index)
        #expect(pages.present.count == block.present)
        for word in 0..<8 { #expect(pages.folio[word] & ~pages.present[word] == 0) }
        #expect((0..<8).reduce(0) { $0 + pages.lazy($1).nonzeroBitCount } == block.lazy)
        #expect((0..<8).reduce(0) { $0 + pages.swapped($1).nonzeroBitCount } == block.swapped)
      }
      let totals = memory.totals
      try #require(
        sum == (totals.present, totals.phantom, totals.lazy, totals.swapped), "seed \(seed), step \(step): \(totals)")
      try #require(totals.charged * 4096 <= 9 * block, "seed \(seed), step \(step): \(totals)")
    }
    #expect(memory.totals.swapOuts > 0 && memory.totals.lazyTaken > 0 && memory.totals.reclaimSplits > 0)
    #expect(memory.totals.khugepagedCollapses > 0 && !memory.kernel.isOutOfMemory)
  }

  @Test("reclaims what is lazily free first, then phantom, then zeros, then swaps, and then somebody is killed")
  func reclaimsInOrder() throws {
    var options = SimulationOptions()
    options.limitBytes = 8 * block
    options.swapBytes = 2 * block
    options.maxPtesNone = 255
    let memory = try SimulatedMemory(options, blocks: 24)
    func full(_ index: Int) { memory.touch(memory.pages(index * 512, 512)) }
    for index in 0..<6 { full(index) }
    memory.touch(memory.pages(6 * 512, 16))  // a hugepage, nearly all of it zeros
    full(7)
    memory.advise(.free, memory.pages(512, 512))
    memory.advise(.dontneed, memory.pages(2 * 512, 256))
    #expect(memory.totals.charged == 8 * 512 && memory.totals.phantom == 256 && memory.totals.lazy == 512)
    full(8)
    #expect(memory.totals.lazyTaken == 512 && memory.totals.phantom == 256)
    memory.touch(memory.pages(2 * 512, 200))  // refaulted beside the whole folio
    #expect(memory.totals.phantom == 0 && memory.totals.reclaimSplits == 1 && memory.totals.swapOuts == 0)
    full(9)
    #expect(memory.totals.reclaimSplits == 2, "of the hugepage of zeros 16 pages are left")
    let before = memory.totals.swapOuts
    memory.advise(.cold, memory.pages(3 * 512, 512))
    full(10)
    #expect(memory.totals.swapOuts > before)
    #expect(try residency(memory.kernel, memory.pages(3 * 512, 512)).allSatisfy { $0.hasSuffix("s") })
    #expect(!memory.kernel.isOutOfMemory)
    for index in 11..<16 { full(index) }
    #expect(memory.kernel.isOutOfMemory)
  }

  @Test("lets khugepaged fill blocks at its rate, as far as it may")
  func collapsesInTheBackground() throws {
    var options = SimulationOptions()
    options.khugepagedPagesPerSecond = 1024
    options.maxPtesNone = 400
    let memory = try SimulatedMemory(options, blocks: 8)
    memory.touch(memory.range)
    for index in 0..<8 {
      memory.advise(.cold, memory.pages(index * 512, 1))
      memory.advise(.dontneed, memory.pages(index * 512, index < 4 ? 450 : 300))
    }
    #expect(memory.totals.hugeBlocks == 0 && memory.totals.charged == 4 * 62 + 4 * 212)
    memory.kernel.advance(to: 3_000_000_000)
    let early = memory.totals.hugeBlocks
    memory.kernel.advance(to: 60_000_000_000)
    #expect(early < 4 && memory.totals.hugeBlocks == 4 && memory.totals.khugepagedCollapses == 4)
  }

  @Test("gives base pages where no hugepage is to be had, as often as it was told")
  func failsToGiveHugePages() throws {
    var options = SimulationOptions()
    options.hugeFailure = 0.25
    let memory = try SimulatedMemory(options, blocks: 2000)
    for index in 0..<2000 { memory.touch(memory.pages(index * 512, 1)) }
    #expect((1400...1600).contains(memory.totals.hugeBlocks))
    #expect(memory.totals.splitBlocks == 2000 - memory.totals.hugeBlocks)
  }

  @Test("charges the fault of a block by how long it was away")
  func pricesColdFaults() throws {
    var costs = CostModel()
    costs.coldBlockFault = 4000
    let kernel = SimulatedKernel(costs: costs)
    let range = try kernel.reserve(byteCount: block, alignment: block)
    try kernel.commit(range)
    func advise(_ advice: Advice) {
      _ = withUnsafePointer(to: range) { kernel.advise(advice, UnsafeBufferPointer(start: $0, count: 1)) }
    }
    advise(.hugepage)
    var prices: [Double] = []
    for time in [0, 1, 11] {
      kernel.advance(to: UInt64(time) * 1_000_000_000)
      let before = kernel.totals.faultNanoseconds
      kernel.touch(range.start, pages: 512)
      prices.append((kernel.totals.faultNanoseconds - before) / 1000)
      if time == 0 { kernel.advance(to: 500_000_000) }
      advise(.dontneed)
    }
    #expect(prices == [costs.blockFault, costs.blockFault, 4000])
  }

  @Test("takes a lazily freed block's mark with its memory")
  func losesMarks() throws {
    var options = SimulationOptions()
    options.limitBytes = 2 * block
    let memory = try SimulatedMemory(options, blocks: 4)
    memory.touch(memory.pages(0, 1024))
    memory.kernel.setWord(77, at: memory.range.start)
    memory.advise(.free, memory.pages(0, 512))
    #expect(memory.kernel.pin(at: memory.range.start) == 77 && memory.totals.lazy == 0)
    memory.advise(.free, memory.pages(0, 512))
    memory.touch(memory.pages(1024, 1))
    #expect(memory.kernel.word(at: memory.range.start) == 0 && memory.totals.lazyTaken == 512)
  }

  @Test(
    "refuses switches that mean nothing, with their names",
    arguments: [
      "fast=1", "limit", "limit=many", "huge-failure=2", "underused=maybe", "max-ptes-none=512", "swap=-1", "",
    ])
  func refusesSwitches(text: String) {
    #expect(throws: NotationError.self) { try SimulationOptions(notation: text) }
  }

  @Test func readsItsSwitches() throws {
    let options = try SimulationOptions(
      notation: "huge-failure=0.5,khugepaged=409.6,limit=700MiB,swap=1GiB,underused=off,max-ptes-none=64,seed=7")
    #expect(options.hugeFailure == 0.5 && options.khugepagedPagesPerSecond == 409.6 && options.limitBytes == 700 << 20)
    #expect(options.swapBytes == 1 << 30 && !options.splitsUnderused && options.maxPtesNone == 64 && options.seed == 7)
  }
}
