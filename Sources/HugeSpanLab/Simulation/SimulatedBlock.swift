// What the simulated kernel has under one pageblock.
//
// A block that is absent or one hugepage takes one cache line. A block with base pages has five bitmaps besides, in a side
// table: few blocks of a large heap are so, and a line for each of the others is what lets terabytes be simulated in a
// gibibyte. Memory comes in folios: a hugepage is one folio of 512 pages and stays one until it is split, however few of its pages
// are mapped; what is not mapped of a whole folio is charged all the same (phantom). A page table outlives its pages, and
// a block that has one gets no hugepage by a fault.
//
// Contents are not kept, but for the first word of a block, by which the heap tells whether a lazily freed one was dropped; and
// which pages somebody wrote, since a split gives pages of zeros up (WrittenPages.swift).
//
// The rules were measured on Linux 6.18 and are those of the model that the heap's tests check against the real kernel, step by
// step; a test holds this one against that model.

import CHugeSpanShims
import HugeSpanCore

/// State of one pageblock: 64 bytes.
struct SimulatedBlock: BitwiseCopyable {
  /// Of a hugepage. Before the others, which fit behind its 38 bytes without a gap.
  var written = WrittenPages()
  /// One bit each; not an `OptionSet`, whose literals are slower in debug builds.
  var flags: UInt16 = 0
  /// Pages that are mapped, and those of them that belong to the block's whole folio.
  var present: UInt16 = 0
  var folio: UInt16 = 0
  /// Mapped pages that were freed lazily.
  var lazy: UInt16 = 0
  var swapped: UInt16 = 0
  /// Where its bitmaps are, plus one; 0 while it needs none.
  var side: UInt32 = 0
  /// When its memory went, in milliseconds plus one; 0 if it never had any.
  var goneAt: UInt32 = 0
  /// The first word of its memory.
  var word: UInt64 = 0

  static let pageCount = 512

  struct Flag {
    /// Can be touched.
    static let committed: UInt16 = 1
    /// Was advised to be huge.
    static let advised: UInt16 = 2
    /// One entry maps its hugepage.
    static let mappedHuge: UInt16 = 4
    static let pageTable: UInt16 = 8
    /// Next to be swapped out.
    static let cold: UInt16 = 16
    /// Touched since reclaim last passed by.
    static let referenced: UInt16 = 32
    /// A child maps its hugepage too.
    static let shared: UInt16 = 64
  }

  @inline(__always)
  func has(_ flag: UInt16) -> Bool { flags & flag != 0 }

  /// Pages that are charged though nothing maps them.
  @inline(__always)
  var phantom: Int { folio == 0 ? 0 : Self.pageCount &- Int(folio) }
}

/// The bitmaps of a block with base pages: 320 bytes. What is known of 64 pages lies together, so that a touch of one page misses
/// one cache line or two, not five.
struct SimulatedPages {
  static let wordCount = 40
  private let words: UnsafeMutablePointer<UInt64>

  init(_ words: UnsafeMutablePointer<UInt64>) { self.words = words }

  /// One of the bitmaps: eight words, five apart.
  struct Bits {
    fileprivate let words: UnsafeMutablePointer<UInt64>

    @inline(__always)
    subscript(word: Int) -> UInt64 {
      get { words[word &* 5] }
      nonmutating set { words[word &* 5] = newValue }
    }

    /// Set bits.
    var count: Int {
      var sum = 0
      for word in 0..<8 { sum &+= self[word].nonzeroBitCount }
      return sum
    }

    func fill(_ value: Bool) { for word in 0..<8 { self[word] = value ? ~0 : 0 } }
  }

  var present: Bits { Bits(words: words) }
  /// Mapped pages of the block's whole folio.
  var folio: Bits { Bits(words: words + 1) }
  /// Of a mapped page, that it was freed lazily; of another, that it is in swap.
  var marks: Bits { Bits(words: words + 2) }
  /// A child maps the page too.
  var shared: Bits { Bits(words: words + 3) }
  var written: Bits { Bits(words: words + 4) }

  @inline(__always) func lazy(_ word: Int) -> UInt64 { marks[word] & present[word] }
  @inline(__always) func swapped(_ word: Int) -> UInt64 { marks[word] & ~present[word] }

  /// Nothing is known of any page.
  func clear() { words.update(repeating: 0, count: Self.wordCount) }

  /// Passes each word of `range` with the bits of it that are meant.
  @inline(__always)
  static func forEach(_ range: Range<Int>, _ body: (Int, UInt64) -> Void) {
    var first = range.lowerBound
    while first < range.upperBound {
      let word = first &>> 6
      let end = min((word &+ 1) &<< 6, range.upperBound)
      let count = end &- first
      let mask = (count == 64 ? ~0 : (1 &<< UInt64(count)) &- 1) &<< UInt64(first & 63)
      body(word, mask)
      first = end
    }
  }
}

/// Address space of zeros for a table, on hugepages as far as it is used and they are to be had.
func mapHuge(_ byteCount: Int) -> UnsafeMutableRawPointer {
  let address = hs_shim_map(byteCount)
  precondition(address > 0 || address < -4095, "no address space for a table of the simulated kernel")
  // MADV_HUGEPAGE; a refusal costs only time.
  _ = hs_shim_madvise(UInt(bitPattern: address), byteCount, 14)
  return UnsafeMutableRawPointer(bitPattern: address)!
}

/// The side table: fixed pieces of zeroed memory, handed out by number and taken back.
final class SimulatedPageTables {
  /// 20 MiB: of large heaps each touch would miss the TLB if these were on base pages.
  private static let perChunk = 1 << 16
  private static let chunkBytes = perChunk * SimulatedPages.wordCount * 8
  private var chunks: [UnsafeMutablePointer<UInt64>] = []
  private var free: [UInt32] = []
  private var used: UInt32 = 0

  deinit { for chunk in chunks { _ = hs_shim_unmap(UInt(bitPattern: chunk), Self.chunkBytes) } }

  /// Bytes that the table takes.
  var byteCount: Int { Int(used) * SimulatedPages.wordCount * 8 + free.capacity * 4 }

  subscript(number: UInt32) -> SimulatedPages {
    let index = Int(number &- 1)
    return SimulatedPages(chunks[index / Self.perChunk] + index % Self.perChunk * SimulatedPages.wordCount)
  }

  /// A piece of zeros.
  func take() -> UInt32 {
    if let number = free.popLast() {
      self[number].clear()
      return number
    }
    if Int(used) == chunks.count * Self.perChunk {
      chunks.append(mapHuge(Self.chunkBytes).assumingMemoryBound(to: UInt64.self))
    }
    used += 1
    return used
  }

  func give(_ number: UInt32) { free.append(number) }
}
