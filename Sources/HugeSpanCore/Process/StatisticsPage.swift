// The statistics page: what a heap publishes of itself, for others to read while it runs.
//
// A file without a name, in memory, that this process maps and sealed against every other writer. Who may look at the process
// (the same user, root) opens it by way of /proc/PID/fd and reads. Not a file in /dev/shm: such a name has to be guarded against
// others, outlives a crash, and means something else in another mount or process name space; of this file nothing
// is left when the process is gone, and the process is named by whoever asks.
//
// It is written by whoever ticks, at most ten times a second, never while an allocation waits for it. Room is brought into
// memory before it is written, so that a full memory group is an error here and not a signal.

import CHugeSpanShims
import Synchronization

/// Pages that were opened in this process.
private let pageCount = Atomic<UInt32>(0)

/// What a heap keeps of its page. Zero is no page.
struct StatisticsPage {
  var address: UInt = 0
  var file: Int32 = 0
  var identity: UInt64 = 0
  /// The process that opened it: one that was forked past the handlers has the number, and not the mapping.
  var process: Int32 = 0
  /// Whether the header is in memory, and of each arena how many records are.
  var hasHeader = false
  var rooms = InlineArray<64, Int>(repeating: 0)
  /// When it may be written again, and when the heap ticked last.
  var dueAt: UInt64 = 0
  var tickedAt: UInt64 = 0
  var progress = PublishingProgress()

  /// Blocks written in one go: a fraction of a millisecond.
  static var blocksPerGo: Int { 4096 }
  /// Nanoseconds between writes, at least.
  static var period: UInt64 { 100_000_000 }
  /// Nanoseconds after which a page is written although no tick is due.
  static var longestPeriod: UInt64 { 250_000_000 }
  /// Room is brought into memory in pieces of so many records: a page.
  private static var recordsPerPiece: Int { 4096 / MemoryLayout<PublishedBlock>.stride }

  /// Brings the header into memory; false if there is none to be had.
  mutating func fillHeader() -> Bool {
    if !hasHeader { hasHeader = hs_shim_page_fill(file, address, 0, PublishedHeap.recordsOffset) == 0 }
    return hasHeader
  }

  /// Brings room for the `count` records of an arena that begin at `first` into memory, as far as there is any.
  mutating func fill(arena: Int, first: Int, count: Int) {
    if arena >= rooms.count { return }
    let end = min(first + count, PublishedHeap.capacity)
    if first + rooms[arena] >= end { return }
    // To the end of the page: its other records are this arena's, too, or those of the next one's beginning.
    let start = first + rooms[arena]
    let last = (end + Self.recordsPerPiece - 1) / Self.recordsPerPiece * Self.recordsPerPiece
    let piece = start / Self.recordsPerPiece * Self.recordsPerPiece
    let size = MemoryLayout<PublishedBlock>.stride
    let done = hs_shim_page_fill(
      file, address, PublishedHeap.recordsOffset + piece * size, (min(last, PublishedHeap.capacity) - piece) * size)
    if done == 0 { rooms[arena] = end - first }
  }
}

extension LinuxHeap {
  // Phases of the page, an atomic word: none; open; and in a forked child, none yet but to be opened when it ticks. All else of the
  // page is touched by whoever holds it (`isPublishing`).
  private static var none: UInt32 { 0 }
  private static var open: UInt32 { 1 }
  private static var wanted: UInt32 { 2 }

  /// Opens the page, unless there is one. Nil, or why there is none: the kernel refused a file, a mapping or memory.
  package borrowing func openPage() -> KernelError? {
    holdPage()
    defer { releasePage() }
    return openHeldPage()
  }

  private borrowing func openHeldPage() -> KernelError? {
    if hs_shim_word_load(control.pagePhase) == Self.open { return nil }
    hs_shim_word_store(control.pagePhase, Self.none)
    let page = control.page
    let name: StaticString = "hugespan-heap"
    var file: Int32 = 0
    var identity: UInt64 = 0
    let address = name.withUTF8Buffer { bytes in
      bytes.withMemoryRebound(to: CChar.self) {
        hs_shim_page_open($0.baseAddress, PublishedHeap.byteCount, &file, &identity)
      }
    }
    if address < 0 { return KernelError(code: Int32(-address)) }
    page.pointee = StatisticsPage()
    page.pointee.address = UInt(address)
    page.pointee.file = file
    page.pointee.identity = identity
    page.pointee.process = hs_shim_process_id()
    hs_shim_word_store(control.pagePhase, Self.open)
    if !page.pointee.fillHeader() {
      closeHeldPage()
      return .outOfMemory
    }
    var header = PublishedHeap()
    header.processID = UInt32(bitPattern: page.pointee.process)
    header.heapNumber = pageCount.wrappingAdd(1, ordering: .relaxed).oldValue
    UnsafeMutablePointer<PublishedHeap>(bitPattern: UInt(address))!.initialize(to: header)
    // All of it, however large: who looks first shall not see a part. Nobody has it yet.
    write(now: hs_shim_monotonic_nanoseconds(), untilNextTick: 0, blocks: .max)
    return nil
  }

