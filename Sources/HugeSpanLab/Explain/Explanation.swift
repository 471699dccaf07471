// Why a heap's memory is what it is: its blocks, sorted by what made them so, what waits for what, and what each costs.
//
// Every page of the heap is counted once: handed out, free and in memory, or given to the kernel. Blocks are told apart by the last
// thing that changed their backing, which the heap notes when it happens; nothing is guessed afterwards. The prices are those that the
// heap decides by; where its policy knows no price, the default one is taken and said.

import HugeSpanCore

/// What a block's backing is, and why.
package enum BackingReason: String, CaseIterable, Codable, Sendable {
  case huge, reinflated, rebuilt, notSeen
  case neverHuge, lost, policy, limit, request, pressure, discard, shared, other
  case freeInMemory, released, untouched

  /// The row's name in a table.
  package var label: String {
    switch self {
    case .huge: "on hugepages"
    case .reinflated: "on hugepages: made huge again by the kernel"
    case .rebuilt: "on hugepages: rebuilt by the heap"
    case .notSeen: "not looked at yet"
    case .neverHuge: "base pages: never huge"
    case .lost: "base pages: split by the kernel"
    case .policy: "base pages: split by the policy"
    case .limit: "base pages: split for a limit"
    case .request: "base pages: split on request"
    case .pressure: "base pages: split under pressure"
    case .discard: "base pages: split by a discard"
    case .shared: "shared with a child"
    case .other: "base pages: not known why"
    case .freeInMemory: "wholly free, in memory"
    case .released: "wholly free, released"
    case .untouched: "not used yet"
    }
  }

  init(_ block: PublishedBlock) {
    if block.blockKind == .absent {
      self = block.isUntouched ? .untouched : .released
    } else if block.blockKind != .occupied {
      self = BackingCause(rawValue: block.cause) == .shared ? .shared : .freeInMemory
    } else if block.isBroken || block.backing == Backing.split.rawValue {
      switch BackingCause(rawValue: block.cause) {
      case .policy: self = .policy
      case .limit: self = .limit
      case .request: self = .request
      case .pressure: self = .pressure
      case .discard: self = .discard
      case .lost: self = .lost
      case .neverHuge: self = .neverHuge
      case .shared: self = .shared
      case .none?, nil, .reinflated, .rebuilt: self = .other
      }
    } else {
      switch BackingCause(rawValue: block.cause) {
      case .reinflated: self = .reinflated
      case .rebuilt: self = .rebuilt
      default: self = block.backing == Backing.huge.rawValue ? .huge : .notSeen
      }
    }
  }
}

extension PublishedBlock {
  /// Nil for a kind that a later version knows.
  package var blockKind: BlockKind? { BlockKind(rawValue: kind) }
  package var isBroken: Bool { BlockFlags(rawValue: flags).contains(.broken) }
  /// It is not in memory, and was never used.
  package var isUntouched: Bool {
    blockKind == .absent && !BlockFlags(rawValue: flags).contains(.wasReleased)
  }
  package var forecastStep: BlockForecast.Step { BlockForecast.Step(rawValue: step) ?? .none }
}

/// Amounts of some blocks, in bytes.
package struct BlockAmounts: Codable, Equatable, Sendable {
  package var blocks = 0
  package var usedBytes = 0
  package var idleBytes = 0
  package var lazyBytes = 0
  package var releasedBytes = 0
  package var phantomBytes = 0

  mutating func add(_ block: PublishedBlock) {
    blocks += 1
    usedBytes += Int(block.used) << 12
    idleBytes += Int(block.idle) << 12
    lazyBytes += Int(block.lazy) << 12
    // What was never used was never released.
    if block.isUntouched { return }
    releasedBytes += (Int(block.released) - min(Int(block.lazy), Int(block.released))) << 12
    phantomBytes += Int(block.phantom) << 12
  }
}

/// Blocks that wait for the same step.
package struct WaitingBlocks: Codable, Equatable, Sendable {
  /// `releaseWhole`, `breakBlock`, `releaseIdle`, `rebuild`.
  package var step: String
  package var blocks = 0
  /// Free bytes in memory that the step would give back; of a rebuild, bytes in use that it would put on hugepages.
  package var bytes = 0
  /// Seconds until the first and the last of them, if nothing changes.
  package var firstSeconds: Double = .infinity
  package var lastSeconds: Double = 0
  /// Microseconds at which the step is done, in the mean.
  package var meanPrice: Double = 0
}

