// The extent hooks: what jemalloc asks of its page allocator, answered by the heap.
//
// jemalloc cuts and joins what it was given as it likes and gives back any range, so only ranges are known here. Four rules:
//  - What jemalloc had before our hooks (its first tables, whatever was allocated before) is foreign. Calls for it go to
//    the hooks that were there, and it is never joined with ours, since it could then not be given back as one.
//  - In-place growth is a request for one address: exactly there, or not at all. Nothing is ever put elsewhere.
//  - Releasing is the heap's business. Decommitting and purging are refused; jemalloc then gives the memory back whole.
//  - `zero` is raised only where the heap knows that every page reads as zero.
// No hook allocates, and none is called with one of jemalloc's locks held (with `retain:false`).
//
// In debug builds every argument is held against jemalloc's manual.

import CHugeSpan
import CHugeSpanJemalloc

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// The heap of this process. Set before the first hook can be called, and never again.
nonisolated(unsafe) var adapterHeap: UnsafeMutablePointer<LinuxHeap>! = nil

private let pageBytes = 1 << pageShift

@inline(__always)
private func isOurs(_ address: UnsafeRawPointer) -> Bool { adapterHeap.pointee.core.owns(UInt(bitPattern: address)) }

@inline(__always)
private func isRange(_ address: UnsafeRawPointer?, _ size: Int) -> Bool {
  UInt(bitPattern: address) & UInt(pageBytes - 1) == 0 && size > 0 && size & (pageBytes - 1) == 0
}

/// A part of an extent, as commit, decommit and the purges get it.
@inline(__always)
private func isPart(_ address: UnsafeRawPointer, _ size: Int, _ offset: Int, _ length: Int) -> Bool {
  isRange(address, size) && offset >= 0 && offset & (pageBytes - 1) == 0 && isRange(address, length)
    && offset + length <= size
}

/// An extent lies wholly in the heap, or wholly outside.
@inline(__always)
private func isOnOneSide(_ address: UnsafeRawPointer, _ size: Int) -> Bool {
  isOurs(address) == isOurs(address + (size - 1))
}

/// The hooks that were there before, for a call that is theirs.
private func previous() -> UnsafeMutablePointer<hs_extent_hooks> {
  hs_count(&hs_counters.foreign_calls, 1)
  return hs_adapter.previous!
}

/// jemalloc's `extent_alloc_t`.
@c @implementation
public func hs_hook_alloc(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ newAddress: UnsafeMutableRawPointer?, _ size: Int,
  _ alignment: Int, _ zero: UnsafeMutablePointer<Bool>, _ commit: UnsafeMutablePointer<Bool>, _ arena: UInt32
) -> UnsafeMutableRawPointer? {
  assert(isRange(newAddress, size) && alignment >= pageBytes && alignment & (alignment - 1) == 0)
  assert(UInt(bitPattern: newAddress) & UInt(alignment - 1) == 0)
  if hs_adapter.is_making_arena { return tables(newAddress, size, alignment, zero, commit, arena) }
  let pages = size >> pageShift
  var request = SpanRequest(pageCount: pages)
  request.alignmentPages = alignment >> pageShift
  request.mustBeZero = zero.pointee
  request.wishedAddress = newAddress.map { UInt(bitPattern: $0) }
  if zero.pointee { hs_count(&hs_counters.zeroed_allocations, 1) }
  do throws(HeapError) {
    let result = try adapterHeap.pointee.core.allocate(request)
    assert(newAddress == nil || result.span.pointer == newAddress)
    assert(result.span.address & UInt(alignment - 1) == 0 && (result.isZero || !zero.pointee))
    zero.pointee = result.isZero
    // Memory of the heap can always be written to.
    commit.pointee = true
    if hs_adapter_is_recording() { record(result.span, request) }
    hs_count_used(&hs_counters, UInt64(pages))
    if newAddress != nil { hs_count(&hs_counters.growths, 1) }
    return result.span.pointer
  } catch {
    if hs_adapter_is_recording() { recordRefusal(of: request) }
    if newAddress == nil {
      hs_count(&hs_counters.refused_allocations, 1)
    } else {
      hs_count(&hs_counters.refused_growths, 1)
    }
    return nil
  }
}

/// Memory for the tables of an arena that is being made: not the program's, and little of it is ever touched.
@inline(never)
private func tables(
  _ newAddress: UnsafeMutableRawPointer?, _ size: Int, _ alignment: Int, _ zero: UnsafeMutablePointer<Bool>,
  _ commit: UnsafeMutablePointer<Bool>, _ arena: UInt32
) -> UnsafeMutableRawPointer? {
  let hooks = previous()
  let memory = hooks.pointee.alloc(hooks, newAddress, size, alignment, zero, commit, arena)
  if let memory { hs_adapter_refuse_hugepages(memory, size) }
  return memory
}