  /// Closes the page, if there is one.
  package borrowing func closePage() {
    holdPage()
    closeHeldPage()
    releasePage()
  }

  private borrowing func closeHeldPage() {
    let page = control.page
    if hs_shim_word_load(control.pagePhase) == Self.open {
      hs_shim_page_close(page.pointee.file, page.pointee.identity)
      _ = hs_shim_unmap(page.pointee.address, PublishedHeap.byteCount)
    }
    page.pointee = StatisticsPage()
    hs_shim_word_store(control.pagePhase, Self.none)
  }

  /// Whether there is a page, or shall be one.
  package var hasPage: Bool { hs_shim_word_load(control.pagePhase) != Self.none }

  /// The descriptor of the page; nil if there is none. For tests: nobody else may open or close it meanwhile.
  package var pageDescriptor: Int32? {
    hs_shim_word_load(control.pagePhase) == Self.open ? control.page.pointee.file : nil
  }

  /// Writes the page if there is one and it is due. `now` is the monotonic clock, `untilNextTick` when the next tick comes; `isTick` if
  /// one was just made.
  package borrowing func publish(now: UInt64, untilNextTick: UInt64, isTick: Bool) {
    if !hasPage { return }
    // Somebody else is at it: that is as good.
    guard hs_shim_word_exchange(control.isPublishing, 0, 1) else { return }
    defer { releasePage() }
    let page = control.page
    if hs_shim_word_load(control.pagePhase) == Self.wanted {
      // A process that is refused one is not asked again.
      _ = openHeldPage()
      return
    }
    if hs_shim_word_load(control.pagePhase) != Self.open { return }
    if isTick { page.pointee.tickedAt = now }
    if now < page.pointee.dueAt { return }
    if page.pointee.process == hs_shim_process_id() {
      write(now: now, untilNextTick: untilNextTick)
    } else {
      leaveParentsPage()
    }
  }

  /// The same after a tick that the program made itself, whatever its clock is.
  package borrowing func publish(untilNextTick: UInt64) {
    if hasPage { publish(now: hs_shim_monotonic_nanoseconds(), untilNextTick: untilNextTick, isTick: true) }
  }

  /// The same now, due or not, for a test.
  package borrowing func publishAtOnce() {
    holdPage()
    control.page.pointee.dueAt = 0
    releasePage()
    publish(untilNextTick: 0)
  }

  /// Until it is released nobody else opens, closes or writes the page: before a fork, or the child would inherit a half of it.
  borrowing func holdPage() {
    while !hs_shim_word_exchange(control.isPublishing, 0, 1) { hs_shim_sleep_nanoseconds(20_000) }
  }

  borrowing func releasePage() { hs_shim_word_store(control.isPublishing, 0) }

  private borrowing func write(now: UInt64, untilNextTick: UInt64, blocks: Int = StatisticsPage.blocksPerGo) {
    let page = control.page
    page.pointee.dueAt = now &+ StatisticsPage.period
    var arena = 0
    while let stretch = core.publishedStretch(ofArena: arena) {
      page.pointee.fill(arena: arena, first: stretch.first, count: stretch.count)
      arena += 1
    }
    let memory = UnsafeMutableRawPointer(bitPattern: page.pointee.address)!
    let header = memory.assumingMemoryBound(to: PublishedHeap.self)
    _ = hs_shim_word_increment(&header.pointee.sequence)
    hs_shim_fence()
    withUnsafePointer(to: &page.pointee.rooms) { rooms in
      core.publish(
        header: header, records: (memory + PublishedHeap.recordsOffset).assumingMemoryBound(to: PublishedBlock.self),
        rooms: UnsafeRawPointer(rooms).assumingMemoryBound(to: Int.self), limit: blocks,
        &page.pointee.progress, now: now, sinceTick: page.pointee.tickedAt == 0 ? 0 : now &- page.pointee.tickedAt,
        untilNextTick: untilNextTick)
    }
    if hs_shim_word_load(control.phase) == HeapControl.running { header.pointee.flags |= PublishedHeap.hasScavenger }
    hs_shim_fence()
    _ = hs_shim_word_increment(&header.pointee.sequence)
  }

  /// After a fork, in the child, whose parent held the page. The child gets one of its own when it ticks for the first time; most
  /// children execute another program before.
  borrowing func resumePageInChild() {
    if hs_shim_word_load(control.pagePhase) == Self.open { leaveParentsPage() }
    releasePage()
  }

  /// The page is the parent's, and not mapped here.
  private borrowing func leaveParentsPage() {
    hs_shim_page_close(control.page.pointee.file, control.page.pointee.identity)
    control.page.pointee = StatisticsPage()
    hs_shim_word_store(control.pagePhase, Self.wanted)
  }
}
