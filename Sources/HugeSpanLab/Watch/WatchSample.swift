// What one look at a process shows, and who can look.
//
// The view knows nothing of processes: it is given samples. A source that reads /proc works for any process; one that reads the statistics
// of a heap knows what is used and why a block is as it is. Both fill in the same sample, and what a source cannot know is nil,
// which is shown as nothing, never as zero.

/// What a pageblock is like.
package enum WatchBlockState: String, Codable, CaseIterable, Sendable {
  /// On a hugepage; of a heap: and at least half in use.
  case full
  /// On base pages, less than half in memory; of a heap: on a hugepage of which less than half is in use.
  case sparse
  /// Nothing was ever in memory here.
  case empty
  /// Was in memory, and has been given back.
  case released
  /// At least half in memory, on base pages; of a heap: on base pages.
  case broken
  /// Given to MADV_FREE and not taken yet.
  case lazilyFree
  /// Free, and to be released if it stays so. Only a heap knows.
  case waiting

  /// The letter of the map.
  package var letter: Character {
    switch self {
    case .full: "#"
    case .sparse: "s"
    case .empty: "."
    case .released: "r"
    case .broken: "b"
    case .lazilyFree: "l"
    case .waiting: "w"
    }
  }

  /// In the legend.
  package var title: String { self == .lazilyFree ? "lazily free" : rawValue }

  /// Of the 256 colours of a terminal.
  package var colour: UInt8 {
    switch self {
    case .full: 35
    case .sparse: 179
    case .empty: 238
    case .released: 67
    case .broken: 167
    case .lazilyFree: 139
    case .waiting: 173
    }
  }

  /// Which of two equally frequent states a cell shows: the one that is more worth a look.
  package var weight: Int {
    switch self {
    case .empty: 0
    case .full: 1
    case .released: 2
    case .waiting: 3
    case .lazilyFree: 4
    case .sparse: 5
    case .broken: 6
    }
  }
}

/// A pageblock.
package struct WatchBlock: Equatable, Sendable {
  package var address: UInt
  package var state: WatchBlockState

  package init(address: UInt, state: WatchBlockState) {
    self.address = address
    self.state = state
  }
}

/// What was seen at one time.
package struct WatchSample: Equatable, Sendable {
  /// Since the first look.
  package var seconds = 0.0
  package var process: Int
  package var name: String
  /// Allocated from the heap, and released by it; nil for a process that is not on one.
  package var usedBytes: Int?
  package var releasedBytes: Int?
  package var residentBytes = 0
  package var chargedBytes: Int?
  package var anonymousBytes = 0
  package var hugeBytes = 0
  package var lazyFreeBytes: Int?
  package var swappedBytes: Int?
  /// Ascending by address.
  package var blocks: [WatchBlock] = []
  /// Only where they were asked for.
  package var mappings: [MappingReport] = []
  /// What could not be seen, a sentence each.
  package var notes: [String] = []

  package init(process: Int, name: String) {
    self.process = process
    self.name = name
  }

  /// Share of the anonymous memory that is on hugepages; nil where there is none.
  package var coverage: Double? { anonymousBytes > 0 ? Double(hugeBytes) / Double(anonymousBytes) : nil }

  /// How many blocks are in each state.
  package var counts: [WatchBlockState: Int] {
    var counts: [WatchBlockState: Int] = [:]
    for block in blocks { counts[block.state, default: 0] += 1 }
    return counts
  }
}

/// Looks at one process.
package protocol WatchSource {
  /// Looks once; also at the mappings if they are to be shown, which takes longer.
  ///
  /// Throws an error that `isVanished` when the process is gone, which ends the view and is no failure.
  mutating func look(mappings: Bool) throws(CoverageError) -> WatchSample
}

/// What is shown as a curve or a number.
package enum WatchQuantity: Int, CaseIterable, Sendable {
  case used, released, resident, charged, anonymous, huge, coverage, lazyFree, swapped

  package var title: String {
    switch self {
    case .used: "used"
    case .released: "released"
    case .resident: "RSS"
    case .charged: "charged"
    case .anonymous: "anonymous"
    case .huge: "huge"
    case .coverage: "coverage"
    case .lazyFree: "LazyFree"
    case .swapped: "swapped"
    }
  }

  /// A share of 1, not bytes.
  package var isShare: Bool { self == .coverage }

  /// Those that have a curve.
  package static let curves: [WatchQuantity] = [.used, .resident, .charged, .coverage]

  package func value(in sample: WatchSample) -> Double? {
    switch self {
    case .used: sample.usedBytes.map(Double.init)
    case .released: sample.releasedBytes.map(Double.init)
    case .resident: Double(sample.residentBytes)
    case .charged: sample.chargedBytes.map(Double.init)
    case .anonymous: Double(sample.anonymousBytes)
    case .huge: Double(sample.hugeBytes)
    case .coverage: sample.coverage
    case .lazyFree: sample.lazyFreeBytes.map(Double.init)
    case .swapped: sample.swappedBytes.map(Double.init)
    }
  }
}
