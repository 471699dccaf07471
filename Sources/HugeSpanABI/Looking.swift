// Statistics and residency for C: structures that may grow, filled in as far as the caller's reach.

import CHugeSpan

#if !hasFeature(Embedded)
  import HugeSpanCore
#endif

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// Copies as much of `value` as the caller's structure holds; its size field stays the caller's.
func fill<Value>(_ target: UnsafeMutablePointer<Value>, size: Int, from value: Value) -> hs_status {
  guard size >= 2 * MemoryLayout<Int>.size, size <= 4096 else { return HS_INVALID }
  withUnsafeBytes(of: value) { bytes in
    let field = MemoryLayout<Int>.size
    (UnsafeMutableRawPointer(target) + field).copyMemory(
      from: bytes.baseAddress! + field, byteCount: min(size, bytes.count) - field)
  }
  return HS_OK
}

/// As hugespan.h says.
@c @implementation
public func hs_heap_statistics(
  _ handle: OpaquePointer, _ statistics: UnsafeMutablePointer<hs_statistics>
) -> hs_status {
  let now = HeapPointer(handle).pointee.core.statistics()
  var result = hs_statistics()
  result.used_pages = UInt64(now.usedPages)
  result.free_resident_pages = UInt64(now.freeResidentPages)
  result.lazy_pages = UInt64(now.lazyPages)
  result.released_pages = UInt64(now.releasedPages)
  result.phantom_pages = UInt64(now.phantomPages)
  result.donated_pages = UInt64(now.donatedPages)
  result.blocks = UInt64(now.blocks)
  result.full_blocks = UInt64(now.fullBlocks)
  result.partial_intact_blocks = UInt64(now.partialIntactBlocks)
  result.partial_broken_blocks = UInt64(now.partialBrokenBlocks)
  result.free_resident_blocks = UInt64(now.freeResidentBlocks)
  result.absent_blocks = UInt64(now.absentBlocks)
  result.used_on_huge_pages = UInt64(now.usedOnHugePages)
  result.used_on_split_pages = UInt64(now.usedOnSplitPages)
  result.used_on_unknown_pages = UInt64(now.usedOnUnknownPages)
  result.allocations = UInt64(now.allocations)
  result.frees = UInt64(now.frees)
  result.pages_released = UInt64(now.pagesReleased)
  result.pages_refaulted = UInt64(now.pagesRefaulted)
  result.pages_refaulted_whole = UInt64(now.pagesRefaultedWhole)
  result.lazy_pages_reused = UInt64(now.lazyPagesReused)
  result.splits = UInt64(now.splits)
  result.cures = UInt64(now.cures)
  result.rebuilt_blocks = UInt64(now.rebuiltBlocks)
  result.release_calls = UInt64(now.releaseCalls)
  result.release_ranges = UInt64(now.releaseRanges)
  result.release_failures = UInt64(now.releaseFailures)
  result.release_nanoseconds = now.releaseNanoseconds
  result.longest_release_nanoseconds = now.longestReleaseNanoseconds
  result.ticks = UInt64(now.ticks)
  result.effects_checked = UInt64(now.effectsChecked)
  result.effects_missing = UInt64(now.effectsMissing)
  result.reinflated_blocks = UInt64(now.reinflatedBlocks)
  result.lost_blocks = UInt64(now.lostBlocks)
  result.residency_passes = UInt64(now.residencyPasses)
  result.metadata_bytes = UInt64(now.metadataBytes)
  result.collapses = UInt64(now.collapses)
  result.decommitted_blocks = UInt64(now.decommittedBlocks)
  result.drains = UInt64(now.drains)
  result.pages_drained = UInt64(now.pagesDrained)
  result.discarded_pages = UInt64(now.discardedPages)
  result.discards = UInt64(now.discards)
  result.discard_splits = UInt64(now.discardSplits)
  result.undone_intact = UInt64(now.undoneIntact)
  result.undone_lost = UInt64(now.undoneLost)
  result.undone_partly = UInt64(now.undonePartly)
  result.discarded_pages_lost = UInt64(now.discardedPagesLost)
  result.blocks_moved = UInt64(now.blocksMoved)
  result.moves_refused = UInt64(now.movesRefused)
  result.move_nanoseconds = now.moveNanoseconds
  result.displaced_blocks = UInt64(now.displacedBlocks)
  return fill(statistics, size: statistics.pointee.size, from: result)
}

/// As hugespan.h says.
@c @implementation
public func hs_heap_prometheus(
  _ handle: OpaquePointer, _ name: UnsafePointer<CChar>, _ buffer: UnsafeMutablePointer<CChar>?, _ capacity: Int
) -> Int {
  var length = 0
  while name[length] != 0 { length += 1 }
  let bytes = UnsafeRawPointer(name).assumingMemoryBound(to: UInt8.self)
  let room = buffer == nil ? 0 : max(capacity - 1, 0)
  let start = UnsafeMutableRawPointer(buffer)?.assumingMemoryBound(to: UInt8.self)
  let needed = HeapPointer(handle).pointee.core.statistics().writePrometheus(
    heap: UnsafeBufferPointer(start: bytes, count: length),
    into: UnsafeMutableBufferPointer(start: start, count: room))
  if let start, capacity > 0 { start[min(needed, room)] = 0 }
  return needed
}

/// As hugespan.h says.
@c @implementation
public func hs_residency_pass(_ handle: OpaquePointer, _ residency: UnsafeMutablePointer<hs_residency>) -> hs_status {
  let heap = HeapPointer(handle)
  do throws(KernelError) {
    let report = try heap.pointee.core.residencyPass()
    var result = hs_residency()
    result.blocks = UInt64(report.scannedBlocks)
    result.huge_blocks = UInt64(report.hugeBlocks)
    result.split_blocks = UInt64(report.splitBlocks)
    result.absent_blocks = UInt64(report.absentBlocks)
    result.reinflated_blocks = UInt64(report.reinflatedBlocks)
    result.lost_blocks = UInt64(report.lostBlocks)
    result.resident_bytes = UInt64(report.residentBytes)
    result.huge_bytes = UInt64(report.hugeBytes)
    result.used_pages_on_huge = UInt64(report.usedPagesOnHuge)
    result.used_pages = UInt64(report.usedPages)
    return fill(residency, size: residency.pointee.size, from: result)
  } catch {
    heap.pointee.note(error)
    return HS_KERNEL
  }
}

/// As hugespan.h says.
@c @implementation
public func hs_heap_pressure(_ handle: OpaquePointer, _ pressure: UnsafeMutablePointer<hs_pressure>) -> hs_status {
  let record = HeapPointer(handle).pointee.pressureRecord()
  var result = hs_pressure()
  result.headroom_bytes = Int64(record.headroom)
  result.least_headroom_bytes = Int64(record.leastHeadroom)
  result.looks = UInt64(record.looks)
  result.look_nanoseconds = record.lookNanoseconds
  result.longest_reaction_nanoseconds = record.longestReaction
  return fill(pressure, size: pressure.pointee.size, from: result)
}

/// As hugespan.h says.
@c @implementation
public func hs_page_open(_ handle: OpaquePointer) -> hs_status {
  guard let error = HeapPointer(handle).pointee.openPage() else { return HS_OK }
  HeapPointer(handle).pointee.note(error)
  return error.code == KernelError.outOfMemory.code ? HS_NO_MEMORY : HS_KERNEL
}

/// As hugespan.h says.
@c @implementation
public func hs_page_close(_ handle: OpaquePointer) { HeapPointer(handle).pointee.closePage() }
