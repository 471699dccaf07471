// What a kernel can do, as a set of facts that were found by trying.
//
// A version number says little: distributions backport, sandboxes filter system calls, an administrator turns
// hugepages off. So every member stands for something that was tried on a scratch mapping and whose effect was read
// back where it has one. A heap asks once and refuses a release strategy that could not do what its name says.

/// What a kernel was seen to do. Not an `OptionSet`: its array literals allocate, which the Embedded build refuses.
package struct KernelCapabilities: Equatable, Sendable {
  package var rawValue: UInt32

  package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// MADV_DONTNEED empties a range.
  package static let dontneed = Self(rawValue: 1 << 0)
  /// MADV_FREE is accepted.
  package static let free = Self(rawValue: 1 << 1)
  /// MADV_COLD is accepted.
  package static let cold = Self(rawValue: 1 << 2)
  /// MADV_PAGEOUT is accepted (without swap it moves nothing out).
  package static let pageout = Self(rawValue: 1 << 3)
  /// MADV_COLLAPSE makes a hugepage of base pages.
  package static let collapse = Self(rawValue: 1 << 4)
  /// MADV_POPULATE_WRITE faults a range in.
  package static let populate = Self(rawValue: 1 << 5)
  /// Many ranges can be advised by one call.
  package static let batchedAdvice = Self(rawValue: 1 << 6)
  /// Residency is exact for each page, by PAGEMAP_SCAN.
  package static let exactResidency = Self(rawValue: 1 << 7)
  /// An advised block becomes a hugepage on first touch.
  package static let hugePages = Self(rawValue: 1 << 8)
  /// MADV_COLD on one page of a hugepage splits it and keeps its data.
  package static let honestSplit = Self(rawValue: 1 << 9)

  /// A block becomes a hugepage on first touch without having been advised: advice would change nothing but how hard
  /// the kernel tries. Not among `all`.
  package static let hugePagesUnasked = Self(rawValue: 1 << 10)

  /// A range can be taken out of use, so that touching it would fault, and committed again.
  package static let decommit = Self(rawValue: 1 << 11)

  /// A hugepage can be moved to another address, and stays one.
  package static let move = Self(rawValue: 1 << 12)

  /// Nothing.
  package static let none = Self(rawValue: 0)
  /// Everything: what a kernel model says unless it is told otherwise.
  package static let all = Self(rawValue: (1 << 10) - 1 | 3 << 11)

  package func contains(_ other: Self) -> Bool { rawValue & other.rawValue == other.rawValue }

  package mutating func insert(_ other: Self) { rawValue |= other.rawValue }

  package mutating func remove(_ other: Self) { rawValue &= ~other.rawValue }
}

extension Kernel {
  /// A kernel that does not say otherwise can do everything.
  package var capabilities: KernelCapabilities { .all }

  /// A kernel that cannot tell what is shared.
  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    throw .notSupported
  }
}
