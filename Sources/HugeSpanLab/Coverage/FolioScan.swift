// Hugepages that are still one folio and no longer mapped as one.
//
// A part of a hugepage that is unmapped, or protected differently, leaves the page tables page by page; the folio stays whole, and charged as a whole, until
// reclaim splits it. smaps does not show these. The kernel's flags of physical pages do: a page of a folio of 2 MiB or of any
// other size above a page has KPF_THP (kernel document pagemap.rst). Only root is told physical page numbers, so that for
// others this is not to be had, which is said.

import Glibc

/// What the flags of a process' anonymous pages say.
package struct FolioFigures: Codable, Equatable, Sendable {
  /// Anonymous bytes on folios larger than a page, however they are mapped.
  package var largeBytes = 0

  package init() {}
}

extension CoverageReader {
  /// Looks at every anonymous page of the mappings.
  ///
  /// - Returns: nil where the kernel does not tell: without root, or without CONFIG_PROC_PAGE_MONITOR.
  /// - Complexity: 16 bytes read for each page in memory, about 10 ms a GiB.
  package func folios(of process: Int, _ mappings: [MappingReport]) -> FolioFigures? {
    let pagemap = open("\(proc)/\(process)/pagemap", O_RDONLY | O_CLOEXEC)
    guard pagemap >= 0 else { return nil }
    defer { close(pagemap) }
    let flags = open("\(proc)/kpageflags", O_RDONLY | O_CLOEXEC)
    guard flags >= 0 else { return nil }
    defer { close(flags) }
    var figures = FolioFigures()
    var entries = [UInt64](repeating: 0, count: 16 << 10)
    var words = [UInt64](repeating: 0, count: 16 << 10)
    for mapping in mappings where mapping.figures.anonymousBytes > 0 {
      var page = mapping.start >> 12
      let end = mapping.end >> 12
      while page < end {
        let wanted = min(Int(end - page), entries.count)
        let got = entries.withUnsafeMutableBytes { pread(pagemap, $0.baseAddress!, wanted * 8, off_t(page) * 8) } / 8
        if got <= 0 { break }
        guard let large = largePages(entries[0..<got], flags, &words) else { return nil }
        figures.largeBytes += large << 12
        page += UInt(got)
      }
    }
    return figures
  }

  /// Of the pages in `entries`, how many are anonymous and part of a folio larger than a page; nil if their numbers are hidden.
  private func largePages(_ entries: ArraySlice<UInt64>, _ flags: Int32, _ words: inout [UInt64]) -> Int? {
    let isPresent: UInt64 = 1 << 63
    let isOfFile: UInt64 = 1 << 61
    let number: UInt64 = (1 << 55) - 1
    var large = 0
    var index = entries.startIndex
    while index < entries.endIndex {
      let entry = entries[index]
      index += 1
      if entry & isPresent == 0 || entry & isOfFile != 0 { continue }
      let first = entry & number
      if first == 0 { return nil }
      // Neighbours in memory are mostly neighbours here, and are read in one.
      var count = 1
      while index < entries.endIndex, entries[index] & (isPresent | isOfFile) == isPresent,
        entries[index] & number == first + UInt64(count)
      {
        count += 1
        index += 1
      }
      let bytes = words.withUnsafeMutableBytes { pread(flags, $0.baseAddress!, count * 8, off_t(first) * 8) }
      if bytes < count * 8 { return nil }
      // KPF_THP and KPF_ANON.
      for word in words[0..<count] where word >> 22 & 1 != 0 && word >> 12 & 1 != 0 { large += 1 }
    }
    return large
  }
}
