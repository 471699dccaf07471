// A heap explained: pages read, damaged ones refused, and blocks sorted by what made them so.

import CHugeSpanShims
import Foundation
import Glibc
import HugeSpanCore
import TestSupport
import Testing

@testable import HugeSpanLab

private func page(_ heap: PublishedHeap, _ blocks: [PublishedBlock]) -> [UInt8] {
  var heap = heap
  heap.recordsEnd = UInt64(blocks.count)
  var bytes = [UInt8](repeating: 0, count: PublishedHeap.recordsOffset)
  withUnsafeBytes(of: heap) { bytes.replaceSubrange(0..<$0.count, with: $0) }
  for block in blocks { withUnsafeBytes(of: block) { bytes.append(contentsOf: $0) } }
  return bytes
}

private func snapshot(_ bytes: [UInt8]) throws -> PublishedSnapshot {
  try bytes.withUnsafeBytes { try PublishedSnapshot($0) }
}

private func block(
  _ number: Int, used: Int, idle: Int, kind: UInt8 = BlockKind.occupied.rawValue, backing: Backing = .huge,
  cause: BackingCause = .none, broken: Bool = false
) -> PublishedBlock {
  var block = PublishedBlock()
  block.address = UInt64(0x7f00_0000_0000 + number << 21)
  block.used = UInt16(used)
  block.idle = UInt16(idle)
  block.released = UInt16(kind == BlockKind.absent.rawValue ? 512 : 512 - used - idle)
  block.kind = kind
  block.backing = backing.rawValue
  block.cause = cause.rawValue
  block.flags = broken ? 1 : 0
  return block
}

private func priced() -> PublishedHeap {
  var heap = PublishedHeap()
  heap.policy = 5
  heap.strategy = StrategyKind.splitDontneed.rawValue
  heap.memoryPrice = 400
  heap.taxPerPage = 2
  heap.publishedAt = 1_000_000_000
  heap.nextTickAt = 1_500_000_000
  heap.oldestAt = 1_000_000_000
  return heap
}

@Suite struct ASnapshot {
  @Test func isReadAsItWasWritten() throws {
    let blocks = [block(0, used: 100, idle: 412), block(3, used: 0, idle: 0, kind: BlockKind.absent.rawValue)]
    let read = try snapshot(page(priced(), [blocks[0], PublishedBlock(), blocks[1]]))
    #expect(read.blocks == blocks && read.heap.memoryPrice == 400)
  }

  @Test func ofALaterVersionIsReadAsFarAsItIsKnown() throws {
    var bytes = page(priced(), [])
    // Records of 80 bytes, and a longer header.
    var heap = priced()
    heap.headerBytes = 1000
    heap.blockBytes = 80
    heap.recordsEnd = 2
    withUnsafeBytes(of: heap) { bytes.replaceSubrange(0..<$0.count, with: $0) }
    for number in 0..<2 {
      withUnsafeBytes(of: block(number, used: 7, idle: 5)) { bytes.append(contentsOf: $0) }
      bytes.append(contentsOf: [UInt8](repeating: 0xff, count: 16))
    }
    #expect(try snapshot(bytes).blocks == [block(0, used: 7, idle: 5), block(1, used: 7, idle: 5)])
  }

