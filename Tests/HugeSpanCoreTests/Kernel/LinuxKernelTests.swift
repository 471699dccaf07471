// The real kernel does what the heap believes of it: every effect is read back.

import CHugeSpanShims
import HugeSpanCore
import Testing

private let block = 1 << 21
private let hasHugePages = realKernel.capabilities.contains(.hugePages)

@Suite struct AddressSpaceOfTheLinuxKernel {
  @Test func tellsTheSizesOfTheMachine() {
    #expect(realKernel.geometry.pageBytes == Int(hs_shim_page_size()))
    #expect(realKernel.geometry.hugePageBytes % realKernel.geometry.pageBytes == 0)
  }

  @Test(arguments: [4096, 1 << 16, 1 << 21, 1 << 25, 1 << 30])
  func reservesAligned(alignment: Int) throws {
    let ranges = try (1...4).map { try realKernel.reserve(byteCount: $0 * 3 * 4096, alignment: alignment) }
    defer { for range in ranges { realKernel.unreserve(range) } }
    for range in ranges {
      #expect(range.start % UInt(alignment) == 0)
      try realKernel.commit(range)
      UnsafeMutablePointer<UInt8>(bitPattern: range.end - 1)!.pointee = 1
    }
  }

  @Test func givesTheSlackOfAlignmentBack() throws {
    let before = try #require(virtualBytes())
    let range = try realKernel.reserve(byteCount: block, alignment: 1 << 36)
    defer { realKernel.unreserve(range) }
    let after = try #require(virtualBytes())
    #expect(after - before < 1 << 30)
  }

  @Test func refusesWhatTheAddressSpaceCannotHold() {
    #expect(throws: KernelError.outOfMemory) { try realKernel.reserve(byteCount: 1 << 60, alignment: 4096) }
    #expect(throws: KernelError.outOfMemory) { try realKernel.reserve(byteCount: .max - 4095, alignment: 1 << 21) }
    #expect(throws: KernelError.invalid) { try realKernel.reserve(byteCount: 4096, alignment: 3 << 20) }
  }

  @Test func refusesToCommitWhatIsNotReserved() throws {
    // Behind the end of what a process can map: of a range that was given back another thread may have made something.
    let range = AddressRange(start: 1 << 60, byteCount: block)
    #expect(throws: KernelError.outOfMemory) { try realKernel.commit(range) }
  }

  @Test func mapsZeroedMetadata() throws {
    let tables = try realKernel.mapMetadata(byteCount: 1 << 20)
    defer { realKernel.unmapMetadata(tables, byteCount: 1 << 20) }
    let words = UnsafeBufferPointer(start: tables.assumingMemoryBound(to: UInt.self), count: 1 << 17)
    #expect(words.allSatisfy { $0 == 0 })
    #expect(throws: KernelError.outOfMemory) { try realKernel.mapMetadata(byteCount: 1 << 60) }
  }

  @Test func zeroes() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 16 * 4096)
    memory.touch(memory.range)
    realKernel.zero(memory.pages(3, 2))
    #expect(memory.isUnchanged(memory.pages(0, 3)))
    #expect(UnsafePointer<UInt>(bitPattern: memory.pages(3, 1).start)!.pointee == 0)
    #expect(UnsafePointer<UInt>(bitPattern: memory.pages(4, 1).start)!.pointee == 0)
    #expect(memory.isUnchanged(memory.pages(5, 11)))
  }

  /// Size of the whole address space in bytes, from /proc/self/statm.
  private func virtualBytes() -> Int? {
    let file = hs_shim_open_read("/proc/self/statm")
    guard file >= 0 else { return nil }
    defer { hs_shim_close(file) }
    var text = [UInt8](repeating: 0, count: 128)
    let length = hs_shim_read(file, &text, text.count)
    guard length > 0 else { return nil }
    return Int(String(decoding: text.prefix { $0 != 0x20 }, as: UTF8.self)).map { $0 * 4096 }
  }
}

@Suite(.serialized) struct AdviceOfTheLinuxKernel {
  /// Every way to batch that this machine has, and the loop.
  static let kernels: [LinuxKernel] = [
    realKernel, LinuxKernel(batching: .pidfd), LinuxKernel(batching: .none),
  ]

