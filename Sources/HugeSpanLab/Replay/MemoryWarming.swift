// The same start for every run.
//
// On a virtual machine the host may have taken free memory away; the first program that touches it pays for
// getting it back, up to fifty times the price of a fault. Which run of a comparison that is would be chance. So before a run
// begins, as much memory as its program needs is touched once and given back to the guest's kernel.

import CHugeSpanShims

enum MemoryWarming {
  /// Touches `byteCount` bytes and half as much again, as long as that is less than half of the available memory.
  static func warm(byteCount: Int) {
    let wanted = byteCount + byteCount / 2
    guard wanted > 0, wanted < available() / 2 else { return }
    let address = hs_shim_map(wanted)
    if address < 0 && address > -4096 { return }
    let start = UInt(bitPattern: address)
    _ = hs_shim_madvise(start, wanted, 14)  // MADV_HUGEPAGE: fewer faults
    var offset = 0
    while offset < wanted {
      UnsafeMutablePointer<UInt8>(bitPattern: start + UInt(offset))!.pointee = 1
      offset += 4096
    }
    _ = hs_shim_unmap(start, wanted)
  }

  /// Bytes that the system can give without swapping, 0 if it does not say.
  static func available() -> Int {
    for line in (contents(ofFile: "/proc/meminfo") ?? "").split(separator: "\n") where line.hasPrefix("MemAvailable:") {
      return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 << 10 } ?? 0
    }
    return 0
  }
}