  @Test func thatIsDamagedIsRefusedWithItsPlace() throws {
    let good = page(priced(), [block(0, used: 1, idle: 511), block(1, used: 1, idle: 511)])
    #expect(throws: SnapshotError.foreign) { try snapshot([]) }
    #expect(throws: SnapshotError.foreign) { try snapshot([UInt8](repeating: 0, count: 4096)) }
    #expect(throws: SnapshotError.damaged(record: nil)) { try snapshot(Array(good.dropLast())) }
    func damaged(_ offset: Int, _ value: UInt8) -> [UInt8] {
      var bytes = good
      bytes[offset] = value
      return bytes
    }
    let second = PublishedHeap.recordsOffset + 64
    #expect(throws: SnapshotError.damaged(record: 1)) { try snapshot(damaged(second, 1)) }
    #expect(throws: SnapshotError.damaged(record: 1)) { try snapshot(damaged(second + 9, 0xff)) }
    #expect(throws: SnapshotError.damaged(record: 1)) {
      try snapshot(damaged(second + MemoryLayout<PublishedBlock>.offset(of: \.kind)!, 9))
    }
    #expect(throws: SnapshotError.damaged(record: nil)) {
      try snapshot(damaged(MemoryLayout<PublishedHeap>.offset(of: \.recordsEnd)! + 7, 0x7f))
    }
  }

  @Test func thatClaimsMoreThanThereCanBeIsRefusedBeforeMemoryIsTakenForIt() {
    func refused(_ change: (inout PublishedHeap) -> Void) -> Bool {
      var heap = priced()
      change(&heap)
      var bytes = page(heap, [])
      withUnsafeBytes(of: heap) { bytes.replaceSubrange(0..<$0.count, with: $0) }
      return (try? snapshot(bytes)) == nil
    }
    #expect(!refused { _ in })
    #expect(refused { ($0.capacity, $0.recordsEnd, $0.blockBytes) = (1 << 24, 1 << 24, 4096) })
    #expect(refused { $0.blockBytes = 4096 } && refused { $0.recordsEnd = 1 << 21 })
    #expect(
      refused { $0.splits = 1 << 63 } && refused { $0.usedPages = 1 << 46 } && refused { $0.memoryPrice = .infinity })
    var forever = block(0, used: 1, idle: 1)
    forever.wait = .infinity
    #expect((try? snapshot(page(priced(), [forever]))) == nil)
  }

  /// The layout is a format: these numbers are in Docs/Explain.md.
  @Test func hasItsFieldsWhereTheDocumentSays() {
    #expect(MemoryLayout<PublishedBlock>.stride == 64 && PublishedHeap.recordsOffset == 4096)
    #expect(MemoryLayout<PublishedHeap>.size <= PublishedHeap.recordsOffset)
    let header = [
      MemoryLayout<PublishedHeap>.offset(of: \.headerBytes), MemoryLayout<PublishedHeap>.offset(of: \.blockBytes),
      MemoryLayout<PublishedHeap>.offset(of: \.sequence), MemoryLayout<PublishedHeap>.offset(of: \.policy),
      MemoryLayout<PublishedHeap>.offset(of: \.publishedAt), MemoryLayout<PublishedHeap>.offset(of: \.usedPages),
      MemoryLayout<PublishedHeap>.offset(of: \.recordsEnd), MemoryLayout<PublishedHeap>.offset(of: \.nextCures),
    ]
    #expect(header == [8, 12, 20, 32, 40, 104, 96, 368])
    let record = [
      MemoryLayout<PublishedBlock>.offset(of: \.used), MemoryLayout<PublishedBlock>.offset(of: \.spans),
      MemoryLayout<PublishedBlock>.offset(of: \.kind), MemoryLayout<PublishedBlock>.offset(of: \.flags),
      MemoryLayout<PublishedBlock>.offset(of: \.age), MemoryLayout<PublishedBlock>.offset(of: \.wait),
    ]
    #expect(record == [8, 22, 24, 28, 32, 44])
  }
}

@Suite struct AnExplanation {
  private func explain(_ blocks: [PublishedBlock], _ heap: PublishedHeap = priced(), limit: Int = 3) -> Explanation {
    Explanation(
      PublishedSnapshot(heap: heap, blocks: blocks), process: 1, name: "x", now: 1_250_000_000, limit: limit)
  }

  @Test func countsEveryPageOnceByWhatMadeItsBlock() {
    let causes: [(BackingCause, BackingReason)] = [
      (.policy, .policy), (.limit, .limit), (.request, .request), (.pressure, .pressure), (.discard, .discard),
      (.lost, .lost), (.neverHuge, .neverHuge), (.shared, .shared), (.none, .other),
    ]
    var blocks = causes.enumerated().map {
      block($0.offset, used: 10 + $0.offset, idle: 20, backing: .split, cause: $0.element.0, broken: true)
    }
    blocks.append(block(20, used: 300, idle: 212))
    blocks.append(block(21, used: 300, idle: 212, cause: .reinflated))
    blocks.append(block(22, used: 300, idle: 212, cause: .rebuilt))
    blocks.append(block(23, used: 300, idle: 212, backing: .unknown))
    blocks.append(block(24, used: 0, idle: 512, kind: BlockKind.freeResident.rawValue))
    blocks.append(block(25, used: 0, idle: 0, kind: BlockKind.absent.rawValue))
    blocks[blocks.count - 1].flags = 16
    blocks.append(block(26, used: 0, idle: 0, kind: BlockKind.absent.rawValue))
    let explanation = explain(blocks)
    for (number, pair) in causes.enumerated() {
      #expect(explanation.reasons[pair.1.rawValue]?.usedBytes == (10 + number) << 12, "\(pair.1)")
    }
    for reason in [BackingReason.huge, .reinflated, .rebuilt, .notSeen] {
      #expect(explanation.reasons[reason.rawValue]?.usedBytes == 300 << 12, "\(reason)")
    }
    #expect(explanation.reasons["released"]?.releasedBytes == 2 << 20)
    #expect(explanation.reasons["untouched"]?.releasedBytes == 0 && explanation.reasons["untouched"]?.blocks == 1)
    #expect(explanation.rows.reduce(0) { $0 + $1.1.blocks } == blocks.count)
    #expect(explanation.rows.reduce(0) { $0 + $1.1.usedBytes } == explanation.total.usedBytes)
    #expect(explanation.ageSeconds == 0.25 && explanation.next.seconds == 0.5)
  }

