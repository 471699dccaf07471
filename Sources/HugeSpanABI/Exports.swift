// The C library: every function of hugespan.h, checked by the compiler against the header.
//
// Compiled twice, as the core is: in Embedded Swift for the shipped library, and as ordinary Swift so that tests can call it
// in process. Nothing is decided here; arguments are checked and translated, and errors become numbers.

import CHugeSpan

#if !hasFeature(Embedded)
  import HugeSpanCore
#endif

// swift-format-ignore-file: AlwaysUseLowerCamelCase

typealias HeapPointer = UnsafeMutablePointer<LinuxHeap>

/// The heap behind a handle.
@inline(__always)
private func heap(_ handle: OpaquePointer) -> HeapPointer { HeapPointer(handle) }

/// A size of the caller's as an `Int`; nil for what no heap could have.
@inline(__always)
private func pages(_ count: Int) -> Int? { count > 0 && count <= 1 << 40 ? count : nil }

/// As hugespan.h says.
@c @implementation
public func hs_version() -> UInt32 { UInt32(HS_VERSION_MAJOR) << 16 | UInt32(HS_VERSION_MINOR) }

/// As hugespan.h says.
@c @implementation
public func hs_version_matches(_ major: UInt32, _ minor: UInt32) -> Bool {
  // Before version 1 a minor version may break; from 1 on, an older program works with a newer library.
  major == UInt32(HS_VERSION_MAJOR)
    && (major == 0 ? minor == UInt32(HS_VERSION_MINOR) : minor <= UInt32(HS_VERSION_MINOR))
}

/// As hugespan.h says.
@c @implementation
public func hs_status_name(_ status: hs_status) -> UnsafePointer<CChar> {
  let name: StaticString
  switch status {
  case HS_OK: name = "HS_OK"
  case HS_INVALID: name = "HS_INVALID"
  case HS_NO_MEMORY: name = "HS_NO_MEMORY"
  case HS_LIMIT: name = "HS_LIMIT"
  case HS_NOT_FREE: name = "HS_NOT_FREE"
  case HS_UNSUPPORTED_PAGES: name = "HS_UNSUPPORTED_PAGES"
  case HS_UNSUPPORTED_STRATEGY: name = "HS_UNSUPPORTED_STRATEGY"
  case HS_KERNEL: name = "HS_KERNEL"
  case HS_SHARED: name = "HS_SHARED"
  default: name = "unknown status"
  }
  return UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
}

/// As hugespan.h says.
@c @implementation
public func hs_last_kernel_error(_ handle: OpaquePointer) -> Int32 { heap(handle).pointee.lastKernelError }

/// The number for an error, which is noted if it is the kernel's.
private func status(_ error: HeapError, _ heap: HeapPointer?) -> hs_status {
  switch error {
  case .invalidRequest: return HS_INVALID
  case .limitExceeded: return HS_LIMIT
  case .addressNotFree: return HS_NOT_FREE
  case .unsupportedPageSize: return HS_UNSUPPORTED_PAGES
  case .strategyNotSupported: return HS_UNSUPPORTED_STRATEGY
  case .sharedWithChild: return HS_SHARED
  case .kernel(let error):
    heap?.pointee.note(error)
    return error.code == KernelError.outOfMemory.code ? HS_NO_MEMORY : HS_KERNEL
  }
}

// MARK: Life

/// As hugespan.h says.
@c @implementation
public func hs_options_init(_ options: UnsafeMutablePointer<hs_options>, _ size: Int) {
  var defaults = hs_options()
  defaults.size = size
  defaults.advise_huge_pages = true
  defaults.move_blocks = true
  defaults.prefer_broken = true
  defaults.prefer_long = true
  defaults.discount_refaults = true
  defaults.first_arena_bytes = 1 << 30
  defaults.policy_kind = HS_POLICY_RENT_OR_BUY
  defaults.strategy_kind = HS_STRATEGY_SPLIT_DONTNEED
  defaults.rate = 100
  defaults.second_stage_nanoseconds = 10_000_000_000
  defaults.memory_price = 400
  defaults.rebuild = true
  defaults.steering = true
  defaults.free_whole_blocks = true
  defaults.costs = hs_costs(CostModel())
  let demand = DemandWindowOptions()
  defaults.release_rate = demand.bytesPerSecond
  defaults.short_interval_nanoseconds = demand.shortNanoseconds
  defaults.long_interval_nanoseconds = demand.longNanoseconds
  defaults.decay_nanoseconds = DecayOptions().decayNanoseconds
  defaults.cpu_budget_percent = PacedOptions().budgetPercent
  defaults.goal_period_nanoseconds = PacedOptions().periodNanoseconds
  withUnsafeBytes(of: &defaults) { bytes in
    // A caller with a shorter structure gets what it knows of.
    UnsafeMutableRawPointer(options).copyMemory(from: bytes.baseAddress!, byteCount: min(size, bytes.count))
  }
}

