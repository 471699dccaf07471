// Arenas: reserved address space, and the table of its blocks.
//
// A heap has up to 64 arenas, each twice as large as the one before (or as large as one big request needs), so a few of
// them reach terabytes and finding the arena of an address is a short scan from the newest, which holds half of all.
// An arena is reserved without memory, advised for hugepages once, and committed from the front in steps.
//
// Its table is one mapping of real, lazily faulted memory: four bitmaps with a bit per block, the block entries, and, if
// the heap keeps user data, a word per page, and twelve bytes per block if the policy keeps accounts.
//
//   free      the block is wholly free (absent or freeResident)
//   resident  the block is wholly free and freeResident
//   shared    a forked child may share pages of the block (Sharing.swift)
//   dense     nearly all of the block was in use when the generation began (Selection+Walks.swift)

let maximumArenas = 64

struct Arena {
  var range: AddressRange
  /// Blocks that are committed, from the front.
  var committedBlocks: Int
  var totalBlocks: Int
  var freeWords: UnsafeMutablePointer<UInt64>
  var residentWords: UnsafeMutablePointer<UInt64>
  var sharedWords: UnsafeMutablePointer<UInt64>
  var denseWords: UnsafeMutablePointer<UInt64>
  var entries: UnsafeMutableRawPointer
  /// One word per page, or nil.
  var userData: UnsafeMutablePointer<UInt64>?
  /// What the priced policy keeps of each block, or nil if the policy is another.
  var accounts: UnsafeMutablePointer<BlockAccount>?
  /// Which pages are discarded, and what their marks are; nil until the first one is (Discarding.swift).
  var discards: UnsafeMutableRawPointer? = nil
  var metadata: UnsafeMutableRawPointer
  var metadataBytes: Int
  /// Wholly free blocks among the committed ones.
  var freeBlocks: Int
  /// No absent block has a lower word in `freeWords`.
  var absentHint: Int

  var wordCount: Int { (totalBlocks &+ 63) &>> 6 }

  @inline(__always)
  func block(_ index: Int) -> Block {
    (entries + index &* bytesPerBlockEntry).assumingMemoryBound(to: BlockHeader.self)
  }

  @inline(__always)
  func address(ofBlock index: Int) -> UInt { range.start &+ (UInt(bitPattern: index) &<< UInt(bytesPerBlockShift)) }

  @inline(__always)
  func contains(_ address: UInt) -> Bool { address &- range.start < UInt(bitPattern: range.byteCount) }

  @inline(__always) func isFree(_ index: Int) -> Bool { freeWords[index &>> 6] & bit(index) != 0 }
  @inline(__always) func isResident(_ index: Int) -> Bool { residentWords[index &>> 6] & bit(index) != 0 }

  func wasDense(_ index: Int) -> Bool { denseWords[index &>> 6] & bit(index) != 0 }

  func noteDensity(_ index: Int, _ isDense: Bool) {
    denseWords[index &>> 6] = denseWords[index &>> 6] & ~bit(index) | (isDense ? bit(index) : 0)
  }

  @inline(__always)
  private func bit(_ index: Int) -> UInt64 { 1 &<< UInt64(truncatingIfNeeded: index & 63) }

  @inline(__always)
  mutating func markFree(_ index: Int, resident: Bool) {
    freeWords[index &>> 6] |= bit(index)
    if resident {
      residentWords[index &>> 6] |= bit(index)
    } else if index &>> 6 < absentHint {
      absentHint = index &>> 6
    }
    freeBlocks &+= 1
  }

  @inline(__always)
  mutating func markTaken(_ index: Int) {
    freeWords[index &>> 6] &= ~bit(index)
    residentWords[index &>> 6] &= ~bit(index)
    freeBlocks &-= 1
  }

  /// The lowest absent free block, or nil.
  mutating func lowestAbsent() -> Int? {
    if freeBlocks == 0 { return nil }
    var word = absentHint
    let end = (committedBlocks &+ 63) &>> 6
    while word < end {
      let bits = freeWords[word] & ~residentWords[word]
      if bits != 0 {
        absentHint = word
        return (word &<< 6) &+ bits.trailingZeroBitCount
      }
      word &+= 1
    }
    absentHint = end
    return nil
  }
}
