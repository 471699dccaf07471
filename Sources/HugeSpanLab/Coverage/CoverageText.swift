// Coverage as tables, and as JSON.

import Foundation

/// One process, as `coverage --json` writes it.
package struct CoverageRecord: Codable, Equatable, Sendable {
  /// A mapping with anonymous memory.
  package struct Mapping: Codable, Equatable, Sendable {
    package var start: String
    package var end: String
    package var permissions: String
    package var name: String
    /// What it seems to be where it has no name: a thread's stack, an arena, a heap.
    package var guess: String?
    package var figures: MemoryFigures
    package var coverage: Double?
    package var isAdvisedHuge: Bool
    package var isAdvisedSmall: Bool
    package var isEligible: Bool?
    /// With --map: its pageblocks that have something in them.
    package var blocks: [MappedBlock]?
  }

  package var schema = "hugespan.coverage/1"
  /// Seconds since the first look.
  package var seconds: Double
  package var process: Int
  package var name: String
  package var figures: MemoryFigures
  package var coverage: Double?
  package var chargedBytes: Int?
  package var group: String?
  /// Anonymous, on folios larger than a page, and not mapped by PMD entries; null where the kernel does not tell.
  package var splitBytes: Int?
  /// Anonymous bytes by the size of their folio ("64kB"), of folios larger than a page; null where the kernel does not tell.
  package var folioBytes: [String: Int]?
  package var isDisabled: Bool?
  /// Of a series: seconds since the oldest part of the huge bytes was seen, and since the lazily free ones were.
  package var oldestSeconds: Double?
  package var lazyFreeSeconds: Double?
  package var mappings: [Mapping]

  package init(
    _ process: ProcessCoverage, folios: FolioFigures?, seconds: Double, blocks: [MappedBlocks] = []
  ) {
    self.seconds = seconds
    self.process = process.process
    name = process.name
    figures = process.total
    coverage = process.total.coverage
    chargedBytes = process.chargedBytes
    group = process.group
    // The two were read one after the other, so that a busy process may show a little less than nothing.
    splitBytes = folios.map { max($0.largeBytes - process.total.hugeBytes, 0) }
    isDisabled = process.isDisabled
    folioBytes = folios.map { folios in
      Dictionary(uniqueKeysWithValues: folios.bySize.map { ("\($0.key >> 10)kB", $0.value) })
    }
    mappings = process.largest.map { mapping in
      Mapping(
        start: String(mapping.start, radix: 16), end: String(mapping.end, radix: 16),
        permissions: mapping.permissions, name: mapping.name, guess: mapping.guess, figures: mapping.figures,
        coverage: mapping.figures.coverage, isAdvisedHuge: mapping.isAdvisedHuge,
        isAdvisedSmall: mapping.isAdvisedSmall, isEligible: mapping.isEligible,
        blocks: blocks.first { $0.mapping.start == mapping.start }?.blocks)
    }
  }

  /// The names of `csvRow`.
  package static let csvHead =
    "seconds,process,name,resident_bytes,anonymous_bytes,huge_bytes,lazy_free_bytes,swapped_bytes,charged_bytes,oldest_seconds\n"

  /// One line for a table of another program.
  package var csvRow: String {
    let quoted = "\"" + name.replacingOccurrences(of: "\"", with: "\"\"") + "\""
    let numbers = [figures.residentBytes, figures.anonymousBytes, figures.hugeBytes, figures.lazyFreeBytes]
    return String(format: "%.3f,%d,", seconds, process) + quoted + ","
      + numbers.map(String.init).joined(separator: ",")
      + ",\(figures.swappedBytes),\(chargedBytes.map(String.init) ?? "")"
      + "," + String(format: "%.3f", oldestSeconds ?? 0) + "\n"
  }
}

