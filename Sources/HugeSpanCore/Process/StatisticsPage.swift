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
  /// Whether the header is in memory, and of each arena how many records are.
  var hasHeader = false
  var rooms = InlineArray<64, Int>(repeating: 0)
  /// There was one when the process was forked, and there shall be one here.
  var isWanted = false
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
  /// Opens the page, unless there is one. Nil, or why there is none: the kernel refused a file, a mapping or memory.
  package borrowing func openPage() -> KernelError? {
    while !hs_shim_word_exchange(control.isPublishing, 0, 1) { hs_shim_sleep_nanoseconds(20_000) }
    defer { hs_shim_word_store(control.isPublishing, 0) }
    let page = control.page
    if page.pointee.address != 0 { return nil }
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
    if !page.pointee.fillHeader() {
      closePage(page)
      return .outOfMemory
    }
    var header = PublishedHeap()
    header.processID = UInt32(hs_shim_process_id())
    header.heapNumber = pageCount.wrappingAdd(1, ordering: .relaxed).oldValue
    UnsafeMutablePointer<PublishedHeap>(bitPattern: UInt(address))!.initialize(to: header)
    // All of it, however large: who looks first shall not see a part. Nobody has it yet.
    write(now: hs_shim_monotonic_nanoseconds(), untilNextTick: 0, blocks: .max)
    return nil
  }

  /// Closes the page, if there is one.
  package borrowing func closePage() {
    while !hs_shim_word_exchange(control.isPublishing, 0, 1) { hs_shim_sleep_nanoseconds(20_000) }
    control.page.pointee.isWanted = false
    if control.page.pointee.address != 0 { closePage(control.page) }
    hs_shim_word_store(control.isPublishing, 0)
  }

  private borrowing func closePage(_ page: UnsafeMutablePointer<StatisticsPage>) {
    hs_shim_page_close(page.pointee.file, page.pointee.identity)
    _ = hs_shim_unmap(page.pointee.address, PublishedHeap.byteCount)
    page.pointee = StatisticsPage()
  }

  /// Whether there is a page.
  package var hasPage: Bool { control.page.pointee.address != 0 || control.page.pointee.isWanted }

  /// The descriptor of the page; nil if there is none.
  package var pageDescriptor: Int32? { control.page.pointee.address != 0 ? control.page.pointee.file : nil }

  /// Writes the page if there is one and it is due. `now` is the monotonic clock, `untilNextTick` when the next tick comes.
  package borrowing func publish(now: UInt64, untilNextTick: UInt64) {
    if now < control.page.pointee.dueAt { return }
    if control.page.pointee.address == 0 {
      if control.page.pointee.isWanted {
        // A process that is refused one is not asked again.
        control.page.pointee.isWanted = false
        _ = openPage()
      }
      return
    }
    // Somebody else is at it: that is as good.
    guard hs_shim_word_exchange(control.isPublishing, 0, 1) else { return }
    if control.page.pointee.address != 0 { write(now: now, untilNextTick: untilNextTick) }
    hs_shim_word_store(control.isPublishing, 0)
  }

  /// The same after a tick that the program made itself, whatever its clock is.
  package borrowing func publish(untilNextTick: UInt64) {
    if !hasPage { return }
    let now = hs_shim_monotonic_nanoseconds()
    control.page.pointee.tickedAt = now
    publish(now: now, untilNextTick: untilNextTick)
  }

  /// The same now, due or not, for a test.
  package borrowing func publishAtOnce() {
    control.page.pointee.dueAt = 0
    publish(untilNextTick: 0)
  }

  /// While a process forks nobody opens, closes or writes a page: its child would inherit a half of it.
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

  /// After a fork, in the child: the page is the parent's, and was not mapped here. The child gets one of its own when it ticks
  /// for the first time; most children execute another program before.
  borrowing func resumePageInChild() {
    hs_shim_word_store(control.isPublishing, 0)
    let page = control.page
    if page.pointee.address == 0 { return }
    hs_shim_page_close(page.pointee.file, page.pointee.identity)
    page.pointee = StatisticsPage()
    page.pointee.isWanted = true
  }
}
