// What smaps says of a process, mapping by mapping.
//
// `/proc/PID/smaps` has for each mapping a line of addresses and then lines of a key and a number of kilobytes; `smaps_rollup` has the same
// keys once for all. Which lines there are depends on the kernel, so unknown ones are passed over, and one that is missing
// counts as nothing. Addresses that do not parse are an error: a figure of half a file would be a wrong figure.

/// Bytes of a mapping, or of many together. The sources are the lines of smaps with these names (kernel document proc.rst).
package struct MemoryFigures: Codable, Equatable, Sendable {
  /// Address space.
  package var sizeBytes = 0
  /// In memory (Rss).
  package var residentBytes = 0
  /// In memory and no page of a file (Anonymous).
  package var anonymousBytes = 0
  /// Anonymous, and mapped by PMD entries: hugepages (AnonHugePages).
  package var hugeBytes = 0
  /// Given to MADV_FREE and not taken yet (LazyFree).
  package var lazyFreeBytes = 0
  /// Anonymous, in swap (Swap).
  package var swappedBytes = 0
  /// Pages of files and of shared memory that are mapped by PMD entries (FilePmdMapped and ShmemPmdMapped).
  package var fileHugeBytes = 0

  package init() {}

  /// Share of the anonymous memory that is on hugepages; nil where there is none.
  package var coverage: Double? { anonymousBytes > 0 ? Double(hugeBytes) / Double(anonymousBytes) : nil }

  package static func += (sum: inout MemoryFigures, part: MemoryFigures) {
    sum.sizeBytes += part.sizeBytes
    sum.residentBytes += part.residentBytes
    sum.anonymousBytes += part.anonymousBytes
    sum.hugeBytes += part.hugeBytes
    sum.lazyFreeBytes += part.lazyFreeBytes
    sum.swappedBytes += part.swappedBytes
    sum.fileHugeBytes += part.fileHugeBytes
  }

  /// Adds what a line such as `Rss:   12 kB` says.
  fileprivate mutating func read(key: Substring, kilobytes: Int) {
    // No machine has an exbibyte; what says so is no figure.
    if kilobytes >= 1 << 50 { return }
    let bytes = kilobytes << 10
    switch key {
    case "Size": sizeBytes = bytes
    case "Rss": residentBytes = bytes
    case "Anonymous": anonymousBytes = bytes
    case "AnonHugePages": hugeBytes = bytes
    case "LazyFree": lazyFreeBytes = bytes
    case "Swap": swappedBytes = bytes
    case "FilePmdMapped", "ShmemPmdMapped": fileHugeBytes += bytes
    default: break
    }
  }
}

/// One mapping of a process.
package struct MappingReport: Equatable, Sendable {
  package var start: UInt
  package var end: UInt
  /// As the kernel writes them, `rw-p`.
  package var permissions: String
  /// `[heap]`, `[stack]`, the path of a file, the name that the program gave it (`[anon:NAME]`), or nothing.
  package var name: String
  /// What it seems to be where it has no name.
  package var guess: String?
  package var figures: MemoryFigures
  /// MADV_HUGEPAGE and MADV_NOHUGEPAGE (`hg` and `nh` in VmFlags).
  package var isAdvisedHuge = false
  package var isAdvisedSmall = false
  /// Whether hugepages are possible here at all (THPeligible); nil where the kernel does not say.
  package var isEligible: Bool?

  /// What it is called in tables.
  package var label: String { name.isEmpty ? guess ?? "anonymous" : name }

  package init(start: UInt, end: UInt, permissions: String, name: String, figures: MemoryFigures = MemoryFigures()) {
    self.start = start
    self.end = end
    self.permissions = permissions
    self.name = name
    self.figures = figures
  }
}

/// Where a text of smaps is wrong.
package struct SmapsError: Error, Equatable, Sendable {
  package var line: Int
}

/// Reads the text of smaps, or of smaps_rollup, which is one mapping.
package func parseSmaps(_ text: String) throws(SmapsError) -> [MappingReport] {
  var mappings: [MappingReport] = []
  var number = 0
  for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
    number += 1
    if line.isEmpty { continue }
    guard let first = line.unicodeScalars.first else { continue }
    // Keys begin with a capital letter, addresses with a digit or a small one.
    if first.value >= 0x41 && first.value <= 0x5A {
      guard !mappings.isEmpty, let colon = line.firstIndex(of: ":") else { throw SmapsError(line: number) }
      let last = mappings.count - 1
      let words = line[line.index(after: colon)...].split(separator: " ")
      let key = line[..<colon]
      if key == "VmFlags" {
        mappings[last].isAdvisedHuge = words.contains("hg")
        mappings[last].isAdvisedSmall = words.contains("nh")
      } else if key == "THPeligible" {
        mappings[last].isEligible = words.first.map { $0 != "0" }
      } else if words.count == 2, words[1] == "kB" {
        guard let value = Int(words[0]), value >= 0 else { throw SmapsError(line: number) }
        mappings[last].figures.read(key: key, kilobytes: value)
      }
      continue
    }
    // start-end permissions offset device inode name
    let fields = line.split(separator: " ", maxSplits: 5)
    guard fields.count >= 5 else { throw SmapsError(line: number) }
    let bounds = fields[0].split(separator: "-", omittingEmptySubsequences: false)
    guard bounds.count == 2, let start = UInt(bounds[0], radix: 16), let end = UInt(bounds[1], radix: 16), start <= end
    else { throw SmapsError(line: number) }
    var name = fields.count == 6 ? String(fields[5]) : ""
    while name.hasPrefix(" ") { name.removeFirst() }
    mappings.append(MappingReport(start: start, end: end, permissions: String(fields[1]), name: name))
    // smaps_rollup has no Size.
    mappings[mappings.count - 1].figures.sizeBytes = Int(clamping: end - start)
  }
  return mappings
}
