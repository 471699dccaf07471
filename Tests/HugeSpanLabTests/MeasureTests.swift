import Glibc
import Testing

@testable import HugeSpanLab

@Suite("Measuring")
struct MeasureTests {
  @Test("a mean is weighted by the time that a value held, the peak is the largest value")
  func series() {
    var series = Series()
    #expect(series.extent(until: 10) == nil)
    series.add(100, at: 0)
    series.add(0, at: 30)
    series.add(40, at: 90)
    #expect(series.extent(until: 100) == Extent(mean: 34, peak: 100))
    // Twice at one time: the last value holds.
    series.add(60, at: 90)
    #expect(series.extent(until: 100)!.mean == 36)
  }

  @Test("lazily freed bytes are taken from mappings in the arenas alone")
  func smaps() {
    let text = """
      55d0c0000000-55d0c0001000 r--p 00000000 fe:00 1 /bin/x
      LazyFree:              8 kB
      7f0000000000-7f0000200000 rw-p 00000000 00:00 0
      Rss:                2048 kB
      LazyFree:           1024 kB
      THPeligible:           1
      VmFlags: rd wr mr mw me ac hg
      7f0000400000-7f0000600000 rw-p 00000000 00:00 0
      LazyFree:             64 kB
      """
    var parser = SmapsParser()
    var total = 0
    for line in text.split(separator: "\n") {
      Array(line.utf8).withUnsafeBytes { bytes in
        total += parser.lazyFreeBytes(in: bytes) { $0 >= 0x7f00_0000_0000 && $0 < 0x7f00_0040_0000 } ?? 0
      }
    }
    #expect(total == 1 << 20)
  }

  @Test(
    "this process' own lazily freed memory is seen", .enabled(if: isMadviseFreeSupported, "MADV_FREE does nothing here")
  )
  func ownLazyFree() {
    let bytes = 64 * 4096
    let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    defer { munmap(memory, bytes) }
    madvise(memory, bytes, 15)  // MADV_NOHUGEPAGE
    memset(memory, 1, bytes)
    madvise(memory, bytes, 8)  // MADV_FREE
    let start = UInt(bitPattern: memory)
    // The mapping may have been merged with a neighbour, so its start is not known: take all.
    let found = ProcessMemory().lazyFreeBytes { $0 <= start }
    #expect(found != nil && found! >= bytes / 2)
  }

  @Test("the anonymous size of this process grows by what it touches")
  func anonymous() {
    let memory = ProcessMemory()
    let bytes = 64 << 20
    var growth: [Int] = []
    // Other tests run in this process too, and give back what is theirs; not each time as much as this one takes.
    for _ in 0..<10 where growth.last ?? 0 <= bytes / 2 {
      guard let before = memory.anonymousBytes() else { break }
      let block = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
      defer { munmap(block, bytes) }
      memset(block, 1, bytes)
      growth.append((memory.anonymousBytes() ?? before) - before)
    }
    #expect(growth.last ?? 0 > bytes / 2, "\(growth)")
  }

  @Test("a program's share on hugepages is over time, and never more than all of it")
  func hugeShare() {
    var watch = MemoryWatch()
    watch.note(anonymous: 4096, huge: 0, at: 100)
    #expect(watch.meanBytes == nil && watch.hugeShare == nil)
    // Two files tell the two, and the program grew in between: the second is newer.
    watch.note(anonymous: 4096, huge: 2 << 20, at: 200)
    #expect(watch.hugeShare == 0)
    watch.note(anonymous: 4 << 20, huge: nil, at: 300)
    #expect(watch.hugeShare == 0.5)
    watch.note(anonymous: 4 << 20, huge: 4 << 20, at: 400)
    watch.note(anonymous: 1 << 20, huge: nil, at: 500)
    #expect(watch.peakBytes == 4 << 20 && watch.looks == 5)
    #expect(watch.hugeShare! < 1 && watch.hugeShare! > 0.4)
  }

  @Test("the selected word of a kernel setting")
  func selected() {
    #expect(Machine.selected("always [madvise] never\n") == "madvise")
    #expect(Machine.selected("garbage") == nil)
    #expect(Machine.selected(nil) == nil)
  }

  @Test("the machine is described")
  func machine() {
    let machine = Machine.current()
    #expect(machine.cores > 0 && machine.pageBytes >= 4096 && !machine.kernelRelease.isEmpty)
    #expect(machine.summary.contains(machine.kernelRelease))
  }
}

private let isMadviseFreeSupported: Bool = {
  let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
  defer { munmap(memory, 4096) }
  return madvise(memory, 4096, 8) == 0
}()
