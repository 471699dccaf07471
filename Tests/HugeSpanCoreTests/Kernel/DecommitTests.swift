// What decommitting does to the real kernel's books: memory, promises, mappings.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import Testing

private let block = 1 << 21

/// The mapping that holds `address`, as /proc/self/maps has it.
private func permissions(at address: UInt) throws -> Substring {
  for line in try #require(contents(ofFile: "/proc/self/maps")).split(separator: "\n") {
    let fields = line.split(separator: " ")
    let bounds = fields[0].split(separator: "-")
    if let start = UInt(bounds[0], radix: 16), let end = UInt(bounds[1], radix: 16), start <= address, address < end {
      return fields[1]
    }
  }
  throw KernelError.invalid
}

private func mappingCount() throws -> Int {
  try #require(contents(ofFile: "/proc/self/maps")).split(separator: "\n").count
}

/// Bytes that the system has promised to all programs.
private func promisedBytes() throws -> Int {
  let text = try #require(contents(ofFile: "/proc/meminfo"))
  let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("Committed_AS:") })
  return try #require(Int(line.split(separator: " ")[1])) * 1024
}

@Suite(.serialized) struct DecommittedMemory {
  @Test func isGoneAndCannotBeTouchedUntilItIsCommitted() async {
    await #expect(processExitsWith: .success) {
      let memory = try ScratchMemory(realKernel, byteCount: 4 * block, huge: true)
      memory.touch(memory.range)
      let middle = memory.pages(512, 1024)
      let outcome = realKernel.advise(.decommit, [middle])
      #expect(outcome.completedRanges == 1 && outcome.error == nil && outcome.calls == 1)
      #expect(try realKernel.presentBytes(of: middle) == 0 && permissions(at: middle.start) == "---p")
      #expect(memory.isUnchanged(memory.pages(0, 512)) && memory.isUnchanged(memory.pages(1536, 512)))
      try realKernel.commit(middle)
      #expect(UnsafePointer<UInt>(bitPattern: middle.start)!.pointee == 0)
      memory.touch(middle)
      #expect(memory.isUnchanged(memory.range))
    }
  }

  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer needs mappings of its own"))
  func joinsItsNeighboursWhenItComesBack() async {
    await #expect(processExitsWith: .success) {
      let memory = try ScratchMemory(realKernel, byteCount: 16 * block, huge: true)
      memory.touch(memory.range)
      let before = try mappingCount()
      let ranges = (0..<4).map { memory.pages((4 * $0 + 1) * 512, 512) }
      #expect(realKernel.advise(.decommit, ranges).completedRanges == 4)
      // The heap repeats the advice of its arena, so that the mapping is as it was.
      for range in ranges { #expect(realKernel.advise(.hugepage, [range]).error == nil) }
      #expect(try mappingCount() == before + 8)
      for range in ranges { try realKernel.commit(range) }
      #expect(try mappingCount() == before)
    }
  }

  /// Memory that the system has to account for: mapped without MAP_NORESERVE, which strict overcommit ignores.
  @Test func isPromisedNoLonger() async {
    await #expect(processExitsWith: .success) {
      let bytes = 4 << 30
      let start = UInt(bitPattern: try LinuxKernel().mapMetadata(byteCount: bytes))
      defer { _ = hs_shim_unmap(start, bytes) }
      let before = try promisedBytes()
      _ = realKernel.advise(.dontneed, [AddressRange(start: start, byteCount: bytes)])
      let dropped = try promisedBytes()
      _ = realKernel.advise(.decommit, [AddressRange(start: start, byteCount: bytes)])
      let after = try promisedBytes()
      // Others map and unmap meanwhile, but not gigabytes.
      #expect(abs(dropped - before) < bytes / 2, "MADV_DONTNEED returns no promise")
      #expect(before - after > bytes / 2, "\(before) promised before, \(after) after")
    }
  }
}