  @Test func namesTheDearestBlocksFirst() throws {
    // Rent at price 400 is 0.42 us a page and second, and the tax is 2 us a page.
    let explanation = explain([
      block(0, used: 0, idle: 512, kind: BlockKind.freeResident.rawValue),
      block(1, used: 500, idle: 0, backing: .split, broken: true),
      block(2, used: 500, idle: 12), block(3, used: 512, idle: 0),
    ])
    #expect(explanation.costly.map(\.address) == ["7f0000200000", "7f0000000000", "7f0000400000"])
    #expect(explanation.costly[0].tax == 1000 && explanation.costly[0].rent == 0)
    #expect(abs(explanation.costly[1].rent - 217.01) < 0.01 && explanation.costly[1].tax == 0)
  }

  @Test func saysUntilWhenAndForHowMuchItWaits() throws {
    var first = block(0, used: 0, idle: 512, kind: BlockKind.freeResident.rawValue)
    (first.step, first.price, first.wait) = (BlockForecast.Step.releaseWhole.rawValue, 100, 0.5)
    var second = first
    (second.address, second.price, second.wait) = (second.address + 1 << 21, 200, 2)
    var never = block(2, used: 500, idle: 12)
    (never.step, never.wait) = (BlockForecast.Step.breakBlock.rawValue, -1)
    let explanation = explain([first, second, never])
    let waiting = try #require(explanation.waiting.first)
    #expect(explanation.waiting.count == 1 && waiting.blocks == 2 && waiting.bytes == 4 << 20)
    #expect(waiting.firstSeconds == 0.5 && waiting.lastSeconds == 2 && waiting.meanPrice == 150)
    #expect(explanation.keptByTax.idleBytes == 12 << 12)
    let text = ExplanationText.text(explanation, TableStyle())
    #expect(text.contains("500ms") && text.contains("2s") && text.contains("1 hugepage stay"))
  }

  @Test func saysWhatTheNextScavengeWouldDo() {
    var heap = priced()
    heap.flags = PublishedHeap.forecastKnown | PublishedHeap.hasScavenger
    (heap.nextPages, heap.nextWholeBlocks, heap.nextRebuilds, heap.nextCures) = (1024, 2, 1, 3)
    let text = ExplanationText.text(explain([], heap), TableStyle())
    #expect(
      text.contains(
        "in 500ms, releases 4.0 MiB, gives 2 whole blocks away, makes 1 block huge again, cures the phantom of 3 blocks"
      ))
    heap.flags = 0
    heap.policy = 4
    #expect(explain([], heap).next.bytes == nil && explain([], heap).policy == "custom")
    #expect(ExplanationText.text(explain([], heap), TableStyle()).contains("cannot be asked"))
  }

  @Test func ofADeferringHeapSaysWhatWaitsForPressure() {
    var heap = priced()
    heap.strategy = StrategyKind.deferred.rawValue
    heap.flags = PublishedHeap.wholeOnly
    heap.idlePages = 2560
    let explanation = explain([], heap)
    #expect(explanation.deferredBytes == 10 << 20 && explanation.strategy == "deferred")
    #expect(ExplanationText.text(explanation, TableStyle()).contains("10.0 MiB of free memory are deferred"))
  }
}

/// A heap of this process with a page; both go with the value.
private final class PublishingHeap {
  let heap: UnsafeMutablePointer<LinuxHeap>

