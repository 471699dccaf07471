// What a machine is set to, read once: the input of the diagnosis.
//
// Facts and judgement are apart. Everything here is read from files under a root that can be chosen, so that a tree from
// another machine, or one made up for a test, is judged as this one would be; what only a process can ask (prctl, what
// the kernel does when it is tried) is in `ProcessFacts`. A file that is missing is nil, which is often the answer: no
// directory of a size is a kernel without sizes, no lru_gen is one without it. A file that is there and makes no sense is
// listed in `unreadable`, for the reader to see.

import HugeSpanCore

/// The settings of transparent hugepages.
package struct HugePageSettings: Equatable, Sendable, Codable {
  /// Bytes that one PMD entry maps; nil where the kernel does not say.
  package var hugePageBytes: Int?
  package var enabled: ModeChoice?
  package var defrag: ModeChoice?
  /// Bytes of a page: the mode of that size, ascending. Empty before Linux 6.8.
  package var sizes: [Int: ModeChoice] = [:]
  package var shrinksUnderused: Bool?
  package var usesZeroPage: Bool?
  /// The files of `khugepaged` that hold settings.
  package var khugepaged: [String: Int] = [:]

  package init() {}

  /// The mode of the size that the heap wants; nil where only `enabled` counts.
  package var ownMode: ModeChoice? { hugePageBytes.flatMap { sizes[$0] } }
}

/// The tightest limits on the memory group of this process.
package struct GroupLimits: Equatable, Sendable, Codable {
  /// 1 or 2.
  package var version: Int
  /// The process' own group.
  package var directory: String
  /// The lowest hard limit of the group and those above it, where it is set, and what is used of it; nil without one.
  package var limitBytes: Int?
  package var limitDirectory: String?
  package var usedBytes: Int?
  /// The lowest memory.high, beyond which the kernel slows the program down and reclaims; version 2 only.
  package var highBytes: Int?
  /// The lowest memory.swap.max; version 2 only.
  package var swapLimitBytes: Int?
}

/// What a machine gives and takes of free memory to its host.
package struct HostFacts: Equatable, Sendable, Codable {
  /// Whether a hypervisor is beneath; nil where that cannot be seen.
  package var isVirtual: Bool?
  /// Free blocks of at least this order are reported to the host; nil where the kernel cannot report.
  package var reportingOrder: Int?
  /// There is a balloon, and a driver has taken it.
  package var hasBalloon = false
  /// The balloon was offered free page reporting; nil without a balloon.
  package var reportsFreePages: Bool?
}

/// What is known of a machine.
package struct SystemFacts: Equatable, Sendable, Codable {
  package var kernelRelease: String?
  package var pageBytes = 4096
  package var memoryBytes: Int?
  /// Free in blocks that can become a hugepage at once.
  package var freeBlockBytes: Int?
  package var hugePages: HugePageSettings?
  package var group: GroupLimits?
  /// Why there is no `group`.
  package var groupReason: String?
  package var swaps: [SwapArea] = []
  package var zswap: Bool?
  package var host = HostFacts()
  /// The bits of lru_gen/enabled; nil without multi-generational LRU.
  package var generationalLRU: Int?
  package var mostMappings: Int?
  package var overcommit: Int?
  /// Files that are there and could not be understood, with what they say.
  package var unreadable: [String: String] = [:]

  package init() {}
}

/// What a process is told of itself.
package struct ProcessFacts: Equatable, Sendable {
  /// Which hugepages prctl(PR_SET_THP_DISABLE) left.
  package enum Disabled: String, Equatable, Sendable, Codable {
    case nothing
    /// All: nothing gets hugepages.
    case completely
    /// From Linux 6.18 on: all but those of memory that asks for them.
    case exceptAdvised
  }

  /// Nil where the kernel does not say.
  package var disabled: Disabled?
  /// What the kernel did when it was tried; nil if it was not.
  package var capabilities: KernelCapabilities?

  package init(disabled: Disabled? = nil, capabilities: KernelCapabilities? = nil) {
    self.disabled = disabled
    self.capabilities = capabilities
  }
}
