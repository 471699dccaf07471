// A kernel that a replay can run on: one whose memory the front end writes to, as the recorded program did.

import HugeSpanCore

/// What a replay needs besides what the heap does.
package protocol ReplayableKernel: Kernel {
  /// Whether there is memory at the addresses that the heap hands out.
  static var hasMemory: Bool { get }

  /// Writes a word to each of `count` pages from `address` on.
  func touch(_ address: UInt, pages count: Int)
}

extension ReplayableKernel {
  package static var hasMemory: Bool { true }

  @inline(__always)
  package func touch(_ address: UInt, pages count: Int) {
    for page in 0..<count {
      UnsafeMutablePointer<UInt64>(bitPattern: address + UInt(page * SizeClasses.pageBytes))!.pointee = touchMark
    }
  }
}

extension LinuxKernel: ReplayableKernel {}
extension ReplayKernel: ReplayableKernel {}
