// Coverage of processes: what is read of smaps, on recorded trees and of this process; what cannot be looked at, and why.

import Foundation
import Glibc
import TestSupport
import Testing

@testable import HugeSpanLab

/// As Linux 6.1 writes it, with a name that the program gave a mapping, which not every kernel keeps.
private let recorded = """
  55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
  Size:                132 kB
  KernelPageSize:        4 kB
  MMUPageSize:           4 kB
  Rss:                 100 kB
  Pss:                 100 kB
  Anonymous:           100 kB
  LazyFree:              0 kB
  AnonHugePages:         0 kB
  Swap:                  8 kB
  THPeligible:           0
  VmFlags: rd wr mr mw me ac sd
  7f0000000000-7f0000400000 rw-p 00000000 00:00 0                          [anon:hugespan arena]
  Size:               4096 kB
  Rss:                3072 kB
  Anonymous:          3072 kB
  LazyFree:            512 kB
  AnonHugePages:      2048 kB
  FilePmdMapped:         0 kB
  Swap:                  0 kB
  THPeligible:           1
  VmFlags: rd wr mr mw me ac sd hg
  7f0000600000-7f0000700000 r-xp 00001000 08:01 1234                       /usr/lib/a library.so (deleted)
  Size:               1024 kB
  Rss:                 512 kB
  Anonymous:             0 kB
  AnonHugePages:         0 kB
  VmFlags: rd ex mr mw me nh
  """

