// Looks at any process, by /proc.
//
// The sums are smaps_rollup's, the blocks are PAGEMAP_SCAN's over the anonymous mappings, which is the quicker of the two. Whether a block is lazily free no scan tells; root may read the flags of physical pages, and is only
// asked to where the sums say that there is such memory at all. Between two looks a process may end and its number be given
// away, so that the time it began is compared.

import Glibc

/// Looks at a process.
package struct ProcessWatchSource: WatchSource {
  private let reader: CoverageReader
  private let process: Int
  private let begin: UInt64?
  /// Blocks that had memory in an earlier look.
  private var seen: [UInt] = []
  private var scan: PagemapScan?

  package init(process: Int, reader: CoverageReader = CoverageReader()) {
    self.process = process
    self.reader = reader
    begin = reader.statField(.start, of: process)
  }

  package mutating func look(mappings: Bool) throws(CoverageError) -> WatchSample {
    var coverage = try reader.look(at: process, mappings: mappings)
    if mappings { reader.guessNames(of: process, &coverage.mappings) }
    if reader.statField(.start, of: process) != begin { throw .ended(process, name: coverage.name) }
    var sample = WatchSample(process: process, name: coverage.name)
    sample.residentBytes = coverage.total.residentBytes
    sample.chargedBytes = coverage.chargedBytes
    sample.anonymousBytes = coverage.total.anonymousBytes
    sample.hugeBytes = coverage.total.hugeBytes
    sample.lazyFreeBytes = coverage.total.lazyFreeBytes
    sample.swappedBytes = coverage.total.swappedBytes
    sample.mappings = coverage.largest
    if coverage.isDisabled == true { sample.notes.append("The process gets no hugepages (PR_SET_THP_DISABLE).") }
    if let group = coverage.group, let others = reader.others(inGroup: group), others > 0 {
      sample.notes.append("Charged is the memory group, with \(others) other \(others == 1 ? "process" : "processes").")
    }
    try lookAtBlocks(&sample)
    return sample
  }

  private mutating func lookAtBlocks(_ sample: inout WatchSample) throws(CoverageError) {
    let path = "\(reader.proc)/\(process)/maps"
    guard let text = contents(ofFile: path), !text.isEmpty else { return }
    let areas: [BlockTally.Area]
    do throws(SmapsError) { areas = BlockTally.areas(of: try parseSmaps(text)) } catch {
      throw .unreadable(path, line: error.line)
    }
    if scan == nil { scan = PagemapScan(directory: "\(reader.proc)/\(process)") }
    guard let scan else {
      sample.notes.append("The pageblocks cannot be seen: pagemap: \(String(cString: strerror(errno))).")
      return
    }
    var tally = BlockTally()
    for area in areas {
      let code = scan.forEachRegion(.pages, from: area.start, to: area.end) {
        tally.add(start: $0.start, end: $0.end, isHuge: $0.isHuge, isPresent: $0.isPresent)
      }
      if code == 0 { continue }
      let reason = String(cString: strerror(code))
      sample.notes.append("The pageblocks cannot be seen: the scan of the pagemap (Linux 6.7) failed: \(reason).")
      return
    }
    if let lazy = sample.lazyFreeBytes, lazy >= Int(BlockTally.blockBytes) {
      if !markLazilyFree(&tally, bytes: lazy, scan) {
        sample.notes.append("Which blocks are lazily free is told to root only.")
      }
    }
    let (blocks, leftOut) = tally.states(in: areas, seen: &seen)
    sample.blocks = blocks
    if leftOut > 0 { sample.notes.append("\(leftOut) blocks in long stretches without memory are not in the map.") }
  }

  /// Marks the blocks whose first page is anonymous and not backed by swap, in ascending order, until `bytes` of them are found: a
  /// block that was written again after MADV_FREE has these flags as well until reclaim comes by, but is not in the sum.
  ///
  /// False if the flags cannot be read.
  private func markLazilyFree(_ tally: inout BlockTally, bytes: Int, _ scan: PagemapScan) -> Bool {
    let flags = open("\(reader.proc)/kpageflags", O_RDONLY | O_CLOEXEC)
    guard flags >= 0 else { return false }
    defer { close(flags) }
    var left = bytes
    for index in tally.blocks.indices {
      guard left > 0 else { break }
      let block = tally.blocks[index]
      guard let first = block.firstPresent else { continue }
      guard let entry = scan.entry(ofPageAt: first) else { return false }
      let number = entry & ((1 << 55) - 1)
      if entry >> 63 == 0 || number == 0 { continue }
      var word: UInt64 = 0
      guard pread(flags, &word, 8, off_t(number) * 8) == 8 else { return false }
      // KPF_ANON, and not KPF_SWAPBACKED.
      guard word >> 12 & 1 != 0, word >> 14 & 1 == 0 else { continue }
      tally.blocks[index].isLazilyFree = true
      left -= Int(block.presentBytes)
    }
    return true
  }
}
