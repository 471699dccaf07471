// On folios of which sizes a process' memory lies, and which of them are no longer mapped as hugepages.
//
// A part of a hugepage that is unmapped, or protected differently, leaves the page tables page by page; the folio stays whole, and charged as a whole, until
// reclaim splits it. smaps does not show these, nor folios of sizes below 2 MiB. The kernel's flags of physical pages do: a page of a folio of any
// size above a page has KPF_THP, the first of them KPF_COMPOUND_HEAD and the others KPF_COMPOUND_TAIL (kernel document pagemap.rst). Only root is
// told physical page numbers, so that for others this is not to be had, which is said.

import Glibc

/// What the flags of a process' anonymous pages say.
package struct FolioFigures: Codable, Equatable, Sendable {
  /// Anonymous bytes on folios larger than a page, however they are mapped.
  package var largeBytes = 0
  /// The same by the size of the folio in bytes.
  package var bySize: [Int: Int] = [:]

  package init() {}
}

/// Flags of physical pages, as `kpageflags` has them: from which page on folios begin and end.
package enum FolioFlags {
  static let anonymous: UInt64 = 1 << 12
  static let head: UInt64 = 1 << 15
  static let tail: UInt64 = 1 << 16
  static let large: UInt64 = 1 << 22
  /// Pages of the largest folio that a process' anonymous memory can be on.
  static let longest = 512

  /// The pages of the folio that `words[index]` is a page of; nil if its beginning or end is not among the words.
  package static func folioPages(_ words: ArraySlice<UInt64>, at index: Int) -> Int? {
    var first = index
    while words[first] & head == 0 {
      if words[first] & tail == 0 || first == words.startIndex { return nil }
      first -= 1
    }
    var end = first + 1
    while end < words.endIndex, words[end] & tail != 0 { end += 1 }
    return end == words.endIndex && end - first < longest ? nil : end - first
  }
}

extension CoverageReader {
  /// Looks at every anonymous page of the mappings. `onLarge` is told of each page on a folio that is larger than a page.
  ///
  /// - Returns: nil where the kernel does not tell: without root, or without CONFIG_PROC_PAGE_MONITOR.
  /// - Complexity: 16 bytes read for each page in memory, about 10 ms a GiB; and more on folios larger than a page.
  package func folios(
    of process: Int, _ mappings: [MappingReport], onLarge: (UInt) -> Void = { _ in }
  ) -> FolioFigures? {
    let pagemap = open("\(proc)/\(process)/pagemap", O_RDONLY | O_CLOEXEC)
    guard pagemap >= 0 else { return nil }
    defer { close(pagemap) }
    let flags = open("\(proc)/kpageflags", O_RDONLY | O_CLOEXEC)
    guard flags >= 0 else { return nil }
    defer { close(flags) }
    var scan = FolioScan(flags: flags)
    var entries = [UInt64](repeating: 0, count: 16 << 10)
    for mapping in mappings where mapping.figures.anonymousBytes > 0 {
      var page = mapping.start >> 12
      let end = mapping.end >> 12
      while page < end {
        let wanted = min(Int(end - page), entries.count)
        let got = entries.withUnsafeMutableBytes { pread(pagemap, $0.baseAddress!, wanted * 8, off_t(page) * 8) } / 8
        if got <= 0 { break }
        if !scan.add(entries[0..<got], page: page, onLarge) { return nil }
        page += UInt(got)
      }
    }
    return scan.figures
  }
}

/// A scan that goes on.
private struct FolioScan {
  let flags: Int32
  var figures = FolioFigures()
  private var words = [UInt64](repeating: 0, count: 16 << 10)
  private var wide = [UInt64](repeating: 0, count: 18 << 10)

  init(flags: Int32) { self.flags = flags }

  /// False if the pages' numbers are hidden, or their flags cannot be read.
  mutating func add(_ entries: ArraySlice<UInt64>, page: UInt, _ onLarge: (UInt) -> Void) -> Bool {
    let isPresent: UInt64 = 1 << 63
    let isOfFile: UInt64 = 1 << 61
    let number: UInt64 = (1 << 55) - 1
    var index = entries.startIndex
    while index < entries.endIndex {
      let entry = entries[index]
      index += 1
      if entry & isPresent == 0 || entry & isOfFile != 0 { continue }
      let first = entry & number
      if first == 0 { return false }
      // Neighbours in memory are mostly neighbours here, and are read in one.
      let start = index - 1
      var count = 1
      while index < entries.endIndex, entries[index] & (isPresent | isOfFile) == isPresent,
        entries[index] & number == first + UInt64(count)
      {
        count += 1
        index += 1
      }
      if !add(first, count, address: (page + UInt(start - entries.startIndex)) << 12, onLarge) { return false }
    }
    return true
  }

  /// Physical pages from `first` on, which are at `address` in the process.
  private mutating func add(_ first: UInt64, _ count: Int, address: UInt, _ onLarge: (UInt) -> Void) -> Bool {
    guard read(&words, first, count) else { return false }
    func isLarge(_ word: UInt64) -> Bool { word & FolioFlags.large != 0 && word & FolioFlags.anonymous != 0 }
    guard words[0..<count].contains(where: isLarge) else { return true }
    // A folio may begin before these pages and end behind them, wherever those are mapped.
    let before = min(Int(first), FolioFlags.longest - 1)
    let all = before + count + FolioFlags.longest
    // At the end of physical memory there are fewer.
    let isWide = read(&wide, first - UInt64(before), all) || read(&wide, first - UInt64(before), before + count)
    for offset in 0..<count where isLarge(words[offset]) {
      figures.largeBytes += 4096
      onLarge(address + UInt(offset) << 12)
      if isWide, let pages = FolioFlags.folioPages(wide[0..<all], at: before + offset) {
        figures.bySize[pages << 12, default: 0] += 4096
      }
    }
    return true
  }

  private func read(_ target: inout [UInt64], _ first: UInt64, _ count: Int) -> Bool {
    target.withUnsafeMutableBytes { pread(flags, $0.baseAddress!, count * 8, off_t(first) * 8) } == count * 8
  }
}