/// A tree like /proc with one process in it.
private func tree(_ files: [String: String], process: Int = 42) throws -> (
  folder: TemporaryFolder, reader: CoverageReader
) {
  let folder = try TemporaryFolder()
  for (name, text) in files {
    let path = name.hasPrefix("/") ? folder.path + name : "\(folder.path)/proc/\(process)/\(name)"
    try FileManager.default.createDirectory(
      atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try text.write(toFile: path, atomically: false, encoding: .utf8)
  }
  var reader = CoverageReader()
  reader.proc = folder.path + "/proc"
  reader.cgroups = folder.path + "/cgroup"
  return (folder, reader)
}

@Suite("Coverage of a process")
struct CoverageTests {
  @Test("each mapping has its own figures, its name and its advice")
  func mappings() throws {
    let mappings = try parseSmaps(recorded)
    #expect(mappings.map(\.name) == ["[heap]", "[anon:hugespan arena]", "/usr/lib/a library.so (deleted)"])
    #expect(mappings.map(\.figures.anonymousBytes) == [100 << 10, 3 << 20, 0])
    #expect(mappings[1].figures.hugeBytes == 2 << 20 && mappings[1].figures.lazyFreeBytes == 512 << 10)
    #expect(mappings[1].figures.coverage == 2.0 / 3 && mappings[2].figures.coverage == nil)
    #expect(mappings.map(\.isAdvisedHuge) == [false, true, false])
    #expect(mappings.map(\.isAdvisedSmall) == [false, false, true])
    #expect(mappings.map(\.isEligible) == [false, true, nil])
    #expect(mappings[0].start == 0x55d0_c000_0000 && mappings[0].figures.swappedBytes == 8 << 10)
  }

  @Test(
    "what no kernel writes is refused with its line",
    arguments: [
      ("Rss: 4 kB", 1), ("xyz", 1), ("1000-0fff rw-p 0 00:00 0", 1), ("1000-2000 rw-p 0 00:00 0\nRss: -4 kB", 2),
      ("1000-2000 rw-p 0 00:00 0\nRss: x kB", 2), ("1000-2000 rw-p", 1),
    ])
  func refusals(text: String, line: Int) {
    #expect(throws: SmapsError(line: line)) { try parseSmaps(text) }
  }

  @Test("a recorded process has sums, the charge of its group, and whether it may have hugepages")
  func recordedTree() throws {
    let (folder, reader) = try tree([
      "comm": "server\n", "smaps": recorded, "cgroup": "0::/web\n",
      "status": "Name:\tserver\nState:\tS (sleeping)\nVmSize:\t 5252 kB\nTHP_enabled:\t0\n",
      "/cgroup/cgroup.controllers": "cpu memory\n", "/cgroup/web/memory.current": "12345678\n",
      "/cgroup/web/cgroup.procs": "42\n",
    ])
    let seen = try reader.look(at: 42)
    #expect(seen.name == "server" && seen.total.anonymousBytes == (100 << 10) + (3 << 20))
    #expect(seen.chargedBytes == 12_345_678 && seen.group == folder.path + "/cgroup/web" && seen.isDisabled == true)
    #expect(seen.largest.map(\.name) == ["[anon:hugespan arena]", "[heap]"])
    #expect(
      try reader.processes(named: "server") == [42] && reader.processes(inGroup: folder.path + "/cgroup/web") == [42])
    #expect(reader.folios(of: 42, seen.mappings) == nil, "a recorded tree has no physical pages")
    let text = CoverageText.process(seen, folios: nil, limit: 1, TableStyle())
    #expect(text.contains("[anon:hugespan arena]") && text.contains("1 others") && text.contains("66.7%"))
    #expect(text.contains("PR_SET_THP_DISABLE") && text.contains("Split hugepages cannot be seen"))
  }

  @Test(
    "of a process that is no more, or is the kernel's, or another's, it is said what is the matter, and nothing else")
  func errors() throws {
    /// Looks at process 42 of a tree, which stays until then.
    func look(_ files: [String: String]) throws -> ProcessCoverage {
      let (folder, reader) = try tree(files)
      return try withExtendedLifetime(folder) { try reader.look(at: 42) }
    }
    #expect(throws: CoverageError.noProcess(7)) { try tree(["comm": "a\n"]).reader.look(at: 7) }
    #expect(throws: CoverageError.noProcess(7)) { try tree(["comm": "a\n"]).reader.processes(named: "7") }
    #expect(throws: CoverageError.noName("b")) { try tree(["comm": "a\n"]).reader.processes(named: "b") }
    #expect(throws: CoverageError.kernelThread(42, name: "kworker")) {
      try look(["comm": "kworker\n", "smaps": "", "status": "State:\tI (idle)\nThreads:\t1\n"])
    }
    #expect(throws: CoverageError.ended(42, name: "a")) {
      try look(["comm": "a\n", "smaps": "", "status": "State:\tZ (zombie)\n"])
    }
    #expect(throws: CoverageError.self) {
      try look(["comm": "a\n", "smaps": "garbage\n", "status": "State:\tR\nVmSize:\t1 kB\n"])
    }
  }

  @Test("a process that has given up its memory and is about to end is no kernel thread")
  func ending() throws {
    func look(flags: String) throws -> ProcessCoverage {
      let (folder, reader) = try tree([
        "comm": "a) b\n", "smaps": "", "status": "State:\tR (running)\n",
        "stat": "42 (a) b) R 1 2 3 4 5 \(flags) 7 8\n",
      ])
      defer { withExtendedLifetime(folder) {} }
      return try reader.look(at: 42)
    }
    #expect(throws: CoverageError.ended(42, name: "a) b")) { try look(flags: "4194564") }
    #expect(throws: CoverageError.kernelThread(42, name: "a) b")) { try look(flags: "2129984") }
  }

  @Test("the figures of this process agree with its smaps to the page, and with the sum that the kernel makes")
  func ownProcess() throws {
    let child = try Sleeper()
    defer { child.end() }
    let reader = CoverageReader()
    let number = child.number
    let detailed = try reader.look(at: number)
    let summed = try reader.look(at: number, mappings: false)
    let text = try #require(contents(ofFile: "/proc/\(number)/smaps"))
    var anonymous = 0
    for line in text.split(separator: "\n") where line.hasPrefix("Anonymous:") {
      anonymous += Int(line.split(separator: " ")[1])! << 10
    }
    #expect(detailed.total.anonymousBytes == anonymous && anonymous > 0)
    #expect(summed.total.anonymousBytes == anonymous && summed.total.residentBytes == detailed.total.residentBytes)
    #expect(summed.mappings.isEmpty && detailed.mappings.count > 5)
  }

  @Test(
    "hugepages that are split in the page tables and whole in memory are seen by root",
    .enabled(if: geteuid() == 0, "only root is told which physical pages a process has"))
  func splitFolios() throws {
    let bytes = 8 << 20
    let area = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    defer { munmap(area, bytes) }
    let start = (UInt(bitPattern: area) + (2 << 20) - 1) & ~UInt((2 << 20) - 1)
    let aligned = UnsafeMutableRawPointer(bitPattern: start)!
    try #require(madvise(aligned, 4 << 20, MADV_HUGEPAGE) == 0)
    memset(aligned, 1, 4 << 20)
    let reader = CoverageReader()
    func look() throws -> (huge: Int, large: Int) {
      let seen = try reader.look(at: Int(getpid()))
      let mine = seen.mappings.filter { $0.start < start + (4 << 20) && $0.end > start }
      let folios = try #require(reader.folios(of: Int(getpid()), mine))
      return (mine.reduce(0) { $0 + $1.figures.hugeBytes }, folios.largeBytes)
    }
    let before = try look()
    // Without hugepages in this system there is nothing to split.
    if before.huge < 4 << 20 { return }
    #expect(before.large >= before.huge)
    // A page of one goes; the rest of it is mapped page by page, and still one folio.
    try #require(madvise(aligned, 4096, MADV_DONTNEED) == 0)
    let after = try look()
    #expect(before.huge - after.huge == 2 << 20)
    #expect(after.large - after.huge >= (2 << 20) - 4096 - max(before.large - before.huge, 0))
  }
}
