// The one geometry that is supported: pages of 4 KiB, pageblocks (hugepages) of 2 MiB. Asked of the kernel when a heap is
// made, and constant from then on, so that every shift and mask is.

let pageShift = 12
let bytesPerBlockShift = 21
let bytesPerBlock = 1 << bytesPerBlockShift
/// Pages in a block, and words in its maps.
package let pagesPerBlock = 512
let wordsPerMap = 8

/// What the kernel has under a block.
package enum Backing: UInt8, Sendable {
  case unknown, huge, split, absent
  /// Was lazily free as one hugepage and is in use again; whether the kernel had dropped it meanwhile is still to be seen.
  case takenBack

  /// What others than the one who takes back need to know of it.
  @inline(__always)
  var settled: Backing { self == .takenBack ? .unknown : self }
}
