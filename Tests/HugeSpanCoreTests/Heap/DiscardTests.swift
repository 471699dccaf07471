// Discarded contents on the real kernel: hugepages that are split, taken in part and rebuilt behind the heap's back, forks, and
// real reclaim, with the program of Benchmarks/Discard.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

private let canDiscardHugePages =
  realKernel.capabilities.contains(.hugePages) && realKernel.capabilities.contains(.honestSplit)
  && realKernel.capabilities.contains(.exactResidency) && realKernel.capabilities.contains(.pageout)

private let canCollapse = canDiscardHugePages && realKernel.capabilities.contains(.collapse)

/// Every fifth page is zeros all over; the others begin with their number, or with a zero and then that.
private func word(_ page: Int, _ index: Int) -> UInt64 {
  page % 5 == 0 || (page % 5 == 1 && index == 0) ? 0 : UInt64(page) << 32 | UInt64(index) << 1 | 1
}

private final class Contents {
  let heap: PageHeapCore<LinuxKernel>
  let span: PageSpan

  init(pages: Int) throws {
    var options = HeapOptions()
    options.policy = .never
    heap = try PageHeapCore(kernel: realKernel, options: options)
    span = try heap.allocate(SpanRequest(pageCount: pages)).span
    for page in 0..<pages { for index in 0..<512 { words(page)[index] = word(page, index) } }
  }

  private func words(_ page: Int) -> UnsafeMutablePointer<UInt64> {
    UnsafeMutablePointer(bitPattern: span.address + UInt(page * 4096))!
  }

  func isIntact(_ page: Int) -> Bool { (0..<512).allSatisfy { words(page)[$0] == word(page, $0) } }
  func isZero(_ page: Int) -> Bool { (0..<512).allSatisfy { words(page)[$0] == 0 } }

  func pages(_ first: Int, _ count: Int) -> AddressRange {
    AddressRange(start: span.address + UInt(first * 4096), byteCount: count * 4096)
  }

  func advise(_ advice: Advice, _ first: Int, _ count: Int) -> KernelError? {
    realKernel.advise(advice, [pages(first, count)]).error
  }

  var hugeBytes: Int { (try? heap.observe().hugeBytes) ?? -1 }