  @Test(arguments: kernels)
  func dontneedEmptiesTheRangeAndNothingElse(kernel: LinuxKernel) throws {
    let memory = try ScratchMemory(kernel, byteCount: 64 * 4096)
    memory.touch(memory.range)
    #expect(try kernel.presentBytes(of: memory.range) == 64 * 4096)
    let outcome = kernel.advise(.dontneed, [memory.pages(8, 16)])
    #expect(outcome.completedRanges == 1 && outcome.error == nil && outcome.calls == 1)
    #expect(
      try kernel.regions(of: memory.range).map(\.range) == [memory.pages(0, 8), memory.pages(24, 40)])
    #expect(memory.isUnchanged(memory.pages(0, 8)) && memory.isUnchanged(memory.pages(24, 40)))
  }

  @Test(arguments: kernels)
  func aBatchOfAHundredRangesIsReleasedWhole(kernel: LinuxKernel) throws {
    let memory = try ScratchMemory(kernel, byteCount: 400 * 4096)
    memory.touch(memory.range)
    let ranges = (0..<100).map { memory.pages($0 * 4, 3) }
    let outcome = kernel.advise(.dontneed, ranges)
    #expect(outcome.completedRanges == 100 && outcome.error == nil)
    #expect(outcome.calls == (kernel.batching == .none ? 100 : 1))
    #expect(outcome.nanoseconds >= outcome.longestNanoseconds && outcome.longestNanoseconds > 0)
    #expect(try kernel.regions(of: memory.range).map(\.range) == (0..<100).map { memory.pages($0 * 4 + 3, 1) })
  }

  @Test(arguments: kernels)
  func moreRangesThanACallTakesAreAllReleased(kernel: LinuxKernel) throws {
    let memory = try ScratchMemory(kernel, byteCount: 5000 * 4096)
    memory.touch(memory.range)
    let outcome = kernel.advise(.dontneed, (0..<2500).map { memory.pages($0 * 2, 1) })
    #expect(outcome.completedRanges == 2500 && outcome.error == nil)
    #expect(outcome.calls == (kernel.batching == .none ? 2500 : 3))
    #expect(try kernel.presentBytes(of: memory.range) == 2500 * 4096)
  }

  @Test(arguments: kernels)
  func batchesOfManyGigabytesAreNotCutShort(kernel: LinuxKernel) throws {
    // The kernel stops a batch at 2 GiB without a word. Only the ends are touched.
    let memory = try ScratchMemory(kernel, byteCount: 6 << 30)
    let ranges = (0..<6).map { AddressRange(start: memory.range.start + UInt($0) << 30, byteCount: 1 << 30) }
    for range in ranges {
      memory.touch(AddressRange(start: range.start, byteCount: 4096))
      memory.touch(AddressRange(start: range.end - 4096, byteCount: 4096))
    }
    let three = AddressRange(start: memory.range.start, byteCount: 3 << 30)
    let rest = [three] + ranges[3...]
    let outcome = kernel.advise(.dontneed, rest)
    #expect(outcome.completedRanges == 4 && outcome.error == nil)
    #expect(try kernel.presentBytes(of: memory.range) == 0)
  }

  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer makes mlock do nothing"), arguments: kernels)
  func theFirstRangeThatFailsEndsTheBatchWithItsError(kernel: LinuxKernel) throws {
    let memory = try ScratchMemory(kernel, byteCount: 64 * 4096)
    memory.touch(memory.range)
    let locked = memory.pages(20, 2)
    try #require(mlock(UnsafeRawPointer(bitPattern: locked.start)!, locked.byteCount) == 0)
    defer { munlock(UnsafeRawPointer(bitPattern: locked.start)!, locked.byteCount) }
    let outcome = kernel.advise(.dontneed, [memory.pages(0, 4), memory.pages(8, 4), locked, memory.pages(40, 4)])
    #expect(outcome.completedRanges == 2)
    #expect(outcome.error == .invalid)
    #expect(try kernel.presentBytes(of: memory.pages(0, 12)) == 4 * 4096)
    #expect(memory.isUnchanged(locked) && memory.isUnchanged(memory.pages(40, 4)))
  }

  @Test func errorsComeBackAsValues() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 16 * 4096)
    let crooked = AddressRange(start: memory.range.start + 1, byteCount: 4096)
    #expect(realKernel.advise(.dontneed, [crooked]).error == .invalid)
    realKernel.unreserve(memory.pages(0, 4))
    #expect(realKernel.advise(.dontneed, [memory.pages(0, 4)]).error == .outOfMemory)
    #expect(
      realKernel.advise(.dontneed, [])
        == AdviseOutcome(completedRanges: 0, error: nil, calls: 0, nanoseconds: 0, longestNanoseconds: 0))
  }

  @Test func populateFaultsARangeIn() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 64 * 4096)
    #expect(try realKernel.presentBytes(of: memory.range) == 0)
    #expect(realKernel.advise(.populate, [memory.pages(4, 8)]).error == nil)
    #expect(try realKernel.regions(of: memory.range).map(\.range) == [memory.pages(4, 8)])
  }

  @Test func freedLazilyShowsInLazyFree() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 1024 * 4096)
    memory.touch(memory.range)
    #expect(try smapsField("LazyFree:", of: memory.range.start) == 0)
    #expect(realKernel.advise(.free, [memory.pages(0, 800)]).error == nil)
    // Each processor holds a few pages back until its batch is full.
    let lazy = try smapsField("LazyFree:", of: memory.range.start)
    #expect(lazy > 700 * 4096 && lazy <= 800 * 4096)
    #expect(try realKernel.presentBytes(of: memory.range) == 1024 * 4096)
  }
}