/// As hugespan.h says.
@c @implementation
public func hs_heap_create(
  _ options: UnsafePointer<hs_options>?, _ handle: UnsafeMutablePointer<OpaquePointer?>
) -> hs_status {
  var given = hs_options()
  hs_options_init(&given, MemoryLayout<hs_options>.size)
  if let options {
    let size = options.pointee.size
    guard size >= 2 * MemoryLayout<Int>.size, size <= 4096 else { return HS_INVALID }
    let known = MemoryLayout<hs_options>.size
    // What a newer caller added is understood only if it is not set.
    let bytes = UnsafeRawPointer(options)
    var offset = known
    while offset < size {
      if bytes.load(fromByteOffset: offset, as: UInt8.self) != 0 { return HS_INVALID }
      offset += 1
    }
    withUnsafeMutableBytes(of: &given) { $0.baseAddress!.copyMemory(from: bytes, byteCount: min(size, known)) }
  }
  guard let translated = heapOptions(given) else { return HS_INVALID }
  do throws(HeapError) {
    handle.pointee = OpaquePointer(try LinuxHeap.create(translated))
    return HS_OK
  } catch { return status(error, nil) }
}

/// As hugespan.h says.
@c @implementation
public func hs_heap_destroy(_ handle: OpaquePointer) { LinuxHeap.destroy(heap(handle)) }

// MARK: Spans

/// As hugespan.h says.
@c @implementation
public func hs_allocate(
  _ handle: OpaquePointer, _ count: Int, _ span: UnsafeMutablePointer<hs_span>
) -> hs_status {
  guard let count = pages(count) else { return HS_INVALID }
  do throws(HeapError) {
    let result = try heap(handle).pointee.core.allocate(SpanRequest(pageCount: count))
    span.pointee = hs_span(address: result.span.pointer, pages: count)
    return HS_OK
  } catch { return status(error, heap(handle)) }
}

/// As hugespan.h says.
@c @implementation
public func hs_allocate_request(
  _ handle: OpaquePointer, _ request: UnsafePointer<hs_request>, _ allocation: UnsafeMutablePointer<hs_allocation>
) -> hs_status {
  guard let translated = spanRequest(request.pointee) else { return HS_INVALID }
  do throws(HeapError) {
    let result = try heap(handle).pointee.core.allocate(translated)
    allocation.pointee = hs_allocation(
      span: hs_span(address: result.span.pointer, pages: result.span.pageCount), is_zero: result.isZero,
      refaulted_pages: result.refaultedPages)
    return HS_OK
  } catch { return status(error, heap(handle)) }
}

/// As hugespan.h says.
@c @implementation
public func hs_free(_ handle: OpaquePointer, _ address: UnsafeMutableRawPointer, _ count: Int) {
  heap(handle).pointee.free(PageSpan(address: UInt(bitPattern: address), pageCount: count))
}

/// As hugespan.h says.
@c @implementation
public func hs_grow(
  _ handle: OpaquePointer, _ address: UnsafeMutableRawPointer, _ count: Int, _ more: Int
) -> hs_status {
  guard let count = pages(count), let more = pages(more) else { return HS_INVALID }
  let span = PageSpan(address: UInt(bitPattern: address), pageCount: count)
  return heap(handle).pointee.core.grow(span, by: more) == nil ? HS_NOT_FREE : HS_OK
}

/// As hugespan.h says.
@c @implementation
public func hs_shrink(
  _ handle: OpaquePointer, _ address: UnsafeMutableRawPointer, _ count: Int, _ kept: Int
) -> hs_status {
  guard let count = pages(count), kept >= 1, kept <= count else { return HS_INVALID }
  _ = heap(handle).pointee.core.shrink(PageSpan(address: UInt(bitPattern: address), pageCount: count), toPages: kept)
  return HS_OK
}

