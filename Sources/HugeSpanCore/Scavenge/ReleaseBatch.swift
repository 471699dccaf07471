// What is on its way to the kernel: the ranges of one release, and what is known of each.
//
// One batch per heap, because one thread scavenges at a time. Its ranges lie next to each other, as the system call
// wants them; what is known of them stands in a second array. The memory is the heap's; this is a handle of it, filled
// under the lock and given to a strategy when the lock is open.

/// What a release did to a range, as far as the kernel's answers tell.
package enum ReleaseEffect: UInt8, Comparable {
  /// Nothing yet: the kernel said to try again, or the range was not reached.
  case postponed
  /// Nothing: the call failed, and will fail again.
  case refused
  /// The memory is back with the kernel.
  case gone
  /// Unmapped, but the hugepage it belongs to was not split: still charged.
  case goneFromWholeFolio
  /// The kernel may take it when it needs memory.
  case lazy
  /// In memory with its contents, and next to be swapped out when memory is short: without swap never.
  case cold
  /// Swapped out with its contents: not charged as memory, and in no hugepage.
  case swapped
  /// The memory is back with the kernel, and touching the range would fault until it is committed again.
  case decommitted

  /// What a strategy of the embedder's says by number: all but `decommitted`, which would need its help to come back.
  @inline(__always)
  package init(embedder number: UInt8) {
    self = number < ReleaseEffect.decommitted.rawValue ? ReleaseEffect(rawValue: number) ?? .postponed : .postponed
  }

  /// The pages still have contents somewhere: nobody may believe that they read as zero.
  @inline(__always)
  var keepsContents: Bool { self == .lazy || self == .cold || self == .swapped }

  package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// Whether a forked child maps pages of a range's blocks too.
package enum RangeSharing: UInt8 {
  /// No fork since the blocks came to memory.
  case none
  /// There was one; the kernel has not been asked.
  case possible
  /// The kernel says so, or does not say.
  case shared
  /// No more, by the kernel's word.
  case exclusive
}

/// What is known of one range of a batch.
package struct ReleaseRange {
  /// Consists of wholly free pageblocks; else it is a part of one block.
  package var isWhole: Bool
  /// What the kernel has under the block, as far as it was asked.
  package var backing: Backing
  /// The block's hugepage is known to be one folio still, though not mapped as one.
  package var wholeFolio: Bool
  /// Whether somebody else maps the blocks.
  package var sharing: RangeSharing
  /// What the release did.
  package var effect: ReleaseEffect
}

/// The ranges of one release.
package struct ReleaseBatch {
  static let capacity = 128
  static let regionCapacity = 600

  static let byteCount =
    capacity * (MemoryLayout<AddressRange>.stride + MemoryLayout<ReleaseRange>.stride)
    + regionCapacity * MemoryLayout<ResidentRegion>.stride

  /// Number of ranges.
  package var count = 0
  package let ranges: UnsafeMutablePointer<AddressRange>
  package let known: UnsafeMutablePointer<ReleaseRange>
  /// Scratch for the kernel's answers.
  let regions: UnsafeMutablePointer<ResidentRegion>

  init(memory: UnsafeMutableRawPointer) {
    ranges = memory.assumingMemoryBound(to: AddressRange.self)
    regions = UnsafeMutableRawPointer(ranges + ReleaseBatch.capacity).assumingMemoryBound(to: ResidentRegion.self)
    known = UnsafeMutableRawPointer(regions + ReleaseBatch.regionCapacity).assumingMemoryBound(to: ReleaseRange.self)
  }

  var isFull: Bool { count == ReleaseBatch.capacity }

  mutating func append(_ range: AddressRange, _ known: ReleaseRange) {
    (ranges + count).initialize(to: range)
    (self.known + count).initialize(to: known)
    count += 1
  }

  /// Whether range `index` and the one before it are parts of the same block.
  func sharesBlockWithPrevious(_ index: Int) -> Bool {
    index > 0 && !known[index - 1].isWhole
      && (ranges[index - 1].start ^ ranges[index].start) >> UInt(bytesPerBlockShift) == 0
  }

  /// Asks the kernel what it has under each block of which only a part is to be released.
  func learnBacking<K: Kernel>(on kernel: K) {
    for index in 0..<count where !known[index].isWhole {
      if known[index].backing == .split { continue }
      if sharesBlockWithPrevious(index) {
        known[index].backing = known[index - 1].backing
        continue
      }
      known[index].backing = backing(around: ranges[index].start, on: kernel)
    }
  }

  /// What the kernel has under the block of `address`; unknown if it does not say.
  func backing<K: Kernel>(around address: UInt, on kernel: K) -> Backing {
    let start = address & ~UInt(bytesPerBlock - 1)
    do throws(KernelError) {
      let answer = try kernel.residency(
        of: AddressRange(start: start, byteCount: bytesPerBlock),
        into: UnsafeMutableBufferPointer(start: regions, count: ReleaseBatch.regionCapacity))
      if answer.count == 0 { return .absent }
      // A page that is away (swapped out, being moved) may be a hugepage's.
      if !regions[0].isBackingKnown || !regions[0].isPresent { return .unknown }
      return regions[0].isHuge ? .huge : .split
    } catch { return .unknown }
  }

  /// Advises all ranges that `includes` says, skipping those that fail, and notes `effect` for the rest.
  func advise<K: Kernel>(
    _ advice: Advice, on kernel: K, cost: inout ReleaseCost, includes: (Int) -> Bool = { _ in true },
    effect: (Int) -> ReleaseEffect
  ) {
    var first = 0
    var failures = 0
    while first < count && failures < ReleaseBatch.mostFailures {
      if !includes(first) {
        first += 1
        continue
      }
      var end = first + 1
      while end < count && includes(end) { end += 1 }
      let outcome = kernel.advise(
        advice, UnsafeBufferPointer(start: ranges + first, count: end - first))
      cost.add(outcome)
      for index in first..<(first + outcome.completedRanges) { known[index].effect = effect(index) }
      cost.ranges += outcome.completedRanges
      first += outcome.completedRanges
      if first < end && outcome.error == nil { break }
      if let error = outcome.error {
        // This one stays where it was; those behind it may fare better.
        known[first].effect = error == .tryAgain ? .postponed : .refused
        failures += 1
        cost.failures += 1
        first += 1
      }
    }
  }

  /// After this many failed ranges the rest of a batch is put off.
  static let mostFailures = 16
}
