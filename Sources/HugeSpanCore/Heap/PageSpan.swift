// The words of the heap's interface: a span, a request for one, what came of it, what can go wrong.

/// A run of consecutive pages, handed out as one allocation (or any range of pages when it is given back).
public struct PageSpan: Equatable, Sendable {
  /// Address of the first page.
  public var address: UInt
  /// Length in pages of `pageBytes`; at least 1.
  public var pageCount: Int

  /// Names the `pageCount` pages that begin at `address`.
  public init(address: UInt, pageCount: Int) {
    self.address = address
    self.pageCount = pageCount
  }

  /// Where the span begins, as a pointer.
  public var pointer: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: address)! }
}

#if !hasFeature(Embedded)
  // Hashing needs a random seed, made once, by a runtime that the Embedded build does without.
  extension PageSpan: Hashable {}
#endif

/// How long the caller expects a span to live; steers it to blocks of its like.
public enum ExpectedLifetime: UInt8, Sendable {
  case unknown, short, long
}

/// How many objects the caller will put into a span. A span of many objects is rarely empty, and lives long.
public enum ObjectsPerSpan: UInt8, Sendable {
  case unknown, few, many
}

/// What to allocate. Only `pageCount` is mandatory.
public struct SpanRequest: Sendable {
  /// Pages wanted; at least 1.
  public var pageCount: Int
  /// Alignment in pages: a power of two; more than a hugepage's is allowed.
  public var alignmentPages: Int = 1
  /// The whole span must read as zero.
  public var mustBeZero: Bool = false
  /// This address or none (in-place growth of a neighbour).
  public var wishedAddress: UInt? = nil
  /// Hint: how long the span is expected to live.
  public var lifetime: ExpectedLifetime = .unknown
  /// Hint: how many objects will share the span. Any combination of hints is allowed.
  public var objectsPerSpan: ObjectsPerSpan = .unknown

  /// A request for `pageCount` pages and nothing special.
  public init(pageCount: Int) { self.pageCount = pageCount }
}

/// A span, and what is known of its pages.
public struct AllocatedSpan: Sendable {
  /// The pages.
  public var span: PageSpan
  /// Every page reads as zero.
  public var isZero: Bool
  /// Pages of it that had been released and come back now (the release was in vain).
  public var refaultedPages: Int
}

/// Why the heap could not do what was asked. Nothing has changed when one of these is thrown.
public enum HeapError: Error, Equatable, Sendable {
  /// The page size or hugepage size is not one that the heap supports (4 KiB and 2 MiB).
  case unsupportedPageSize(pageBytes: Int, hugePageBytes: Int)
  /// The kernel refused address space, memory or a mapping.
  case kernel(KernelError)
  /// The hard limit of the heap would be exceeded.
  case limitExceeded
  /// The wished address is not free, or not of this heap.
  case addressNotFree
  /// A size or alignment that makes no sense.
  case invalidRequest
  /// The strategy needs something that this kernel lacks.
  case strategyNotSupported
  /// A forked child shares the pages (or the kernel does not say), so that they can not be discarded.
  case sharedWithChild
}

/// What became of discarded contents.
public enum DiscardVerdict: UInt8, Sendable {
  /// Every page has what it had.
  case intact
  /// No page has: all of them read as zero.
  case lost
  /// Some have, the others read as zero.
  case partlyLost
}

/// What an undone discard found.
public struct UndoneDiscard: Equatable, Sendable {
  /// What became of the contents.
  public var verdict: DiscardVerdict
  /// Pages that were lost, and read as zero now.
  public var lostPages: Int

  package init(verdict: DiscardVerdict, lostPages: Int) {
    self.verdict = verdict
    self.lostPages = lostPages
  }
}
