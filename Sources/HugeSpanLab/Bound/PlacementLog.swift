// Where a run's spans lay, and when: what the reference is reckoned from, after the run.
//
// A record of 24 bytes for each call of the heap and each stretch of pages that is written to for the first time, in a mapping that
// is in memory before anything is measured. What a trace will need is estimated from its steps; where that does
// not do the log is incomplete, and there is no reference, rather than a charge that is the log's.

import HugeSpanCore

/// What happened to a range of pages.
struct PlacementRecord: BitwiseCopyable {
  enum Kind: UInt8 {
    case take, give, touch, untouch
    /// No pages, but how many CPUs the program keeps busy from now on; policies had an opportunity.
    case busy
  }

  var time: UInt64
  private var word: UInt64
  /// Pages from `page` on; of `busy` the bits of a Float.
  var count: UInt32

  init(time: UInt64, kind: Kind, page: UInt, count: UInt32) {
    self.time = time
    word = UInt64(page) << 8 | UInt64(kind.rawValue)
    self.count = count
  }

  /// Number of the page by address.
  var page: UInt { UInt(word >> 8) }
  var kind: Kind { Kind(rawValue: UInt8(truncatingIfNeeded: word))! }
}

/// The log of one run, in order of time.
package struct PlacementLog: ~Copyable {
  private let records: MappedArray<PlacementRecord>
  private(set) var count = 0
  /// Nothing was left out.
  private(set) var isComplete: Bool
  /// Time of what comes next.
  var time: UInt64 = 0

  /// Room for `capacity` records, all of it in memory; 0 logs nothing.
  package init(capacity: Int) {
    records = MappedArray(
      repeating: PlacementRecord(time: 0, kind: .busy, page: 0, count: 0), count: capacity)
    isComplete = capacity > 0
  }

  /// As many records as a replay of `program` may need: most small objects cause none.
  static func estimate(_ program: borrowing TraceProgram) -> Int {
    var count = 1 << 16
    for index in 0..<program.steps.count {
      let step = program.steps[index]
      let isLarge =
        program.header.level == .span || step.isMapped || step.bytes > SizeClasses.largestBytes
      count += isLarge ? 4 : step.kind == StepKind.free.rawValue ? 0 : 1
    }
    return count
  }

  @inline(__always)
  mutating func add(_ kind: PlacementRecord.Kind, address: UInt, pages: Int) {
    if pages > 0 { append(kind, page: address >> 12, UInt32(truncatingIfNeeded: pages)) }
  }

  /// `cpus` CPUs are busy from now on.
  mutating func addBusy(_ cpus: Double, at now: UInt64) {
    time = now
    append(.busy, page: 0, Float(cpus).bitPattern)
  }

  private mutating func append(_ kind: PlacementRecord.Kind, page: UInt, _ value: UInt32) {
    if count == records.count {
      isComplete = false
      return
    }
    records[count] = PlacementRecord(time: time, kind: kind, page: page, count: value)
    count += 1
  }

  subscript(index: Int) -> PlacementRecord { records[index] }
}
