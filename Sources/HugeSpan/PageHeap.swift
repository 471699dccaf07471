// The public heap: the core on the Linux kernel, with the clock and the thread that the core does without.
//
// Types of the interface (spans, requests, options, statistics, errors) are the core's own; nothing is wrapped twice.

public import HugeSpanCore

/// A run of pages. See `HugeSpanCore.PageSpan`.
public typealias PageSpan = HugeSpanCore.PageSpan
/// What to allocate. See `HugeSpanCore.SpanRequest`.
public typealias SpanRequest = HugeSpanCore.SpanRequest
/// A span and what is known of its pages. See `HugeSpanCore.AllocatedSpan`.
public typealias AllocatedSpan = HugeSpanCore.AllocatedSpan
/// Limits, policy and strategy. See `HugeSpanCore.HeapOptions`.
public typealias HeapOptions = HugeSpanCore.HeapOptions
/// What the heap knows of itself. See `HugeSpanCore.HeapStatistics`.
public typealias HeapStatistics = HugeSpanCore.HeapStatistics
/// Why the heap could not do what was asked. See `HugeSpanCore.HeapError`.
public typealias HeapError = HugeSpanCore.HeapError
/// What became of discarded contents. See `HugeSpanCore.DiscardVerdict`.
public typealias DiscardVerdict = HugeSpanCore.DiscardVerdict
/// What an undone discard found. See `HugeSpanCore.UndoneDiscard`.
public typealias UndoneDiscard = HugeSpanCore.UndoneDiscard
/// An error of the kernel's. See `HugeSpanCore.KernelError`.
public typealias KernelError = HugeSpanCore.KernelError
/// Hint how long a span will live. See `HugeSpanCore.ExpectedLifetime`.
public typealias ExpectedLifetime = HugeSpanCore.ExpectedLifetime
/// Hint how many objects will share a span. See `HugeSpanCore.ObjectsPerSpan`.
public typealias ObjectsPerSpan = HugeSpanCore.ObjectsPerSpan
/// What to release and when. See `HugeSpanCore.PolicyChoice`.
public typealias PolicyChoice = HugeSpanCore.PolicyChoice
/// The seed policy's switches. See `HugeSpanCore.SeedOptions`.
public typealias SeedOptions = HugeSpanCore.SeedOptions
/// TCMalloc's release rate and intervals. See `HugeSpanCore.DemandWindowOptions`.
public typealias DemandWindowOptions = HugeSpanCore.DemandWindowOptions
/// jemalloc's decay time. See `HugeSpanCore.DecayOptions`.
public typealias DecayOptions = HugeSpanCore.DecayOptions
/// The budget of Go's background scavenger. See `HugeSpanCore.PacedOptions`.
public typealias PacedOptions = HugeSpanCore.PacedOptions
/// What the priced policy goes by. See `HugeSpanCore.RentOrBuyOptions`.
public typealias RentOrBuyOptions = HugeSpanCore.RentOrBuyOptions
/// What the kernel's operations cost. See `HugeSpanCore.CostModel`.
public typealias CostModel = HugeSpanCore.CostModel
/// How to release. See `HugeSpanCore.StrategyChoice`.
public typealias StrategyChoice = HugeSpanCore.StrategyChoice
/// Which madvise sequence gives memory back. See `HugeSpanCore.StrategyKind`.
public typealias StrategyKind = HugeSpanCore.StrategyKind
/// What a tick did. See `HugeSpanCore.TickReport`.
public typealias TickReport = HugeSpanCore.TickReport
/// What a residency pass found. See `HugeSpanCore.ResidencyReport`.
public typealias ResidencyReport = HugeSpanCore.ResidencyReport

/// A heap of pages that keeps them on transparent hugepages.
///
/// It owns address space in pageblocks of 2 MiB, hands out spans of pages, takes any range of them back, and gives free
/// memory to the kernel as its policy decides. Use it under an allocator, or for large buffers; for objects of a few
/// bytes it is the wrong layer: the smallest span is a page.
///
/// ```swift
/// let heap = try PageHeap()
/// heap.startScavenger()
/// var span = try heap.allocate(pages: 256)
/// span.pointer.storeBytes(of: 42, as: Int.self)
/// span = heap.grow(span, by: 64) ?? span
/// heap.free(span)
/// print(heap.statistics.freeResidentPages)
/// ```
///
/// Any method may be called from any thread. An operation costs some tens of nanoseconds and no system call, unless the
/// heap has to grow. Everything of a heap goes when its last reference does.
///
/// After a fork parent and child each have the heap as it was; while they share memory, the heap gives none of it to the
/// kernel in a way that would not free it or would cost the other's hugepages.
public final class PageHeap: @unchecked Sendable {
  // The memory is this object's own, and what is in it is safe from many threads.
  private let heap: UnsafeMutablePointer<LinuxHeap>
  /// The embedder's own policy and strategy; the heap refers to it.
  private let custom: CustomHolder?

