// What the heap in a program reported at the program's end (`statistics` in HUGESPAN_CONF), read back and shown.

import Foundation

/// The report of one process. Bytes and pages of 4 KiB, as in hugespan.h.
package struct HeapReport: Decodable, Sendable {
  package struct Jemalloc: Decodable, Sendable {
    package var version: String?
    package var arenas: Int
    package var retain: Bool
    package var dirtyDecayMilliseconds: Int
    package var muzzyDecayMilliseconds: Int
  }

  package struct Hooks: Decodable, Sendable {
    package var growths: Int
    package var refusedGrowths: Int
    package var refusedAllocations: Int
    package var splits: Int
    package var merges: Int
  }

  package struct Python: Decodable, Sendable {
    package var version: String
    package var arenasAllocated: Int
    package var arenasFreed: Int
    package var arenasRefused: Int
    package var foreignArenasFreed: Int
  }

  package struct Heap: Decodable, Sendable {
    package var usedBytes: Int
    package var peakUsedBytes: Int
    package var freeResidentBytes: Int
    package var lazyBytes: Int
    package var phantomBytes: Int
    /// Address space, used or not; the front end for CPython does not tell.
    package var reservedBytes: Int?
    package var metadataBytes: Int
    package var allocations: Int
    package var frees: Int
    package var pagesReleased: Int
    package var pagesRefaulted: Int
    package var splits: Int
    /// Broken blocks that the kernel made huge again, with what had been released of them.
    package var reinflatedBlocks: Int
    package var releaseCalls: Int
    package var releaseFailures: Int
    package var releaseSeconds: Double
    package var longestReleaseSeconds: Double
    package var ticks: Int
  }

  package struct Residency: Decodable, Sendable {
    package var residentBytes: Int
    package var hugeBytes: Int
    package var usedBytes: Int
    package var usedOnHugeBytes: Int
  }

  package var schema: String
  package var process: Int
  package var seconds: Double
  package var cpuSeconds: Double
  /// Of the front end for jemalloc only.
  package var jemalloc: Jemalloc?
  package var hooks: Hooks?
  /// Of the front end for CPython only.
  package var python: Python?
  package var heap: Heap
  /// Nil where the kernel does not tell.
  package var residency: Residency?

  /// Used bytes on hugepages of all used bytes; nil if nothing was in use, or the kernel does not tell.
  package var coverage: Double? {
    guard let residency, residency.usedBytes > 0 else { return nil }
    return Double(residency.usedOnHugeBytes) / Double(residency.usedBytes)
  }

  /// Reads a report; nil if the text is none.
  package init?(json: String) {
    guard let report = try? JSONDecoder().decode(HeapReport.self, from: Data(json.utf8)),
      report.schema == "hugespan.heap/1"
    else { return nil }
    self = report
  }
}

