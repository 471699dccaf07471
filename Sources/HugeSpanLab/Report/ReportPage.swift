// The page: one HTML file that needs nothing else, no network above all (its own policy forbids that).
//
// What can be said without a script is: the facts of each trace, what to see first, and the tables of runs, by the same
// columns, formats and marks as on a terminal. The script draws the plots from the data that the page carries.

import Foundation

/// Writes the page of `results`.
package func reportPage(of results: [NamedComparison]) -> String {
  let document = ReportDocument(results)
  let names = document.traces.map(\.name)
  var body = header(document)
  if names.count > 1 {
    let links = names.enumerated().map { "<a href=\"#trace-\($0.offset)\">\(escaped($0.element))</a>" }
    body += "<nav aria-label=\"Traces\">\(links.joined(separator: "\n"))</nav>\n"
  }
  body += "<main id=\"main\">\n"
  if names.isEmpty { body += "<p class=\"missing\">The results have no runs.</p>\n" }
  if names.count > 1 { body += overall(names.count) }
  for index in document.traces.indices { body += section(document, index) }
  body += leftOut(document) + "</main>\n"
  let title = names.count == 1 ? "HugeSpan: \(names[0])" : "HugeSpan: \(names.count) traces"
  return """
    <!DOCTYPE html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
    <link rel="icon" href="data:,">
    <title>\(escaped(title))</title>
    <style>
    \(ReportStyle.css)
    </style>
    </head>
    <body>
    <a class="skip" href="#main">To the runs</a>
    \(body)<script type="application/json" id="data">\(document.json)</script>
    <script>
    "use strict";
    \(ReportPlots.script)
    \(ReportPareto.script)
    \(ReportFilm.script)
    \(ReportScript.script)
    </script>
    </body>
    </html>

    """
}

/// Text as it may stand in an element or between quotes.
func escaped(_ text: String) -> String {
  var result = ""
  for character in text.unicodeScalars {
    switch character {
    case "&": result += "&amp;"
    case "<": result += "&lt;"
    case ">": result += "&gt;"
    case "\"": result += "&quot;"
    case "\0": result += "\u{FFFD}"
    default: result.unicodeScalars.append(character)
    }
  }
  return result
}

private func header(_ document: ReportDocument) -> String {
  let machines = document.machines.map { "<p class=\"soft\">\(escaped($0))</p>\n" }.joined()
  return """
    <header>
    <h1>What releasing memory costs</h1>
    \(machines)<p class="soft">Made by <code>hugespan</code>. Memory in MiB, costs in CPU-seconds: memory at its \
    price, TLB misses and work reckoned in.</p>
    <noscript><p class="missing">The plots need JavaScript; the tables of runs do without.</p></noscript>
    </header>

    """
}

private func overall(_ count: Int) -> String {
  """
  <figure class="card" aria-labelledby="overall">
  <figcaption><h3 id="overall">All \(count) traces: cost above the bound</h3>
  <p>Geometric mean of cost/bound over the traces, for variants that ran on all of them, in percent.</p></figcaption>
  <div class="plot" data-part="overall"></div>
  </figure>

  """
}

private func section(_ document: ReportDocument, _ index: Int) -> String {
  let source = document.sources[index]
  let trace = document.traces[index]
  let first = source.results[0]
  let name = escaped(trace.name)
  var facts = "\(fixed(first.seconds, 1)) s of program time, \(grouped(Double(first.events))) events, "
  facts += "\(source.results.count) \(source.results.count == 1 ? "run" : "runs"), touch \(first.touch), "
  facts += "speed \(first.speed.map { plain($0) } ?? "max"), "
  facts += "memory at \(plain(first.memoryPrice)) CPU-seconds per GiB-hour"
  var lines = overview(of: source.results)
  if let note = source.results.compactMap(\.traceNote).first { lines.append("Note: \(note).") }
  if let reason = source.results.compactMap(\.chargeUnknownReason).first {
    lines.append("The charge is unknown (\(reason)); resident memory is shown where no run has it.")
  }
  let list = lines.map { "<li>\(escaped($0))</li>" }.joined(separator: "\n")
  return """
    <section id="trace-\(index)" aria-labelledby="name-\(index)">
    <h2 id="name-\(index)">\(name)</h2>
    <p class="soft">\(escaped(facts))</p>
    <ul>
    \(list)
    </ul>
    <div class="grid">
    <figure class="card" aria-labelledby="pareto-\(index)">
    <figcaption><h3 id="pareto-\(index)">Memory against hugepages</h3>
    <p>Up and to the left is better. The size of a point is the run's cost. Left of the dashed line memory and TLB \
    misses alone would cost less than the bound; the stepped line joins the runs that none beats in \
    both.</p></figcaption>
    <div class="plot" data-part="pareto"></div>
    </figure>
    <figure class="card" aria-labelledby="costs-\(index)">
    <figcaption><h3 id="costs-\(index)">Cost by variant</h3>
    <fieldset><legend>CPU-seconds</legend>
    <label><input type="radio" name="costs-\(index)" value="cost" checked>in all</label>
    <label><input type="radio" name="costs-\(index)" value="excess">above the bound</label>
    </fieldset></figcaption>
    <div class="plot" data-part="costs"></div>
    </figure>
    </div>
    <section class="card" aria-labelledby="time-\(index)">
    <h3 id="time-\(index)">Over time</h3>
    <div data-part="time"></div>
    </section>
    \(ReportTable.html(source, index: index))
    </section>

    """
}

private func leftOut(_ document: ReportDocument) -> String {
  if document.leftOut.isEmpty { return "" }
  let lines = document.leftOut.map { "<li>\(escaped($0))</li>" }.joined(separator: "\n")
  return """
    <section aria-labelledby="left-out">
    <h2 id="left-out">Left out</h2>
    <ul>
    \(lines)
    </ul>
    </section>

    """
}
