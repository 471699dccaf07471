// Measuring the machine: on the real kernel, and figures that must stand in the relations that they have on any.

import HugeSpanCore
import HugeSpanLab
import Testing

@Suite struct Samples {
  @Test func haveAMedianAndQuartiles() {
    let figures = Measured([5, 1, 4, 2, 3])
    #expect(figures.median == 3 && figures.low == 2 && figures.high == 4 && figures.count == 5)
    #expect(abs(figures.spread - 2.0 / 3) < 1e-12)
    let one = Measured([7])
    #expect(one.median == 7 && one.spread == 0)
    #expect(Measured([1, 2]).median == 1.5)
  }
}

private let canCalibrate: Bool = {
  let capabilities = LinuxKernel().capabilities
  return [.hugePages, .honestSplit, .collapse].allSatisfy { (each: KernelCapabilities) in capabilities.contains(each) }
}()

@Suite(
  .serialized,
  .enabled(
    if: canCalibrate, "this kernel gives no hugepages, or does not split or rebuild them on request"))
struct Calibrations {
  @Test func measureEveryPriceOfTheKernel() throws {
    var said: [String] = []
    let calibration = try Calibration.run(idleRounds: 0) { said.append($0) }
    let measured = Set(calibration.measured.map(\.price.text))
    for price in CostModel.Price.all where price != .coldBlockFault && price != .coldAfter {
      #expect(measured.contains(price.text), "\(price.text) was not measured")
    }
    let costs = calibration.costs
    for price in CostModel.Price.all { #expect(price.allows(costs[price]), "\(price.text) is \(costs[price])") }
    // Zeroing 512 times as much is dearer than a page, and a rebuild than a release, on every machine.
    #expect(costs.blockFault > 5 * costs.pageFault)
    #expect(costs.collapse > costs.releaseBlock)
    #expect(costs.split > costs.releasePage)
    #expect(costs.coldBlockFault == costs.blockFault)
    #expect(calibration.notes.contains { $0.contains("not waited for") })
    #expect(!said.isEmpty)
    #expect(calibration.table.contains("blockFault"))
  }
}
