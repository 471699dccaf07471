// What a heap publishes of itself: the layout of a statistics page, shared by who writes it and who reads it.
//
// The page is memory that other processes may map or read, so its layout is a format: fixed-width fields, no pointer, a magic
// word, sizes of its two structures so that later versions may append to them, and a count that is odd while somebody writes
// (a sequence lock: who reads compares it before and after). Described in Docs/Explain.md.

/// A policy's number in a page: HS_POLICY_... of hugespan.h.
package enum PublishedPolicy: UInt8, Sendable {
  case never, immediate, gperftools, seed, custom, rentOrBuy, demandWindow, decay, paced

  /// As users write it.
  package var name: StaticString {
    switch self {
    case .never: "never"
    case .immediate: "immediate"
    case .gperftools: "gperftools"
    case .seed: "seed"
    case .custom: "custom"
    case .rentOrBuy: "rent-or-buy"
    case .demandWindow: "demand-window"
    case .decay: "decay"
    case .paced: "paced"
    }
  }
}

/// The page's first part, and the totals of the heap. Times are of CLOCK_MONOTONIC, in nanoseconds; amounts in pages of 4 KiB.
package struct PublishedHeap: Equatable, Sendable {
  /// "HSHEAP01" in memory order.
  package static let magicWord: UInt64 = 0x3130_5041_4548_5348
  /// Records begin here.
  package static let recordsOffset = 4096
  /// Records that a page has room for: 2 TiB of address space.
  package static let capacity = 1 << 20
  /// Bytes of a whole page, nearly all of them never touched.
  package static let byteCount = recordsOffset + capacity * MemoryLayout<PublishedBlock>.stride

  package var magic = PublishedHeap.magicWord
  package var headerBytes = UInt32(MemoryLayout<PublishedHeap>.size)
  package var blockBytes = UInt32(MemoryLayout<PublishedBlock>.stride)
  package var capacity = UInt32(PublishedHeap.capacity)
  /// Odd while the page is written.
  package var sequence: UInt32 = 0
  /// The process, as it knows itself, and the number of its heap.
  package var processID: UInt32 = 0
  package var heapNumber: UInt32 = 0
  /// HS_POLICY_... and HS_STRATEGY_... of hugespan.h, the strategy 255 if it is the embedder's own.
  package var policy: UInt8 = 0
  package var strategy: UInt8 = 0
  /// 1: only whole blocks are released; 2: the forecast is known; 4: a scavenger's thread runs; 8: wholly free blocks of
  /// strategy `deferred` go to MADV_FREE.
  package var flags: UInt8 = 0
  private var padding: UInt8 = 0
  private var padding2: UInt32 = 0

  /// When this was written, and when the oldest of the records was.
  package var publishedAt: UInt64 = 0
  package var oldestAt: UInt64 = 0
  /// The next tick is due by then.
  package var nextTickAt: UInt64 = 0
  /// CPU-seconds per GiB-hour, of policy `rent-or-buy`; microseconds a second that a used page costs off a hugepage; CPUs busy.
  package var memoryPrice: Double = 0
  package var taxPerPage: Double = 0
  package var busyCPUs: Double = 0
  /// Pageblocks that are committed, and the end of the records that are written.
  package var blocks: UInt64 = 0
  package var recordsEnd: UInt64 = 0

  // State.
  package var usedPages: UInt64 = 0
  package var idlePages: UInt64 = 0
  package var lazyPages: UInt64 = 0
  package var releasedPages: UInt64 = 0
  package var phantomPages: UInt64 = 0
  package var discardedPages: UInt64 = 0
  package var metadataBytes: UInt64 = 0
  // Cumulative.
  package var allocations: UInt64 = 0
  package var frees: UInt64 = 0
  package var pagesReleased: UInt64 = 0
  package var pagesReleasedInParts: UInt64 = 0
  package var pagesRefaulted: UInt64 = 0
  package var pagesRefaultedWhole: UInt64 = 0
  package var lazyPagesTaken: UInt64 = 0
  package var splits: UInt64 = 0
  package var discardSplits: UInt64 = 0
  package var collapses: UInt64 = 0
  package var cures: UInt64 = 0
  package var drains: UInt64 = 0
  package var pagesDrained: UInt64 = 0
  package var rebuiltBlocks: UInt64 = 0
  package var releaseCalls: UInt64 = 0
  package var releaseNanoseconds: UInt64 = 0
  package var longestReleaseNanoseconds: UInt64 = 0
  package var ticks: UInt64 = 0
  package var residencyPasses: UInt64 = 0
  package var lostBlocks: UInt64 = 0
  package var reinflatedBlocks: UInt64 = 0

  // What the next tick would do if nothing changes (flag 2).
  /// Wholly free blocks that would go, blocks that would be broken, broken ones that would lose their idle pages, and
  /// blocks that would be made huge again. Of other policies than `rent-or-buy` only the pages and cures are known.
  package var nextWholeBlocks: UInt64 = 0
  package var nextBreaks: UInt64 = 0
  package var nextIdleBlocks: UInt64 = 0
  package var nextRebuilds: UInt64 = 0
  package var nextPages: UInt64 = 0
  package var nextCures: UInt64 = 0

  /// An empty heap's.
  package init() {}

  package static var wholeOnly: UInt8 { 1 }
  package static var forecastKnown: UInt8 { 2 }
  package static var hasScavenger: UInt8 { 4 }
  package static var freesWholeBlocks: UInt8 { 8 }
}

/// One pageblock. A record whose address is 0 is not used.
package struct PublishedBlock: Equatable, Sendable {
  package var address: UInt64 = 0
  /// Pages: handed out; free and in memory; given to the kernel; of these, not taken yet; charged without being mapped; handed
  /// out and discarded. And the longest free run, and spans that begin here.
  package var used: UInt16 = 0
  package var idle: UInt16 = 0
  package var released: UInt16 = 0
  package var lazy: UInt16 = 0
  package var phantom: UInt16 = 0
  package var discarded: UInt16 = 0
  package var longestFree: UInt16 = 0
  package var spans: UInt16 = 0
  /// 0 absent, 1 free and in memory, 2 occupied, 3 on its way to the kernel.
  package var kind: UInt8 = 0
  /// 0 unknown, 1 huge, 2 split, 3 absent, 4 taken back and not looked at.
  package var backing: UInt8 = 0
  /// As `BackingCause`.
  package var cause: UInt8 = 0
  /// As `BlockForecast.Step`.
  package var step: UInt8 = 0
  /// 1: broken; 2: the tail of a large span, open to small ones; 4: for short-lived spans; 8: the kernel refused a release;
  /// 16: had been released; 32: a partial release would be phantom; 128: not committed. (`BlockFlags`.)
  package var flags: UInt8 = 0
  /// A forked child may share it.
  package var isShared: UInt8 = 0
  private var padding: UInt16 = 0
  /// Seconds since the last free into the block, in steps of 17 ms.
  package var age: Float = 0
  /// Microseconds that speak for the step, and those at which it is done; and seconds until then if nothing changes, below
  /// zero if it does not come.
  package var accrued: Float = 0
  package var price: Float = 0
  package var wait: Float = -1
  private var reserved: UInt64 = 0
  private var reserved2: UInt64 = 0

  /// No block.
  package init() {}
}