/// A block that costs.
package struct CostlyBlock: Codable, Equatable, Sendable {
  package var address: String
  package var reason: BackingReason
  package var usedBytes: Int
  package var idleBytes: Int
  package var phantomBytes: Int
  /// Microseconds of CPU time a second: rent of what is free, lazily free or phantom, and the tax of running on base pages.
  package var rent: Double
  package var tax: Double
  package var step: String?
  package var seconds: Double?
}

/// What the next tick would do.
package struct NextScavenge: Codable, Equatable, Sendable {
  /// From when the page was written.
  package var seconds: Double
  /// Absent for a policy of the embedder's own, which cannot be asked.
  package var bytes: Int?
  package var wholeBlocks: Int?
  package var breaks: Int?
  package var idleBlocks: Int?
  package var rebuilds: Int?
  package var cures: Int?
}

/// A heap, explained.
package struct Explanation: Codable, Equatable, Sendable {
  package var schema = "hugespan.explain/1"
  package var process: Int
  package var name: String
  package var heap: Int
  /// Seconds since the page was written, and since the oldest of its records was.
  package var ageSeconds: Double
  package var oldestSeconds: Double
  package var policy: String
  package var strategy: String
  package var hasScavenger: Bool
  /// CPU-seconds per GiB-hour; the policy's own, or the default one.
  package var memoryPrice: Double
  package var isOwnPrice: Bool
  /// Microseconds a second that a used page costs off a hugepage.
  package var taxPerPage: Double
  package var total = BlockAmounts()
  package var discardedBytes: Int
  /// By reason, only those with blocks.
  package var reasons: [String: BlockAmounts] = [:]
  package var waiting: [WaitingBlocks] = []
  /// Blocks that would be broken if memory were dearer: their tax is above their rent.
  package var keptByTax = BlockAmounts()
  /// Strategy `deferred`: free bytes that wait for pressure.
  package var deferredBytes: Int
  package var costly: [CostlyBlock] = []
  package var next: NextScavenge
  package var counters: [String: UInt64]
  /// What the kernel has under the heap's blocks now; absent if it cannot be read.
  package var kernelAnonymousBytes: Int?
  package var kernelHugeBytes: Int?

  /// By reason, in the order of tables.
  package var rows: [(BackingReason, BlockAmounts)] {
    BackingReason.allCases.compactMap { reason in reasons[reason.rawValue].map { (reason, $0) } }
  }
}

extension Explanation {
  /// Explains what `snapshot` says; `now` is the monotonic clock, and `limit` how many costly blocks are named.
  package init(_ snapshot: PublishedSnapshot, process: Int, name: String, now: UInt64, limit: Int) {
    let heap = snapshot.heap
    self.process = process
    self.name = name
    self.heap = Int(heap.heapNumber)
    func seconds(since time: UInt64) -> Double { now > time ? Double(now - time) / 1e9 : 0 }
    ageSeconds = seconds(since: heap.publishedAt)
    oldestSeconds = heap.oldestAt == 0 ? ageSeconds : seconds(since: heap.oldestAt)
    policy = PublishedPolicy(rawValue: heap.policy).map { "\($0.name)" } ?? "policy \(heap.policy)"
    strategy = Explanation.strategyName(heap)
    hasScavenger = heap.flags & PublishedHeap.hasScavenger != 0
    isOwnPrice = heap.policy == PublishedPolicy.rentOrBuy.rawValue
    memoryPrice = isOwnPrice ? heap.memoryPrice : RentOrBuyOptions().memoryPrice
    taxPerPage = heap.taxPerPage
    discardedBytes = Int(heap.discardedPages) << 12
    let isDeferred = heap.strategy == StrategyKind.deferred.rawValue
    deferredBytes = isDeferred ? Int(heap.idlePages) << 12 : 0
    next = NextScavenge(heap)
    counters = [
      "allocations": heap.allocations, "frees": heap.frees, "releasedPages": heap.pagesReleased,
      "refaultedPages": heap.pagesRefaulted, "lazyPagesTaken": heap.lazyPagesTaken, "splits": heap.splits,
      "discardSplits": heap.discardSplits, "rebuilds": heap.collapses, "cures": heap.cures, "drains": heap.drains,
      "lostBlocks": heap.lostBlocks, "reinflatedBlocks": heap.reinflatedBlocks,
      "droppedBrokenBlocks": heap.rebuiltBlocks, "ticks": heap.ticks, "residencyPasses": heap.residencyPasses,
    ]
    let pageRent = CostModel.rentPerPage(memoryPrice: memoryPrice)
    var steps: [BlockForecast.Step: WaitingBlocks] = [:]
    for block in snapshot.blocks {
      let reason = BackingReason(block)
      total.add(block)
      reasons[reason.rawValue, default: BlockAmounts()].add(block)
      if block.forecastStep == .breakBlock && block.wait < 0 { keptByTax.add(block) }
      if block.forecastStep != .none && block.wait >= 0 {
        steps[block.forecastStep, default: WaitingBlocks(step: "\(block.forecastStep)")].add(block)
      }
      costly.append(CostlyBlock(block, reason, pageRent: pageRent, taxPerPage: taxPerPage))
    }
    waiting = [.releaseWhole, .breakBlock, .releaseIdle, .rebuild].compactMap { steps[$0] }.map { $0.finished }
    costly = Array(costly.filter { $0.cost > 0 }.sorted { ($1.cost, $0.address) < ($0.cost, $1.address) }.prefix(limit))
  }

