// The reference: what a run would have cost at the least, had every block been treated in hindsight, and placed as it was.
//
// The bound is loose where placement is to blame: pages that are needed lie scattered over blocks that are needed for them, and no policy can
// help it. The reference takes the placement as it was, and asks of each block alone for the best schedule
// (BlockSchedule.swift). So it stands between the bound and the run: a policy that comes near it decides well, and what then
// remains is placement.

import HugeSpanCore

/// Reckons the reference from a log.
package struct Reference {
  private let prices: SchedulePrices
  /// Microseconds per second that a CPU is busy, if all of a heap is on base pages.
  private let taxPerBusySecond: Double
  private var blocks: [BlockSchedule] = []
  private var numbers: [UInt: Int] = [:]
  private var time: UInt64 = 0
  private var tax = 0.0
  private var busy = 0.0
  private var usedPages = 0

  /// - Parameter taxWeight: How much of the tax counts.
  package init(_ costs: CostModel, memoryPrice: Double, taxWeight: Double = 1) {
    prices = SchedulePrices(costs, memoryPrice: memoryPrice)
    taxPerBusySecond = costs.taxShare * taxWeight * 1e6
  }

  /// The least cost of all blocks in `log` up to `end`, in CPU-seconds; nil if the log is not complete.
  ///
  /// - Complexity: O(records + opportunities × partly used blocks × pages of a block).
  package mutating func cost(of log: borrowing PlacementLog, until end: UInt64) -> Double? {
    if !log.isComplete { return nil }
    for index in 0..<log.count { take(log[index]) }
    pass(to: end)
    var total = 0.0
    for block in blocks { total += block.leastCost(at: end, tax: tax) }
    return total / 1e6
  }

  private mutating func pass(to now: UInt64) {
    if now > time, usedPages > 0 {
      tax += taxPerBusySecond * busy * Double(now - time) / 1e9 / Double(usedPages)
    }
    time = max(time, now)
  }

  private mutating func take(_ record: PlacementRecord) {
    pass(to: record.time)
    let pages = Int(record.count)
    switch record.kind {
    case .busy:
      // A tick may have been here, so schedules may leave their states too.
      for block in blocks where block.isUnsettled { block.settle(at: time, tax: tax) }
      busy = Double(Float(bitPattern: record.count))
    case .take:
      usedPages += pages
      forEachBlock(of: record) { $0.setUsed($1, $2, true) }
    case .give:
      usedPages -= pages
      forEachBlock(of: record) { $0.setUsed($1, $2, false) }
    case .touch:
      forEachBlock(of: record) { [time, tax] block, _, count in block.need(count, at: time, tax: tax) }
    case .untouch:
      forEachBlock(of: record) { [time, tax] block, _, count in block.need(-count, at: time, tax: tax) }
    }
  }

  /// Calls `body` with each block of the record's range, and the part of the range in it.
  private mutating func forEachBlock(of record: PlacementRecord, _ body: (BlockSchedule, Int, Int) -> Void) {
    var page = record.page
    var rest = Int(record.count)
    while rest > 0 {
      let first = Int(page % UInt(pagesPerBlock))
      let count = min(rest, pagesPerBlock - first)
      let block = block(page / UInt(pagesPerBlock))
      body(block, first, count)
      page += UInt(count)
      rest -= count
    }
  }

  private mutating func block(_ number: UInt) -> BlockSchedule {
    if let index = numbers[number] { return blocks[index] }
    numbers[number] = blocks.count
    blocks.append(BlockSchedule(prices, at: time, tax: tax))
    return blocks[blocks.count - 1]
  }
}
