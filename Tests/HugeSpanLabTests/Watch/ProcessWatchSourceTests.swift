// Looks at processes: blocks made up, blocks of this process, and processes that cannot be looked at.

import Foundation
import Glibc
import Testing

@testable import HugeSpanLab

private let block = BlockTally.blockBytes

@Suite("Pageblocks of a process")
struct BlockTallyTests {
  private func letters(_ blocks: [WatchBlock]) -> String { String(blocks.map(\.state.letter)) }

  @Test("a block is judged by what is in memory of it, and how that is mapped")
  func judged() {
    var tally = BlockTally()
    tally.add(start: 10 * block, end: 12 * block, isHuge: true, isPresent: true)
    tally.add(start: 12 * block, end: 12 * block + block / 2, isHuge: false, isPresent: true)
    tally.add(start: 13 * block + 4096, end: 13 * block + 8192, isHuge: false, isPresent: true)
    // Swapped alone: had memory.
    tally.add(start: 14 * block, end: 14 * block + 4096, isHuge: false, isPresent: false)
    var seen: [UInt] = []
    let area = BlockTally.Area(start: 10 * block, end: 16 * block)
    let (blocks, leftOut) = tally.states(in: [area], seen: &seen)
    #expect(letters(blocks) == "##bsr." && leftOut == 0 && blocks.map(\.address).first == 10 * block)
    #expect(seen == (10...14).map { UInt($0) * block })
  }

  @Test("what had memory and has none is released as long as it is mapped, also as a mere reservation")
  func released() {
    var seen: [UInt] = [2 * block, 3 * block, 5 * block, 9 * block]
    var tally = BlockTally()
    tally.add(start: 3 * block, end: 4 * block, isHuge: true, isPresent: true)
    let areas = [
      BlockTally.Area(start: 2 * block, end: 4 * block),
      BlockTally.Area(start: 4 * block, end: 7 * block, isUsable: false),
    ]
    let (blocks, leftOut) = tally.states(in: areas, seen: &seen)
    #expect(letters(blocks) == "r#r" && blocks.map(\.address) == [2 * block, 3 * block, 5 * block] && leftOut == 0)
    #expect(seen == [2 * block, 3 * block, 5 * block])
  }

  @Test("a block that two mappings share is one block, of either's memory")
  func shared() {
    var tally = BlockTally()
    tally.add(start: block + 8192, end: block + 12288, isHuge: false, isPresent: true)
    tally.add(start: block + 4 * 8192, end: 2 * block, isHuge: false, isPresent: true)
    var seen: [UInt] = []
    let areas = [
      BlockTally.Area(start: block, end: block + 16384), BlockTally.Area(start: block + 4 * 8192, end: 2 * block),
    ]
    #expect(letters(tally.states(in: areas, seen: &seen).blocks) == "b")
  }

  @Test("endless address space without memory is counted, not listed")
  func endless() {
    var tally = BlockTally()
    tally.add(start: 1 << 40, end: 1 << 40 + block, isHuge: true, isPresent: true)
    var seen: [UInt] = [1 << 41]
    let area = BlockTally.Area(start: 1 << 30, end: 1 << 46)
    let (blocks, leftOut) = tally.states(in: [area], seen: &seen)
    #expect(letters(blocks) == "#r" && leftOut == ((1 << 46) - (1 << 30)) / block - 2)
  }

  @Test("files and the kernel's own mappings are no areas")
  func areas() throws {
    let maps = """
      55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
      7f0000000000-7f0000400000 rw-p 00000000 00:00 0
      7f0000400000-7f0000500000 ---p 00000000 00:00 0                          [anon:reserved]
      7f0000600000-7f0000700000 r-xp 00001000 08:01 1234                       /usr/lib/a library.so (deleted)
      7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
      ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
      """
    let areas = BlockTally.areas(of: try parseSmaps(maps))
    #expect(areas.map(\.start) == [0x55d0_c000_0000, 0x7f00_0000_0000, 0x7f00_0040_0000])
    #expect(areas.map(\.isUsable) == [true, true, false])
  }
}

