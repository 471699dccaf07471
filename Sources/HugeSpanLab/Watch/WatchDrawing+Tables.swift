// The views that are tables: mappings, numbers, help.

extension WatchDrawing {
  /// Puts cells of equal rows under each other: the first column to the left, the others to the right.
  private mutating func put(_ table: [[String]], rows: Range<Int>, gap: Int = 2) {
    guard let count = table.map(\.count).max(), count > 0 else { return }
    let widths = (0..<count).map { column in
      table.map { column < $0.count ? $0[column].unicodeScalars.count : 0 }.max() ?? 0
    }
    for (index, (row, cells)) in zip(rows, table).enumerated() {
      let style = index == 0 ? WatchStyle.bold : .plain
      var end = 0
      for (column, cell) in cells.enumerated() {
        end += widths[column] + (column == 0 ? 0 : gap)
        // A number that is cut off would be another number.
        if column > 0 && end > width { break }
        if column == 0 {
          canvas.put(cell, row: row, column: 0, style)
        } else {
          canvas.putRight(cell, row: row, before: end, style)
        }
      }
    }
  }

  /// The largest mappings, as many as there are rows.
  mutating func drawMappings(rows: Range<Int>) {
    guard let sample = ring.mapped, rows.count >= 2 else {
      let text = display.isPaused ? "not read in this look; go on with p" : "reading the mappings"
      canvas.put(text, row: rows.lowerBound, column: 0)
      return
    }
    let all = sample.mappings
    let room = rows.count - 1
    let shown = all.prefix(all.count > room ? max(room - 1, 0) : room)
    let nameWidth = max(min(width - 56, 60), 8)
    // Of a long path the end, which tells files apart.
    let cut = glyphs.isUnicode ? "…" : "<"
    let short = { (bytes: Int) in HumanNumber.short(Double(bytes)) }
    var table = [["mapping", "anon", "huge", "coverage", "RSS", "LazyFree", "advice", "address"]]
    for mapping in shown {
      let figures = mapping.figures
      let name = WatchCanvas.printable(mapping.label)
      let advice = mapping.isAdvisedSmall ? "nohuge" : mapping.isAdvisedHuge ? "huge" : ""
      table.append([
        name.count <= nameWidth ? name : cut + name.suffix(nameWidth - 1), short(figures.anonymousBytes),
        short(figures.hugeBytes), HumanNumber.percent(figures.coverage), short(figures.residentBytes),
        short(figures.lazyFreeBytes), advice, String(mapping.start, radix: 16),
      ])
    }
    if shown.count < all.count {
      var others = MemoryFigures()
      for mapping in all.dropFirst(shown.count) { others += mapping.figures }
      table.append([
        "\(all.count - shown.count) others", short(others.anonymousBytes), short(others.hugeBytes),
        HumanNumber.percent(others.coverage), short(others.residentBytes), short(others.lazyFreeBytes),
      ])
    }
    put(table, rows: rows)
  }

  /// Everything that is known, with its extent over all looks that are kept, and the blocks by state.
  mutating func drawNumbers(rows: Range<Int>, notes: [String]) {
    guard let latest = ring.latest else { return }
    var table = [["", "now", "least", "most"]]
    let isNarrow = width < 60
    for quantity in WatchQuantity.allCases {
      guard let extent = ring.extent(of: quantity, last: ring.capacity) else { continue }
      let format = { (value: Double?) in
        isNarrow ? WatchNumber.short(value, of: quantity) : WatchNumber.long(value, of: quantity)
      }
      let label = width < 30 ? Self.abbreviation(quantity) : quantity.title
      table.append([label, format(quantity.value(in: latest)), format(extent.least), format(extent.most)])
    }
    put(table, rows: rows, gap: width < 30 ? 1 : 2)
    var row = rows.lowerBound + table.count + 1
    let counts = latest.counts
    let blocks = WatchBlockState.allCases.filter { counts[$0] != nil }.map { [$0.title, "\(counts[$0] ?? 0)"] }
    if row < rows.upperBound {
      put([["pageblocks", "\(latest.blocks.count)"]] + blocks, rows: row..<rows.upperBound)
      row += blocks.count + 2
    }
    let pace = display.pace
    let seconds = HumanNumber.duration(ring.seconds(last: ring.capacity))
    let looks = "\(ring.count) looks in \(seconds), \(HumanNumber.duration(Double(pace.cost) / 1e9)) of CPU time each"
    for line in [looks] + notes where row < rows.upperBound {
      canvas.put(WatchCanvas.printable(line), row: row, column: 0)
      row += 1
    }
  }

  mutating func drawHelp(rows: Range<Int>) {
    let keys = [
      ("q", "quit; ends a program that watch started"), ("p, space", "pause the view; the process goes on"),
      ("v, tab", "next view: curves, map, mappings, numbers"), ("+ -", "longer, shorter interval"), ("?", "this help"),
    ]
    var row = rows.lowerBound
    for (key, help) in keys where row < rows.upperBound {
      // On a narrow screen one of them is enough.
      canvas.put(width < 40 ? String(key.prefix(1)) : key, row: row, column: 0, .bold)
      canvas.put(help, row: row, column: width < 40 ? 3 : 10)
      row += 1
    }
    row += 1
    for state in WatchBlockState.allCases where row < rows.upperBound {
      canvas.put(String(state.letter), row: row, column: 0, Self.style(state))
      canvas.put("\(state.title): \(Self.meaning(state))", row: row, column: 3)
      row += 1
    }
  }

  private static func meaning(_ state: WatchBlockState) -> String {
    switch state {
    case .full: "on a hugepage; of a heap: at least half in use"
    case .sparse: "less than half in memory; of a heap: a hugepage less than half in use"
    case .empty: "never had memory"
    case .released: "had memory, and gave it back"
    case .broken: "on base pages, at least half in memory; of a heap: any"
    case .lazilyFree: "given to MADV_FREE, not taken yet"
    case .waiting: "free, to be released if it stays so"
    }
  }
}
