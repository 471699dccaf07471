// The reference: schedules of one block worked out by hand, and its place between the bound and what policies cost.

import HugeSpanCore
import TestKernels
import Testing

@testable import HugeSpanLab

@Suite("The reference") struct ReferenceTests {
  private let costs = CostModel()
  /// Microseconds for a page and a second at price 400.
  private let rent = CostModel.rentPerPage(memoryPrice: 400)
  private let base: UInt = 7 << 21

  private func seconds(_ count: Double) -> UInt64 { UInt64(count * 1e9) }

  /// The reference of a log in microseconds. `fill` says what happens.
  private func reference(until end: Double, _ fill: (inout PlacementLog) -> Void) -> Double {
    var log = PlacementLog(capacity: 1000)
    fill(&log)
    var reference = Reference(costs, memoryPrice: 400)
    return reference.cost(of: log, until: seconds(end))! * 1e6
  }

  private func use(_ log: inout PlacementLog, at time: Double, page: Int, pages: Int) {
    log.time = seconds(time)
    log.add(.take, address: base + UInt(page << 12), pages: pages)
    log.add(.touch, address: base + UInt(page << 12), pages: pages)
  }

  private func free(_ log: inout PlacementLog, at time: Double, page: Int, pages: Int) {
    log.time = seconds(time)
    log.add(.untouch, address: base + UInt(page << 12), pages: pages)
    log.add(.give, address: base + UInt(page << 12), pages: pages)
  }

  private func isEqual(_ found: Double, _ expected: Double) -> Bool { abs(found - expected) < 1e-6 * expected }

  @Test("breaks a block of an idle program at once, in as many ranges as there are")
  func breaksAtOnce() {
    let found = reference(until: 101) { log in
      use(&log, at: 0, page: 0, pages: 512)
      free(&log, at: 1, page: 10, pages: 112)
      free(&log, at: 1, page: 300, pages: 100)
      log.addBusy(0, at: seconds(1))
    }
    // The longest range, and the pages of the other one at the least that a range can cost each of them.
    let broken = 170 + 1 + 112 * 0.12 + 100 * (0.12 + 1.0 / 112)
    #expect(isEqual(found, 200 + 512 * rent + broken + 300 * rent * 100))
  }

  @Test("keeps the block of a busy program whole, and breaks it when the program rests")
  func waitsForRest() {
    func found(busyUntil rest: Double) -> Double {
      reference(until: 101) { log in
        log.addBusy(1, at: 0)
        use(&log, at: 0, page: 0, pages: 512)
        free(&log, at: 1, page: 0, pages: 212)
        log.addBusy(0, at: seconds(rest))
      }
    }
    #expect(isEqual(found(busyUntil: 101), 200 + 512 * rent * 101))
    let broken = 170 + 212 * 0.12 + 1
    #expect(isEqual(found(busyUntil: 51), 200 + 512 * rent * 51 + broken + 300 * rent * 50))
  }

  @Test("rebuilds the block when the load is back, or faults what is wanted, whichever is cheaper")
  func rebuilds() {
    func found(_ busy: Double) -> Double {
      reference(until: 111) { log in
        use(&log, at: 0, page: 0, pages: 512)
        free(&log, at: 1, page: 0, pages: 212)
        log.addBusy(0, at: seconds(1))
        log.addBusy(busy, at: seconds(101))
        use(&log, at: 101, page: 0, pages: 100)
      }
    }
    let night = 200 + 512 * rent + 170 + 212 * 0.12 + 1 + 300 * rent * 100
    #expect(isEqual(found(1), night + 400 + 512 * rent * 10))
    #expect(isEqual(found(0), night + 100 * 1.3 + 400 * rent * 10))
  }

  @Test("holds an empty block for a short gap and drops it for a long one")
  func gaps() {
    func found(_ gap: Double) -> Double {
      reference(until: gap + 2) { log in
        use(&log, at: 0, page: 0, pages: 512)
        free(&log, at: 1, page: 0, pages: 512)
        log.addBusy(0, at: seconds(1))
        use(&log, at: 1 + gap, page: 0, pages: 512)
      }
    }
    let used = 200 + 512 * rent * 2
    #expect(isEqual(found(0.5), used + 512 * rent * 0.5))
    #expect(isEqual(found(30), used + 209))
  }

  @Test("holds a block until it comes back warm, where the machine takes what is free")
  func coldGaps() {
    var costs = costs
    costs.coldBlockFault = 5000
    costs.coldAfter = 2
    // A broken block counts as warm, so breaking it must not be a way around.
    costs.split = 5000
    var log = PlacementLog(capacity: 100)
    use(&log, at: 0, page: 0, pages: 512)
    free(&log, at: 1, page: 0, pages: 512)
    log.addBusy(0, at: seconds(1))
    use(&log, at: 11, page: 0, pages: 512)
    var reference = Reference(costs, memoryPrice: 400)
    let found = reference.cost(of: log, until: seconds(11))! * 1e6
    // Away as long as may be warm by the classes of absence that a heap counts, held before that: less than 5009.
    let away = HeapStatistics().blocksRefaultedByAbsence.indices.map(HeapStatistics.absenceSeconds).first { $0 >= 2 }!
    #expect(away < 10)
    #expect(isEqual(found, 200 + 512 * rent + 512 * rent * (10 - away) + 209))
  }

  @Test("is unknown where the log was too short")
  func incomplete() {
    var log = PlacementLog(capacity: 3)
    for page in 0..<2 { use(&log, at: 0, page: page, pages: 1) }
    var reference = Reference(costs, memoryPrice: 400)
    let found = reference.cost(of: log, until: 1)
    #expect(found == nil)
  }

  @Test("is at least the bound, and at most what a policy costs that releases all of a block or nothing")
  func liesBetween() throws {
    for policy in ["never", "immediate", "rent-or-buy", "rent-or-buy:price=4000"] {
      for strategy in ["split-dontneed", "split-dontneed-whole"] {
        for seed in UInt64(1)...6 {
          var log = PlacementLog(capacity: 100_000)
          var need: [(pages: Int, time: UInt64)] = []
          let (run, end) = try RandomProgram(seed: seed).run(
            try PolicyChoice(notation: policy), try StrategyChoice(notation: strategy), log: &log
          ) { need.append(($0, $1)) }
          for price in [100.0, 400, 4000] {
            let bound = LevelBound(PagePrices(costs, memoryPrice: price), changes: need.count)
            for change in need { bound.need(change.pages, at: change.time) }
            var reference = Reference(costs, memoryPrice: price)
            let found = reference.cost(of: log, until: end) ?? .nan
            let least = bound.parts(until: end).total
            let cost = run.cost(costs, memoryPrice: price, CostWeights())
            let name = "\(policy)/\(strategy), seed \(seed), price \(price)"
            #expect(found >= least * (1 - 1e-9), "\(name): reference \(found), bound \(least)")
            #expect(found <= cost * (1 + 1e-9), "\(name): reference \(found), cost \(cost)")
          }
        }
      }
    }
  }
}
