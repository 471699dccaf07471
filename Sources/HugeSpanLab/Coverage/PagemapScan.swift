// PAGEMAP_SCAN over another process' address space: the one loop that all who ask it share.
//
// A scan fills a buffer of regions and says how far it came; a signal may interrupt it, and a full buffer ends it early. Needs the right to look at
// the process, and Linux 6.7.

import CHugeSpanShims
import Glibc

/// The pagemap of a process, open.
package final class PagemapScan {
  /// What is asked for.
  package enum Question: Sendable {
    /// Every page that is in memory or in swap, and whether a PMD entry maps it.
    case pages
    /// What PMD entries map, and nothing else.
    case hugePages
  }

  /// Neighbouring pages of a kind.
  package struct Region: Equatable, Sendable {
    package var start: UInt
    package var end: UInt
    package var isPresent: Bool
    package var isHuge: Bool
    package var isSwapped: Bool
  }

  private let file: Int32
  private var regions = [hs_shim_page_region](repeating: hs_shim_page_region(), count: 2048)

  /// Opens the pagemap under `directory` (`/proc/PID`); nil if that is refused, with the reason in errno.
  package init?(directory: String) {
    file = open(directory + "/pagemap", O_RDONLY | O_CLOEXEC)
    if file < 0 { return nil }
  }

  deinit { if file >= 0 { close(file) } }

  /// The word of the page at `address`; nil if it cannot be read.
  package func entry(ofPageAt address: UInt) -> UInt64? {
    var entry: UInt64 = 0
    return pread(file, &entry, 8, off_t(address >> 12) * 8) == 8 ? entry : nil
  }

  /// Calls `body` with what is between two addresses, ascending; 0, or the errno value of a scan that failed.
  package func forEachRegion(
    _ question: Question, from start: UInt, to end: UInt, _ body: (Region) -> Void
  ) -> Int32 {
    var position = UInt64(start)
    while position < UInt64(end) {
      var walked = position
      let count = regions.withUnsafeMutableBufferPointer {
        question == .pages
          ? hs_shim_pagemap_scan(file, position, UInt64(end), $0.baseAddress, $0.count, &walked)
          : hs_shim_pagemap_scan_huge(file, position, UInt64(end), $0.baseAddress, $0.count, &walked)
      }
      if count == -Int(EINTR) { continue }
      if count < 0 { return Int32(-count) }
      for region in regions[0..<count] {
        func has(_ category: Int) -> Bool { region.categories & UInt64(category) != 0 }
        let isPresent = question == .hugePages || has(HS_SHIM_PAGE_IS_PRESENT)
        body(
          Region(
            start: UInt(region.start), end: UInt(region.end), isPresent: isPresent,
            isHuge: isPresent && has(HS_SHIM_PAGE_IS_HUGE), isSwapped: has(HS_SHIM_PAGE_IS_SWAPPED)))
      }
      // Without a full buffer the walk is complete, whatever the last page was.
      if count < regions.count || walked <= position { break }
      position = walked
    }
    return 0
  }
}
