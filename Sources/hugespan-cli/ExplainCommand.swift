// `hugespan explain`: why the memory of a process on HugeSpan is what it is.

import Foundation
import HugeSpanLab
import OptionTable

let explainCommand = Command(
  "explain",
  abstract: "Say why a heap's memory is what it is, what it waits for, and what costs most",
  discussion: """
    Of a process that runs on HugeSpan and publishes a statistics page ('hugespan run' has it do so; else page:on in \
    HUGESPAN_CONF, hs_page_open, or openStatisticsPage): its memory by what last changed its hugepages (never huge, split by a \
    decision of the heap's, lost to the kernel, made huge again), what is free and waits, until when and at what price, the \
    pageblocks that cost most, and what the next scavenge would do. Nothing of the process changes. The same user and \
    root may look.
    """,
  options: [
    Option("blocks", .count(in: 0...1_000_000), help: "Name this many of the costliest blocks", defaultText: "8"),
    Option("json", .file(), help: "Write JSON to FILE, '-' for standard output"),
  ],
  operands: [Operand("PROCESS", help: "A process' number, or its name")],
  examples: [
    Example("hugespan explain redis-server", "A server that was started by 'hugespan run -- redis-server'"),
    Example("hugespan explain --blocks 100 --json - 4711", "Everything, for a program"),
  ],
  run: { invocation in
    let limit = invocation.count("blocks") ?? 8
    let json = try invocation.output("json")
    let explanations: [Explanation]
    do {
      let processes = try CoverageReader().processes(named: invocation.operands[0])
      if processes.count > 1 {
        throw CommandFailure(
          "\(invocation.operands[0]): \(processes.count) processes are called that; name one by its number: "
            + processes.prefix(8).map(String.init).joined(separator: ", "), status: .usage)
      }
      explanations = try explain(processes[0], limit: limit)
    } catch let error as CoverageError {
      throw failure(.process(error))
    } catch let error as PageError { throw failure(error) }
    try json?.write(jsonText(explanations))
    if invocation.text("json") != "-" {
      printOutput(explanations.map { ExplanationText.text($0, terminalStyle()) }.joined(separator: "\n"))
    }
    return .success
  })

private func explain(_ process: Int, limit: Int) throws(PageError) -> [Explanation] {
  let reader = try PageReader(process: process)
  let snapshots = try reader.read()
  // What the kernel says besides is no reason to fail.
  let coverage = try? CoverageReader().look(at: process)
  let now = DispatchTime.now().uptimeNanoseconds
  return snapshots.map { snapshot in
    var explanation = Explanation(snapshot, process: process, name: reader.name, now: now, limit: limit)
    if let coverage { explanation.compare(with: coverage, snapshot) }
    return explanation
  }
}

private func failure(_ error: PageError) -> CommandFailure {
  let isMissing: Bool
  switch error {
  case .process(.noName): isMissing = true
  case .process(let why): isMissing = why.isVanished
  case .noPage: isMissing = true
  case .notAllowed, .unreadable, .busy: isMissing = false
  }
  return CommandFailure("\(error)", status: isMissing ? .missingInput : .unavailable)
}