/// jemalloc's `extent_dalloc_t`: any range of what was handed out.
@c @implementation
public func hs_hook_dalloc(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ committed: Bool,
  _ arena: UInt32
) -> Bool {
  assert(isRange(address, size) && isOnOneSide(address, size))
  if isOurs(address) {
    assert(committed)
    free(address, size)
    return false
  }
  let hooks = previous()
  return hooks.pointee.dalloc?(hooks, address, size, committed, arena) ?? true
}

@inline(__always)
private func free(_ address: UnsafeMutableRawPointer, _ size: Int) {
  if hs_adapter_is_recording() { recordFree(address, size) }
  // Before it is free: others may take it at once, and then the peak would count it twice.
  hs_count_unused(&hs_counters, UInt64(size >> pageShift))
  adapterHeap.pointee.free(PageSpan(address: UInt(bitPattern: address), pageCount: size >> pageShift))
}

/// jemalloc's `extent_destroy_t`: as dalloc, when an arena goes; there is no way to refuse.
@c @implementation
public func hs_hook_destroy(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ committed: Bool,
  _ arena: UInt32
) {
  assert(isRange(address, size) && isOnOneSide(address, size))
  if isOurs(address) { return free(address, size) }
  let hooks = previous()
  hooks.pointee.destroy?(hooks, address, size, committed, arena)
}

/// jemalloc's `extent_commit_t`. The heap's memory is never anything but committed.
@c @implementation
public func hs_hook_commit(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ offset: Int,
  _ length: Int, _ arena: UInt32
) -> Bool {
  assert(isPart(address, size, offset, length))
  if isOurs(address) { return false }
  let hooks = previous()
  return hooks.pointee.commit?(hooks, address, size, offset, length, arena) ?? true
}

/// jemalloc's `extent_decommit_t`: refused.
@c @implementation
public func hs_hook_decommit(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ offset: Int,
  _ length: Int, _ arena: UInt32
) -> Bool {
  assert(isPart(address, size, offset, length))
  if isOurs(address) { return true }
  let hooks = previous()
  return hooks.pointee.decommit?(hooks, address, size, offset, length, arena) ?? true
}

/// jemalloc's `extent_purge_t` by MADV_FREE: refused; what is free is the heap's to release, what is used is not.
@c @implementation
public func hs_hook_purge_lazy(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ offset: Int,
  _ length: Int, _ arena: UInt32
) -> Bool {
  assert(isPart(address, size, offset, length))
  if isOurs(address) {
    hs_count(&hs_counters.refused_purges, 1)
    return true
  }
  let hooks = previous()
  return hooks.pointee.purge_lazy?(hooks, address, size, offset, length, arena) ?? true
}

/// jemalloc's `extent_purge_t` that must leave zeros: refused, as the lazy one.
@c @implementation
public func hs_hook_purge_forced(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ offset: Int,
  _ length: Int, _ arena: UInt32
) -> Bool {
  assert(isPart(address, size, offset, length))
  if isOurs(address) {
    hs_count(&hs_counters.refused_purges, 1)
    return true
  }
  let hooks = previous()
  return hooks.pointee.purge_forced?(hooks, address, size, offset, length, arena) ?? true
}

/// jemalloc's `extent_split_t`. Never refused for ours: what cannot be split is never given back.
@c @implementation
public func hs_hook_split(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ address: UnsafeMutableRawPointer, _ size: Int, _ sizeA: Int,
  _ sizeB: Int, _ committed: Bool, _ arena: UInt32
) -> Bool {
  assert(isRange(address, sizeA) && isRange(address, sizeB) && sizeA + sizeB == size && isOnOneSide(address, size))
  if isOurs(address) {
    hs_count(&hs_counters.splits, 1)
    return false
  }
  let hooks = previous()
  return hooks.pointee.split?(hooks, address, size, sizeA, sizeB, committed, arena) ?? true
}

/// jemalloc's `extent_merge_t`: neighbours on the same side.
@c @implementation
public func hs_hook_merge(
  _ hooks: UnsafeMutablePointer<hs_extent_hooks>, _ addressA: UnsafeMutableRawPointer, _ sizeA: Int,
  _ addressB: UnsafeMutableRawPointer, _ sizeB: Int, _ committed: Bool, _ arena: UInt32
) -> Bool {
  assert(isRange(addressA, sizeA) && isRange(addressB, sizeB) && addressA + sizeA == addressB)
  assert(isOnOneSide(addressA, sizeA) && isOnOneSide(addressB, sizeB))
  switch (isOurs(addressA), isOurs(addressB)) {
  case (true, true):
    hs_count(&hs_counters.merges, 1)
    return false
  case (false, false):
    let hooks = previous()
    return hooks.pointee.merge?(hooks, addressA, sizeA, addressB, sizeB, committed, arena) ?? true
  case (true, false), (false, true):
    hs_count(&hs_counters.refused_merges, 1)
    return true
  }
}
