// Runs a sequence on a heap over the model kernel, and compares after every step.

import Foundation
import HugeSpanCore
import TestKernels

/// What the heap did wrong.
struct Disagreement: Error, CustomStringConvertible {
  var description: String
}

extension OperationSequence {
  /// Runs the whole sequence, and destroys the heap. `trace` is told each step before it is taken.
  func run(trace: (String) -> Void = { _ in }) throws {
    let model = ModelKernel(hasSwap: configuration.hasSwap)
    let kernel = FaultInjectingKernel(model)
    let code = KernelError(code: configuration.faultCode)
    do {
      let heap = try PageHeapCore(kernel: kernel, options: configuration.options)
      if configuration.faultPercent > 0 {
        kernel.faults.failRandomly(
          [
            .reserve, .commit, .mapMetadata, .residency, .sharing, .advise(.dontneed), .advise(.free), .advise(.cold),
            .advise(.pageout), .advise(.decommit), .advise(.hugepage), .move,
          ],
          share: Double(configuration.faultPercent) / 100, seed: seed, with: code)
      }
      var runner = Runner(configuration: configuration, model: model)
      for (step, operation) in operations.enumerated() {
        trace("step \(step): \(operation)")
        do {
          try runner.take(operation, on: heap)
          try runner.compare(with: heap)
        } catch let wrong as Disagreement {
          throw Disagreement(description: "step \(step), \(operation): \(wrong)")
        }
      }
      trace("destroying the heap")
    }
    if !kernel.faults.isBalanced || !model.isEmpty { throw Disagreement(description: "the heap kept memory") }
    if let violation = model.violations.first { throw Disagreement(description: "at the end: \(violation)") }
  }
}

private typealias Heap = PageHeapCore<FaultInjectingKernel<ModelKernel>>

private struct Runner {
  let configuration: HeapConfiguration
  let model: ModelKernel
  var spans = SpanModel()
  var now: UInt64 = 0
  var allocations = 0
  /// The kernel did something on its own since the heap last looked, so that what it believes may be wrong.
  var isBehind = false
  /// The kernel made memory of its own accord, which no limit of the heap's can prevent.
  var hasInflated = false

