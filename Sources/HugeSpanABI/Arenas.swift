// Arenas for a runtime that takes a pair of functions with a context.
//
// The context is the heap itself, and what belongs to the functions (those that were installed before, the counters) lies
// with it in its mapping: a runtime calls them while it ends, when memory of anybody else's may be gone.
//
// Arenas are few and large, so the counters are atomic words beside the heap and not its business.

import CHugeSpan
import Synchronization

#if !hasFeature(Embedded)
  import HugeSpanCore
#endif

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// The words of a heap's functions, at fixed places in its memory for interfaces.
private struct ArenaWords {
  let previous: UnsafeMutablePointer<hs_arena_functions>
  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  @inline(__always)
  init(_ heap: HeapPointer) {
    let memory = heap.pointee.interfaceMemory
    previous = memory.assumingMemoryBound(to: hs_arena_functions.self)
    words = (memory + MemoryLayout<hs_arena_functions>.size).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  static var byteCount: Int { MemoryLayout<hs_arena_functions>.size + 7 * 8 }

  var isMade: UnsafeMutablePointer<Atomic<UInt64>> { words }
  var allocations: UnsafeMutablePointer<Atomic<UInt64>> { words + 1 }
  var frees: UnsafeMutablePointer<Atomic<UInt64>> { words + 2 }
  var usedBytes: UnsafeMutablePointer<Atomic<UInt64>> { words + 3 }
  var peakUsedBytes: UnsafeMutablePointer<Atomic<UInt64>> { words + 4 }
  var refusedAllocations: UnsafeMutablePointer<Atomic<UInt64>> { words + 5 }
  var foreignFrees: UnsafeMutablePointer<Atomic<UInt64>> { words + 6 }
}

@inline(__always)
private func count(_ word: UnsafeMutablePointer<Atomic<UInt64>>) { word.pointee.add(1, ordering: .relaxed) }

// The geometry that the heap insists on.
private let pageBytes = 4096
private let blockPages = 512

/// The pages that an arena needs; nil for none, and for what no heap could have.
private func arenaPages(_ bytes: Int) -> Int? {
  bytes > 0 && bytes <= 1 << 47 ? (bytes + pageBytes - 1) / pageBytes : nil
}

/// As hugespan.h says.
@c @implementation
public func hs_arena_source(
  _ handle: OpaquePointer, _ previous: UnsafePointer<hs_arena_functions>?,
  _ functions: UnsafeMutablePointer<hs_arena_functions>
) -> hs_status {
  precondition(ArenaWords.byteCount <= HeapControl.interfaceByteCount)
  if let previous, previous.pointee.free == nil || isHeapFunction(previous.pointee.free) { return HS_INVALID }
  let words = ArenaWords(HeapPointer(handle))
  guard words.isMade.pointee.exchange(1, ordering: .acquiringAndReleasing) == 0 else { return HS_INVALID }
  if let previous { words.previous.pointee = previous.pointee }
  functions.pointee = hs_arena_functions(
    context: UnsafeMutableRawPointer(handle), allocate: hs_arena_allocate, free: hs_arena_free)
  return HS_OK
}

private typealias ArenaFree = @convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, Int) -> Void

private func isHeapFunction(_ function: ArenaFree?) -> Bool {
  let ours: ArenaFree = hs_arena_free
  return unsafeBitCast(function, to: UInt.self) == unsafeBitCast(ours, to: UInt.self)
}

/// As hugespan.h says.
@c @implementation
public func hs_arena_allocate(_ context: UnsafeMutableRawPointer?, _ bytes: Int) -> UnsafeMutableRawPointer? {
  let heap = context!.assumingMemoryBound(to: LinuxHeap.self)
  let words = ArenaWords(heap)
  guard let pages = arenaPages(bytes) else { return nil }
  var request = SpanRequest(pageCount: pages)
  // Natural alignment costs nothing where all arenas have one size, and some runtimes find an arena by its address.
  request.alignmentPages = min(pages & -pages, blockPages)
  do throws(HeapError) {
    let address = try heap.pointee.core.allocate(request).span.pointer
    count(words.allocations)
    let used = words.usedBytes.pointee.add(UInt64(pages * pageBytes), ordering: .relaxed).newValue
    words.peakUsedBytes.pointee.max(used, ordering: .relaxed)
    return address
  } catch {
    count(words.refusedAllocations)
    if case .kernel(let error) = error { heap.pointee.note(error) }
    return nil
  }
}

/// As hugespan.h says.
@c @implementation
public func hs_arena_free(
  _ context: UnsafeMutableRawPointer?, _ address: UnsafeMutableRawPointer?, _ bytes: Int
) {
  guard let address, let pages = arenaPages(bytes) else { return }
  let heap = context!.assumingMemoryBound(to: LinuxHeap.self)
  let words = ArenaWords(heap)
  if let free = words.previous.pointee.free, !heap.pointee.core.owns(UInt(bitPattern: address)) {
    count(words.foreignFrees)
    return free(words.previous.pointee.context, address, bytes)
  }
  // Before it is free: others may take it at once, and then the peak would count it twice.
  count(words.frees)
  words.usedBytes.pointee.subtract(UInt64(pages * pageBytes), ordering: .relaxed)
  heap.pointee.free(PageSpan(address: UInt(bitPattern: address), pageCount: pages))
}

/// As hugespan.h says.
@c @implementation
public func hs_arena_counts(
  _ handle: OpaquePointer, _ statistics: UnsafeMutablePointer<hs_arena_statistics>
) -> hs_status {
  let words = ArenaWords(HeapPointer(handle))
  var result = hs_arena_statistics()
  result.allocations = words.allocations.pointee.load(ordering: .relaxed)
  result.frees = words.frees.pointee.load(ordering: .relaxed)
  result.used_bytes = words.usedBytes.pointee.load(ordering: .relaxed)
  result.peak_used_bytes = words.peakUsedBytes.pointee.load(ordering: .relaxed)
  result.refused_allocations = words.refusedAllocations.pointee.load(ordering: .relaxed)
  result.foreign_frees = words.foreignFrees.pointee.load(ordering: .relaxed)
  return fill(statistics, size: statistics.pointee.size, from: result)
}