/// As hugespan.h says.
@c @implementation
public func hs_span_containing(
  _ handle: OpaquePointer, _ address: UnsafeRawPointer, _ span: UnsafeMutablePointer<hs_span>
) -> Bool {
  guard let found = heap(handle).pointee.core.span(containing: UInt(bitPattern: address)) else { return false }
  span.pointee = hs_span(address: found.pointer, pages: found.pageCount)
  return true
}

/// As hugespan.h says.
@c @implementation
public func hs_user_data(_ handle: OpaquePointer, _ address: UnsafeRawPointer) -> UInt {
  heap(handle).pointee.core.userData(of: UInt(bitPattern: address))
}

/// As hugespan.h says.
@c @implementation
public func hs_set_user_data(_ handle: OpaquePointer, _ address: UnsafeRawPointer, _ value: UInt) {
  heap(handle).pointee.core.setUserData(value, of: UInt(bitPattern: address))
}

// MARK: Discardable spans

/// As hugespan.h says.
@c @implementation
public func hs_discard(_ handle: OpaquePointer, _ address: UnsafeMutableRawPointer, _ count: Int) -> hs_status {
  guard let count = pages(count) else { return HS_INVALID }
  do throws(HeapError) {
    try heap(handle).pointee.core.discard(PageSpan(address: UInt(bitPattern: address), pageCount: count))
    return HS_OK
  } catch { return status(error, heap(handle)) }
}

/// As hugespan.h says.
@c @implementation
public func hs_undo_discard(
  _ handle: OpaquePointer, _ address: UnsafeMutableRawPointer, _ count: Int, _ lost: UnsafeMutablePointer<UInt64>?,
  _ verdict: UnsafeMutablePointer<hs_verdict>
) -> hs_status {
  guard let count = pages(count) else { return HS_INVALID }
  do throws(HeapError) {
    let undone = try heap(handle).pointee.core.undoDiscard(
      PageSpan(address: UInt(bitPattern: address), pageCount: count), lostPages: lost)
    verdict.pointee = hs_verdict(UInt32(undone.verdict.rawValue))
    return HS_OK
  } catch { return status(error, heap(handle)) }
}

// MARK: Scavenging

/// As hugespan.h says.
@c @implementation
public func hs_tick(_ handle: OpaquePointer, _ now: UInt64, _ processCPU: UInt64) -> UInt64 {
  let report = heap(handle).pointee.core.tick(at: now, processCPU: processCPU)
  let nextLook = heap(handle).pointee.watchPressure()
  let pause = min(report.isUnfinished ? 1_000_000 : report.nextTickNanoseconds, nextLook)
  heap(handle).pointee.publish(untilNextTick: pause)
  return pause
}

/// As hugespan.h says.
@c @implementation
public func hs_relieve(_ handle: OpaquePointer, _ headroom: Int64, _ reserve: UInt64) -> UInt64 {
  UInt64(heap(handle).pointee.core.relieve(headroom: Int(headroom), reserve: Int(min(reserve, 1 << 60))))
}

/// As hugespan.h says.
@c @implementation
public func hs_scavenger_start(_ handle: OpaquePointer) -> Bool { LinuxHeap.startScavenger(heap(handle)) }

/// As hugespan.h says.
@c @implementation
public func hs_scavenger_start_bare(_ handle: OpaquePointer) -> Bool {
  LinuxHeap.startScavenger(heap(handle), isBare: true)
}

/// As hugespan.h says.
@c @implementation
public func hs_scavenger_stop(_ handle: OpaquePointer) { heap(handle).pointee.stopScavenger() }

/// As hugespan.h says.
@c @implementation
public func hs_release_now(_ handle: OpaquePointer, _ bytes: UInt64) -> UInt64 {
  UInt64(heap(handle).pointee.core.releaseNow(byteCount: Int(clamping: bytes)))
}

/// As hugespan.h says.
@c @implementation
public func hs_set_limits(_ handle: OpaquePointer, _ soft: UInt64, _ hard: UInt64) {
  heap(handle).pointee.core.setLimits(
    softBytes: soft == 0 ? nil : Int(clamping: soft), hardBytes: hard == 0 ? nil : Int(clamping: hard))
}
