// The report that compares the simulated kernel with the real one tells a good simulation from a bad one.

import HugeSpanCore
import Testing

@testable import HugeSpanLab

private func run(_ kernel: String, _ trace: String, _ policy: String, _ configure: (inout RunResult) -> Void)
  -> RunResult
{
  var result = RunResult()
  result.kernel = kernel
  result.trace = trace
  result.policy = policy
  result.strategy = "split-dontneed"
  result.coverage = 0.8
  let memory = Extent(mean: 200 * 1_048_576, peak: 300 * 1_048_576)
  (result.chargedBytes, result.residentBytes, result.lazyFreeBytes) = (memory, memory, Extent(mean: 0, peak: 0))
  result.splits = 1000
  result.faults = 50_000
  result.releaseCPUSeconds = 0.2
  result.faultCPUSeconds = 0.3
  configure(&result)
  return result
}

@Suite struct FidelityOfTheSimulatedKernel {
  @Test("is unknown without runs on both kernels")
  func needsBoth() {
    #expect(Fidelity(of: [run("real", "a", "seed") { _ in }, run("simulated", "b", "seed") { _ in }]) == nil)
  }

  @Test(
    "names the column that is off, and leaves the others alone",
    arguments: ["coverage", "charged", "RSS", "LazyFree", "splits", "faults", "CPU s"])
  func namesTheColumn(column: String) throws {
    let wrong = run("simulated", "a", "seed") { result in
      switch column {
      case "coverage": result.coverage = 0.77
      case "charged": result.chargedBytes!.mean *= 1.04
      case "RSS": result.residentBytes!.mean *= 0.96
      case "LazyFree": result.lazyFreeBytes!.mean = 1_048_576
      case "splits": result.splits = 1051
      case "faults": result.faults = 47_000
      default: result.faultCPUSeconds = 0.45
      }
    }
    let fidelity = try #require(Fidelity(of: [run("real", "a", "seed") { _ in }, wrong]))
    #expect(fidelity.cells.filter { !$0.isWithin }.map(\.column) == [column])
    #expect(fidelity.worst.count == 7 && fidelity.text(TableStyle()).contains("*"))
    let right = try #require(Fidelity(of: ["real", "simulated"].map { run($0, "a", "seed") { _ in } }))
    #expect(right.cells.allSatisfy { $0.isWithin && $0.difference == 0 })
  }

  @Test("fits prices on the first half of the traces and judges the other")
  func fitsPrices() throws {
    var results: [RunResult] = []
    for (number, trace) in ["a", "b", "c", "d"].enumerated() {
      for (place, policy) in ["seed", "decay", "immediate"].enumerated() {
        // A machine on which a split takes 50 us, a huge fault 100, a base fault 1.3; the simulation has its own prices.
        let splits = 300 * (number + 1) + 700 * place
        let (huge, base) = (500 * (number + 1), 9000 * (place + 1) + 1000 * number)
        results.append(
          run("real", trace, policy) {
            $0.strategy = "split-dontneed"
            $0.splits = splits
            $0.faults = huge + base
            $0.releaseCPUSeconds = Double(splits) * 50e-6
            $0.faultCPUSeconds = Double(huge) * 100e-6 + Double(base) * 1.3e-6
          })
        results.append(
          run("simulated", trace, policy) {
            $0.strategy = "split-dontneed"
            $0.splits = splits
            $0.faults = huge + base
            $0.hugeFaults = huge
            $0.releaseCPUSeconds = 9
            $0.faultCPUSeconds = 9
          })
      }
    }
    let fidelity = try #require(Fidelity(of: results))
    #expect(fidelity.fittedOn == ["a", "b"] && Set(fidelity.cells.map(\.trace)) == ["c", "d"])
    #expect(abs(fidelity.prices["split"]! - 50) < 3 && abs(fidelity.prices["huge fault"]! - 100) < 25)
    // What no run did costs what it usually does.
    #expect(
      abs(fidelity.prices["rebuild"]! - 400) < 1e-6 && abs(fidelity.prices["hugepage unmapped in part"]! - 20) < 1e-6)
    #expect(fidelity.cells.allSatisfy { $0.isWithin })
  }

  @Test("of runs that are repeated the least disturbed is kept")
  func keepsTheLeastDisturbed() {
    let slow = run("real", "a", "seed") { $0.faultCPUSeconds = 0.9 }
    let fast = run("real", "a", "seed") { $0.faultCPUSeconds = 0.1 }
    let other = run("simulated", "a", "seed") { $0.faultCPUSeconds = 0.05 }
    #expect(leastDisturbed([slow, other, fast, slow]) == [fast, other])
    // Where the kernels are compared, what khugepaged did to a run is worse than what slowed it down.
    var collapsed = fast
    collapsed.khugepagedCollapses = 8
    #expect(leastDisturbed([collapsed, other, slow], byKhugepaged: true) == [slow, other])
    #expect(leastDisturbed([slow, other, collapsed]) == [collapsed, other])
  }

  @Test("finds the least squares that are not negative")
  func solves() {
    let rows = [[1.0, 2, 0], [0, 1, 1], [3, 0, 1], [1, 1, 1]]
    let truth = [2.0, 0.5, 3]
    let goals = rows.map { zip($0, truth).reduce(0) { $0 + $1.0 * $1.1 } }
    for (found, expected) in zip(FittedPrices.nonNegativeLeastSquares(rows, goals), truth) {
      #expect(abs(found - expected) < 1e-6)
    }
    // The best that is not negative is nothing.
    #expect(FittedPrices.nonNegativeLeastSquares([[1.0], [1]], [-1, -2]) == [0])
  }
}
