// `hugespan report`: a page to look at, of results that `compare --json` wrote.

import Foundation
import Glibc
import HugeSpanLab
import OptionTable

let reportCommand = Command(
  "report",
  abstract: "Make an HTML page of what 'hugespan compare' found",
  discussion: """
    One file without anything to load: what is charged against what is on hugepages, costs by variant beside the \
    bound, memory, coverage and pageblocks over time, and the runs as tables that sort. Runs of one trace from several \
    results stand beside each other.

    Over time a run is shown if its result was made with 'hugespan compare --series --json FILE'.
    """,
  options: [
    Option("output", short: "o", .file(), help: "The page; '-' for standard output", defaultText: "report.html"),
    Option("json", .file(), help: "Write what the page shows as JSON to FILE, '-' for standard output"),
  ],
  operands: [Operand("RESULT", help: "Results that 'hugespan compare --json' wrote", arity: .oneOrMore)],
  examples: [
    Example("hugespan report result.json -o report.html", "One result"),
    Example("hugespan report before.json after.json -o report.html", "Two beside each other"),
  ],
  run: { invocation in
    let results = try invocation.operands.map { path in
      NamedComparison(name: traceName(path), comparison: try readComparison(path))
    }
    for path in invocation.operands { TextOutput.protect(path) }
    if invocation.text("json") == "-" && invocation.text("output") == "-" {
      throw invocation.usageError("--output - and --json - both want standard output")
    }
    let json = try invocation.output("json")
    // Whoever asks for the data alone gets no page beside it.
    if json == nil || invocation.has("output") {
      try TextOutput(invocation.text("output") ?? "report.html").write(reportPage(of: results))
    }
    try json?.write(jsonText(ReportDocument(results)))
    return .success
  })

/// Reads a result, or says what of it is wrong.
private func readComparison(_ path: String) throws -> Comparison {
  // Asked first for its reason: Foundation's own is in many words.
  guard access(path, R_OK) == 0 else {
    throw CommandFailure("\(path): \(String(cString: strerror(errno)))", status: .missingInput)
  }
  guard let data = try? Data(contentsOf: URL(fileURLWithPath: path)) else {
    throw CommandFailure("\(path): cannot be read; a file is wanted", status: .missingInput)
  }
  do throws(ComparisonFileError) {
    return try comparison(fromJSON: data)
  } catch { throw CommandFailure("\(path): \(error)", status: .malformedInput) }
}