  /// Undoes; the pages that are called lost. Each must be zeros, and every other what it was.
  func undo() throws -> (verdict: DiscardVerdict, lost: [Int]) {
    var words = [UInt64](repeating: ~0, count: (span.pageCount + 63) / 64)
    let undone = try words.withUnsafeMutableBufferPointer {
      try heap.undoDiscard(span, lostPages: $0.baseAddress)
    }
    let lost = (0..<span.pageCount).filter { words[$0 / 64] >> UInt64($0 % 64) & 1 != 0 }
    for page in 0..<span.pageCount { #expect(lost.contains(page) ? isZero(page) : isIntact(page), "page \(page)") }
    #expect(lost.count == undone.lostPages)
    heap.checkInvariants()
    return (undone.verdict, lost)
  }
}

@Suite struct DiscardedContentsOnThisKernel {
  @Test(arguments: [1, 7, 100, 512, 1100]) func surviveAndArePinned(pages: Int) throws {
    let contents = try Contents(pages: pages)
    try contents.heap.discard(contents.span)
    #expect(try contents.undo().verdict == .intact)
    // What may be taken goes at once by this, with or without swap; what may not comes back with its contents.
    _ = contents.advise(.pageout, 0, pages)
    for page in 0..<pages { #expect(contents.isIntact(page)) }
  }

  @Test(arguments: [1, 7, 100, 512, 1100]) func areLostWhenTheKernelTakesThem(pages: Int) throws {
    let contents = try Contents(pages: pages)
    try contents.heap.discard(contents.span)
    try #require(contents.advise(.pageout, 0, pages) == nil)
    let resident = try contents.heap.observe().residentBytes
    let (verdict, lost) = try contents.undo()
    if realKernel.capabilities.contains(.pageout) {
      #expect(verdict == .lost && lost.count == pages)
      #expect(resident == 0 || pages % 512 != 0)
    }
  }

  @Test(.enabled(if: canDiscardHugePages)) func ofAWholeHugePageStayHuge() throws {
    let contents = try Contents(pages: 1024)
    try #require(contents.hugeBytes == 2 << 21)
    try contents.heap.discard(contents.span)
    #expect(contents.hugeBytes == 2 << 21)
    #expect(try contents.undo().verdict == .intact)
    #expect(contents.hugeBytes == 2 << 21)
  }

  @Test(.enabled(if: canDiscardHugePages)) func ofAHugePageThatIsSplitMeanwhileAreTestedPageByPage() throws {
    let contents = try Contents(pages: 512)
    try #require(contents.hugeBytes == 1 << 21)
    try contents.heap.discard(contents.span)
    try #require(contents.advise(.cold, 200, 1) == nil && contents.hugeBytes == 0)
    try #require(contents.advise(.pageout, 300, 40) == nil)
    let (verdict, lost) = try contents.undo()
    #expect(verdict == .partlyLost && lost == Array(300..<340))
  }

  /// Looks as if nothing had happened: one hugepage before and one after, and the first page is what it was.
  @Test(.enabled(if: canCollapse)) func ofAHugePageThatIsSplitAndTakenInPartAndRebuiltAreSeenThrough() throws {
    let contents = try Contents(pages: 512)
    try #require(contents.hugeBytes == 1 << 21)
    try contents.heap.discard(contents.span)
    try #require(contents.advise(.cold, 200, 1) == nil)
    try #require(contents.advise(.pageout, 300, 40) == nil)
    try #require(contents.advise(.collapse, 0, 512) == nil && contents.hugeBytes == 1 << 21)
    let (verdict, lost) = try contents.undo()
    #expect(verdict == .partlyLost && lost == Array(300..<340))
  }

  @Test(.enabled(if: canDiscardHugePages)) func ofAPartOfAHugePageCostTheHugePage() throws {
    let contents = try Contents(pages: 512)
    try #require(contents.hugeBytes == 1 << 21)
    let part = PageSpan(address: contents.pages(100, 1).start, pageCount: 50)
    try contents.heap.discard(part)
    #expect(contents.hugeBytes == 0 && contents.heap.statistics().discardSplits == 1)
    try #require(contents.advise(.pageout, 0, 512) == nil)
    #expect(try contents.heap.undoDiscard(part) == UndoneDiscard(verdict: .lost, lostPages: 50))
    for page in 0..<512 { #expect(100..<150 ~= page ? contents.isZero(page) : contents.isIntact(page)) }
  }
}

@Suite struct DiscardedContentsOfALiveFork {
  @Test(.enabled(if: canDiscardHugePages)) func areNotGivenAwayAndKeepTheirHugePages() async {
    await #expect(processExitsWith: .success) {
      let contents = try Contents(pages: 1024)
      contents.heap.prepareForFork()
      let child = ForkedChild(last: { (0..<1024).allSatisfy(contents.isIntact) })
      contents.heap.resumeInParent()
      #expect(throws: HeapError.sharedWithChild) { try contents.heap.discard(contents.span) }
      #expect(contents.hugeBytes == 2 << 21)
      #expect(child.end() == 0)
      try contents.heap.discard(contents.span)
      #expect(contents.hugeBytes == 2 << 21)
      #expect(try contents.undo().verdict == .intact)
    }
  }

  /// Each process has a verdict of its own: what was taken before the fork is lost in both, what the parent loses later
  /// only there. (None of these pages is all zeros: the split may have given those up already.)
  @Test(.enabled(if: canDiscardHugePages), arguments: [false, true]) func areUndoneInBoth(isHuge: Bool) async {
    await #expect(processExitsWith: .success) { [isHuge = isHuge as Bool] in
      let contents = try Contents(pages: 512)
      if !isHuge { try #require(contents.advise(.cold, 0, 1) == nil) }
      try contents.heap.discard(contents.span)
      if !isHuge { try #require(contents.advise(.pageout, 11, 4) == nil) }
      contents.heap.prepareForFork()
      let child = ForkedChild(last: {
        contents.heap.resumeInChild()
        guard let (_, lost) = try? contents.undo() else { return false }
        return lost == (isHuge ? [] : Array(11..<15))
      })
      contents.heap.resumeInParent()
      // The kernel takes a page of the parent's.
      try #require(contents.advise(.dontneed, 101, 1) == nil)
      let (verdict, lost) = try contents.undo()
      #expect(verdict == .partlyLost && lost == (isHuge ? [101] : Array(11..<15) + [101]))
      #expect(child.end() == 0)
      for page in 0..<512 where !lost.contains(page) { #expect(contents.isIntact(page)) }
    }
  }
}

@Suite struct DiscardsUnderRealReclaim {
  /// The short form of the program that makes a million verdicts. It lies beside the test program.
  @Test(.enabled(if: !hasAddressSanitizer, "the address sanitizer's own memory is charged too"))
  func areNeverCalledIntactUnlessTheyAre() throws {
    let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    let process = Process()
    let output = Pipe()
    process.executableURL = folder.appendingPathComponent("discard-verdicts")
    process.arguments = ["--verdicts", "6000", "--limit", "48", "--discarded", "80", "--json", "-"]
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    // Without a memory cgroup there is no pressure to be had.
    if process.terminationStatus == 69 { return }
    let text = String(decoding: data, as: UTF8.self)
    #expect(process.terminationReason == .exit && process.terminationStatus == 0, "\(text)")
    let figures = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(figures["falseIntact"] as? Int == 0 && figures["changedAfterwards"] as? Int == 0)
    for kind in ["lost", "partlyLost", "intact"] { #expect(figures[kind] as? Int ?? 0 >= 600, "\(text)") }
  }
}
