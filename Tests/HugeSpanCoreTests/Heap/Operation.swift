// What a random test does to a heap, as plain values that can be dropped, printed and pasted back.
//
// Operations name spans by a number that is taken modulo the spans there are, and everything else by plain numbers. So
// any subset of a sequence is a sequence again, which is what shrinking needs.

import HugeSpanCore
import TestKernels

/// One step.
enum Operation: Codable, Sendable {
  /// Alignment in pages; `hint` counts through the nine combinations of lifetime and objects per span.
  case allocate(pages: Int, alignment: Int, zero: Bool, hint: Int)
  /// At the end of a span, `gap` pages further.
  case allocateAt(slot: Int, gap: Int, pages: Int)
  case free(slot: Int)
  /// A sub-range: first page and count are cut to the span.
  case freePart(slot: Int, first: Int, count: Int)
  /// From page `first` of a span to page `last` of the neighbour that touches it.
  case freeUnion(slot: Int, first: Int, last: Int)
  case grow(slot: Int, pages: Int)
  case shrink(slot: Int, pages: Int)
  case lookUp(slot: Int, page: Int)
  case setUserData(slot: Int, value: Int)
  /// The program writes to the first `percent` of a span.
  case write(slot: Int, percent: Int)
  case tick(milliseconds: Int)
  case releaseNow(pages: Int)
  /// Others need this many pages (strategy `deferred`).
  case relieve(pages: Int)
  case residencyPass
  case cure(blocks: Int)
  /// The kernel on its own: takes what is lazily free, splits or rebuilds the hugepages under a span.
  case reclaim
  case splitBehind(slot: Int)
  case collapseBehind(slot: Int)
  /// From now on a first touch brings base pages, or hugepages again.
  case setHugePages(Bool)
  /// The process forks, and the test goes on with the parent, or with the child; all children of the kernel's go.
  case fork(goesOnInChild: Bool)
  case endChildren
}

extension Operation: CustomStringConvertible {
  /// As Swift source.
  var description: String {
    guard let child = Mirror(reflecting: self).children.first, let name = child.label else {
      // Only these have nothing to say.
      switch self {
      case .reclaim: return ".reclaim"
      case .endChildren: return ".endChildren"
      default: return ".residencyPass"
      }
    }
    let values = Mirror(reflecting: child.value)
    if values.displayStyle != .tuple { return ".\(name)(\(child.value))" }
    let list = values.children.map { value in (value.label.map { "\($0): " } ?? "") + "\(value.value)" }
    return ".\(name)(\(list.joined(separator: ", ")))"
  }
}

extension Operation {
  /// A random step. `load` is how full the heap is, by the measure of the test: above 1 more is freed than allocated.
  static func random(using random: inout SeededGenerator, load: Double) -> Operation {
    let slot = Int.random(in: 0..<1 << 16, using: &random)
    let small = Int.random(in: 1...16, using: &random)
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<38 where load < 1:
      let isAligned = Int.random(in: 0..<6, using: &random) == 0
      return .allocate(
        pages: pageCount(using: &random), alignment: isAligned ? 1 << Int.random(in: 0...11, using: &random) : 1,
        zero: Int.random(in: 0..<5, using: &random) == 0, hint: Int.random(in: 0..<9, using: &random))
    case 38..<42:
      return .allocateAt(
        slot: slot, gap: [0, 0, 1, 5, 512].randomElement(using: &random)!, pages: pageCount(using: &random))
    case 42..<46: return .freePart(slot: slot, first: Int.random(in: 0..<600, using: &random), count: small)
    case 46..<50:
      return .freeUnion(slot: slot, first: Int.random(in: 0..<20, using: &random), last: small * 30)
    case 50..<54: return .grow(slot: slot, pages: Bool.random(using: &random) ? small : small * 50)
    case 54..<57: return .shrink(slot: slot, pages: small * small)
    case 57..<60: return .lookUp(slot: slot, page: Int.random(in: 0..<2000, using: &random))
    case 60..<63: return .setUserData(slot: slot, value: slot)
    case 63..<67: return .write(slot: slot, percent: [100, 100, 50, 3].randomElement(using: &random)!)
    case 67..<74: return .tick(milliseconds: [1, 100, 1000, 30_000].randomElement(using: &random)!)
    case 74..<76: return .releaseNow(pages: [1, 100, 600, 5000].randomElement(using: &random)!)
    case 76: return .residencyPass
    case 77: return .relieve(pages: [1, 300, 3000].randomElement(using: &random)!)
    case 78: return .cure(blocks: small)
    case 79: return .reclaim
    case 80: return .splitBehind(slot: slot)
    case 81: return .collapseBehind(slot: slot)
    case 82: return .setHugePages(Int.random(in: 0..<3, using: &random) > 0)
    case 83: return .fork(goesOnInChild: small % 2 == 0)
    case 84: return .endChildren
    default: return .free(slot: slot)
    }
  }

  /// Mostly small, some about a block, some of several blocks.
  private static func pageCount(using random: inout SeededGenerator) -> Int {
    switch Int.random(in: 0..<20, using: &random) {
    case 0..<11: Int.random(in: 1...16, using: &random)
    case 11..<14: Int.random(in: 17...200, using: &random)
    case 14..<16: Int.random(in: 201...511, using: &random)
    case 16..<18: [510, 511, 512, 513, 514, 1023, 1024, 1025].randomElement(using: &random)!
    default: Int.random(in: 513...2500, using: &random)
    }
  }
}

