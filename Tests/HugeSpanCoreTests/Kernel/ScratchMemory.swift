// Memory of the real kernel for a test, and what the kernel says of it.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab

/// Committed memory that is given back with the value.
final class ScratchMemory {
  let kernel: LinuxKernel
  let range: AddressRange

  init(_ kernel: LinuxKernel, byteCount: Int, alignment: Int = 1 << 21, huge: Bool = false) throws {
    self.kernel = kernel
    range = try kernel.reserve(byteCount: byteCount, alignment: alignment)
    try kernel.commit(range)
    if huge { _ = kernel.advise(.hugepage, [range]) }
  }

  deinit { kernel.unreserve(range) }

  /// The `count` pages from page `first` on.
  func pages(_ first: Int, _ count: Int) -> AddressRange {
    AddressRange(start: range.start + UInt(first * 4096), byteCount: count * 4096)
  }

  /// Writes a word to each page: a different one for each.
  func touch(_ range: AddressRange) {
    for address in stride(from: range.start, to: range.end, by: 4096) {
      UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = ~address
    }
  }

  /// Whether each page still holds what `touch` wrote.
  func isUnchanged(_ range: AddressRange) -> Bool {
    stride(from: range.start, to: range.end, by: 4096).allSatisfy {
      UnsafePointer<UInt>(bitPattern: $0)!.pointee == ~$0
    }
  }
}

extension Kernel {
  /// Advises an array of ranges.
  func advise(_ advice: Advice, _ ranges: [AddressRange]) -> AdviseOutcome {
    ranges.withUnsafeBufferPointer { advise(advice, $0) }
  }

  /// All regions of `range`, asked for with a buffer of `capacity`, joined where they touch.
  func regions(of range: AddressRange, capacity: Int = 64) throws -> [ResidentRegion] {
    let buffer = UnsafeMutableBufferPointer<ResidentRegion>.allocate(capacity: capacity)
    defer { buffer.deallocate() }
    var result: [ResidentRegion] = []
    var position = range.start
    while position < range.end {
      let (count, walkedTo) = try residency(
        of: AddressRange(start: position, byteCount: Int(range.end - position)), into: buffer)
      precondition(walkedTo > position, "the walk stands still")
      for region in buffer[..<count] {
        if let last = result.last, last.range.end == region.range.start, last.isHuge == region.isHuge,
          last.isPresent == region.isPresent, last.isBackingKnown == region.isBackingKnown
        {
          result[result.count - 1].range.byteCount += region.range.byteCount
        } else {
          result.append(region)
        }
      }
      position = walkedTo
    }
    return result
  }

  func presentBytes(of range: AddressRange) throws -> Int {
    try regions(of: range).reduce(0) { $0 + ($1.isPresent ? $1.range.byteCount : 0) }
  }

  func hugeBytes(of range: AddressRange) throws -> Int {
    try regions(of: range).reduce(0) { $0 + ($1.isHuge ? $1.range.byteCount : 0) }
  }
}

/// What the machine's kernel can do, probed once for all tests.
let realKernel = LinuxKernel()

/// Whether this is a build for the address sanitizer, which takes some of the C library's functions over.
let hasAddressSanitizer = dlsym(nil, "__asan_init") != nil

/// Blocks that khugepaged has made huge so far, in the whole system. A test that looks at page tables may have to
/// begin again when it changed.
func blocksRebuiltByTheKernel() -> String {
  contents(ofFile: "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed") ?? ""
}