  /// Makes an empty heap.
  ///
  /// - Throws: `HeapError.unsupportedPageSize` unless pages are 4 KiB and hugepages 2 MiB, `strategyNotSupported` if the
  ///   kernel lacks what the strategy needs (found by trying), `kernel` if it refuses the heap's tables (some hundred KiB).
  public init(_ options: HeapOptions = HeapOptions()) throws(HeapError) {
    custom = nil
    heap = try LinuxHeap.create(options)
  }

  /// Makes an empty heap with a policy or a strategy of one's own; what is nil is as `options` say.
  ///
  /// The policy is asked under the heap's lock, once a tick: it must be quick, make no system call, and not use the heap, nor
  /// an allocator that stands on it. With a strategy of one's own `options.strategy` still says whether only whole blocks go.
  ///
  /// - Throws: as `init(_:)`.
  public init(
    _ options: HeapOptions = HeapOptions(), policy: (any ScavengePolicy)?, strategy: (any ReleaseStrategy)? = nil
  ) throws(HeapError) {
    var options = options
    let holder = CustomHolder(policy: policy, strategy: strategy)
    holder.install(in: &options)
    custom = holder
    heap = try LinuxHeap.create(options)
  }

  deinit {
    LinuxHeap.destroy(heap)
    withExtendedLifetime(custom) {}
  }

  /// Bytes of a page: 4096.
  public static var pageBytes: Int { 4096 }

  /// Allocates `pages` pages: 1 to 2^40. Their contents are unspecified.
  ///
  /// - Complexity: O(free ranges of one block) for less than 2 MiB, else O(blocks of the span).
  /// - Throws: `invalidRequest`, `limitExceeded`, or `kernel` when address space or memory is refused.
  public func allocate(pages: Int) throws(HeapError) -> PageSpan {
    try heap.pointee.core.allocate(SpanRequest(pageCount: pages)).span
  }

  /// Allocates with alignment, zeroed, at a wished address, or with hints; says what is known of the pages.
  public func allocate(_ request: SpanRequest) throws(HeapError) -> AllocatedSpan {
    try heap.pointee.core.allocate(request)
  }

  /// Frees `span`, or any range of pages that are all handed out: a part of a span, or neighbours together.
  ///
  /// Freeing what is not handed out ends the program with a message that names the address.
  public func free(_ span: PageSpan) { heap.pointee.free(span) }

  /// Extends `span` in place by `pages`, or returns nil (and changes nothing) if the pages behind it are not free, or its last
  /// page is discarded.
  public func grow(_ span: PageSpan, by pages: Int) -> PageSpan? { heap.pointee.core.grow(span, by: pages) }

  /// Frees all but the first `pages` pages of `span` (at least 1 stays) and returns what is left.
  @discardableResult
  public func shrink(_ span: PageSpan, toPages pages: Int) -> PageSpan {
    heap.pointee.core.shrink(span, toPages: pages)
  }

  /// The span that contains `address`, or nil.
  public func span(containing address: UnsafeRawPointer) -> PageSpan? {
    heap.pointee.core.span(containing: UInt(bitPattern: address))
  }

  /// The word of user data of the span that begins at `span.address`. Needs `HeapOptions.userData`.
  public func userData(of span: PageSpan) -> UInt { heap.pointee.core.userData(of: span.address) }

  /// Sets the word of user data. Needs `HeapOptions.userData`, else it ends the program.
  public func setUserData(_ value: UInt, of span: PageSpan) { heap.pointee.core.setUserData(value, of: span.address) }

  /// Gives the contents of `span` up to the kernel: they stay as long as memory is not short. Any range of pages that are all
  /// handed out and of which none is discarded. The pages stay the caller's, and may be freed, but nobody may read or write
  /// them until `undoDiscard`. For caches of what can be made again.
  ///
  /// - Complexity: O(pages), with system calls: 15 us for a hugepage, 4 us for 16 pages, 150 us more where a hugepage has to be split.
  /// - Throws: `invalidRequest` if a page is not handed out or discarded already; `sharedWithChild` as long as a forked child
  ///   maps one of them; `kernel` if it refuses. Nothing has changed then.
  public func discard(_ span: PageSpan) throws(HeapError) { try heap.pointee.core.discard(span) }

