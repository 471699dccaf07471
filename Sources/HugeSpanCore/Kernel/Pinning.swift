// Memory that the kernel may take and that is still wanted: marking it, pinning it, and seeing whether it is there.
//
// MADV_FREE leaves a page in place and clean. Under pressure the kernel drops it without a word, and the next look finds
// zeros; a write before that makes it dirty, and a dirty page is kept. So three things are needed:
//
//  - a word of the page that is not zero, so that a page that is still there can be told from one that was dropped;
//  - a write that changes nothing, and tells in the same step what was there. A read and then a write will not do: the page
//    may be dropped between them, and the write would bring it back as zeros. A read alone pins nothing at all;
//  - the knowledge how far one pin reaches. A hugepage is clean or dirty as a whole, but whether memory was one hugepage all the
//    time can not be seen: a split one, of which pages were taken and which khugepaged put together again with zeros,
//    looks like one that was never touched. What needs to be right for each page is marked and pinned page by page (17 ns
//    each); one word is enough only where nobody cares about the rest, as with a wholly free block that is taken back.
//
// The write that changes nothing is an addition of zero in assembly: compilers know that an atomic `or` of zero leaves memory
// as it is, and make a fence and a plain load of it.

import CHugeSpanShims

/// The words of pages that may be dropped. Memory is real unless a kernel says otherwise, so that this is for all of them.
extension Kernel {
  /// What a wholly free pageblock at `address` has as its first word while it is lazily free as one hugepage. Never zero, which is what a
  /// dropped one reads as.
  package static func lazyMark(of address: UInt) -> UInt64 { UInt64(address) | 1 }

  /// Reads the word at `address`, which is a multiple of 8. Pins nothing.
  @inline(__always)
  package func word(at address: UInt) -> UInt64 { hs_shim_memory_load(address) }

  /// Writes the word at `address`.
  @inline(__always)
  package func setWord(_ value: UInt64, at address: UInt) { hs_shim_memory_store(address, value) }

  /// Reads the word at `address` and makes its page (or hugepage) dirty in one step: what was there stays from now on,
  /// what had been dropped is there again as zeros.
  @inline(__always)
  package func pin(at address: UInt) -> UInt64 { hs_shim_memory_pin(address) }
}
