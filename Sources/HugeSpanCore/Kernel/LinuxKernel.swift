// The real kernel.
//
// A small value without memory of its own: what was probed when it was made, and nothing else; copies are as good as
// the original and several heaps may share one. Every method is a system call or a few, returns errno as a value and
// allocates nothing, since the heap may sit under malloc. Three things differ between kernels and are found by trying:
// how many ranges are advised at once (LinuxKernel+Advise.swift), how residency is learned
// (LinuxKernel+Residency.swift), and what works at all (LinuxKernel+Probe.swift).

import CHugeSpanShims

/// Linux, as seen from the process itself.
package struct LinuxKernel: Kernel {
  /// How many ranges are advised by one call.
  package enum Batching: UInt8, Sendable {
    /// process_madvise on the kernel's name for the calling process; right after a fork too.
    case selfHandle
    /// process_madvise on a pidfd of one's own, for kernels that do not know that name.
    case pidfd
    /// One madvise for each range.
    case none
  }

  /// Where residency is learned from.
  package enum ResidencySource: UInt8, Sendable {
    /// PAGEMAP_SCAN, exact.
    case pagemapScan
    /// The pagemap file and smaps: present pages exactly, hugepages as far as they can be told.
    case smaps
  }

  package let geometry: PageGeometry
  package internal(set) var capabilities = KernelCapabilities.none
  package internal(set) var batching: Batching
  package internal(set) var residencySource: ResidencySource
  /// Which advice can be batched, a bit for each raw value.
  var batchable: UInt8 = 0

  /// Probes the kernel on a scratch mapping; takes about a millisecond.
  ///
  /// - Parameters:
  ///   - batching: The best that is tried; what does not work falls to the next.
  ///   - residencySource: Likewise.
  package init(batching: Batching = .selfHandle, residencySource: ResidencySource = .pagemapScan) {
    geometry = PageGeometry(pageBytes: Int(hs_shim_page_size()), hugePageBytes: Self.hugePageBytes())
    self.batching = batching
    self.residencySource = residencySource
    probe()
  }

  /// Size of the hugepage that one PMD entry maps; zero where the kernel has none.
  private static func hugePageBytes() -> Int {
    let file = openForReading("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
    guard file >= 0 else { return 0 }
    defer { hs_shim_close(file) }
    var text = InlineArray<24, UInt8>(repeating: 0)
    let length = withUnsafeMutableBytes(of: &text) { hs_shim_read(file, $0.baseAddress, $0.count) }
    var value = 0
    var index = 0
    while index < length, text[index] >= 0x30, text[index] <= 0x39 {
      value = value * 10 + Int(text[index] - 0x30)
      index += 1
    }
    return value
  }

  /// The value of a system call as the shims give it: minus errno is thrown.
  @inline(__always)
  static func valueOrError(_ result: Int) throws(KernelError) -> Int {
    // Addresses never lie in the last page of the address space, so that this holds for them too.
    if result < 0 && result > -4096 { throw KernelError(code: Int32(-result)) }
    return result
  }

  // MARK: Address space

  /// Reserves more than asked by the alignment and gives both ends back.
  package func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    guard byteCount > 0, alignment > 0, alignment & (alignment - 1) == 0 else { throw .invalid }
    let slack = max(0, alignment - geometry.pageBytes)
    let (padded, overflow) = byteCount.addingReportingOverflow(slack)
    if overflow { throw .outOfMemory }
    let first = UInt(bitPattern: try Self.valueOrError(hs_shim_reserve(padded)))
    let start = (first + UInt(alignment - 1)) & ~UInt(alignment - 1)
    let head = Int(start - first)
    let tail = slack - head
    do {
      if head > 0 { _ = try Self.valueOrError(hs_shim_unmap(first, head)) }
      if tail > 0 { _ = try Self.valueOrError(hs_shim_unmap(start + UInt(byteCount), tail)) }
    } catch {
      // At the limit of mappings even giving back can fail; what is left is address space without memory.
      _ = hs_shim_unmap(first, padded)
      throw error
    }
    return AddressRange(start: start, byteCount: byteCount)
  }

  package func commit(_ range: AddressRange) throws(KernelError) {
    _ = try Self.valueOrError(hs_shim_commit(range.start, range.byteCount))
  }

  package func unreserve(_ range: AddressRange) {
    if hs_shim_unmap(range.start, range.byteCount) != 0 {
      // A mapping limit can refuse even this, when it would cut a mapping in two. The memory goes back nevertheless.
      _ = hs_shim_madvise(range.start, range.byteCount, Int32(HS_SHIM_MADV_DONTNEED))
    }
  }

  // MARK: Memory

  package func zero(_ range: AddressRange) {
    memset(UnsafeMutableRawPointer(bitPattern: range.start)!, 0, range.byteCount)
  }

  /// Never on hugepages: tables are touched sparsely, and a hugepage would make them cost what they must not.
  package func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    let address = try Self.valueOrError(hs_shim_map(byteCount))
    _ = hs_shim_madvise(UInt(bitPattern: address), byteCount, Int32(HS_SHIM_MADV_NOHUGEPAGE))
    return UnsafeMutableRawPointer(bitPattern: address)!
  }

  package func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
    unreserve(AddressRange(start: UInt(bitPattern: pointer), byteCount: byteCount))
  }
}