  /// Takes discarded contents back, and says whether they are all there, all lost, or lost in part. Any range of pages that are
  /// all discarded. What is there stays; what is lost reads as zero, and takes memory when it is written.
  ///
  /// - Parameter lostPages: If given, at least a word for each 64 pages; the bit of each page is set if it was lost.
  /// - Complexity: O(pages): 10 us for a hugepage, 2 us for 16 pages.
  /// - Throws: `invalidRequest` if a page is not discarded, or `lostPages` is too short; nothing has changed then.
  public func undoDiscard(
    _ span: PageSpan, lostPages: UnsafeMutableBufferPointer<UInt64>? = nil
  ) throws(HeapError) -> UndoneDiscard {
    if let lostPages, lostPages.count < (span.pageCount + 63) / 64 { throw .invalidRequest }
    return try heap.pointee.core.undoDiscard(span, lostPages: lostPages?.baseAddress)
  }

  /// Lets the policy decide now. `nanoseconds` is the caller's clock, `processCPU` the CPU time of the process so far.
  /// Either tick, or start the background scavenger.
  @discardableResult
  public func tick(at nanoseconds: UInt64, processCPU: UInt64) -> TickReport {
    var report = heap.pointee.core.tick(at: nanoseconds, processCPU: processCPU)
    report.nextTickNanoseconds = min(report.nextTickNanoseconds, heap.pointee.watchPressure())
    heap.pointee.publish(untilNextTick: report.nextTickNanoseconds)
    return report
  }

  /// With strategy `deferred`: gives free memory back until others can take twice `reserve` bytes, if they can take less than
  /// `reserve` now; answers how many bytes went. For headroom that the heap cannot see: a quota, a balloon, another machine's.
  /// What it can see (memory cgroups, the system's available memory, stalls, `HeapOptions.pressureLimitBytes`) the scavenger's
  /// thread looks at by itself, and so does `tick`.
  @discardableResult
  public func relieve(headroom: Int, reserve: Int) -> Int {
    heap.pointee.core.relieve(headroom: headroom, reserve: reserve)
  }

  /// Releases until `byteCount` bytes are uncharged or nothing free is left; answers how many bytes really are, by what was
  /// resident before and is gone after. Phantom memory goes besides.
  @discardableResult
  public func releaseNow(byteCount: Int) -> Int { heap.pointee.core.releaseNow(byteCount: byteCount) }

  /// New limits in bytes, nil for none. Memory above a lowered limit goes when the heap grows next, or by `releaseNow`.
  public func setLimits(softBytes: Int?, hardBytes: Int?) {
    heap.pointee.core.setLimits(softBytes: softBytes, hardBytes: hardBytes)
  }

  /// Asks the kernel what it has under each block and corrects what the heap believes.
  ///
  /// - Throws: the kernel's error when it does not say.
  @discardableResult
  public func residencyPass() throws(KernelError) -> ResidencyReport { try heap.pointee.core.residencyPass() }

  /// A snapshot. O(blocks).
  public var statistics: HeapStatistics { heap.pointee.core.statistics() }

  /// Opens the statistics page, unless there is one: what the heap is and what it is about to do, which others of the same user
  /// may read while it runs (`hugespan explain`, `hugespan watch`). Written by the scavenger or by `tick`, at most ten times a second.
  /// It costs a file descriptor, 64 MiB of address space, and 64 bytes of memory for each pageblock.
  ///
  /// - Throws: the kernel's error if it refuses one of these.
  public func openStatisticsPage() throws(KernelError) {
    if let error = heap.pointee.openPage() { throw error }
  }

  /// Closes the statistics page, if there is one.
  public func closeStatisticsPage() { heap.pointee.closePage() }

  /// The statistics in Prometheus' text format, for an endpoint that is scraped.
  ///
  /// - Parameter name: The value of the label `heap` of every series, so that several heaps of a process can be told apart.
  /// - Returns: About 5 KB of text: gauges in bytes, counters that end in `_total`.
  /// - Complexity: O(blocks). Any thread.
  public func prometheusText(name: String = "default") -> String {
    let statistics = statistics
    var name = name
    return name.withUTF8 { label in
      let length = statistics.writePrometheus(heap: label, into: UnsafeMutableBufferPointer(start: nil, count: 0))
      return String(unsafeUninitializedCapacity: length) { statistics.writePrometheus(heap: label, into: $0) }
    }
  }

  /// Starts a thread that ticks at the pace that the policy asks for, also while the program is idle, until the heap
  /// goes or `stopScavenger` is called. Starting a second time does nothing. A forked child has no such thread: its frees
  /// tick now and then, until it starts one of its own.
  ///
  /// - Returns: false if no thread could be had.
  @discardableResult
  public func startScavenger() -> Bool { LinuxHeap.startScavenger(heap) }

  /// Stops the background scavenger and waits for the tick that it is in.
  public func stopScavenger() { heap.pointee.stopScavenger() }
}
