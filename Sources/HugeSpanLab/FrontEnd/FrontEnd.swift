// The allocator between a recorded program and the page heap: what tcmalloc's central free lists do, and no more.
//
// Objects up to 256 KiB are rounded up to a size class and carved from a span of the class; the fullest span serves
// first, an empty one goes back to the heap at once. Larger objects, and what the program itself had mapped, are spans
// of their own, resized in place where the heap can. There are no caches per thread or CPU: they would hide from the heap a
// part of the traffic that depends on the threads of the recording machine, and they hold little memory.
//
// The slot table takes the place of the map from addresses to spans that a real allocator needs: the trace names its
// objects by number. So an event costs the heap's work and a few cache lines, and nothing is allocated per event.

import HugeSpanCore

/// A live object. One entry for each slot of the trace.
struct ObjectEntry: BitwiseCopyable {
  var address: UInt
  /// The size that was asked for.
  var bytes: Int
  /// The span that a small object is carved from; 0 for an object with a span of its own.
  var span: SpanIndex
  /// Index within the carved span; for an object with a span of its own its length in pages.
  var detail: UInt32
  /// The program's own mapping.
  var isMapped: Bool
  /// Base-two logarithm of the alignment that was asked for.
  var alignmentShift: UInt8
  /// Of an object with a span of its own, the pages at its front that are known to be touched.
  var touchedPages: UInt32 = 0
}

/// What the front end did; depends on trace, policy and strategy alone.
package struct FrontEndCounters: Equatable, Sendable {
  package var spansCarved = 0
  package var spansReturned = 0
  package var largeAllocations = 0
  package var grownInPlace = 0
  package var shrunkInPlace = 0
  package var moved = 0
  /// Of spans, parts that were freed and ranges of neighbours that were freed as one.
  package var cut = 0
  package var joined = 0
}