/// How the heap of a sequence is made, and how its kernel fails.
struct HeapConfiguration: Codable, Sendable {
  enum Policy: Int, Codable, CaseIterable {
    case never, immediate, gperftools, seed, rentOrBuy, demandWindow, decay, paced
  }

  var policy = Policy.seed
  var strategy = 4  // StrategyKind
  var wholeBlocksOnly = false
  var userData = true
  var softLimitBlocks = 0
  var hardLimitBlocks = 0
  var firstArenaBlocks = 4
  var rangesPerTick = 1 << 16
  /// Share of the kernel's calls that fail, in percent.
  var faultPercent = 0
  var faultCode: Int32 = 12
  var hasSwap = false

  var options: HeapOptions {
    var options = HeapOptions()
    options.userData = userData
    options.firstArenaBytes = firstArenaBlocks << 21
    options.softLimitBytes = softLimitBlocks == 0 ? nil : softLimitBlocks << 21
    options.hardLimitBytes = hardLimitBlocks == 0 ? nil : hardLimitBlocks << 21
    options.rangesPerTick = rangesPerTick
    options.effectSamplePeriod = 3
    options.strategy = StrategyChoice(StrategyKind(rawValue: UInt8(strategy))!, wholeBlocksOnly: wholeBlocksOnly)
    options.policy =
      switch policy {
      case .never: .never
      case .immediate: .immediate
      case .gperftools: .gperftools(rate: 200)
      case .seed: .seed(SeedOptions())
      case .rentOrBuy: .rentOrBuy(RentOrBuyOptions())
      case .demandWindow: .demandWindow(DemandWindowOptions())
      case .decay: .decay(DecayOptions())
      case .paced: .paced(PacedOptions())
      }
    return options
  }

  static func random(using random: inout SeededGenerator) -> HeapConfiguration {
    var result = HeapConfiguration()
    result.policy = Policy.allCases.randomElement(using: &random)!
    result.strategy = Int.random(in: 0...8, using: &random)
    result.hasSwap = Bool.random(using: &random)
    result.wholeBlocksOnly = Int.random(in: 0..<5, using: &random) == 0
    result.userData = Bool.random(using: &random)
    if Int.random(in: 0..<4, using: &random) == 0 { result.softLimitBlocks = Int.random(in: 1...30, using: &random) }
    if Int.random(in: 0..<4, using: &random) == 0 { result.hardLimitBlocks = Int.random(in: 1...30, using: &random) }
    result.firstArenaBlocks = [1, 2, 4, 16, 64].randomElement(using: &random)!
    if Int.random(in: 0..<4, using: &random) == 0 { result.rangesPerTick = Int.random(in: 1...8, using: &random) }
    if Int.random(in: 0..<3, using: &random) == 0 {
      result.faultPercent = Int.random(in: 1...30, using: &random)
      result.faultCode = [12, 22, 11].randomElement(using: &random)!
    }
    return result
  }
}

/// A heap and what is done to it.
struct OperationSequence: Codable, Sendable {
  var configuration = HeapConfiguration()
  var seed: UInt64 = 0
  var operations: [Operation] = []

  static func random(seed: UInt64, count: Int) -> OperationSequence {
    var random = SeededGenerator(seed: seed)
    var result = OperationSequence(configuration: .random(using: &random), seed: seed)
    // Fills, drains and fills again, so that blocks get broken and used again.
    for step in 0..<count {
      let load = step * 4 / count % 2 == 0 ? 0.5 : 1.5
      result.operations.append(.random(using: &random, load: load))
    }
    return result
  }

  /// The sequence as a test that can be pasted.
  var source: String {
    """
    try OperationSequence(
      configuration: \(configuration),
      seed: \(seed),
      operations: [
    \(operations.map { "    \($0)," }.joined(separator: "\n"))
      ]).run()
    """.replacing("HugeSpanCoreTests.", with: "").replacing("HeapConfiguration.Policy.", with: ".")
      .replacing("HeapConfiguration..", with: ".")
  }
}
