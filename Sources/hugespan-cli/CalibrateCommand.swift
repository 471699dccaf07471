// `hugespan calibrate`: what the kernel's operations cost on this machine.

import HugeSpanCore
import HugeSpanLab
import OptionTable

let calibrateCommand = Command(
  "calibrate",
  abstract: "Measure what hugepages cost on this machine",
  discussion: """
    Measures the prices that policy rent-or-buy decides by and costs are reckoned with: releases, splits, faults, rebuilds, \
    and what a busy program loses to TLB misses on base pages. A hugepage is also faulted back after up to ten seconds: on \
    virtual machines whose host takes free pages back that can cost ten times as much. Takes about half a minute, and \
    says so if others worked on the machine meanwhile.

    The file that it writes is taken by 'compare', 'replay' and 'run' with --cost-model.
    """,
  options: [
    Option("output", short: "o", .file(), help: "Write the cost model to FILE; '-' for standard output"),
    Option(
      "rounds", .count(in: 0...100), help: "How often idle hugepages are waited for, ten seconds each; 0: not at all",
      defaultText: "3"),
    Option("json", .file(), help: "The same file under the name that other commands have for it"),
  ],
  examples: [
    Example("hugespan calibrate -o machine.json", "Half a minute, then a table and the file"),
    Example("hugespan run --memory-price 400 --cost-model machine.json -- redis-server", "Put to use"),
  ],
  run: { invocation in
    let outputs = try ["output", "json"].compactMap { try invocation.output($0) }
    let line = ProgressLine()
    let calibration: Calibration
    do throws(CalibrationError) {
      calibration = try Calibration.run(idleRounds: invocation.count("rounds") ?? 3) { line.show("calibrate: \($0)") }
    } catch {
      line.clear()
      throw CommandFailure("calibrate: \(error)", status: .unavailable)
    }
    line.clear()
    if invocation.text("output") != "-" && invocation.text("json") != "-" { printOutput(calibration.table) }
    for output in outputs { try output.write(try calibration.json()) }
    return .success
  })

/// An option whose value is a cost model file.
let costModelOption = Option(
  "cost-model", .file(), help: "Prices as 'hugespan calibrate' measured them, for costs and for policy rent-or-buy",
  defaultText: "a warm machine's")

/// The prices that a command is told.
func costModel(_ invocation: Invocation) throws -> CostModel {
  guard let path = invocation.text("cost-model") else { return CostModel() }
  do throws(CostModelFileError) { return try CostModel(file: path) } catch {
    throw CommandFailure(error.description, status: error.isMissing ? .missingInput : .malformedInput)
  }
}
