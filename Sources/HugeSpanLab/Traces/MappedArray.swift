// Tables of the replay, in mappings of their own.
//
// What the replay itself needs in memory must not move while a heap is measured: no table may grow, no page of one may
// be touched for the first time. So they are mapped, filled and touched before the measurement begins. They ask for
// hugepages, because the kernel walks them as well whenever this process' mappings are looked at.

import CHugeSpanShims

/// A fixed number of trivial values, all of whose pages are in memory.
package struct MappedArray<Element: BitwiseCopyable>: ~Copyable {
  package let count: Int
  package let base: UnsafeMutablePointer<Element>
  private let byteCount: Int

  /// Maps `count` values, sets each to `value` and thereby touches them.
  package init(repeating value: Element, count: Int) {
    self.init(uninitializedCount: count)
    base.initialize(repeating: value, count: count)
  }

  /// Maps `count` values and sets only the first `prefaulted` of them; the others read as zero, and cost no memory until
  /// they are used.
  package init(zeroes count: Int, prefaulted: Int) {
    self.init(uninitializedCount: count, hugePages: false)
    UnsafeMutableRawPointer(base).initializeMemory(
      as: UInt8.self, repeating: 0, count: prefaulted * MemoryLayout<Element>.stride)
  }

  /// Maps `count` values that the caller sets all.
  package init(uninitializedCount count: Int, hugePages: Bool = true) {
    self.count = count
    byteCount = max(count * MemoryLayout<Element>.stride, 4096)
    let address = hs_shim_map(byteCount)
    precondition(address > 0 || address < -4095, "no address space for a table of the replay")
    // MADV_HUGEPAGE or MADV_NOHUGEPAGE; a refusal costs only time.
    _ = hs_shim_madvise(UInt(bitPattern: address), byteCount, hugePages ? 14 : 15)
    base = UnsafeMutableRawPointer(bitPattern: address)!.bindMemory(to: Element.self, capacity: max(count, 1))
  }

  deinit { _ = hs_shim_unmap(UInt(bitPattern: base), byteCount) }

  /// Value `index`; the bound is checked in debug builds only.
  package subscript(index: Int) -> Element {
    @inline(__always) get {
      assert(index >= 0 && index < count)
      return base[index]
    }
    @inline(__always) nonmutating set {
      assert(index >= 0 && index < count)
      base[index] = newValue
    }
  }
}
