// A process' anonymous memory, pageblock by pageblock.
//
// One PAGEMAP_SCAN over each anonymous mapping tells which pages are in memory, swapped, or mapped by PMD entries; the flags of physical pages,
// where root asks, which are on large folios all the same. Blocks without anything are not kept, so that a reservation of terabytes is as
// small as what is in it.

/// What is in one pageblock, in bytes. A block that two mappings share is in both, each with its own part.
package struct MappedBlock: Codable, Equatable, Sendable {
  /// Hexadecimal.
  package var address: String
  package var presentBytes = 0
  package var hugeBytes = 0
  package var swappedBytes = 0
  /// On folios larger than a page and not mapped by PMD entries; nil without root.
  package var splitBytes: Int?

  /// Its letter in the map.
  package var letter: Character {
    if hugeBytes > 0 { return "#" }
    if let splitBytes, splitBytes * 2 >= presentBytes, splitBytes > 0 { return "s" }
    if presentBytes == 0 { return swappedBytes > 0 ? "~" : "_" }
    return presentBytes >= 1 << 20 ? "o" : "."
  }
}

/// The blocks of one mapping, ascending, those with something in them.
package struct MappedBlocks: Equatable, Sendable {
  package var mapping: MappingReport
  package var blocks: [MappedBlock]

  /// The blocks' addresses, as numbers.
  package var addresses: [UInt] { blocks.map { UInt($0.address, radix: 16) ?? 0 } }
}

extension CoverageReader {
  private static let blockBytes: UInt = 2 << 20

  /// The anonymous memory of `process` by block; nil if the kernel cannot be asked (before Linux 6.7).
  ///
  /// - Parameter split: Pages that are on large folios, by their block; nil if that is not known.
  package func blocks(of process: Int, _ mappings: [MappingReport], split: [UInt: Int]?) -> [MappedBlocks]? {
    guard let scan = PagemapScan(directory: "\(proc)/\(process)") else { return nil }
    var result: [MappedBlocks] = []
    for mapping in mappings where mapping.figures.anonymousBytes > 0 || mapping.figures.swappedBytes > 0 {
      var blocks: [MappedBlock] = []
      let code = scan.forEachRegion(.pages, from: mapping.start, to: mapping.end) { region in
        CoverageReader.enter(region, &blocks, split)
      }
      if code != 0 { return nil }
      result.append(MappedBlocks(mapping: mapping, blocks: blocks))
    }
    return result
  }

  private static func enter(_ region: PagemapScan.Region, _ blocks: inout [MappedBlock], _ split: [UInt: Int]?) {
    var position = region.start
    while position < region.end {
      let address = position & ~(blockBytes - 1)
      let bytes = Int(min(region.end, address + blockBytes) - position)
      let name = String(address, radix: 16)
      if blocks.last?.address != name {
        // What is large and not huge; a block that is huge has no other pages.
        blocks.append(MappedBlock(address: name, splitBytes: split.map { ($0[address] ?? 0) << 12 }))
      }
      let last = blocks.count - 1
      if region.isPresent { blocks[last].presentBytes += bytes }
      if region.isHuge {
        blocks[last].hugeBytes += bytes
        if split != nil { blocks[last].splitBytes = 0 }
      }
      if region.isSwapped { blocks[last].swappedBytes += bytes }
      position += UInt(bytes)
    }
  }
}

/// The map as it is printed.
package enum AddressMapText {
  /// Runs of blocks with nothing in them that are longer are not drawn block by block.
  private static let longestGap: UInt = 8
  private static let mostRows = 24

  package static let legend = """
    # on a hugepage, s on large folios that are not mapped as one (root is told), o base pages, at least half in memory, \
    . base pages, less than half, ~ swapped, _ nothing
    """

  /// Rows for each mapping, `width` characters wide.
  package static func text(_ all: [MappedBlocks], _ style: TableStyle) -> String {
    let columns = max(16, min((style.width ?? 100) - 2, 128) / 16 * 16)
    var text = ""
    let small = all.filter { $0.mapping.end - $0.mapping.start < 2 << 20 }
    for each in all where !each.blocks.isEmpty && each.mapping.end - each.mapping.start >= 2 << 20 {
      let counts = Dictionary(grouping: each.blocks, by: \.letter).mapValues(\.count)
      let summary = "#so.~".compactMap { letter in counts[letter].map { "\(letter) \($0)" } }.joined(separator: "  ")
      text +=
        "\(String(each.mapping.start, radix: 16))-\(String(each.mapping.end, radix: 16)) \(each.mapping.label): \(summary)\n"
      text += rows(each, columns)
    }
    var notes = ""
    if !small.isEmpty {
      let kilobytes = small.reduce(0) { $0 + $1.mapping.figures.anonymousBytes } >> 10
      let who = small.count == 1 ? "1 mapping is" : "\(small.count) mappings are"
      notes += "\(who) smaller than a pageblock (\(kilobytes) KiB of anonymous memory in all).\n"
    }
    return text + style.wrapped(notes + legend)
  }

  private static func rows(_ each: MappedBlocks, _ columns: Int) -> String {
    // Letters in the order of addresses; a long gap is one mark.
    var letters: [Character] = []
    var expected = each.mapping.start & ~0x1f_ffff
    for (block, address) in zip(each.blocks, each.addresses) {
      let gap = address > expected ? (address - expected) >> 21 : 0
      if gap > longestGap {
        letters += Array(" …\(gap)… ")
      } else {
        letters += Array(repeating: "_", count: Int(gap))
      }
      letters.append(block.letter)
      expected = address + 1 << 21
    }
    var text = ""
    var rows = 0
    for start in stride(from: 0, to: letters.count, by: columns) {
      if rows == mostRows {
        text += "  … \(letters.count - start) more\n"
        break
      }
      text += "  " + String(letters[start..<min(start + columns, letters.count)]) + "\n"
      rows += 1
    }
    return text
  }
}
