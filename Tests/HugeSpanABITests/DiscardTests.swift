// Discardable spans through the C interface.

import CHugeSpan
import Foundation
import HugeSpanABI
import Testing

@Suite struct DiscardableSpansOfTheCLibrary {
  private func withHeap(_ body: (OpaquePointer) throws -> Void) throws {
    var heap: OpaquePointer?
    try #require(hs_heap_create(nil, &heap) == HS_OK)
    defer { hs_heap_destroy(heap!) }
    try body(heap!)
  }

  private func statistics(_ heap: OpaquePointer) -> hs_statistics {
    var now = hs_statistics()
    now.size = MemoryLayout<hs_statistics>.size
    #expect(hs_heap_statistics(heap, &now) == HS_OK)
    return now
  }

  @Test func comeBackWithAVerdictAndABitForEachLostPage() throws {
    try withHeap { heap in
      var span = hs_span()
      try #require(hs_allocate(heap, 100, &span) == HS_OK)
      let address = span.address!
      memset(address, 7, 100 * 4096)
      memset(address + 3 * 4096, 0, 4096)
      try #require(hs_discard(heap, address, 100) == HS_OK)
      #expect(statistics(heap).discarded_pages == 100 && statistics(heap).used_pages == 100)
      // The kernel takes two pages, of which one had nothing but zeros.
      try #require(madvise(address + 3 * 4096, 4096, 4) == 0)
      try #require(madvise(address + 70 * 4096, 4096, 4) == 0)
      var lost: [UInt64] = [~0, ~0]
      var verdict = HS_INTACT
      #expect(hs_undo_discard(heap, address, 100, &lost, &verdict) == HS_OK)
      #expect(verdict == HS_PARTLY_LOST && lost == [1 << 3, 1 << 6])
      for page in 0..<100 {
        let expected: UInt8 = page == 3 || page == 70 ? 0 : 7
        #expect((address + page * 4096).load(as: UInt8.self) == expected)
      }
      // Without a bitmap; and all of it gone.
      #expect(hs_discard(heap, address, 100) == HS_OK)
      #expect(hs_undo_discard(heap, address, 100, nil, &verdict) == HS_OK && verdict == HS_INTACT)
      #expect(hs_discard(heap, address, 100) == HS_OK)
      try #require(madvise(address, 100 * 4096, 4) == 0)
      // The two pages that nobody has written since they were lost had no contents to lose.
      #expect(hs_undo_discard(heap, address, 100, nil, &verdict) == HS_OK && verdict == HS_PARTLY_LOST)
      let now = statistics(heap)
      #expect(now.discards == 3 && now.undone_intact == 1 && now.undone_partly == 2 && now.discarded_pages_lost == 100)
      #expect(now.discarded_pages == 0)
      hs_free(heap, address, 100)
    }
  }

  @Test func areRefusedWhereThereIsNothingToDiscard() throws {
    try withHeap { heap in
      var span = hs_span()
      try #require(hs_allocate(heap, 10, &span) == HS_OK)
      var verdict = HS_LOST
      #expect(hs_undo_discard(heap, span.address!, 10, nil, &verdict) == HS_INVALID && verdict == HS_LOST)
      #expect(hs_discard(heap, span.address!, 11) == HS_INVALID)
      #expect(hs_discard(heap, span.address!, 0) == HS_INVALID)
      #expect(hs_discard(heap, span.address! + 1, 1) == HS_INVALID)
      #expect(hs_discard(heap, span.address!, 10) == HS_OK)
      #expect(hs_discard(heap, span.address!, 1) == HS_INVALID)
      #expect(hs_grow(heap, span.address!, 10, 1) == HS_NOT_FREE)
      hs_free(heap, span.address!, 10)
      #expect(hs_undo_discard(heap, span.address!, 10, nil, &verdict) == HS_INVALID)
    }
  }
}