@Suite struct MemoryThatWasNotAdvised {
  @Test func getsHugepagesInNoOtherModeThanAlways() throws {
    let mode = try String(contentsOfFile: "/sys/kernel/mm/transparent_hugepage/enabled", encoding: .utf8)
    if !mode.contains("[always]") { #expect(!LinuxKernel().capabilities.contains(.hugePagesUnasked)) }
  }
}

@Suite(.serialized, .enabled(if: hasHugePages, "the kernel gives no hugepages to advised memory"))
struct HugePagesOfTheLinuxKernel {
  @Test func anAdvisedBlockBecomesHugeOnFirstTouch() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 4 * block, huge: true)
    memory.touch(memory.pages(512, 1))
    #expect(
      try realKernel.regions(of: memory.range)
        == [ResidentRegion(range: memory.pages(512, 512), isHuge: true, isPresent: true)])
  }

  @Test func neighbouringHugePagesAreOneRegion() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 4 * block, huge: true)
    memory.touch(memory.pages(0, 1536))
    #expect(
      try realKernel.regions(of: memory.range)
        == [ResidentRegion(range: memory.pages(0, 1536), isHuge: true, isPresent: true)])
  }

  @Test func readingUntouchedMemoryMakesNothingResident() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 2 * block, huge: true)
    #expect(UnsafePointer<UInt>(bitPattern: memory.range.start)!.pointee == 0)
    #expect(try realKernel.regions(of: memory.range) == [])
  }

  @Test(.enabled(if: realKernel.capabilities.contains(.honestSplit)))
  func coldOnOnePageSplitsTheBlockAndKeepsItsData() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 2 * block, huge: true)
    memory.touch(memory.range)
    #expect(try realKernel.hugeBytes(of: memory.range) == 2 * block)
    #expect(realKernel.advise(.cold, [memory.pages(17, 1)]).error == nil)
    #expect(try realKernel.hugeBytes(of: memory.range) == block)
    #expect(try realKernel.presentBytes(of: memory.range) == 2 * block)
    #expect(memory.isUnchanged(memory.range))
  }

  @Test(.enabled(if: realKernel.capabilities.contains(.collapse)))
  func collapseMakesASplitBlockHugeAgain() throws {
    let memory = try ScratchMemory(realKernel, byteCount: block, huge: true)
    memory.touch(memory.range)
    #expect(realKernel.advise(.dontneed, [memory.pages(0, 100)]).error == nil)
    #expect(try realKernel.hugeBytes(of: memory.range) == 0)
    #expect(realKernel.advise(.collapse, [memory.range]).error == nil)
    #expect(try realKernel.hugeBytes(of: memory.range) == block)
    #expect(memory.isUnchanged(memory.pages(100, 412)))
  }

  @Test func aSmallBufferSeesEverythingInPieces() throws {
    let memory = try ScratchMemory(realKernel, byteCount: 3 * block, huge: true)
    memory.touch(memory.range)
    #expect(realKernel.advise(.dontneed, (0..<200).map { memory.pages(512 + $0 * 2, 1) }).error == nil)
    let whole = try realKernel.regions(of: memory.range, capacity: 1024)
    #expect(whole.count == 202)
    for capacity in [1, 2, 63, 64, 65, 201, 202] {
      #expect(try realKernel.regions(of: memory.range, capacity: capacity) == whole)
    }
  }
}

@Suite(.serialized) struct ResidencyWithoutTheScan {
  static let fallback = LinuxKernel(residencySource: .smaps)