/// The front end over a heap on kernel `K`.
package struct FrontEnd<K: ReplayableKernel>: ~Copyable {
  package let heap: PageHeapCore<K>
  package let touch: TouchMode
  let classes = SizeClasses.standard
  let objects: MappedArray<ObjectEntry>
  var spans: SpanTable
  package internal(set) var counters = FrontEndCounters()
  /// Time spent in the heap and in faults, and the pages it handed out.
  package internal(set) var meter: Meter
  /// What is live and touched.
  package internal(set) var demand = Demand()
  /// Where it is.
  package var placement: PlacementLog
  /// Share of a large object's pages that are touched.
  package var touchedFraction = 1.0
  /// What a request for neighbours has freed so far, at the level of spans.
  var pendingFree = PageSpan(address: 0, pageCount: 0)

  /// Puts a front end over `heap`, with tables for `program`, all of them in memory.
  package init(
    heap: consuming PageHeapCore<K>, program: borrowing TraceProgram, touch: TouchMode, logsPlacement: Bool = false,
    isTimed: Bool = true
  ) {
    self.heap = heap
    self.touch = touch
    meter = Meter(isTimed: isTimed)
    placement = PlacementLog(capacity: logsPlacement ? PlacementLog.estimate(program) : 0)
    objects = MappedArray(
      repeating: ObjectEntry(address: 0, bytes: 0, span: 0, detail: 0, isMapped: false, alignmentShift: 0),
      count: program.slotCount)
    spans = SpanTable(wordCount: Self.descriptorWords(for: program, SizeClasses.standard), classes: .standard)
  }

  /// Words of descriptors that are in memory before the measurement begins. No carved span is without an object, so a
  /// class never needs more of them than it has objects at once; and four times the spans that its peak of objects fills
  /// is more fragmentation than any program has shown. The smaller of both, from a dry run over the sizes alone. Should
  /// it not do, the table goes on in memory that is charged when it is used.
  private static func descriptorWords(for program: borrowing TraceProgram, _ classes: SizeClasses) -> Int {
    let count = classes.classes.count
    var live = [Int](repeating: 0, count: count)
    var peak = [Int](repeating: 0, count: count)
    let none = UInt8.max
    var slotClass = [UInt8](repeating: none, count: program.slotCount)
    for index in 0..<program.steps.count where program.header.level == .malloc {
      let step = program.steps[index]
      let slot = Int(step.slot)
      if step.kind != StepKind.allocate.rawValue, slotClass[slot] != none { live[Int(slotClass[slot])] -= 1 }
      slotClass[slot] = none
      if step.kind == StepKind.free.rawValue || step.bytes > SizeClasses.largestBytes { continue }
      let number = classes.index(for: step.bytes)
      slotClass[slot] = UInt8(number)
      live[number] += 1
      peak[number] = max(peak[number], live[number])
    }
    var words = SpanTable.headerWords
    for number in 0..<count {
      let capacity = classes.classes[number].objectsPerSpan
      let filled = (peak[number] + capacity - 1) / capacity
      words += (min(peak[number], filled * 4) + 8) * SpanTable.words(objects: capacity)
    }
    return words
  }

  // MARK: - Events

  /// An object is born in `slot`.
  @inline(__always)
  package mutating func allocate(slot: Int, bytes: Int, alignmentShift: UInt8, isMapped: Bool) throws(HeapError) {
    let entry: ObjectEntry
    if isMapped || bytes > SizeClasses.largestBytes {
      entry = try allocateLarge(bytes, alignmentShift: alignmentShift, isMapped: isMapped)
    } else if alignmentShift <= 3 {
      entry = try allocateSmall(classes.index(for: bytes), bytes, alignmentShift: alignmentShift)
    } else if let index = classes.index(for: bytes, alignment: 1 << Int(alignmentShift)) {
      entry = try allocateSmall(index, bytes, alignmentShift: alignmentShift)
    } else {
      entry = try allocateLarge(bytes, alignmentShift: alignmentShift, isMapped: isMapped)
    }
    objects[slot] = entry
  }

  /// The object in `slot` dies.
  @inline(__always)
  package mutating func free(slot: Int) {
    release(objects[slot])
  }

  @inline(__always)
  mutating func release(_ entry: ObjectEntry) {
    if entry.span == 0 {
      let pages = Int(entry.detail)
      goes(entry)
      freeSpan(entry.address, pages)
    } else {
      let span = entry.span
      if touch != .none { demand.touchedBytes &-= entry.bytes }
      if spans.giveObject(span, Int(entry.detail)) {
        counters.spansReturned += 1
        let touched = spans.touchedPages(span).nonzeroBitCount
        demand.touchedPages &-= touched
        placement.add(.untouch, address: spans.address(span), pages: touched)
        freeSpan(spans.address(span), classes.classes[spans.sizeClass(span)].spanPages)
      }
    }
  }

  // MARK: - Small objects

  @inline(__always)
  private mutating func allocateSmall(
    _ sizeClass: Int, _ bytes: Int, alignmentShift: UInt8
  ) throws(HeapError) -> ObjectEntry {
    var span = spans.fullestSpan(sizeClass: sizeClass)
    if span == 0 { span = try carve(sizeClass) }
    let index = spans.takeObject(span)
    let size = classes.classes[sizeClass].bytes
    let base = spans.address(span)
    let address = base &+ UInt(bitPattern: index &* size)
    if touch != .none {
      touchSmall(span, base: base, address: address, bytes: bytes)
      demand.touchedBytes &+= bytes
    }
    return ObjectEntry(
      address: address, bytes: bytes, span: span, detail: UInt32(truncatingIfNeeded: index), isMapped: false,
      alignmentShift: alignmentShift)
  }

  @inline(never)
  private mutating func carve(_ sizeClass: Int) throws(HeapError) -> SpanIndex {
    let description = classes.classes[sizeClass]
    var request = SpanRequest(pageCount: description.spanPages)
    // The limit is tcmalloc's: a span of more than sixteen objects is unlikely to empty soon.
    request.objectsPerSpan = description.objectsPerSpan > 16 ? .many : .few
    let address = try allocateSpan(request)
    counters.spansCarved += 1
    return spans.insert(address: address, sizeClass: sizeClass)
  }

  // MARK: - Objects with a span of their own

  private mutating func allocateLarge(
    _ bytes: Int, alignmentShift: UInt8, isMapped: Bool
  ) throws(HeapError) -> ObjectEntry {
    let pages = max(1, (bytes + SizeClasses.pageBytes - 1) / SizeClasses.pageBytes)
    var request = SpanRequest(pageCount: pages)
    request.objectsPerSpan = .few
    request.alignmentPages = max(1, (1 << Int(alignmentShift)) / SizeClasses.pageBytes)
    let address = try allocateSpan(request)
    counters.largeAllocations += 1
    var entry = ObjectEntry(
      address: address, bytes: bytes, span: 0, detail: UInt32(truncatingIfNeeded: pages), isMapped: isMapped,
      alignmentShift: alignmentShift)
    if touch != .none { entry.noteTouched(from: 0, to: touchLarge(address, fromPage: 0, toPage: pages)) }
    comes(entry)
    return entry
  }

  /// The object in `slot` has `bytes` bytes from now on.
  @inline(never)
  package mutating func resize(slot: Int, bytes: Int) throws(HeapError) {
    var entry = objects[slot]
    if entry.span != 0 {
      // As tcmalloc's realloc: stay while the object fits and does not waste half of its place.
      let capacity = classes.classes[spans.sizeClass(entry.span)].bytes
      if bytes <= capacity && bytes >= capacity / 2 {
        if touch != .none {
          touchSmall(entry.span, base: spans.address(entry.span), address: entry.address, bytes: bytes)
          demand.touchedBytes &+= bytes - entry.bytes
        }
        entry.bytes = bytes
        objects[slot] = entry
        return
      }
    } else if entry.isMapped || bytes > SizeClasses.largestBytes {
      let old = Int(entry.detail)
      let new = max(1, (bytes + SizeClasses.pageBytes - 1) / SizeClasses.pageBytes)
      let before = entry
      if try resizeInPlace(&entry, from: old, to: new) {
        entry.bytes = bytes
        entry.detail = UInt32(truncatingIfNeeded: new)
        changes(before, to: entry)
        objects[slot] = entry
        return
      }
    }
    counters.moved += 1
    try allocate(slot: slot, bytes: bytes, alignmentShift: entry.alignmentShift, isMapped: entry.isMapped)
    release(entry)
  }

  private mutating func resizeInPlace(_ entry: inout ObjectEntry, from old: Int, to new: Int) throws(HeapError) -> Bool
  {
    if new == old { return true }
    let span = PageSpan(address: entry.address, pageCount: old)
    let start = meter.start()
    if new < old {
      _ = heap.shrink(span, toPages: new)
      meter.heapCall(since: start)
      gave(entry.address + UInt(new * SizeClasses.pageBytes), old - new)
      entry.touchedPages = min(entry.touchedPages, UInt32(truncatingIfNeeded: new))
      counters.shrunkInPlace += 1
      return true
    }
    let grown = heap.grow(span, by: new - old)
    meter.heapCall(since: start)
    if grown == nil { return false }
    took(entry.address + UInt(old * SizeClasses.pageBytes), new - old)
    counters.grownInPlace += 1
    if touch != .none {
      entry.noteTouched(from: old, to: touchLarge(entry.address, fromPage: old, toPage: new))
    }
    return true
  }

  // MARK: - The heap

  @inline(__always)
  private mutating func allocateSpan(_ request: SpanRequest) throws(HeapError) -> UInt {
    let start = meter.start()
    let allocated = try heap.allocate(request)
    meter.heapCall(since: start)
    took(allocated.span.address, request.pageCount)
    return allocated.span.address
  }

  @inline(__always)
  mutating func freeSpan(_ address: UInt, _ pages: Int) {
    let start = meter.start()
    heap.free(PageSpan(address: address, pageCount: pages))
    meter.heapCall(since: start)
    gave(address, pages)
  }

  // MARK: - What is used, and what is needed

  @inline(__always)
  mutating func took(_ address: UInt, _ pages: Int) {
    meter.take(pages: pages)
    placement.add(.take, address: address, pages: pages)
  }

  @inline(__always)
  mutating func gave(_ address: UInt, _ pages: Int) {
    meter.give(pages: pages)
    placement.add(.give, address: address, pages: pages)
  }

  /// An object with a span of its own is there, and touched.
  mutating func comes(_ entry: ObjectEntry) {
    demand.add(entry)
    placement.add(.touch, address: entry.address, pages: Int(entry.touchedPages))
  }

  /// It is not any more.
  mutating func goes(_ entry: ObjectEntry) {
    demand.remove(entry)
    placement.add(.untouch, address: entry.address, pages: Int(entry.touchedPages))
  }

  /// It is longer or shorter, at the same place.
  mutating func changes(_ old: ObjectEntry, to new: ObjectEntry) {
    demand.remove(old)
    demand.add(new)
    let (before, after) = (Int(old.touchedPages), Int(new.touchedPages))
    let address = new.address + UInt(min(before, after) * SizeClasses.pageBytes)
    placement.add(.touch, address: address, pages: after - before)
    placement.add(.untouch, address: address, pages: before - after)
  }
}
