// The cost of a run: each part by hand.

import HugeSpanCore
import HugeSpanLab
import Testing

@Suite struct RunCosts {
  @Test func areCountsTimesPrices() {
    var heap = HeapStatistics()
    heap.releaseCalls = 3
    heap.releaseRanges = 10
    heap.pagesReleased = 512 * 4 + 100
    heap.pagesReleasedInParts = 100
    heap.pagesRefaulted = 512 + 40
    heap.pagesRefaultedWhole = 512
    heap.blocksPopulated = 7
    heap.splits = 2
    heap.collapses = 5
    heap.cures = 1
    let cost = RunCost(
      heap, costs: CostModel(), memoryPrice: 400, seconds: 36, taxedCPUSeconds: 20, chargedBytes: Double(1 << 30))
    // 3 calls, 10 ranges, 100 pages, 4 blocks; 40 pages and 7 blocks back; 2 splits, 5 rebuilds, a cure.
    let work = (3 + 10 + 12 + 36 + 52 + 1400 + 340 + 2000 + 300) / 1e6
    #expect(abs(cost.work - work) < 1e-9)
    #expect(abs(cost.tax! - 3) < 1e-9)
    // A hundredth of an hour of a GiB.
    #expect(abs(cost.rent! - 4) < 1e-9)
    #expect(abs(cost.total! - (work + 7)) < 1e-9)
  }

  @Test func countBlocksThatWereAwayForLongAsCold() {
    var heap = HeapStatistics()
    heap.blocksPopulated = 10
    heap.blocksRefaultedByAbsence[0] = 2  // under half a second
    heap.blocksRefaultedByAbsence[2] = 3  // one to two seconds
    heap.blocksRefaultedByAbsence[5] = 4  // eight and more
    var costs = CostModel()
    costs.coldBlockFault = 5000
    costs.coldAfter = 2
    func work() -> Double {
      RunCost(heap, costs: costs, memoryPrice: 0, seconds: 1, taxedCPUSeconds: nil, chargedBytes: nil).work
    }
    #expect(abs(work() - (6 * 200 + 4 * 5000) / 1e6) < 1e-9)
    costs.coldAfter = 1
    #expect(abs(work() - (3 * 200 + 7 * 5000) / 1e6) < 1e-9)
  }

  @Test func areUnknownWhereAPartIs() {
    let heap = HeapStatistics()
    let uncharged = RunCost(
      heap, costs: CostModel(), memoryPrice: 400, seconds: 1, taxedCPUSeconds: 0, chargedBytes: nil)
    #expect(uncharged.rent == nil && uncharged.total == nil)
    let unseen = RunCost(heap, costs: CostModel(), memoryPrice: 400, seconds: 1, taxedCPUSeconds: nil, chargedBytes: 1)
    #expect(unseen.tax == nil && unseen.total == nil)
  }
}
