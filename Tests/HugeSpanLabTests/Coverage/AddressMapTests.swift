// The map of a process' pageblocks, the sizes of its folios, and names that are inferred.

import Foundation
import Glibc
import HugeSpanCore
import TestSupport
import Testing

@testable import HugeSpanLab

/// Memory of this process, aligned to a pageblock; goes with the value.
private final class Area {
  let start: UInt
  let bytes: Int
  private let whole: UnsafeMutableRawPointer
  private let wholeBytes: Int

  init(blocks: Int) throws {
    bytes = blocks << 21
    wholeBytes = bytes + 2 << 21
    whole = mmap(nil, wholeBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    try #require(whole != MAP_FAILED)
    start = (UInt(bitPattern: whole) + 0x1f_ffff) & ~0x1f_ffff
  }

  deinit { munmap(whole, wholeBytes) }

  func block(_ number: Int) -> UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(bitPattern: start + UInt(number) << 21)!
  }
}

/// Whether this system gives hugepages to who asks for them.
private let givesHugePages: Bool = {
  guard let area = try? Area(blocks: 1) else { return false }
  madvise(area.block(0), 2 << 20, MADV_HUGEPAGE)
  memset(area.block(0), 1, 2 << 20)
  let seen = try? CoverageReader().look(at: Int(getpid()))
  return seen?.mappings.contains { $0.start <= area.start && $0.end > area.start && $0.figures.hugeBytes > 0 } ?? false
}()

@Suite("The map of a process' pageblocks")
struct AddressMapTests {
  @Test("tells hugepages, full and sparse base pages, and nothing apart, to the page")
  func blocks() throws {
    let area = try Area(blocks: 6)
    madvise(area.block(0), 2 << 20, MADV_HUGEPAGE)
    madvise(area.block(1), 5 << 21, MADV_NOHUGEPAGE)
    memset(area.block(0), 1, 2 << 20)
    memset(area.block(1), 1, 2 << 20)
    memset(area.block(3), 1, 3 * 4096)
    let reader = CoverageReader()
    let seen = try reader.look(at: Int(getpid()))
    let found = try #require(reader.blocks(of: Int(getpid()), seen.mappings, split: nil))
    func block(_ number: Int) -> MappedBlock? {
      let name = String(area.start + UInt(number) << 21, radix: 16)
      return found.lazy.flatMap(\.blocks).first { $0.address == name }
    }
    #expect(block(1)?.presentBytes == 2 << 20 && block(1)?.hugeBytes == 0 && block(1)?.letter == "o")
    #expect(block(2) == nil && block(4) == nil)
    #expect(block(3)?.presentBytes == 3 * 4096 && block(3)?.letter == ".")
    #expect(block(0)?.presentBytes == 2 << 20)
    if givesHugePages { #expect(block(0)?.hugeBytes == 2 << 20 && block(0)?.letter == "#") }
  }

  @Test("agrees with smaps to the page in every mapping of a process that sleeps")
  func agreesWithSmaps() throws {
    let child = try Sleeper()
    defer { child.end() }
    let reader = CoverageReader()
    let seen = try reader.look(at: Int(child.processIdentifier))
    let found = try #require(reader.blocks(of: Int(child.processIdentifier), seen.mappings, split: nil))
    #expect(!found.isEmpty)
    for each in found where each.mapping.figures.residentBytes == each.mapping.figures.anonymousBytes {
      #expect(each.blocks.reduce(0) { $0 + $1.presentBytes } == each.mapping.figures.anonymousBytes, "\(each.mapping)")
      #expect(each.blocks.reduce(0) { $0 + $1.hugeBytes } == each.mapping.figures.hugeBytes)
    }
  }

  @Test("collapses long gaps, keeps to the width, and ends a mapping that is too long")
  func drawing() {
    var mapping = MappingReport(start: 0x7f00_0000_0000, end: 0x7f40_0000_0000, permissions: "rw-p", name: "[anon:x]")
    mapping.figures.anonymousBytes = 1
    func block(_ number: Int, huge: Bool) -> MappedBlock {
      MappedBlock(
        address: String(mapping.start + UInt(number) << 21, radix: 16), presentBytes: 2 << 20,
        hugeBytes: huge ? 2 << 20 : 0)
    }
    let few = AddressMapText.text(
      [MappedBlocks(mapping: mapping, blocks: [block(0, huge: true), block(2, huge: false), block(1000, huge: true)])],
      TableStyle(width: 80))
    #expect(few.contains("7f0000000000-7f4000000000 [anon:x]: # 2  o 1\n  #_o …997… #\n"), "\(few)")
    let many = AddressMapText.text(
      [MappedBlocks(mapping: mapping, blocks: (0..<10_000).map { block($0, huge: true) })], TableStyle(width: 100))
    let rows = many.split(separator: "\n").filter { $0.hasPrefix("  #") }
    #expect(rows.count == 24 && rows.allSatisfy { $0.count <= 100 } && many.contains("more"))
  }

  @Test("a block that root sees on large folios only is split")
  func letters() {
    var block = MappedBlock(address: "0", presentBytes: 2 << 20)
    #expect(block.letter == "o")
    block.splitBytes = 2 << 20
    #expect(block.letter == "s")
    block.hugeBytes = 2 << 20
    #expect(block.letter == "#")
    #expect(MappedBlock(address: "0", swappedBytes: 4096).letter == "~")
    #expect(MappedBlock(address: "0").letter == "_")
  }
}

@Suite("The sizes of folios")
struct FolioSizeTests {
  @Test("are counted from the first page to the last, and unknown where either is not seen")
  func sizes() {
    let head = FolioFlags.head
    let tail = FolioFlags.tail
    let words: [UInt64] = [tail, 0, head, tail, tail, tail, head, tail, 0]
    #expect(FolioFlags.folioPages(words[...], at: 2) == 4 && FolioFlags.folioPages(words[...], at: 5) == 4)
    #expect(FolioFlags.folioPages(words[...], at: 6) == 2 && FolioFlags.folioPages(words[...], at: 7) == 2)
    // The first page began before; a page of no folio; and a folio that may go on.
    #expect(FolioFlags.folioPages(words[...], at: 0) == nil && FolioFlags.folioPages(words[...], at: 1) == nil)
    #expect(FolioFlags.folioPages(words[..<5], at: 3) == nil)
    let whole = [head] + [UInt64](repeating: tail, count: 511)
    #expect(FolioFlags.folioPages(whole[...], at: 100) == 512)
  }