  private static func strategyName(_ heap: PublishedHeap) -> String {
    guard let kind = StrategyKind(rawValue: heap.strategy) else { return "custom" }
    // Those that never take parts are not called so.
    let isWhole = heap.flags & PublishedHeap.wholeOnly != 0 && kind != .deferred && kind != .decommit && kind != .keep
    return StrategyChoice(kind, wholeBlocksOnly: isWhole).notation
  }
}

extension WaitingBlocks {
  fileprivate mutating func add(_ block: PublishedBlock) {
    blocks += 1
    bytes += Int(block.forecastStep == .rebuild ? block.used : block.idle) << 12
    firstSeconds = min(firstSeconds, Double(block.wait))
    lastSeconds = max(lastSeconds, Double(block.wait))
    meanPrice += Double(block.price)
  }

  fileprivate var finished: WaitingBlocks {
    var result = self
    result.meanPrice /= Double(max(blocks, 1))
    return result
  }
}

extension CostlyBlock {
  /// Microseconds a second.
  var cost: Double { rent + tax }

  fileprivate init(_ block: PublishedBlock, _ reason: BackingReason, pageRent: Double, taxPerPage: Double) {
    address = String(block.address, radix: 16)
    self.reason = reason
    usedBytes = Int(block.used) << 12
    idleBytes = Int(block.idle) << 12
    phantomBytes = Int(block.phantom) << 12
    // What the kernel has taken of a lazily free block is not charged; what it has, nobody was told.
    rent = pageRent * Double(Int(block.idle) + Int(block.lazy) + Int(block.phantom))
    let isOnBasePages = block.isBroken || block.backing == Backing.split.rawValue
    tax =
      isOnBasePages && block.blockKind == .occupied
      ? taxPerPage * Double(Int(block.used) - min(Int(block.discarded), Int(block.used))) : 0
    step = block.forecastStep == .none ? nil : "\(block.forecastStep)"
    seconds = block.wait < 0 || block.forecastStep == .none ? nil : Double(block.wait)
  }
}

extension NextScavenge {
  fileprivate init(_ heap: PublishedHeap) {
    seconds = heap.nextTickAt > heap.publishedAt ? Double(heap.nextTickAt - heap.publishedAt) / 1e9 : 0
    guard heap.flags & PublishedHeap.forecastKnown != 0 else { return }
    bytes = Int(heap.nextPages) << 12
    cures = Int(heap.nextCures)
    if heap.policy == PublishedPolicy.rentOrBuy.rawValue {
      wholeBlocks = Int(heap.nextWholeBlocks)
      breaks = Int(heap.nextBreaks)
      idleBlocks = Int(heap.nextIdleBlocks)
      rebuilds = Int(heap.nextRebuilds)
    }
  }
}

extension Explanation {
  /// What the kernel has in the mappings that hold the heap's blocks, by its own count.
  package mutating func compare(with coverage: ProcessCoverage, _ snapshot: PublishedSnapshot) {
    let mappings = coverage.mappings.sorted { $0.start < $1.start }
    var held: Set<Int> = []
    for block in snapshot.blocks {
      // The last mapping that begins at or before the block.
      var (low, high) = (0, mappings.count)
      while low < high {
        let middle = (low + high) / 2
        if UInt64(mappings[middle].start) <= block.address { low = middle + 1 } else { high = middle }
      }
      if low > 0, UInt64(mappings[low - 1].end) > block.address { held.insert(low - 1) }
    }
    kernelAnonymousBytes = held.reduce(0) { $0 + mappings[$1].figures.anonymousBytes }
    kernelHugeBytes = held.reduce(0) { $0 + mappings[$1].figures.hugeBytes }
  }
}
