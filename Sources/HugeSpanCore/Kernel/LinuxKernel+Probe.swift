// What works is found by trying it on a scratch mapping, and reading back what it did.
//
// Three blocks are reserved. The first is used for hugepages: touched, looked at, split, looked at again, collapsed. The
// second serves everything that needs base pages only. The third shows what memory gets that was not advised. Where the first touch gives no hugepage (they are turned off, or
// no 2 MiB piece is free just now), a collapse makes one to try the split on.

import CHugeSpanShims

extension LinuxKernel {
  /// Fills `capabilities`, and lowers `batching` and `residencySource` to what works.
  mutating func probe() {
    let block = geometry.hugePageBytes > 0 ? geometry.hugePageBytes : 1 << 21
    guard let scratch = try? reserve(byteCount: 3 * block, alignment: block) else { return }
    defer { unreserve(scratch) }
    guard (try? commit(scratch)) != nil else { return }
    let pages = AddressRange(start: scratch.start + UInt(block), byteCount: 16 * geometry.pageBytes)

    probeResidency(on: pages)
    probeAdvice(on: pages)
    probeDecommit(of: AddressRange(start: pages.end, byteCount: 4 * geometry.pageBytes))
    probeBatching(on: AddressRange(start: pages.start, byteCount: geometry.pageBytes))
    if batching != .none { capabilities.insert(.batchedAdvice) }
    if geometry.hugePageBytes > 0 {
      probeHugePages(on: AddressRange(start: scratch.start, byteCount: geometry.hugePageBytes))
      let unasked = AddressRange(start: scratch.start + UInt(2 * block), byteCount: block)
      Self.touch(unasked.start)
      if isHuge(unasked) { capabilities.insert(.hugePagesUnasked) }
      probeMove(of: AddressRange(start: scratch.start, byteCount: block), to: unasked)
    }
  }

  private mutating func probeResidency(on range: AddressRange) {
    guard residencySource == .pagemapScan else { return }
    Self.touch(range.start)
    if (try? presence(of: range))?.presentBytes == geometry.pageBytes {
      capabilities.insert(.exactResidency)
    } else {
      residencySource = .smaps
    }
  }

  private mutating func probeAdvice(on range: AddressRange) {
    if accepts(.populate, range) { capabilities.insert(.populate) }
    if accepts(.cold, range) { capabilities.insert(.cold) }
    if accepts(.pageout, range) { capabilities.insert(.pageout) }
    if accepts(.free, range) { capabilities.insert(.free) }
    Self.touch(range.start)
    if accepts(.dontneed, range), Self.word(range.start) == 0 { capabilities.insert(.dontneed) }
  }

  /// Decommitted, it holds nothing; committed again, it reads as zero.
  private mutating func probeDecommit(of range: AddressRange) {
    Self.touch(range.start)
    guard hs_shim_decommit(range.start, range.byteCount) == 0, (try? presence(of: range))?.presentBytes == 0,
      (try? commit(range)) != nil, Self.word(range.start) == 0
    else { return }
    capabilities.insert(.decommit)
  }

  private mutating func probeHugePages(on block: AddressRange) {
    guard accepts(.hugepage, block) else { return }
    Self.touch(block.start)
    if isHuge(block) { capabilities.insert(.hugePages) } else { probeCollapse(of: block) }
    if capabilities.contains(.cold), isHuge(block) {
      // One page is enough to ask for the split.
      let page = AddressRange(start: block.start, byteCount: geometry.pageBytes)
      attempt { accepts(.cold, page) && !isHuge(block) }
      if !isHuge(block), Self.word(block.start) == Self.pattern { capabilities.insert(.honestSplit) }
    }
    if !isHuge(block) { probeCollapse(of: block) }
  }

  private mutating func probeCollapse(of block: AddressRange) {
    attempt { accepts(.collapse, block) && isHuge(block) }
    if isHuge(block), Self.word(block.start) == Self.pattern { capabilities.insert(.collapse) }
  }

  /// Tries again what did not work: the kernel gives up where it meets a passing reference, such as those that each processor
  /// holds in batches, and what is missing at the start is missed for as long as the heap lives.
  private func attempt(_ works: () -> Bool) {
    var attempts = 0
    while !works() && attempts < 5 {
      attempts += 1
      hs_shim_yield()
    }
  }

  /// A hugepage arrives whole, with what was in it, and leaves nothing behind.
  private mutating func probeMove(of source: AddressRange, to destination: AddressRange) {
    guard isHuge(source), accepts(.dontneed, destination) else { return }
    Self.touch(source.start)
    guard move(source, to: destination.start).error == nil else { return }
    if isHuge(destination), Self.word(destination.start) == Self.pattern, Self.word(source.start) == 0 {
      capabilities.insert(.move)
    }
  }

  private func accepts(_ advice: Advice, _ range: AddressRange) -> Bool {
    hs_shim_madvise(range.start, range.byteCount, advice.value) == 0
  }

  private func isHuge(_ block: AddressRange) -> Bool {
    (try? presence(of: block))?.hugeBytes == block.byteCount
  }

  /// Present and huge bytes of a small range.
  private func presence(of range: AddressRange) throws(KernelError) -> (presentBytes: Int, hugeBytes: Int) {
    var regions = InlineArray<16, ResidentRegion>(
      repeating: ResidentRegion(range: range, isHuge: false, isPresent: false))
    var present = 0
    var huge = 0
    var position = range.start
    while position < range.end {
      let rest = AddressRange(start: position, byteCount: Int(range.end - position))
      var failure: KernelError? = nil
      let (count, walkedTo) = withUnsafeMutableBytes(of: &regions) { bytes -> (Int, UInt) in
        do throws(KernelError) {
          return try residency(of: rest, into: bytes.assumingMemoryBound(to: ResidentRegion.self))
        } catch {
          failure = error
          return (0, rest.end)
        }
      }
      if let failure { throw failure }
      for index in 0..<count {
        if regions[index].isPresent { present += regions[index].range.byteCount }
        if regions[index].isHuge { huge += regions[index].range.byteCount }
      }
      position = walkedTo
    }
    return (present, huge)
  }

  private static var pattern: UInt64 { 0x5ca1_ab1e_0ffe_ed01 }

  private static func touch(_ address: UInt) {
    UnsafeMutablePointer<UInt64>(bitPattern: address)!.pointee = pattern
  }

  private static func word(_ address: UInt) -> UInt64 { UnsafePointer<UInt64>(bitPattern: address)!.pointee }
}
