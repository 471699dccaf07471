// A policy or a strategy of the embedder's own, by a protocol.
//
// The core is compiled for heaps that may have neither classes nor existentials, and asks through two C functions with a context. Here
// the context is an object that holds the embedder's value; it lives as long as the heap does. A tick pays an indirect
// call for it, an allocation nothing.

public import HugeSpanCore

/// What a policy is told at a tick. See `HugeSpanCore.ScavengeInput`.
public typealias ScavengeInput = HugeSpanCore.ScavengeInput
/// What a policy wants done. See `HugeSpanCore.ScavengePlan`.
public typealias ScavengePlan = HugeSpanCore.ScavengePlan
/// In which order memory is released. See `HugeSpanCore.ReleaseOrder`.
public typealias ReleaseOrder = HugeSpanCore.ReleaseOrder
/// A scavenge policy: what to release, and when. See `HugeSpanCore.ScavengePolicy`.
public typealias ScavengePolicy = HugeSpanCore.ScavengePolicy

/// One range that a strategy is to release. Nobody else can have these pages meanwhile.
public struct ReleasableRange {
  /// What the kernel has under a pageblock, as far as the heap was told.
  public enum Backing: Sendable { case unknown, hugePage, basePages, absent }

  /// What became of a range.
  public enum Effect: Sendable {
    /// Nothing yet; it will be chosen again.
    case postponed
    /// Nothing, and trying again is of no use while the block is in use.
    case refused
    /// The memory is the kernel's; the pages read as zero when they come back.
    case gone
    /// As gone, but out of a hugepage that is still whole: charged on.
    case phantom
    /// The kernel may take it; contents are unspecified until written.
    case lazy
    /// In memory, with its contents, and next to be swapped out.
    case cold
    /// Swapped out; what hugepage there was is no more.
    case swapped
  }

  /// Where it begins: at a page.
  public let address: UnsafeMutableRawPointer
  /// Its length: whole pages.
  public let byteCount: Int
  /// Consists of wholly free pageblocks; else it is a part of one.
  public let isWhole: Bool
  /// A forked child maps pages of these blocks too, or the kernel does not say.
  public let isShared: Bool
  /// What is under its block.
  public let backing: Backing
  /// To be set.
  public var effect: Effect = .postponed
}

/// A release strategy: how memory goes back to the kernel.
///
/// It is believed: pages that it calls gone and that are not will be handed out as zero.
public protocol ReleaseStrategy: Sendable {
  /// Releases each of the ranges, sets its effect, and returns the number of system calls made. Runs with the heap's lock
  /// open, in one thread at a time; it may make system calls and must not call the heap.
  func release(_ ranges: UnsafeMutableBufferPointer<ReleasableRange>) -> Int
}

/// What holds the embedder's values while the heap uses them.
final class CustomHolder: @unchecked Sendable {
  // The heap calls a policy under its lock and a strategy in one thread at a time.
  private var policy: (any ScavengePolicy)?
  private let strategy: (any ReleaseStrategy)?
  private var ranges: [ReleasableRange] = []

  init(policy: (any ScavengePolicy)?, strategy: (any ReleaseStrategy)?) {
    self.policy = policy
    self.strategy = strategy
  }

  /// Puts itself in the place of the policy and the strategy of `options`.
  func install(in options: inout HeapOptions) {
    let context = Unmanaged.passUnretained(self).toOpaque()
    if policy != nil {
      options.customPolicy = CustomPolicy(
        context: context,
        plan: { context, input, plan in
          let holder = Unmanaged<CustomHolder>.fromOpaque(context!).takeUnretainedValue()
          plan.assumingMemoryBound(to: ScavengePlan.self).pointee =
            holder.policy!.plan(input.assumingMemoryBound(to: ScavengeInput.self).pointee)
        },
        booked: { context, wanted, released in
          Unmanaged<CustomHolder>.fromOpaque(context!).takeUnretainedValue().policy!
            .booked(wanted: wanted, released: released)
        })
    }
    if strategy != nil {
      options.customStrategy = CustomStrategy(
        context: context,
        release: { context, batch in
          Unmanaged<CustomHolder>.fromOpaque(context!).takeUnretainedValue()
            .release(batch.assumingMemoryBound(to: ReleaseBatch.self).pointee)
        })
    }
  }

  private func release(_ batch: ReleaseBatch) -> UInt32 {
    ranges.removeAll(keepingCapacity: true)
    for index in 0..<batch.count {
      let known = batch.known[index]
      ranges.append(
        ReleasableRange(
          address: UnsafeMutableRawPointer(bitPattern: batch.ranges[index].start)!,
          byteCount: batch.ranges[index].byteCount, isWhole: known.isWhole, isShared: known.sharing == .shared,
          backing: ReleasableRange.Backing(known.backing)))
    }
    let calls = ranges.withUnsafeMutableBufferPointer { strategy!.release($0) }
    for index in 0..<batch.count { batch.known[index].effect = ReleaseEffect(ranges[index].effect) }
    return UInt32(clamping: calls)
  }
}

extension ReleasableRange.Backing {
  fileprivate init(_ backing: HugeSpanCore.Backing) {
    switch backing {
    case .unknown, .takenBack: self = .unknown
    case .huge: self = .hugePage
    case .split: self = .basePages
    case .absent: self = .absent
    }
  }
}

extension ReleaseEffect {
  fileprivate init(_ effect: ReleasableRange.Effect) {
    switch effect {
    case .postponed: self = .postponed
    case .refused: self = .refused
    case .gone: self = .gone
    case .phantom: self = .goneFromWholeFolio
    case .lazy: self = .lazy
    case .cold: self = .cold
    case .swapped: self = .swapped
    }
  }
}