@Suite("Looking at processes", .serialized)
struct ProcessWatchSourceTests {
  private func hasScan() -> Bool {
    var source = ProcessWatchSource(process: Int(getpid()))
    return (try? source.look(mappings: false))?.blocks.isEmpty == false
  }

  @Test("blocks of this process are seen as they are")
  func ownBlocks() throws {
    // Before Linux 6.7 blocks cannot be seen, which the notes say.
    guard hasScan() else { return }
    let size = Int(block)
    let base = mmap(nil, 8 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)!
    defer { munmap(base, 8 * size) }
    let start = (UInt(bitPattern: base) + block - 1) & ~(block - 1)
    let memory = UnsafeMutableRawPointer(bitPattern: start)!
    madvise(memory, 6 * size, MADV_NOHUGEPAGE)
    memset(memory, 1, size)
    memset(memory + size, 1, 4096)
    memset(memory + 3 * size, 1, size)
    var source = ProcessWatchSource(process: Int(getpid()))
    func states() throws -> String {
      let sample = try source.look(mappings: false)
      let own = (0..<6).map { number in sample.blocks.first { $0.address == start + UInt(number) * block }?.state }
      return String(own.map { $0?.letter ?? "?" })
    }
    #expect(try states() == "bs.b..")
    madvise(memory + 3 * size, size, MADV_DONTNEED)
    #expect(try states() == "bs.r..")
    let huge = Machine.selected(contents(ofFile: "/sys/kernel/mm/transparent_hugepage/enabled"))
    guard huge == "always" || huge == "madvise" else { return }
    madvise(memory + 4 * size, size, MADV_HUGEPAGE)
    memset(memory + 4 * size, 1, size)
    // The kernel may have none to give.
    #expect(["bs.r#.", "bs.rb."].contains(try states()))
  }

  @Test("a look has the sums of smaps, and the mappings where they are asked for")
  func sums() throws {
    var source = ProcessWatchSource(process: Int(getpid()))
    let sums = try source.look(mappings: false)
    #expect(sums.residentBytes > 1 << 20 && sums.anonymousBytes > 0 && sums.mappings.isEmpty && sums.usedBytes == nil)
    let all = try source.look(mappings: true)
    #expect(!all.mappings.isEmpty && all.process == Int(getpid()))
  }

  @Test("a process whose number has been given to another has ended")
  func reused() throws {
    let folder = NSTemporaryDirectory() + "hugespan-test-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try FileManager.default.createDirectory(atPath: folder + "/7", withIntermediateDirectories: true)
    func write(_ text: String, _ name: String) throws {
      try text.write(toFile: folder + "/7/" + name, atomically: false, encoding: .utf8)
    }
    func stat(_ begin: Int) -> String {
      "7 (a) b) S 1" + String(repeating: " 0", count: 17) + " \(begin) 9 9\n"
    }
    try write("a) b\n", "comm")
    let mapping = "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 [rollup]\n"
    try write(mapping + "Rss: 8 kB\nAnonymous: 4 kB\n", "smaps_rollup")
    try write(stat(100), "stat")
    var reader = CoverageReader()
    reader.proc = folder
    var source = ProcessWatchSource(process: 7, reader: reader)
    let first = try source.look(mappings: false)
    #expect(first.name == "a) b" && first.residentBytes == 8192 && first.blocks.isEmpty)
    // No pagemap here.
    try write(mapping, "maps")
    #expect(try source.look(mappings: false).notes.contains { $0.contains("cannot be seen") })
    try write(stat(101), "stat")
    #expect(throws: CoverageError.ended(7, name: "a) b")) { try source.look(mappings: false) }
    #expect(throws: CoverageError.noProcess(8)) {
      var source = ProcessWatchSource(process: 8, reader: reader)
      _ = try source.look(mappings: false)
    }
  }
}
