// The map of pageblocks: a cell a block, or several blocks a cell where there are more than cells.

/// What the cells of a map show.
package struct WatchHeatMap: Equatable, Sendable {
  /// Row by row, the last of which may be shorter; one state a cell.
  package var rows: [[WatchBlockState]]
  /// The first block of each row.
  package var addresses: [UInt]
  package var blocksPerCell: Int

  /// Fits `blocks` into `width` times `height` cells.
  ///
  /// A cell of several shows what most of them are; if there is a tie, what is more worth a look. The cells are in the order of
  /// the addresses, without the gaps between mappings.
  package init(_ blocks: [WatchBlock], width: Int, height: Int) {
    rows = []
    addresses = []
    blocksPerCell = 1
    guard width > 0, height > 0, !blocks.isEmpty else { return }
    let cells = width * height
    blocksPerCell = (blocks.count + cells - 1) / cells
    var start = 0
    while start < blocks.count {
      var row: [WatchBlockState] = []
      addresses.append(blocks[start].address)
      while row.count < width && start < blocks.count {
        let end = min(start + blocksPerCell, blocks.count)
        row.append(Self.common(blocks[start..<end]))
        start = end
      }
      rows.append(row)
    }
  }

  private static func common(_ blocks: ArraySlice<WatchBlock>) -> WatchBlockState {
    if blocks.count == 1 { return blocks[blocks.startIndex].state }
    var counts = [Int](repeating: 0, count: WatchBlockState.allCases.count)
    for block in blocks { counts[block.state.weight] += 1 }
    // Weights are distinct, and ascending in what is worth a look.
    var best = 0
    for weight in counts.indices where counts[weight] >= counts[best] && counts[weight] > 0 { best = weight }
    return WatchBlockState.allCases.first { $0.weight == best } ?? .empty
  }
}
