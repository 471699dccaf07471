// What a trace says: the events of a program's memory, in the order of time.
//
// Objects are numbered from 0 in the order of their birth; a reallocation that moves or resizes is one event that
// keeps the number. So replay needs an array indexed by number, and no map of addresses. A trace is of one of two levels
// (`TraceLevel`): what a program asked of malloc, or what an allocator asked of the page heap under it.

/// How an object was asked for.
public enum AllocationKind: UInt8, Sendable, CaseIterable {
  /// malloc, operator new.
  case plain
  /// calloc: the program relies on zeros.
  case zeroed
  /// posix_memalign, aligned_alloc, memalign; the alignment is recorded.
  case aligned
  /// The program's own anonymous mmap.
  case mapped
}

/// What the program did, or what was measured of it.
public enum TraceEventBody: Equatable, Sendable {
  /// Object `object` is born with `bytes` bytes, aligned to `alignment` (1 when nothing was asked).
  case allocate(object: Int, bytes: Int, alignment: Int, kind: AllocationKind)
  /// Object `object` has `bytes` bytes from now on (realloc, mremap, partial munmap).
  case resize(object: Int, bytes: Int)
  /// Object `object` dies.
  case free(object: Int)
  /// What the kernel said of the program at this time.
  case sample(ProgramSample)

  // The level of spans. Spans are objects; `free` is theirs too.

  /// Span `span` of `pages` pages is handed out.
  case allocateSpan(span: Int, pages: Int, traits: SpanTraits)
  /// Span `span` has `pages` pages from now on, at the same address: grown into what follows it, or shortened.
  /// `isZeroed` asks for zeros in the pages that are added.
  case resizeSpan(span: Int, pages: Int, isZeroed: Bool)
  /// The `pages` pages from page `first` of `span` on are given back. What lies before them is the span from now on (with
  /// none before, it dies); what lies behind them is a new span, `tail`, which is nil when nothing does. `isJoined`: the
  /// next event frees what follows in memory, by the same request.
  case freePages(span: Int, first: Int, pages: Int, tail: Int?, isJoined: Bool)
  /// The heap refused a span.
  case refuseSpan(pages: Int, traits: SpanTraits)
  /// The heap could not make `span` as long as `pages` pages in place.
  case refuseGrowth(span: Int, pages: Int, isZeroed: Bool)
}

/// What was asked of a span besides its length.
public struct SpanTraits: Equatable, Sendable {
  /// How long the caller expected it to live.
  public enum Lifetime: UInt8, Sendable, CaseIterable { case unknown, short, long }
  /// How many objects the caller was going to put into it.
  public enum Objects: UInt8, Sendable, CaseIterable { case unknown, few, many }

  /// Alignment in pages; a power of two.
  public var alignmentPages: Int
  /// All of it had to read as zero.
  public var isZeroed: Bool
  /// Hint: how long it was expected to live.
  public var lifetime: Lifetime
  /// Hint: how many objects were to share it.
  public var objects: Objects

  /// Creates traits; by default those of a span of which nothing special was asked.
  public init(
    alignmentPages: Int = 1, isZeroed: Bool = false, lifetime: Lifetime = .unknown, objects: Objects = .unknown
  ) {
    self.alignmentPages = alignmentPages
    self.isZeroed = isZeroed
    self.lifetime = lifetime
    self.objects = objects
  }
}

/// The program as the kernel saw it, at least every 100 ms.
public struct ProgramSample: Equatable, Sendable {
  /// User and system time of the whole process so far, in nanoseconds.
  public var cpuNanoseconds: UInt64
  /// Anonymous resident bytes.
  public var anonymousBytes: Int
  /// Of these, bytes on transparent hugepages.
  public var hugeBytes: Int
  /// Page faults so far that did without a disk.
  public var minorFaults: UInt64
  /// Page faults so far that waited for one.
  public var majorFaults: UInt64

  /// Creates a sample from its parts.
  public init(
    cpuNanoseconds: UInt64, anonymousBytes: Int, hugeBytes: Int, minorFaults: UInt64, majorFaults: UInt64
  ) {
    self.cpuNanoseconds = cpuNanoseconds
    self.anonymousBytes = anonymousBytes
    self.hugeBytes = hugeBytes
    self.minorFaults = minorFaults
    self.majorFaults = majorFaults
  }
}

/// One event: when, by which thread (0 is the first thread seen), what.
public struct TraceEvent: Equatable, Sendable {
  /// Nanoseconds since the start of the trace; never decreases.
  public var time: UInt64
  /// The thread that did it.
  public var thread: Int
  /// What it did.
  public var body: TraceEventBody

  /// Creates an event from its parts.
  public init(time: UInt64, thread: Int, body: TraceEventBody) {
    self.time = time
    self.thread = thread
    self.body = body
  }
}
