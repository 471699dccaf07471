// Programs that are made to hurt, by name: each is the worst case of one thing that a page heap does.
//
// They come from the literature on fragmentation and on renting or buying, and from what page heaps are known to do badly. Where a real
// program does a bit of everything, each of these does one thing and nothing else, so that what a policy does about it is seen at
// once. What each stresses is in Docs/Generators.md; how each runs, in PathologicalProgram.swift.

import HugeSpanCore
import TraceFormat

/// A program that is the worst case of something.
package enum Pathology: String, CaseIterable, Sendable {
  case largeThenSmall = "large-then-small"
  case alternating
  case phases
  case justOverHugepage = "just-over-hugepage"
  case oneTimeDrop = "one-time-drop"
  case survivors
  case refaultStorm = "refault-storm"
  case justOverBreakEven = "just-over-break-even"

  /// One line for help texts.
  package var help: String {
    switch self {
    case .largeThenSmall: "one large object, one small, and so on; the large ones die, the next are larger"
    case .alternating: "of objects in a row every second one dies, and the next ones are twice as large as the holes"
    case .phases: "many small objects and few large ones take turns, each time all of the memory"
    case .justOverHugepage: "every object is one to sixteen pages longer than a hugepage"
    case .oneTimeDrop: "full, then down to a tenth once, and never up again"
    case .survivors: "of each 2 MiB one object of 32 KiB outlives the others"
    case .refaultStorm: "everything dies at once, and after three break-even times is back within ten milliseconds"
    case .justOverBreakEven: "half of the memory is idle again and again, a little longer than break-even"
    }
  }

  /// Whether it goes by the break-even time.
  package var usesBreakEven: Bool { self == .refaultStorm || self == .justOverBreakEven }

  /// The idle time after which holding a hugepage has cost as much as releasing it and faulting it back, at the default prices, in
  /// whole milliseconds.
  package static let usualBreakEven: UInt64 = {
    let rent = CostModel.rentPerPage(memoryPrice: 400) * 512
    return UInt64(CostModel().wholeBlock / rent * 1000) * 1_000_000
  }()
}

/// A trace of a pathology.
package struct PathologicalTrace: Sendable {
  package var pathology: Pathology
  package var seed: UInt64 = 1
  /// Most live bytes.
  package var peakBytes = 256 << 20
  package var nanoseconds: UInt64 = 60_000_000_000
  package var breakEven: UInt64 = Pathology.usualBreakEven

  /// With less, there would be too few hugepages for a pattern.
  package static let leastPeakBytes = 16 << 20

  package init(_ pathology: Pathology) { self.pathology = pathology }

  /// The shortest trace in which the pattern is seen.
  package var leastNanoseconds: UInt64 { pathology.usesBreakEven ? breakEven * 8 : 1_000_000_000 }

  var header: TraceHeader {
    TraceHeader(
      program: "pathology-\(pathology.rawValue)",
      arguments: ["seed=\(seed)", "peak=\(peakBytes)"] + (pathology.usesBreakEven ? ["break-even=\(breakEven)"] : []),
      system: "generated", pageBytes: 4096, timeUnitNanoseconds: 1000, startNanoseconds: 0)
  }

  /// Writes the trace to an open file. Equal parameters give equal bytes.
  package func write(to descriptor: Int32) throws(TraceError) {
    let program = try PathologicalProgram(self, output: .descriptor(descriptor))
    try program.run()
    try program.finish()
  }
}