  func require(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw Disagreement(description: message()) }
  }

  // MARK: Steps

  mutating func take(_ operation: Operation, on heap: borrowing Heap) throws {
    switch operation {
    case .allocate(let pages, let alignment, let zero, let hint):
      var request = SpanRequest(pageCount: pages)
      request.alignmentPages = alignment
      request.mustBeZero = zero
      request.lifetime = ExpectedLifetime(rawValue: UInt8(hint % 3))!
      request.objectsPerSpan = ObjectsPerSpan(rawValue: UInt8(hint / 3))!
      try allocate(request, on: heap)
    case .allocateAt(let slot, let gap, let pages):
      guard let index = spans.index(slot) else { return }
      var request = SpanRequest(pageCount: pages)
      request.wishedAddress = spans.entries[index].span.end + UInt(gap * 4096)
      try allocate(request, on: heap)
    case .free(let slot):
      guard let index = spans.index(slot) else { return }
      free(spans.entries[index].span, on: heap)
    case .freePart(let slot, let first, let count):
      guard let index = spans.index(slot) else { return }
      let span = spans.entries[index].span
      let start = first % span.pageCount
      free(
        PageSpan(address: span.address + UInt(start * 4096), pageCount: min(count, span.pageCount - start)), on: heap)
    case .freeUnion(let slot, let first, let last):
      guard let index = spans.index(slot), index + 1 < spans.entries.count else { return }
      let (left, right) = (spans.entries[index].span, spans.entries[index + 1].span)
      guard left.end == right.address else { return }
      let start = first % left.pageCount
      let count = left.pageCount - start + min(last, right.pageCount)
      free(PageSpan(address: left.address + UInt(start * 4096), pageCount: count), on: heap)
    case .grow(let slot, let pages): try grow(slot, pages, on: heap)
    case .shrink(let slot, let pages):
      guard let index = spans.index(slot) else { return }
      let span = spans.entries[index].span
      let expected = PageSpan(address: span.address, pageCount: min(max(pages, 1), span.pageCount))
      let rest = AddressRange(start: expected.end, byteCount: Int(span.end - expected.end))
      model.setUsed(rest, false)
      let result = heap.shrink(span, toPages: pages)
      try require(result == expected, "shrank to \(result)")
      spans.resize(index, to: expected.pageCount)
    case .lookUp(let slot, let page):
      guard let index = spans.index(slot) else { return }
      let span = spans.entries[index].span
      // Also addresses around it, which belong to others or to nobody.
      for offset in [page % span.pageCount * 4096 + 1, -1, span.pageCount * 4096] {
        let address = span.address &+ UInt(bitPattern: offset)
        let expected = spans.entries.first { $0.span.range.contains(AddressRange(start: address, byteCount: 1)) }?.span
        let found = heap.span(containing: address)
        try require(found == expected, "found \(String(describing: found)), not \(String(describing: expected))")
      }
    case .setUserData(let slot, let value):
      guard configuration.userData, let index = spans.index(slot) else { return }
      heap.setUserData(UInt(value), of: spans.entries[index].span.address)
      spans.setUserData(index, value)
    case .write(let slot, let percent):
      guard let index = spans.index(slot) else { return }
      let span = spans.entries[index].span
      model.touch(AddressRange(start: span.address, byteCount: max(span.pageCount * percent / 100, 1) * 4096))
    case .tick(let milliseconds):
      now += UInt64(milliseconds) * 1_000_000
      let report = heap.tick(at: now, processCPU: now / 2)
      try require(report.releasedPages >= 0 && report.nextTickNanoseconds > 0, "reported \(report)")
    case .releaseNow(let pages): try releaseNow(pages, on: heap)
    case .relieve(let pages): try relieve(pages, on: heap)
    case .residencyPass: try residencyPass(on: heap)
    case .cure(let blocks):
      let phantom = model.phantomBytes
      _ = heap.curePhantom(blocks: blocks)
      try require(model.phantomBytes <= phantom, "a cure made phantom memory")
    case .reclaim: model.reclaimLazy()
    case .splitBehind(let slot):
      guard let index = spans.index(slot) else { return }
      model.splitBehindTheBack(spans.entries[index].span.range)
      isBehind = true
    case .collapseBehind(let slot):
      guard let index = spans.index(slot) else { return }
      model.collapseBehindTheBack(spans.entries[index].span.range)
      isBehind = true
      hasInflated = true
    case .setHugePages(let gives): model.setGivesHugePages(gives)
    case .fork(let goesOnInChild):
      heap.prepareForFork()
      model.fork()
      if goesOnInChild { heap.resumeInChild() } else { heap.resumeInParent() }
    case .endChildren: model.endChildren()
    }
  }

  private mutating func allocate(_ request: SpanRequest, on heap: borrowing Heap) throws {
    let violations = model.violations.count
    let allocated: AllocatedSpan
    do throws(HeapError) {
      allocated = try heap.allocate(request)
    } catch {
      try check(error, request)
      return
    }
    let span = allocated.span
    try require(span.pageCount == request.pageCount, "allocated \(span)")
    try require(span.address % UInt(request.alignmentPages * 4096) == 0, "\(span) is not aligned")
    try require(request.wishedAddress == nil || request.wishedAddress == span.address, "\(span) is not where wished")
    try require(spans.isFree(span.range), "\(span) overlaps another span")
    try require(model.reservations.contains { $0.contains(span.range) }, "\(span) is not in one arena")
    try require(allocated.isZero || !request.mustBeZero, "\(span) is not zeroed")
    if allocated.isZero { try require(model.readsAsZero(span.range), "\(span) is said to be zero and is not") }
    try require((0...span.pageCount).contains(allocated.refaultedPages), "\(allocated.refaultedPages) pages refaulted")
    try require(model.violations.count == violations, "\(model.violations.last ?? "")")
    spans.insert(span)
    model.setUsed(span.range, true)
    allocations += 1
    // Most programs write what they allocate.
    if allocations % 4 != 0 { model.touch(span.range) } else { touchThinly(span) }
  }

  /// Writes to one page in each block of a span. Of a block that nobody has written to the kernel may still make a
  /// hugepage, whatever the heap released of it; what the heap believes of it would be wrong until it looks.
  private func touchThinly(_ span: PageSpan) {
    var address = span.address
    while address < span.end {
      model.touch(AddressRange(start: address, byteCount: 4096))
      address = (address | 0x1f_ffff) + 1
    }
  }

  /// Whether an allocation had a reason to fail.
  private func check(_ error: HeapError, _ request: SpanRequest) throws {
    switch error {
    case .limitExceeded: try require(configuration.hardLimitBlocks > 0, "a limit that was not set is exceeded")
    case .kernel: try require(configuration.faultPercent > 0, "the kernel is said to have refused: \(error)")
    case .addressNotFree:
      guard let address = request.wishedAddress else { throw Disagreement(description: "no address was wished for") }
      let range = AddressRange(start: address, byteCount: request.pageCount * 4096)
      let isInside = model.reservations.contains { $0.contains(range) }
      try require(!isInside || !spans.isFree(range), "\(range) is free")
    default: throw Disagreement(description: "threw \(error)")
    }
  }

  private mutating func free(_ span: PageSpan, on heap: borrowing Heap) {
    model.setUsed(span.range, false)
    heap.free(span)
    spans.remove(span.range)
    if let rest = spans.entries.first(where: { $0.span.address == span.end }) { touchThinly(rest.span) }
  }

  private mutating func grow(_ slot: Int, _ pages: Int, on heap: borrowing Heap) throws {
    guard let index = spans.index(slot) else { return }
    let span = spans.entries[index].span
    let extension_ = AddressRange(start: span.end, byteCount: pages * 4096)
    let whole = AddressRange(start: span.address, byteCount: (span.pageCount + pages) * 4096)
    let isPossible = spans.isFree(extension_) && model.reservations.contains { $0.contains(whole) }
    guard let grown = heap.grow(span, by: pages) else {
      let mayRefuse = configuration.hardLimitBlocks > 0 || configuration.faultPercent > 0
      try require(!isPossible || mayRefuse, "did not grow into free pages")
      return
    }
    try require(isPossible, "grew into pages that are not free, or out of the arena")
    try require(grown.range == whole, "grew to \(grown)")
    spans.resize(index, to: grown.pageCount)
    model.setUsed(extension_, true)
    model.touch(extension_)
  }

  private func releaseNow(_ pages: Int, on heap: borrowing Heap) throws {
    let before = model.chargedBytes
    let unanswered = heap.kernel.faults.injected(.residency)
    let answer = heap.releaseNow(byteCount: pages * 4096)
    // Where the kernel did not say what was resident, the heap can only tell what it believed.
    if heap.kernel.faults.injected(.residency) > unanswered { return }
    let uncharged = before - model.chargedBytes
    try require(answer <= uncharged, "said that \(answer) bytes were uncharged; it was \(uncharged)")
  }

  private func relieve(_ pages: Int, on heap: borrowing Heap) throws {
    let before = model.chargedBytes
    let violations = model.violations.count
    let given = heap.relieve(headroom: 0, reserve: pages * 2048)
    let kind = configuration.options.strategy.kind
    try require(kind == .deferred || (given == 0 && model.chargedBytes == before), "\(kind) gave \(given) bytes back")
    try require(model.chargedBytes <= before && model.violations.count == violations, "a relief charged more")
  }

  private mutating func residencyPass(on heap: borrowing Heap) throws {
    let report: ResidencyReport
    do throws(KernelError) {
      report = try heap.residencyPass()
    } catch {
      try require(configuration.faultPercent > 0, "the pass failed: \(error)")
      return
    }
    try require(report.residentBytes == model.presentBytes, "saw \(report.residentBytes) resident bytes")
    try require(report.hugeBytes == model.hugeBytes, "saw \(report.hugeBytes) bytes on hugepages")
    isBehind = false
  }

  // MARK: Comparison

  func compare(with heap: borrowing Heap) throws {
    heap.checkInvariants()
    if let violation = model.violations.first { throw Disagreement(description: violation) }
    let statistics = heap.statistics()
    try require(statistics.usedPages == spans.pageCount, "\(statistics.usedPages) pages used, not \(spans.pageCount)")
    try require(statistics.allocations == allocations, "\(statistics.allocations) allocations, not \(allocations)")
    let blocks =
      statistics.fullBlocks + statistics.partialIntactBlocks + statistics.partialBrokenBlocks
      + statistics.freeResidentBlocks + statistics.absentBlocks
    try require(blocks == statistics.blocks, "\(blocks) blocks by state, \(statistics.blocks) in all")
    let pages =
      statistics.usedPages + statistics.freeResidentPages + statistics.lazyPages + statistics.releasedPages
    try require(pages == (statistics.blocks - statistics.absentBlocks) * 512, "\(pages) pages by state")
    let backed = statistics.usedOnHugePages + statistics.usedOnSplitPages + statistics.usedOnUnknownPages
    try require(backed == statistics.usedPages, "\(backed) used pages by backing")
    let believed = statistics.usedPages + statistics.freeResidentPages + statistics.lazyPages
    if configuration.hardLimitBlocks > 0 && !hasInflated {
      let charged = believed + statistics.phantomPages
      try require(charged <= configuration.hardLimitBlocks * 512, "charged \(charged) pages, above the hard limit")
    }
    if !isBehind {
      try require(
        model.presentBytes <= believed * 4096, "\(believed) pages believed, \(model.presentBytes / 4096) there")
    }
    for entry in spans.entries.prefix(4) + spans.entries.suffix(4) {
      let found = heap.span(containing: entry.span.address)
      try require(found == entry.span, "\(entry.span) is found as \(String(describing: found))")
      if let value = entry.userData {
        try require(heap.userData(of: entry.span.address) == UInt(value), "user data of \(entry.span) is lost")
      }
    }
  }
}
