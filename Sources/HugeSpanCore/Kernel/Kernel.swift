// What the heap asks of a kernel, and nothing else.
//
// The heap is generic over this protocol and specialised for one kernel at compile time: the real one
// (`LinuxKernel`), the models that tests use, a simulated one. All methods may be called from several threads at
// once, and never under the heap's lock except where a method says so. A kernel never decides anything and a heap
// never reads a clock: a call that takes time measures itself and returns the time with its result.

/// A half-open range of bytes of address space, page-aligned unless said otherwise.
public struct AddressRange: Equatable, Sendable {
  /// First byte.
  public var start: UInt
  /// Length in bytes.
  public var byteCount: Int

  /// Creates a range of `byteCount` bytes at `start`.
  public init(start: UInt, byteCount: Int) {
    self.start = start
    self.byteCount = byteCount
  }

  /// One past the last byte.
  public var end: UInt { start &+ UInt(bitPattern: byteCount) }
}

/// Sizes that the kernel told.
package struct PageGeometry: Equatable, Sendable {
  package var pageBytes: Int
  /// Zero where the kernel has no transparent hugepages at all.
  package var hugePageBytes: Int

  package init(pageBytes: Int, hugePageBytes: Int) {
    self.pageBytes = pageBytes
    self.hugePageBytes = hugePageBytes
  }
}

/// An errno value, as the system call gave it.
public struct KernelError: Error, Equatable, Sendable {
  /// The errno value; positive.
  public var code: Int32

  /// Wraps the errno value `code`.
  public init(code: Int32) { self.code = code }

  package static let outOfMemory = KernelError(code: 12)  // ENOMEM
  package static let tryAgain = KernelError(code: 11)  // EAGAIN
  package static let invalid = KernelError(code: 22)  // EINVAL
  package static let notSupported = KernelError(code: 95)  // EOPNOTSUPP
}

/// What the heap wants done to ranges: the madvise values that it uses, and `decommit`, which is no madvise.
package enum Advice: UInt8, Sendable {
  case dontneed, free, cold, pageout, collapse, hugepage, populate
  /// The opposite of `Kernel.commit`: memory, and what was promised of it under strict overcommit, go back; the range stays
  /// reserved, touching it would fault, and what it was advised is forgotten.
  case decommit
}

/// What became of one batch of advice.
package struct AdviseOutcome: Equatable, Sendable {
  /// Ranges, counted from the first, that were advised completely.
  package var completedRanges: Int
  /// Why the next range was not, or nil if all were.
  package var error: KernelError?
  /// System calls made.
  package var calls: Int
  /// Time that the calls took, in nanoseconds, and the longest of them.
  package var nanoseconds: UInt64
  package var longestNanoseconds: UInt64

  package init(
    completedRanges: Int, error: KernelError?, calls: Int, nanoseconds: UInt64, longestNanoseconds: UInt64
  ) {
    self.completedRanges = completedRanges
    self.error = error
    self.calls = calls
    self.nanoseconds = nanoseconds
    self.longestNanoseconds = longestNanoseconds
  }
}

/// A stretch of equal residency.
package struct ResidentRegion: Equatable, Sendable {
  package var range: AddressRange
  /// Known to be mapped by one PMD entry (for each hugepage of the range).
  package var isHuge: Bool
  /// Present in memory (else swapped).
  package var isPresent: Bool
  /// False where the kernel does not say whether present pages are huge or not; `isHuge` is false then.
  package var isBackingKnown: Bool

  package init(range: AddressRange, isHuge: Bool, isPresent: Bool, isBackingKnown: Bool = true) {
    self.range = range
    self.isHuge = isHuge
    self.isPresent = isPresent
    self.isBackingKnown = isBackingKnown
  }
}

/// Pages in memory, and how many of them another process may share.
package struct PageSharing: Equatable, Sendable {
  /// Pages that were found in memory, as far as the count went.
  package var present = 0
  /// Of these, pages that this process does not map alone.
  package var shared = 0

  package init(present: Int = 0, shared: Int = 0) {
    self.present = present
    self.shared = shared
  }
}

/// Address space, memory and what is known of it.
package protocol Kernel: Sendable {
  /// Page and hugepage size; asked once, when a heap is made.
  var geometry: PageGeometry { get }

  /// What this kernel can do; asked once, when a heap is made, so that it refuses a strategy that would do nothing.
  var capabilities: KernelCapabilities { get }

  /// Reserves address space without memory, aligned to `alignment` (a power of two, at least a page).
  func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange

  /// Makes a part of a reservation usable. Under strict overcommit this is where memory is refused. Runs under the
  /// heap's lock, when the heap grows.
  func commit(_ range: AddressRange) throws(KernelError)

  /// Gives a whole reservation back.
  func unreserve(_ range: AddressRange)

  /// Advises `ranges`, in order, and stops at the first that fails.
  func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome

  /// Moves what is in memory of `source`, one block, to the block at `destination`, of which nothing is: page tables change, no
  /// byte is copied. `source` is left as committed and advised as it was, with nothing in memory. Done if one range is
  /// completed; else both are as they were.
  func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome

  /// Fills `regions` with what is resident in `range`, ascending, and returns how many were filled and where the walk
  /// ended (`range.end` when it is complete).
  func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt)

  /// Counts the pages of `range` that are in memory, and those of them that another process maps too (a forked child), and
  /// stops at the latest when `limit` shared ones are found. A kernel that does not know throws: what is not known has to
  /// be taken for shared.
  func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing

  /// Writes zeros.
  func zero(_ range: AddressRange)

  /// One word of memory that the kernel may be taking meanwhile: read, written, or read and pinned in one step. See
  /// Pinning.swift, which also has what every kernel does that has real memory.
  func word(at address: UInt) -> UInt64
  func setWord(_ value: UInt64, at address: UInt)
  func pin(at address: UInt) -> UInt64

  /// Maps real, zeroed memory for the heap's own tables; never from malloc.
  func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer
  func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int)
}