/// The tables of `hugespan coverage`.
package enum CoverageText {

  private static let heads = ["anon MiB", "huge", "coverage", "RSS", "LazyFree", "swapped"]
  private static func cells(_ figures: MemoryFigures) -> [TextTable.Cell] {
    [
      HumanNumber.mebibytes(figures.anonymousBytes), HumanNumber.mebibytes(figures.hugeBytes),
      HumanNumber.percent(figures.coverage),
      HumanNumber.mebibytes(figures.residentBytes), HumanNumber.mebibytes(figures.lazyFreeBytes),
      HumanNumber.mebibytes(figures.swappedBytes),
    ].map { TextTable.Cell($0) }
  }

  /// One process: its mappings, their sum, and what is known besides.
  package static func process(_ coverage: ProcessCoverage, folios: FolioFigures?, limit: Int, _ style: TableStyle)
    -> String
  {
    var text = "\(coverage.name) (\(coverage.process))\n"
    // What rounds to nothing says nothing.
    let least = 52_429
    let shown = coverage.largest.prefix(limit)
      .prefix { $0.figures.anonymousBytes >= least || $0.figures.swappedBytes >= least }
    var rows = shown.map { mapping in
      [
        TextTable.Cell(label(mapping)), TextTable.Cell(address(mapping)),
        TextTable.Cell(advice(mapping)),
      ]
        + cells(mapping.figures)
    }
    let rest = coverage.largest.count - shown.count
    if rest > 0 {
      var others = MemoryFigures()
      for mapping in coverage.largest.dropFirst(shown.count) { others += mapping.figures }
      rows.append([TextTable.Cell("\(rest) others"), TextTable.Cell(""), TextTable.Cell("")] + cells(others))
    }
    rows.append([TextTable.Cell("all mappings"), TextTable.Cell(""), TextTable.Cell("")] + cells(coverage.total))
    text += TextTable(heads: ["mapping", "address", "advice"] + heads, rows: rows, labelCount: 3).text(style)
    let total = coverage.total
    var notes = ""
    if let charged = coverage.chargedBytes, let group = coverage.group {
      notes += "Its memory group is charged \(HumanNumber.mebibytes(charged)) MiB, for all that is in it (\(group)).\n"
    } else {
      notes += "What its memory group is charged is not known: the group's files cannot be read.\n"
    }
    if let folios {
      let split = max(folios.largeBytes - total.hugeBytes, 0)
      notes +=
        "\(HumanNumber.mebibytes(split)) MiB are on large folios that are not mapped as hugepages: parts of split ones, or of sizes below 2 MiB.\n"
      if !folios.bySize.isEmpty {
        let sizes = folios.bySize.sorted { $0.key < $1.key }.map { size, bytes in
          "\(size >= 1 << 20 ? "\(size >> 20) MiB" : "\(size >> 10) KiB"): \(HumanNumber.mebibytes(bytes))"
        }
        notes += "By the size of the folio, however it is mapped, in MiB: " + sizes.joined(separator: ", ") + ".\n"
      }
    } else {
      notes += "Split hugepages cannot be seen: only root is told which physical pages a process has.\n"
    }
    if total.fileHugeBytes > 0 {
      notes += "\(HumanNumber.mebibytes(total.fileHugeBytes)) MiB of files and shared memory are on hugepages.\n"
    }
    let asks = coverage.mappings.contains { $0.isAdvisedHuge }
    if coverage.mode == "never" {
      notes += "This system gives hugepages to nobody (mode never): 'hugespan doctor' says how to change that.\n"
    } else if coverage.mode == "madvise" && !asks {
      notes +=
        "This system gives hugepages to who asks for them (mode madvise), and the process asks for none: 'hugespan run' starts a "
        + "program on a heap that does.\n"
    }
    if coverage.isDisabled == true {
      notes += "The process gets no hugepages: it or its parent called prctl(PR_SET_THP_DISABLE).\n"
    }
    return text + style.wrapped(notes)
  }

  /// Of a long path the end, which tells files apart.
  private static func label(_ mapping: MappingReport) -> String {
    let label = mapping.label
    return label.count <= 36 ? label : "…" + label.suffix(35)
  }

  private static func address(_ mapping: MappingReport) -> String { String(mapping.start, radix: 16) }

  private static func advice(_ mapping: MappingReport) -> String {
    if mapping.isAdvisedSmall { return "nohuge" }
    if mapping.isAdvisedHuge { return "huge" }
    return mapping.isEligible == false ? "not eligible" : ""
  }

  /// Many processes, the largest first.
  package static func processes(_ all: [ProcessCoverage], _ style: TableStyle) -> String {
    let sorted = all.sorted { ($1.total.anonymousBytes, $0.process) < ($0.total.anonymousBytes, $1.process) }
    var sum = MemoryFigures()
    for process in sorted { sum += process.total }
    var rows = sorted.map { [TextTable.Cell("\($0.process)"), TextTable.Cell($0.name)] + cells($0.total) }
    rows.append([TextTable.Cell("\(sorted.count)"), TextTable.Cell("processes")] + cells(sum))
    return TextTable(heads: ["PID", "name"] + heads, rows: rows, labelCount: 2).text(style)
  }

  /// A line of a series.
  package static func line(_ coverage: ProcessCoverage, seconds: Double) -> String {
    let total = coverage.total
    return String(
      format: "%8.2f s  anon %@ MiB  huge %@  coverage %@  RSS %@  LazyFree %@\n", seconds,
      HumanNumber.mebibytes(total.anonymousBytes), HumanNumber.mebibytes(total.hugeBytes),
      HumanNumber.percent(total.coverage),
      HumanNumber.mebibytes(total.residentBytes),
      HumanNumber.mebibytes(total.lazyFreeBytes))
  }
}
