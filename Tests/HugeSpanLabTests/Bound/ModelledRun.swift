// A random program on the real heap over the model of a kernel, and what it costs by the price list: everything is known there.

import HugeSpanCore
import TestKernels

@testable import HugeSpanLab

/// What a run came to.
struct ModelledRun {
  var statistics: HeapStatistics
  var seconds: Double
  /// Means over the time.
  var chargedBytes: Double
  var lazyFreeBytes: Double
  var taxedCPUSeconds: Double
  var violations: [String]

  func cost(_ costs: CostModel, memoryPrice: Double, _ weights: CostWeights) -> Double {
    RunCost(
      statistics, costs: costs, memoryPrice: memoryPrice, seconds: seconds, taxedCPUSeconds: taxedCPUSeconds,
      chargedBytes: chargedBytes, lazyFreeBytes: lazyFreeBytes, weights: weights
    ).total!
  }
}

/// Spans that come, are written to, and go, in phases of more and less.
struct RandomProgram {
  enum Step {
    case allocate(pages: Int)
    case free(index: Int)
    /// Seconds until the next step, with so many CPUs busy.
    case pass(seconds: Double, busy: Double)
  }

  var steps: [Step] = []

  init(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var live = 0
    let largest = [16, 200, 1200].randomElement(using: &generator)!
    for _ in 0..<Int.random(in: 3...6, using: &generator) {
      let grows = Double.random(in: 0.1...0.9, using: &generator)
      let pause = [0.01, 0.2, 1.5].randomElement(using: &generator)!
      let busy = [0, 0.2, 1].randomElement(using: &generator)!
      for _ in 0..<Int.random(in: 10...60, using: &generator) {
        if live == 0 || Double.random(in: 0..<1, using: &generator) < grows {
          steps.append(.allocate(pages: Int.random(in: 1...largest, using: &generator)))
          live += 1
        } else {
          steps.append(.free(index: Int.random(in: 0..<live, using: &generator)))
          live -= 1
        }
        steps.append(.pass(seconds: Double.random(in: 0...pause, using: &generator), busy: busy))
      }
      steps.append(.pass(seconds: Double.random(in: 0...10, using: &generator), busy: busy))
    }
  }

  /// Runs on a heap of its own. `need` is told how many pages are live and written to, and since when.
  func run(
    _ policy: PolicyChoice, _ strategy: StrategyChoice, need: (Int, UInt64) -> Void
  ) throws -> (run: ModelledRun, end: UInt64) {
    var log = PlacementLog(capacity: 0)
    return try run(policy, strategy, log: &log, need: need)
  }

  /// The same, and logs where the spans lie.
  func run(
    _ policy: PolicyChoice, _ strategy: StrategyChoice, log: inout PlacementLog, need: (Int, UInt64) -> Void
  ) throws -> (run: ModelledRun, end: UInt64) {
    var options = HeapOptions()
    options.policy = policy
    options.strategy = strategy
    options.firstArenaBytes = 64 << 21
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options)
    var spans: [PageSpan] = []
    var now: UInt64 = 0
    var cpu: UInt64 = 0
    var livePages = 0
    var (charged, lazy, taxed) = (0.0, 0.0, 0.0)
    for step in steps {
      switch step {
      case .allocate(let pages):
        let span = try heap.allocate(SpanRequest(pageCount: pages)).span
        kernel.touch(range(of: span))
        kernel.setUsed(range(of: span), true)
        spans.append(span)
        livePages += pages
        log.add(.take, address: span.address, pages: pages)
        log.add(.touch, address: span.address, pages: pages)
      case .free(let index):
        let span = spans.remove(at: index)
        kernel.setUsed(range(of: span), false)
        heap.free(span)
        livePages -= span.pageCount
        log.add(.untouch, address: span.address, pages: span.pageCount)
        log.add(.give, address: span.address, pages: span.pageCount)
      case .pass(let seconds, let busy):
        var rest = UInt64(seconds * 1e9)
        log.addBusy(busy, at: now)
        while rest > 0 {
          let piece = min(rest, 250_000_000)
          // What is charged and where the used pages lie stays so until somebody does something.
          let length = Double(piece) / 1e9
          charged += Double(kernel.chargedBytes) * length
          lazy += Double(kernel.lazyBytes) * length
          let report = try heap.observe()
          if report.usedPages > 0 {
            taxed += busy * length * Double(report.usedPages - report.usedPagesOnHuge) / Double(report.usedPages)
          }
          now += piece
          cpu += UInt64(busy * Double(piece))
          rest -= piece
          _ = heap.tick(at: now, processCPU: cpu)
          log.addBusy(busy, at: now)
        }
      }
      need(livePages, now)
    }
    let seconds = max(Double(now) / 1e9, 1e-9)
    let run = ModelledRun(
      statistics: heap.statistics(), seconds: seconds, chargedBytes: charged / seconds, lazyFreeBytes: lazy / seconds,
      taxedCPUSeconds: taxed, violations: kernel.violations)
    return (run, now)
  }
}

private func range(of span: PageSpan) -> AddressRange {
  AddressRange(start: span.address, byteCount: span.pageCount << 12)
}
