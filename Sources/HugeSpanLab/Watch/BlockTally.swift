// Which pageblocks of a process have memory, and what kind.
//
// The kernel tells runs of pages that are present, swapped or mapped by PMD entries. Here they are counted by 2 MiB-aligned
// blocks, across mappings that share a block, and each block gets a state. Address space that never had memory may be endless (a
// sanitizer's shadow, a heap's reservation), so that long stretches of it are left out and only counted.

/// Memory by block, filled in ascending order.
package struct BlockTally: Equatable, Sendable {
  package static let blockBytes: UInt = 2 << 20
  /// More blocks than this in a row that never had memory are left out.
  package static let longestEmpty: UInt = 32

  package struct Block: Equatable, Sendable {
    package var address: UInt
    package var presentBytes: UInt = 0
    package var isHuge = false
    /// The first page in memory, whose flags stand for the others.
    package var firstPresent: UInt?
    package var isLazilyFree = false
  }

  package var blocks: [Block] = []

  package init() {}

  /// Adds pages of one kind, which begin where the ones before end, or higher.
  package mutating func add(start: UInt, end: UInt, isHuge: Bool, isPresent: Bool) {
    var position = start
    while position < end {
      let address = position & ~(Self.blockBytes - 1)
      let part = min(end, address + Self.blockBytes)
      if blocks.last?.address != address { blocks.append(Block(address: address)) }
      if isPresent {
        let last = blocks.count - 1
        blocks[last].presentBytes += part - position
        blocks[last].isHuge = blocks[last].isHuge || isHuge
        if blocks[last].firstPresent == nil { blocks[last].firstPresent = position }
      }
      position = part
    }
  }

  /// Address space that may have memory.
  package struct Area: Equatable, Sendable {
    package var start: UInt
    package var end: UInt
    /// Not a mere reservation.
    package var isUsable: Bool

    package init(start: UInt, end: UInt, isUsable: Bool = true) {
      self.start = start
      self.end = end
      self.isUsable = isUsable
    }
  }

  /// The anonymous mappings among those of `maps`.
  package static func areas(of mappings: [MappingReport]) -> [Area] {
    let kernelOwn = ["[vdso]", "[vsyscall]", "[vvar]", "[vvar_vclock]", "[uprobes]"]
    return mappings.filter { mapping in
      // What has a file has its path here; the kernel and the program give names in brackets.
      (mapping.name.isEmpty || mapping.name.hasPrefix("[")) && !kernelOwn.contains(mapping.name)
        && mapping.start < mapping.end && mapping.end < 1 << 57
    }.map { Area(start: $0.start, end: $0.end, isUsable: $0.permissions.hasPrefix("rw")) }
  }

  private func state(_ block: Block) -> WatchBlockState {
    if block.presentBytes == 0 { return .released }
    if block.isLazilyFree { return .lazilyFree }
    if block.isHuge { return .full }
    return block.presentBytes * 2 >= Self.blockBytes ? .broken : .sparse
  }

  /// The state of each block of `areas`, and how many were left out.
  ///
  /// - Parameter seen: Blocks that had memory before, ascending; those of them that are mapped and have none have been released.
  ///   Set to those that are to be remembered.
  package func states(in areas: [Area], seen: inout [UInt]) -> (blocks: [WatchBlock], leftOut: UInt) {
    let known = merged(with: seen, areas)
    var result: [WatchBlock] = []
    var leftOut: UInt = 0
    var index = 0
    // Where two mappings share a block it belongs to the first.
    var next: UInt = 0
    let size = Self.blockBytes
    for area in areas {
      var position = max(next, area.start & ~(size - 1))
      let end = (area.end + size - 1) & ~(size - 1)
      while position < end {
        let upcoming = index < known.count && known[index].address < end ? known[index].address : end
        let gap = (upcoming - position) / size
        if area.isUsable && gap <= Self.longestEmpty {
          for step in 0..<gap { result.append(WatchBlock(address: position + step * size, state: .empty)) }
        } else if area.isUsable {
          leftOut += gap
        }
        position = upcoming
        if upcoming < end {
          result.append(known[index])
          index += 1
          position += size
        }
      }
      next = max(next, end)
    }
    seen = known.map(\.address)
    return (result, leftOut)
  }

  /// The blocks with memory and those that had some, as far as they are mapped, ascending.
  private func merged(with seen: [UInt], _ areas: [Area]) -> [WatchBlock] {
    var result: [WatchBlock] = []
    result.reserveCapacity(max(seen.count, blocks.count))
    var old = seen[...]
    var area = 0
    func isMapped(_ address: UInt) -> Bool {
      while area < areas.count && areas[area].end <= address { area += 1 }
      return area < areas.count && areas[area].start < address + Self.blockBytes
    }
    func appendReleased(before limit: UInt) {
      while let first = old.first, first < limit {
        old.removeFirst()
        if isMapped(first) { result.append(WatchBlock(address: first, state: .released)) }
      }
    }
    for block in blocks {
      appendReleased(before: block.address)
      if old.first == block.address { old.removeFirst() }
      // A mapping may have gone between the two reads.
      if isMapped(block.address) { result.append(WatchBlock(address: block.address, state: state(block))) }
    }
    appendReleased(before: .max)
    return result
  }
}
