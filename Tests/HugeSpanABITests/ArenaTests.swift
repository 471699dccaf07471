// Arenas for a runtime: what is the heap's, what is somebody else's, and what is counted.

import CHugeSpan
import HugeSpanABI
import Testing

/// What the functions that were there before were asked to free.
private struct Earlier {
  var frees = 0
  var address: UnsafeMutableRawPointer?
  var bytes = 0
}

private func counts(_ heap: OpaquePointer) -> hs_arena_statistics {
  var result = hs_arena_statistics()
  result.size = MemoryLayout<hs_arena_statistics>.size
  #expect(hs_arena_counts(heap, &result) == HS_OK)
  return result
}

@Suite("Arenas of a runtime") struct ArenaTests {
  private let heap: OpaquePointer

  init() throws {
    var options = hs_options()
    hs_options_init(&options, MemoryLayout<hs_options>.size)
    options.hard_limit_bytes = 16 << 20
    var handle: OpaquePointer?
    try #require(hs_heap_create(&options, &handle) == HS_OK)
    heap = handle!
  }

  @Test("are aligned as their size allows, and counted") func alignment() throws {
    var functions = hs_arena_functions()
    try #require(hs_arena_source(heap, nil, &functions) == HS_OK)
    let allocate = try #require(functions.allocate)
    let free = try #require(functions.free)
    for bytes in [1, 4096, 5000, 16 << 10, 48 << 10, 256 << 10, 1 << 20, 3 << 20, 4 << 20] {
      let arena = try #require(allocate(functions.context, bytes), "\(bytes)")
      let pages = (bytes + 4095) / 4096
      let alignment = min(pages & -pages, 512) * 4096
      #expect(UInt(bitPattern: arena) & UInt(alignment - 1) == 0, "\(bytes)")
      arena.initializeMemory(as: UInt8.self, repeating: 7, count: bytes)
      #expect(counts(heap).used_bytes == UInt64(pages * 4096))
      free(functions.context, arena, bytes)
    }
    let now = counts(heap)
    #expect(now.allocations == 9 && now.frees == 9 && now.used_bytes == 0 && now.peak_used_bytes == 4 << 20)
    var statistics = hs_statistics()
    statistics.size = MemoryLayout<hs_statistics>.size
    #expect(hs_heap_statistics(heap, &statistics) == HS_OK && statistics.used_pages == 0 && statistics.frees == 9)
    hs_heap_destroy(heap)
  }

  @Test("that others allocated go back to them") func foreign() throws {
    var earlier = Earlier()
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { buffer.deallocate() }
    try withUnsafeMutablePointer(to: &earlier) { pointer in
      var previous = hs_arena_functions(
        context: UnsafeMutableRawPointer(pointer), allocate: { _, _ in nil },
        free: { context, address, bytes in
          let earlier = context!.assumingMemoryBound(to: Earlier.self)
          earlier.pointee.frees += 1
          earlier.pointee.address = address
          earlier.pointee.bytes = bytes
        })
      var functions = hs_arena_functions()
      try #require(hs_arena_source(heap, &previous, &functions) == HS_OK)
      // A copy was made.
      previous.free = nil
      let ours = try #require(hs_arena_allocate(functions.context, 1 << 20))
      hs_arena_free(functions.context, buffer, 1 << 20)
      #expect(pointer.pointee.frees == 1 && pointer.pointee.address == buffer && pointer.pointee.bytes == 1 << 20)
      hs_arena_free(functions.context, ours, 1 << 20)
      hs_arena_free(functions.context, nil, 1 << 20)
      #expect(pointer.pointee.frees == 1)
      let now = counts(heap)
      #expect(now.foreign_frees == 1 && now.frees == 1 && now.allocations == 1 && now.used_bytes == 0)
    }
    hs_heap_destroy(heap)
  }

  @Test("are refused beyond the limit, and for no bytes") func refusals() throws {
    var functions = hs_arena_functions()
    try #require(hs_arena_source(heap, nil, &functions) == HS_OK)
    #expect(hs_arena_allocate(functions.context, 32 << 20) == nil)
    #expect(hs_arena_allocate(functions.context, 0) == nil)
    #expect(hs_arena_allocate(functions.context, Int(bitPattern: UInt.max)) == nil)
    let now = counts(heap)
    #expect(now.refused_allocations == 1 && now.allocations == 0 && now.peak_used_bytes == 0)
    hs_heap_destroy(heap)
  }

  @Test("come from one source of a heap, which is nobody's earlier one") func once() throws {
    var functions = hs_arena_functions()
    try #require(hs_arena_source(heap, nil, &functions) == HS_OK)
    var again = hs_arena_functions()
    #expect(hs_arena_source(heap, nil, &again) == HS_INVALID && again.context == nil)
    var other: OpaquePointer?
    try #require(hs_heap_create(nil, &other) == HS_OK)
    #expect(hs_arena_source(other!, &functions, &again) == HS_INVALID)
    var nothing = hs_arena_functions()
    #expect(hs_arena_source(other!, &nothing, &again) == HS_INVALID)
    #expect(hs_arena_source(other!, nil, &again) == HS_OK && again.context == UnsafeMutableRawPointer(other!))
    var short = hs_arena_statistics()
    #expect(hs_arena_counts(heap, &short) == HS_INVALID)
    hs_heap_destroy(other!)
    hs_heap_destroy(heap)
  }
}
