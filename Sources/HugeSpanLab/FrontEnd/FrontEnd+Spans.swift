// Traces of spans: requests go to the heap as they were made, without size classes in between.
//
// The heap of a replay places spans where it likes, so a request that names a place is made for the place where the span
// is now. Two things can differ from the recording. A span may not be able to grow where it is: then it moves, as its front end would
// have done. And neighbours that were freed together may not be neighbours: then each is freed alone. The pages in use are
// those of the recording either way.

import HugeSpanCore
import TraceFormat

extension FrontEnd {
  /// Does what a step of a trace of spans says.
  package mutating func perform(_ step: TraceStep) throws(HeapError) {
    let slot = Int(truncatingIfNeeded: step.slot)
    switch StepKind(rawValue: step.kind) {
    case .allocateSpan:
      flushFree()
      try allocateSpan(slot: slot, bytes: step.bytes, alignmentShift: step.alignmentShift, traits: step.traits)
    case .resizeSpan:
      flushFree()
      try resizeSpan(slot: slot, bytes: step.bytes, traits: step.traits)
    case .split: split(slot: slot, atPage: step.bytes & 0xFFFF_FFFF, other: step.bytes >> 32)
    case .free: freeSpan(slot: slot, isJoined: step.traits != 0)
    case .allocate, .resize, nil: preconditionFailure("no step of a trace of spans")
    }
  }

  /// A span is handed out for `slot`.
  package mutating func allocateSpan(slot: Int, bytes: Int, alignmentShift: UInt8, traits: UInt8) throws(HeapError) {
    let pages = bytes / SizeClasses.pageBytes
    let start = meter.start()
    let allocated = try heap.allocate(try request(pages, alignmentShift, traits))
    meter.heapCall(since: start)
    took(allocated.span.address, pages)
    var entry = ObjectEntry(
      address: allocated.span.address, bytes: bytes, span: 0, detail: UInt32(truncatingIfNeeded: pages),
      isMapped: true, alignmentShift: alignmentShift)
    touchSpan(&entry, fromPage: 0, toPage: pages)
    comes(entry)
    objects[slot] = entry
    counters.largeAllocations += 1
  }

  private func request(_ pages: Int, _ alignmentShift: UInt8, _ traits: UInt8) throws(HeapError) -> SpanRequest {
    if pages > Int(UInt32.max) || alignmentShift > 47 { throw .limitExceeded }
    var request = SpanRequest(pageCount: pages)
    request.alignmentPages = max(1, (1 << Int(alignmentShift)) / SizeClasses.pageBytes)
    guard let traits = SpanTraits(coded: traits, alignmentLogarithm: 0) else { throw .invalidRequest }
    request.mustBeZero = traits.isZeroed
    request.lifetime =
      switch traits.lifetime {
      case .unknown: .unknown
      case .short: .short
      case .long: .long
      }
    request.objectsPerSpan =
      switch traits.objects {
      case .unknown: .unknown
      case .few: .few
      case .many: .many
      }
    return request
  }

  /// The span in `slot` has `bytes` bytes from now on.
  package mutating func resizeSpan(slot: Int, bytes: Int, traits: UInt8) throws(HeapError) {
    let before = objects[slot]
    var entry = before
    let old = Int(entry.detail)
    let new = bytes / SizeClasses.pageBytes
    if new == old { return }
    entry.bytes = bytes
    entry.detail = UInt32(truncatingIfNeeded: new)
    if new < old {
      entry.touchedPages = min(entry.touchedPages, UInt32(truncatingIfNeeded: new))
      changes(before, to: entry)
      freeSpan(entry.address + UInt(bytes), old - new)
      counters.shrunkInPlace += 1
      objects[slot] = entry
      return
    }
    var request = try request(new - old, 0, traits)
    request.wishedAddress = entry.address + UInt(old * SizeClasses.pageBytes)
    let start = meter.start()
    do throws(HeapError) {
      _ = try heap.allocate(request)
      meter.heapCall(since: start)
      took(entry.address + UInt(old * SizeClasses.pageBytes), new - old)
      touchSpan(&entry, fromPage: old, toPage: new)
      changes(before, to: entry)
      counters.grownInPlace += 1
      objects[slot] = entry
    } catch {
      meter.heapCall(since: start)
      if error != .addressNotFree { throw error }
      goes(before)
      try move(slot, to: entry, from: old, mustBeZero: request.mustBeZero)
    }
  }

  /// The span that cannot grow gets another place. What it needs for a moment besides is not counted as used.
  private mutating func move(
    _ slot: Int, to entry: ObjectEntry, from old: Int, mustBeZero: Bool
  ) throws(HeapError) {
    var moved = entry
    let start = meter.start()
    let allocated = try heap.allocate(
      request(Int(entry.detail), entry.alignmentShift, SpanTraits(isZeroed: mustBeZero).coded))
    meter.heapCall(since: start)
    freeSpan(entry.address, old)
    took(allocated.span.address, Int(entry.detail))
    moved.address = allocated.span.address
    moved.touchedPages = 0
    touchSpan(&moved, fromPage: 0, toPage: Int(entry.detail))
    comes(moved)
    objects[slot] = moved
    counters.moved += 1
  }

  /// The pages of the span in `slot` from `page` on are the span in `other` from now on. The heap knows ranges only
  /// and is not told.
  package mutating func split(slot: Int, atPage page: Int, other: Int) {
    let offset = page * SizeClasses.pageBytes
    var head = objects[slot]
    var tail = head
    tail.address += UInt(offset)
    tail.bytes = head.bytes - offset
    tail.detail = UInt32(truncatingIfNeeded: tail.bytes / SizeClasses.pageBytes)
    tail.alignmentShift = 0
    head.bytes = offset
    head.detail = UInt32(truncatingIfNeeded: offset / SizeClasses.pageBytes)
    head.touchedPages = min(head.touchedPages, UInt32(truncatingIfNeeded: page))
    tail.touchedPages -= head.touchedPages
    objects[slot] = head
    objects[other] = tail
    counters.cut += 1
  }

  /// The span in `slot` is freed. With `isJoined`, the next step frees its neighbour by the same request.
  package mutating func freeSpan(slot: Int, isJoined: Bool) {
    let entry = objects[slot]
    let pages = Int(entry.detail)
    goes(entry)
    let end = pendingFree.address + UInt(pendingFree.pageCount * SizeClasses.pageBytes)
    if pendingFree.pageCount > 0 && end == entry.address {
      pendingFree.pageCount += pages
      counters.joined += 1
    } else {
      flushFree()
      pendingFree = PageSpan(address: entry.address, pageCount: pages)
    }
    if !isJoined { flushFree() }
  }

  /// Gives back what is pending. A trace that was cut off may end in the middle of a request.
  package mutating func flushFree() {
    if pendingFree.pageCount == 0 { return }
    freeSpan(pendingFree.address, pendingFree.pageCount)
    pendingFree.pageCount = 0
  }

  /// Small spans hold small objects, and all of them is touched; of others as much as was in the recording.
  private mutating func touchSpan(_ entry: inout ObjectEntry, fromPage: Int, toPage: Int) {
    switch touch {
    case .none: break
    case .recorded where toPage * SizeClasses.pageBytes > SizeClasses.largestBytes:
      entry.noteTouched(from: fromPage, to: touchLarge(entry.address, fromPage: fromPage, toPage: toPage))
    case .all, .recorded:
      touchAll(entry.address, fromPage: fromPage, toPage: toPage)
      entry.noteTouched(from: fromPage, to: toPage)
    }
  }
}
