// Any kernel, in which something else happens between any two steps of its user.
//
// What a kernel does of its own accord (taking pages, splitting and rebuilding hugepages) comes at any time, also between two
// words that are read. So the disturbance of a test is called before each call and each access to memory, and after calls
// that change something.

import HugeSpanCore

/// `Base`, disturbed.
package struct DisturbedKernel<Base: Kernel>: Kernel {
  package let base: Base
  package let disturb: @Sendable () -> Void

  package init(_ base: Base, _ disturb: @escaping @Sendable () -> Void) {
    self.base = base
    self.disturb = disturb
  }

  package var geometry: PageGeometry { base.geometry }
  package var capabilities: KernelCapabilities { base.capabilities }

  package func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    try base.reserve(byteCount: byteCount, alignment: alignment)
  }
  package func commit(_ range: AddressRange) throws(KernelError) { try base.commit(range) }
  package func unreserve(_ range: AddressRange) { base.unreserve(range) }
  package func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    try base.mapMetadata(byteCount: byteCount)
  }
  package func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
    base.unmapMetadata(pointer, byteCount: byteCount)
  }
  package func zero(_ range: AddressRange) { base.zero(range) }

  package func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    disturb()
    defer { disturb() }
    return base.advise(advice, ranges)
  }

  package func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    disturb()
    defer { disturb() }
    return base.move(source, to: destination)
  }

  package func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    disturb()
    defer { disturb() }
    return try base.residency(of: range, into: regions)
  }

  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    disturb()
    return try base.sharedPages(of: range, limit: limit)
  }

  package func word(at address: UInt) -> UInt64 {
    disturb()
    return base.word(at: address)
  }
  package func setWord(_ value: UInt64, at address: UInt) {
    disturb()
    base.setWord(value, at: address)
  }
  package func pin(at address: UInt) -> UInt64 {
    disturb()
    return base.pin(at: address)
  }
}