  init() throws {
    var options = HeapOptions()
    options.firstArenaBytes = 64 << 21
    heap = try LinuxHeap.create(options)
    try #require(heap.pointee.openPage() == nil)
  }

  deinit { LinuxHeap.destroy(heap) }
}

@Suite(.serialized) struct PagesOfAProcess {
  @Test func areReadAsTheHeapHasThem() throws {
    let publishing = try PublishingHeap()
    let span = try publishing.heap.pointee.core.allocate(SpanRequest(pageCount: 1234)).span
    memset(span.pointer, 1, span.pageCount << 12)
    usleep(120_000)
    publishing.heap.pointee.publish(untilNextTick: 0)
    let process = Int(getpid())
    let reader = try PageReader(process: process)
    let read = try reader.read().filter { $0.heap.usedPages == 1234 }
    let found = try #require(read.first)
    #expect(found.blocks.reduce(0) { $0 + Int($1.used) } == 1234)
    #expect(found.blocks.contains { $0.address == UInt64(span.address & ~0x1f_ffff) })
    var explanation = Explanation(found, process: process, name: "test", now: 0, limit: 1)
    explanation.compare(with: try CoverageReader().look(at: process), found)
    #expect(try #require(explanation.kernelAnonymousBytes) >= 1234 << 12)
    publishing.heap.pointee.core.free(span)
  }

  /// While another thread writes without a pause, what is read is of one moment: totals and blocks agree.
  @Test func areNeverReadHalfWritten() throws {
    let publishing = try PublishingHeap()
    let heap = publishing.heap
    let process = Int(getpid())
    // Other tests have heaps with pages too: ours is the one with so much in use.
    let kept = try heap.pointee.core.allocate(SpanRequest(pageCount: 7777)).span
    heap.pointee.publishAtOnce()
    let number = try #require(
      try PageReader(process: process).read().first { $0.heap.usedPages == 7777 }?.heap.heapNumber)
    let isOver = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
    isOver.initialize(to: 0)
    let ended = DispatchSemaphore(value: 0)
    let addresses = (heap: UInt(bitPattern: heap), isOver: UInt(bitPattern: isOver))
    Thread {
      let heap = UnsafeMutablePointer<LinuxHeap>(bitPattern: addresses.heap)!
      var round = 0
      while hs_shim_word_load(UnsafePointer(bitPattern: addresses.isOver)!) == 0 {
        round += 1
        let span = try? heap.pointee.core.allocate(SpanRequest(pageCount: 1 + round * 37 % 3000)).span
        heap.pointee.publishAtOnce()
        usleep(300)
        if let span { heap.pointee.core.free(span) }
        heap.pointee.publishAtOnce()
        usleep(300)
      }
      ended.signal()
    }.start()
    var seen: Set<UInt64> = []
    var reads = 0
    let start = DispatchTime.now().uptimeNanoseconds
    // Pages of other tests come and go, and then all are looked for again.
    while reads < 300 && DispatchTime.now().uptimeNanoseconds - start < 20_000_000_000 {
      guard let reader = try? PageReader(process: process) else { continue }
      while reads < 300, let found = try? reader.read().first(where: { $0.heap.heapNumber == number }) {
        reads += 1
        #expect(found.blocks.reduce(0) { $0 + UInt64($1.used) } == found.heap.usedPages)
        seen.insert(found.heap.usedPages)
      }
    }
    hs_shim_word_store(isOver, 1)
    ended.wait()
    isOver.deallocate()
    heap.pointee.core.free(kept)
    #expect(reads > 0 && seen.count > 1)
  }

  @Test func ofAProcessWithoutAreSaidToBeMissing() throws {
    let process = try Sleeper()
    defer { process.end() }
    let number = process.number
    #expect(throws: PageError.noPage(number, name: "sleep", child: nil)) { try PageReader(process: number) }
    process.end()
    #expect(throws: PageError.process(.noProcess(number))) { try PageReader(process: number) }
    #expect(throws: PageError.process(.kernelThread(2, name: "kthreadd"))) {
      // A container shows no kernel threads.
      guard contents(ofFile: "/proc/2/comm") == "kthreadd\n" else {
        throw PageError.process(.kernelThread(2, name: "kthreadd"))
      }
      _ = try PageReader(process: 2)
    }
  }
}