  @Test(
    "of hugepages are 2 MiB, also when a page of one is unmapped",
    .enabled(if: geteuid() == 0, "only root is told which physical pages a process has"))
  func hugePages() throws {
    if !givesHugePages { return }
    let area = try Area(blocks: 2)
    madvise(area.block(0), 4 << 20, MADV_HUGEPAGE)
    memset(area.block(0), 1, 4 << 20)
    madvise(area.block(0), 4096, MADV_DONTNEED)
    let reader = CoverageReader()
    let mine = try reader.look(at: Int(getpid())).mappings.filter { $0.start <= area.start && $0.end > area.start }
    var pages: [UInt: Int] = [:]
    let folios = try #require(reader.folios(of: Int(getpid()), mine) { pages[$0 & ~0x1f_ffff, default: 0] += 1 })
    #expect(pages[area.start] == 511 && pages[area.start + 2 << 20] == 512)
    #expect((folios.bySize[2 << 20] ?? 0) >= (4 << 20) - 4096)
  }
}

@Suite("Mappings without a name")
struct MappingNameTests {
  @Test("a thread that waits shows its stack, and a heap its blocks")
  func guesses() throws {
    let waiting = DispatchSemaphore(value: 0)
    let done = DispatchSemaphore(value: 0)
    let number = UnsafeMutablePointer<Int>.allocate(capacity: 1)
    defer { number.deallocate() }
    let place = UInt(bitPattern: number)
    let thread = Thread {
      let link = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/thread-self")
      UnsafeMutablePointer<Int>(bitPattern: place)!.pointee = link?.split(separator: "/").last.flatMap { Int($0) } ?? 0
      waiting.signal()
      done.wait()
    }
    thread.start()
    waiting.wait()
    defer { done.signal() }
    var options = HeapOptions()
    options.firstArenaBytes = 64 << 21
    let heap = try LinuxHeap.create(options)
    defer { LinuxHeap.destroy(heap) }
    try #require(heap.pointee.openPage() == nil)
    let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 10)).span
    memset(span.pointer, 1, 10 << 12)
    heap.pointee.publishAtOnce()
    usleep(50_000)
    let reader = CoverageReader()
    var mappings = try reader.look(at: Int(getpid())).mappings
    reader.guessNames(of: Int(getpid()), &mappings)
    func guess(_ address: UInt) -> String? { mappings.first { $0.start <= address && $0.end > address }?.guess }
    #expect(mappings.contains { $0.guess?.hasSuffix("stack of thread \(number.pointee)") == true })
    #expect(guess(span.address)?.hasPrefix("HugeSpan heap ") == true)
  }

  @Test("glibc's arenas are told by where they begin and what is reserved behind them")
  func arenas() {
    let start: UInt = 0x7f00_0400_0000
    let arena = MappingReport(start: start, end: start + 132 << 10, permissions: "rw-p", name: "")
    let rest = MappingReport(start: arena.end, end: start + 64 << 20, permissions: "---p", name: "")
    #expect(CoverageReader.isArena(arena, rest))
    #expect(
      !CoverageReader.isArena(
        arena, MappingReport(start: arena.end, end: rest.end - 4096, permissions: "---p", name: "")))
    let moved = MappingReport(start: start + 4096, end: arena.end, permissions: "rw-p", name: "")
    #expect(!CoverageReader.isArena(moved, rest))
  }
}