  @Test func tellsPresentPagesExactly() throws {
    let memory = try ScratchMemory(Self.fallback, byteCount: 3000 * 4096)
    for first in stride(from: 0, to: 3000, by: 30) { memory.touch(memory.pages(first, first / 30 % 20 + 1)) }
    let expected = try realKernel.regions(of: memory.range)
    #expect(expected.count == 100)
    for capacity in [1, 7, 100, 128] {
      #expect(try Self.fallback.regions(of: memory.range, capacity: capacity) == expected)
    }
    #expect(try Self.fallback.regions(of: memory.pages(15, 1000)) == realKernel.regions(of: memory.pages(15, 1000)))
  }

  @Test(.enabled(if: hasHugePages, "the kernel gives no hugepages to advised memory"))
  func tellsHugePagesWhereSmapsDecidesIt() throws {
    let memory = try ScratchMemory(Self.fallback, byteCount: 8 * block, huge: true)
    // All that is present is huge.
    memory.touch(memory.pages(512, 1024))
    #expect(
      try Self.fallback.regions(of: memory.range)
        == [ResidentRegion(range: memory.pages(512, 1024), isHuge: true, isPresent: true)])
    // One block with a hole: surely split. The others are wholly present and may be either.
    #expect(Self.fallback.advise(.dontneed, [memory.pages(512, 3)]).error == nil)
    #expect(
      try Self.fallback.regions(of: memory.range) == [
        ResidentRegion(range: memory.pages(515, 509), isHuge: false, isPresent: true),
        ResidentRegion(range: memory.pages(1024, 512), isHuge: false, isPresent: true, isBackingKnown: false),
      ])
    // Nothing is huge any more.
    #expect(Self.fallback.advise(.dontneed, [memory.pages(1024, 3)]).error == nil)
    #expect(
      try Self.fallback.regions(of: memory.range) == [
        ResidentRegion(range: memory.pages(515, 509), isHuge: false, isPresent: true),
        ResidentRegion(range: memory.pages(1027, 509), isHuge: false, isPresent: true),
      ])
  }

  @Test func isTheProbesChoiceOnlyIfAskedFor() {
    #expect(Self.fallback.residencySource == .smaps)
    #expect(!Self.fallback.capabilities.contains(.exactResidency))
    #expect(realKernel.capabilities.contains(.exactResidency) == (realKernel.residencySource == .pagemapScan))
  }
}

@Suite struct CapabilitiesOfTheLinuxKernel {
  @Test func theProbeLeavesNothingBehind() throws {
    let before = try mappings()
    for _ in 0..<20 { _ = LinuxKernel() }
    #expect(try mappings() <= before + 10)  // other tests map memory meanwhile
  }

  @Test func aStrategyIsSupportedOnlyWithWhatItNeeds() {
    var lacking = KernelCapabilities.all
    lacking.remove(.honestSplit)
    #expect(!lacking.supports(.splitDontneed) && lacking.supports(.dontneed))
    lacking.remove(.hugePages)
    lacking.remove(.collapse)
    #expect(lacking.supports(.splitDontneed))  // nothing there to split
    lacking.remove(.free)
    #expect(!lacking.supports(.free) && !lacking.supports(.freeThenDontneed) && lacking.supports(.keep))
    for (strategy, need) in [
      (StrategyKind.cold, KernelCapabilities.cold), (.pageout, .pageout), (.decommit, .decommit),
    ] {
      var without = KernelCapabilities.all
      without.remove(need)
      #expect(KernelCapabilities.all.supports(strategy) && !without.supports(strategy))
      #expect(realKernel.capabilities.contains(need), "Linux can do this since 5.4")
    }
    #expect(!KernelCapabilities.none.supports(.dontneed) && KernelCapabilities.none.supports(.keep))
  }

  private func mappings() throws -> Int { try procText("/proc/self/maps").split(separator: "\n").count }
}

/// The bytes that smaps shows in `field` for the mapping that holds `address`.
private func smapsField(_ field: String, of address: UInt) throws -> Int {
  var isInside = false
  for line in try procText("/proc/self/smaps").split(separator: "\n") {
    let bounds = line.prefix { $0 != " " }.split(separator: "-")
    if bounds.count == 2, let start = UInt(bounds[0], radix: 16), let end = UInt(bounds[1], radix: 16) {
      isInside = start <= address && address < end
    }
    if isInside, line.hasPrefix(field) { return Int(line.split(separator: " ")[1])! * 1024 }
  }
  throw KernelError.invalid
}

private func procText(_ path: String) throws -> String {
  let file = hs_shim_open_read(path)
  guard file >= 0 else { throw KernelError(code: -file) }
  defer { hs_shim_close(file) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1 << 16)
  while case let length = hs_shim_read(file, &chunk, chunk.count), length > 0 { bytes += chunk[..<length] }
  return String(decoding: bytes, as: UTF8.self)
}
