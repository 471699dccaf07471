// The real kernel, with its answers about residency written down, or read from what was written down.
//
// A heap's decisions depend on the trace, on its options, and on what the kernel says is resident: reports of a
// residency pass, and effects that are read back. The last differ from run to run, because khugepaged and reclaim have a mind of
// their own. So every answer can be logged, with addresses relative to the arena, and a later run can be given the same
// answers: then it takes the same decisions. Observations for the report are not decisions and are left out.
//
// The log is text, a line per answer: which arena, where, how far the walk came, then runs of (offset, length, huge,
// present), all in pages.

import Glibc
import HugeSpanCore

/// What became of the logging.
package enum ResidencyLogFailure: Error, Equatable, Sendable {
  /// The file cannot be read or written.
  case system(path: String, code: Int32)
  /// A line is not understood.
  case malformed(path: String, line: Int)
  /// The run asked something else than the recorded one: other trace, options or version.
  case differs(line: Int)
}

/// One answer of the kernel, addresses in pages from the start of the arena.
private struct Answer: Equatable {
  struct Run: Equatable {
    var offset: Int
    var count: Int
    var isHuge: Bool
    var isPresent: Bool
  }
  var arena: Int
  var offset: Int
  var count: Int
  var walkedTo: Int
  var runs: [Run]

  var line: String {
    var text = "\(arena) \(offset) \(count) \(walkedTo)"
    for run in runs { text += " \(run.offset)+\(run.count)\(run.isHuge ? "h" : "")\(run.isPresent ? "" : "s")" }
    return text
  }

  init(arena: Int, offset: Int, count: Int, walkedTo: Int, runs: [Run]) {
    self.arena = arena
    self.offset = offset
    self.count = count
    self.walkedTo = walkedTo
    self.runs = runs
  }

  init?(line: Substring) {
    var fields = line.split(separator: " ")[...]
    var numbers: [Int] = []
    for _ in 0..<4 {
      guard let field = fields.popFirst(), let number = Int(field), number >= 0 else { return nil }
      numbers.append(number)
    }
    self.init(arena: numbers[0], offset: numbers[1], count: numbers[2], walkedTo: numbers[3], runs: [])
    for field in fields {
      let sides = field.split(separator: "+")
      guard sides.count == 2, let offset = Int(sides[0]), offset >= 0 else { return nil }
      let digits = sides[1].prefix { $0.isNumber }
      let marks = sides[1].dropFirst(digits.count)
      guard let count = Int(digits), count > 0, ["", "h", "s", "hs"].contains(marks) else { return nil }
      runs.append(Run(offset: offset, count: count, isHuge: marks.contains("h"), isPresent: !marks.contains("s")))
    }
  }
}

/// The log of one run. Used by one thread, between measurements.
package final class ResidencyLog {
  package enum Mode: Equatable, Sendable {
    case off
    case writing(path: String)
    case reading(path: String)
  }

  private let mode: Mode
  private var lines: [String] = []
  private var answers: [Answer] = []
  private var next = 0
  private var arenas: [AddressRange] = []
  /// What the heap is told meanwhile is for a report.
  package var isObserving = false
  /// The first thing that went wrong; the run is worthless then.
  package private(set) var failure: ResidencyLogFailure?

  /// Opens the log; reads all of it in mode `reading`.
  package init(_ mode: Mode) throws(ResidencyLogFailure) {
    self.mode = mode
    guard case .reading(let path) = mode else { return }
    guard let text = contents(ofFile: path) else { throw .system(path: path, code: errno) }
    var number = 0
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      if line.isEmpty { continue }
      guard let answer = Answer(line: line) else { throw .malformed(path: path, line: number) }
      answers.append(answer)
    }
  }

  /// Writes what was logged. Nothing in the other modes.
  package func finish() throws(ResidencyLogFailure) {
    if let failure { throw failure }
    guard case .writing(let path) = mode else { return }
    guard let file = fopen(path, "w") else { throw .system(path: path, code: errno) }
    for line in lines { fputs(line + "\n", file) }
    if fclose(file) != 0 { throw .system(path: path, code: errno) }
  }

  fileprivate func addArena(_ range: AddressRange) { arenas.append(range) }

  fileprivate func answer(
    _ range: AddressRange, _ regions: UnsafeMutableBufferPointer<ResidentRegion>, _ pageBytes: Int,
    ask: () throws(KernelError) -> (count: Int, walkedTo: UInt)
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    if mode == .off || isObserving { return try ask() }
    guard let arena = arenas.firstIndex(where: { range.start >= $0.start && range.start < $0.end }) else {
      return try ask()
    }
    let base = arenas[arena].start
    func pages(_ address: UInt) -> Int { Int(address - base) / pageBytes }
    if case .writing = mode {
      let result = try ask()
      let runs = regions[0..<result.count].map { region in
        Answer.Run(
          offset: pages(region.range.start), count: region.range.byteCount / pageBytes, isHuge: region.isHuge,
          isPresent: region.isPresent)
      }
      lines.append(
        Answer(
          arena: arena, offset: pages(range.start), count: range.byteCount / pageBytes,
          walkedTo: pages(result.walkedTo), runs: runs
        ).line)
      return result
    }
    guard next < answers.count, answers[next].arena == arena, answers[next].offset == pages(range.start),
      answers[next].count == range.byteCount / pageBytes, answers[next].runs.count <= regions.count
    else {
      if failure == nil { failure = .differs(line: next + 1) }
      return try ask()
    }
    let answer = answers[next]
    next += 1
    for (index, run) in answer.runs.enumerated() {
      regions[index] = ResidentRegion(
        range: AddressRange(start: base + UInt(run.offset * pageBytes), byteCount: run.count * pageBytes),
        isHuge: run.isHuge, isPresent: run.isPresent)
    }
    return (answer.runs.count, base + UInt(answer.walkedTo * pageBytes))
  }
}

/// `LinuxKernel` with a residency log around it.
package struct ReplayKernel: Kernel {
  package let linux: LinuxKernel
  // The log is used by the replay's only thread.
  nonisolated(unsafe) private let log: ResidencyLog

  private static let arenaAlignment = 1 << 32

  package init(_ linux: LinuxKernel, log: ResidencyLog) {
    self.linux = linux
    self.log = log
  }

  package var geometry: PageGeometry { linux.geometry }

  package var capabilities: KernelCapabilities { linux.capabilities }

  package func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    // Where a span with a large alignment comes to lie depends on where its arena does, modulo the alignment. So that it does not
    // differ from run to run, arenas begin at a multiple of more than any program has asked for, if there is room for that.
    let range: AddressRange
    do throws(KernelError) {
      range = try linux.reserve(byteCount: byteCount, alignment: max(alignment, Self.arenaAlignment))
    } catch {
      range = try linux.reserve(byteCount: byteCount, alignment: alignment)
    }
    log.addArena(range)
    return range
  }

  package func commit(_ range: AddressRange) throws(KernelError) { try linux.commit(range) }

  package func unreserve(_ range: AddressRange) { linux.unreserve(range) }

  package func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    linux.advise(advice, ranges)
  }

  package func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    linux.move(source, to: destination)
  }

  package func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    try log.answer(range, regions, geometry.pageBytes) { () throws(KernelError) in
      try linux.residency(of: range, into: regions)
    }
  }

  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    try linux.sharedPages(of: range, limit: limit)
  }

  package func zero(_ range: AddressRange) { linux.zero(range) }

  package func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    try linux.mapMetadata(byteCount: byteCount)
  }

  package func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
    linux.unmapMetadata(pointer, byteCount: byteCount)
  }
}