/// What came of a program that ran on the heap.
package struct HeapRunResult: Sendable {
  package var ending: ProgramEnding
  package var process: Int
  package var seconds: Double
  /// CPU of the program and of its children that it waited for.
  package var userSeconds: Double
  package var systemSeconds: Double
  package var minorFaults: Int
  /// The program's memory, looked at from outside; nil where it was gone too soon.
  package var meanBytes: Double?
  package var peakBytes: Int
  package var hugeShare: Double?
  /// What the heap in the program reported, and the same as it was written.
  package var report: HeapReport?
  package var reportText: String?
  /// Reports of other processes that the program started.
  package var others: [HeapReport]
  /// The settings that the heap was made with.
  package var configuration: String

  /// What the user should know, a line each.
  package var warnings: [String] {
    guard let report else {
      switch ending {
      case .signalled(let signal): return ["no report of the heap: the program was ended by signal \(signal)"]
      case .exited: return ["no report of the heap: the program ended without running its exit handlers"]
      }
    }
    var result: [String] = []
    // Nothing but what the runtime did before main.
    let isHardlyUsed =
      (report.hooks?.splits ?? 0) + report.heap.frees == 0 && report.heap.peakUsedBytes < 1 << 20
      || report.python != nil && report.heap.peakUsedBytes < peakBytes / 10
    if isHardlyUsed && peakBytes > 64 << 20 {
      result.append(
        report.python == nil
          ? "the program hardly used jemalloc; it may bring an allocator of its own"
          : "most of the program's memory is not in arenas (objects of more than 512 bytes, and what libraries allocate); "
            + "'--frontend jemalloc' puts that on the heap")
    }
    if let jemalloc = report.jemalloc,
      jemalloc.retain || jemalloc.dirtyDecayMilliseconds != 0 || jemalloc.muzzyDecayMilliseconds != 0
    {
      result.append("jemalloc kept freed memory for itself (MALLOC_CONF), so the heap saw little of it")
    }
    return result
  }

  /// A table of two columns.
  package func table(title: String) -> String {
    var rows: [(String, String)] = []
    func percent(_ share: Double?) -> String { share.map { decimal($0 * 100, 1) + " %" } ?? "-" }
    if let report {
      rows += [
        ("used, peak", bytesText(report.heap.peakUsedBytes)), ("used at exit", bytesText(report.heap.usedBytes)),
        ("coverage at exit", percent(report.coverage)),
        ("resident in the heap at exit", report.residency.map { bytesText($0.residentBytes) } ?? "-"),
        ("phantom at exit", bytesText(report.heap.phantomBytes)),
      ]
    }
    rows += [
      ("anonymous memory, mean", meanBytes.map { bytesText(Int($0)) } ?? "-"),
      ("anonymous memory, peak", bytesText(peakBytes)), ("of it on hugepages, over time", percent(hugeShare)),
    ]
    if let report {
      rows += [
        ("released", bytesText(report.heap.pagesReleased << 12)),
        ("refaulted", bytesText(report.heap.pagesRefaulted << 12)), ("hugepages split", "\(report.heap.splits)"),
        ("made huge again by the kernel", "\(report.heap.reinflatedBlocks)"),
        ("release calls", "\(report.heap.releaseCalls)"),
        ("longest release", decimal(report.heap.longestReleaseSeconds * 1000, 2) + " ms"),
        ("spans allocated", "\(report.heap.allocations)"),
      ]
    }
    if let hooks = report?.hooks {
      rows += [("grown in place", "\(hooks.growths)"), ("not grown in place", "\(hooks.refusedGrowths)")]
    }
    if let python = report?.python {
      rows += [
        ("arenas freed", "\(python.arenasFreed)"), ("arenas from before, freed", "\(python.foreignArenasFreed)"),
      ]
    }
    rows += [
      ("faults", "\(minorFaults)"), ("CPU time", decimal(userSeconds + systemSeconds, 2) + " s"),
      ("time", decimal(seconds, 2) + " s"),
    ]
    if !others.isEmpty {
      rows.append(("other processes on heaps", "\(others.count)"))
      rows.append(("used by the largest, peak", bytesText(others.map(\.heap.peakUsedBytes).max()!)))
    }
    let left = rows.map(\.0.count).max()!
    let right = rows.map(\.1.count).max()!
    func line(_ row: (String, String)) -> String {
      "  " + row.0 + String(repeating: " ", count: left - row.0.count + 2 + right - row.1.count) + row.1 + "\n"
    }
    return title + "\n" + rows.map(line).joined()
  }

  /// The same as JSON.
  package func json(command: [String], frontEnd: String) -> String {
    let endingText =
      switch ending {
      case .exited(let status): JSONText.object([("exitStatus", "\(status)")])
      case .signalled(let signal): JSONText.object([("signal", "\(signal)")])
      }
    return JSONText.document([
      ("schema", JSONText.quoted("hugespan.run/1")),
      ("command", JSONText.array(command.map(JSONText.quoted))),
      ("frontEnd", JSONText.quoted(frontEnd)),
      ("configuration", JSONText.quoted(configuration)),
      ("ending", endingText),
      ("process", "\(process)"),
      ("seconds", decimal(seconds, 6)),
      ("userSeconds", decimal(userSeconds, 6)),
      ("systemSeconds", decimal(systemSeconds, 6)),
      ("minorFaults", "\(minorFaults)"),
      (
        "anonymousBytes",
        JSONText.object([("mean", meanBytes.map { decimal($0, 0) } ?? "null"), ("peak", "\(peakBytes)")])
      ),
      ("hugeShare", hugeShare.map { decimal($0, 4) } ?? "null"),
      ("coverageAtExit", report?.coverage.map { decimal($0, 4) } ?? "null"),
      ("otherProcesses", "\(others.count)"),
      ("report", reportText?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "null"),
    ])
  }
}
