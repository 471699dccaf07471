// What a hugepage costs that was idle for a while.
//
// A hypervisor that is told which pages are free takes them back, and the next touch waits until it has given others. So
// groups of blocks are released together and touched after different times: the group that waits ten seconds sees what
// a heap sees that comes back to memory it gave away at night.

import Glibc
import HugeSpanCore

/// First touches of hugepages by how long they had been free.
struct ColdFaults {
  /// Seconds of idleness that are tried.
  static let idleness: [Double] = [0, 0.5, 2, 5, 10]
  private static let blocks = 16
  private let kernel: LinuxKernel
  private let groups: [AddressRange]
  private(set) var samples = [[Double]](repeating: [], count: ColdFaults.idleness.count)

  init(_ kernel: LinuxKernel) throws(CalibrationError) {
    self.kernel = kernel
    var groups: [AddressRange] = []
    do throws(CalibrationError) {
      for _ in Self.idleness { groups.append(try ScratchBlocks.make(Self.blocks, kernel)) }
    } catch {
      for group in groups { kernel.unreserve(group) }
      throw error
    }
    self.groups = groups
    for group in groups { _ = Self.touch(group) }
  }

  func end() { for group in groups { kernel.unreserve(group) } }

  private static func touch(_ group: AddressRange) -> Double {
    let start = threadMicroseconds()
    for address in stride(from: group.start, to: group.end, by: 1 << 21) {
      UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = 1
    }
    return (threadMicroseconds() - start) / Double(blocks)
  }

  /// Releases all groups and touches each at its time: a little over ten seconds.
  mutating func run(progress: (String) -> Void) {
    for group in groups {
      _ = withUnsafePointer(to: group) { kernel.advise(.dontneed, UnsafeBufferPointer(start: $0, count: 1)) }
    }
    var waited = 0.0
    for (index, seconds) in Self.idleness.enumerated() {
      while waited < seconds {
        progress("idle for \(plain(waited)) s of \(plain(Self.idleness.last!))")
        usleep(500_000)
        waited += 0.5
      }
      let microseconds = Self.touch(groups[index])
      if ScratchBlocks.areHuge(groups[index], kernel) { samples[index].append(microseconds) }
    }
  }
}
