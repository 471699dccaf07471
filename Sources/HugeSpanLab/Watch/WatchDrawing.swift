// The screen: a title, the view, a line of state and keys.
//
// Every view gets the rectangle between the first and the last row and fits itself into it, from 20 columns to some hundreds. On a
// narrow screen numbers get short, then minimum and maximum go (the view of numbers has them), never the present value.

/// Draws the display on a screen of some size.
package struct WatchDrawing {
  let display: WatchDisplay
  let glyphs: WatchGlyphs
  var canvas: WatchCanvas
  let ring: WatchRing
  /// Rows of the view.
  let top = 1
  let bottom: Int

  private init(_ display: WatchDisplay, width: Int, height: Int, _ glyphs: WatchGlyphs) {
    self.display = display
    self.glyphs = glyphs
    ring = display.shown
    canvas = WatchCanvas(width: width, height: height)
    bottom = canvas.height - 1
  }

  package static func canvas(
    _ display: WatchDisplay, width: Int, height: Int, _ glyphs: WatchGlyphs
  ) -> WatchCanvas {
    var drawing = WatchDrawing(display, width: width, height: height, glyphs)
    drawing.drawAll()
    return drawing.canvas
  }

  var width: Int { canvas.width }

  private mutating func drawAll() {
    let notes = (ring.latest?.notes ?? []) + [display.remark].compactMap { $0 }
    // A screen of one row has no room for a view.
    var end = max(bottom, top)
    if display.isHelp {
      drawHelp(rows: top..<end)
    } else if ring.latest != nil {
      // Where there is room. The numbers have them anyway.
      if canvas.height >= 20 && display.view != .numbers {
        for note in notes.suffix(2).reversed() {
          end -= 1
          canvas.put(WatchCanvas.printable(note), row: end, column: 0, WatchStyle(foreground: 245))
        }
      }
      switch display.view {
      case .curves: drawCurvesAndMap(rows: top..<end)
      case .map: drawMap(rows: top..<end, hasAddresses: true)
      case .mappings: drawMappings(rows: top..<end)
      case .numbers: drawNumbers(rows: top..<end, notes: notes)
      }
    }
    drawTitle()
    drawStatus()
  }

  private mutating func drawTitle() {
    guard let latest = ring.latest else { return }
    canvas.put(String(repeating: " ", count: width), row: 0, column: 0, .reversed)
    let window = HumanNumber.duration(ring.seconds(last: shownLooks))
    let isCurves = display.view == .curves && !display.isHelp
    let right = isCurves ? (width < 40 ? window : "last \(window)") : display.isHelp ? "help" : display.view.title
    let name = "\(WatchCanvas.printable(latest.name)) (\(latest.process))"
    let style = WatchStyle(isBold: true, isReversed: true)
    canvas.put(" " + name, row: 0, column: 0, style, limit: width - right.count - 2)
    canvas.putRight(right, row: 0, before: width - 1, .reversed)
  }

  private mutating func drawStatus() {
    let pace = display.pace
    let interval = HumanNumber.duration(Double(pace.interval) / 1e9)
    var column = 0
    if display.isEnding {
      canvas.put("ending the program", row: bottom, column: 0, .reversed)
      return
    }
    if display.isPaused { column = canvas.put("PAUSED", row: bottom, column: 0, .reversed) + 1 }
    var text = "\(interval) "
    if pace.isLengthened {
      let wanted = HumanNumber.duration(Double(pace.wanted) / 1e9)
      let cost = HumanNumber.duration(Double(pace.cost) / 1e9)
      text = width < 70 ? "\(interval), slowed " : "\(interval), not \(wanted): a look takes \(cost) "
    }
    column = canvas.put(text, row: bottom, column: column, pace.isLengthened ? .bold : .plain)
    let keys = [
      ("q", "quit"), ("p", display.isPaused ? "go on" : "pause"), ("v", "view"), ("+-", "interval"), ("?", "help"),
    ]
    for (key, help) in keys {
      // A key whose name would be cut off is left out, and so are those behind it.
      guard column + key.count + help.count + 2 <= width else { return }
      column = canvas.put(key, row: bottom, column: column + 1, .bold)
      column = canvas.put(" " + help, row: bottom, column: column)
    }
  }

  // MARK: Curves

  private var isWide: Bool { width >= 60 }
  private var labelWidth: Int { isWide ? 10 : width >= 30 ? 5 : 4 }
  private var figureWidth: Int { isWide ? 24 : 6 }
  private var curveWidth: Int { max(width - labelWidth - figureWidth, 1) }

  /// How many looks the curves show.
  private var shownLooks: Int { display.view == .curves ? curveWidth : ring.capacity }

  private mutating func drawCurvesAndMap(rows: Range<Int>) {
    let quantities = WatchQuantity.curves.filter { ring.extent(of: $0, last: curveWidth) != nil }
    guard !quantities.isEmpty, !rows.isEmpty else { return }
    // Two fifths are the map's, or less if it needs less: its cells, its head and its legend.
    let cells = ((ring.latest?.blocks.count ?? 0) + width - 1) / width
    let room = max(rows.count * 3 / 5, rows.count - cells - 3)
    let height = min(max(room / quantities.count, 1), 8)
    var row = rows.lowerBound
    for quantity in quantities where row < rows.upperBound {
      drawCurve(quantity, rows: row..<min(row + height, rows.upperBound))
      row += height
    }
    if row < rows.upperBound { drawMap(rows: row..<rows.upperBound, hasAddresses: false) }
  }

  private static func colour(_ quantity: WatchQuantity) -> UInt8 {
    switch quantity {
    case .used: 110
    case .resident: 179
    case .charged: 139
    default: 35
    }
  }

  private mutating func drawCurve(_ quantity: WatchQuantity, rows: Range<Int>) {
    guard let extent = ring.extent(of: quantity, last: curveWidth) else { return }
    let values = ring.values(of: quantity, last: curveWidth)
    let drawn = WatchCurve.rows(
      values, top: quantity.isShare ? 1 : extent.most, width: curveWidth, height: rows.count, glyphs)
    let style = WatchStyle(foreground: Self.colour(quantity))
    for (row, text) in zip(rows, drawn) { canvas.put(text, row: row, column: labelWidth, style) }
    let label = isWide ? quantity.title : Self.abbreviation(quantity)
    canvas.put(label, row: rows.lowerBound, column: 0, .bold, limit: labelWidth - 1)
    let present = values.last ?? nil
    guard isWide else {
      canvas.putRight(WatchNumber.short(present, of: quantity), row: rows.lowerBound, before: width, .bold)
      if rows.count < 3 { return }
      canvas.putRight(WatchNumber.short(extent.most, of: quantity), row: rows.lowerBound + 1, before: width)
      canvas.putRight(WatchNumber.short(extent.least, of: quantity), row: rows.lowerBound + 2, before: width)
      return
    }
    let figures = "\(WatchNumber.short(extent.least, of: quantity))-\(WatchNumber.short(extent.most, of: quantity))"
    canvas.putRight(WatchNumber.long(present, of: quantity), row: rows.lowerBound, before: width - 12, .bold)
    canvas.putRight(figures, row: rows.lowerBound, before: width)
  }

  static func abbreviation(_ quantity: WatchQuantity) -> String {
    switch quantity {
    case .used: "use"
    case .released: "rel"
    case .resident: "RSS"
    case .charged: "chg"
    case .anonymous: "ano"
    case .huge: "hug"
    case .coverage: "cov"
    case .lazyFree: "laz"
    case .swapped: "swp"
    }
  }

  // MARK: Map

  private mutating func drawMap(rows: Range<Int>, hasAddresses: Bool) {
    guard let latest = ring.latest else { return }
    let counts = latest.counts
    var rows = rows
    // On a low screen the cells themselves matter more.
    if rows.count >= 2 {
      drawLegend(counts, row: rows.upperBound - 1)
      rows = rows.lowerBound..<rows.upperBound - 1
    }
    let margin = hasAddresses && width >= 60 ? 15 : 0
    let hasHead = rows.count >= 4
    let body = (rows.lowerBound + (hasHead ? 1 : 0))..<rows.upperBound
    let map = WatchHeatMap(latest.blocks, width: width - margin, height: body.count)
    if hasHead {
      let each = map.blocksPerCell == 1 ? "one a cell" : "\(map.blocksPerCell) a cell"
      let text =
        latest.blocks.isEmpty
        ? "no pageblocks to show"
        : width < 40 ? "\(latest.blocks.count) blocks" : "\(latest.blocks.count) pageblocks of 2 MiB, \(each)"
      canvas.put(text, row: rows.lowerBound, column: 0, WatchStyle(foreground: 245))
    }
    for (index, states) in map.rows.enumerated() {
      let row = body.lowerBound + index
      if margin > 0 {
        canvas.put(String(map.addresses[index], radix: 16), row: row, column: 0, WatchStyle(foreground: 245))
      }
      var column = margin
      for state in states {
        column = canvas.put(String(state.letter), row: row, column: column, Self.style(state))
      }
    }
  }

  static func style(_ state: WatchBlockState) -> WatchStyle {
    WatchStyle(foreground: state == .empty ? 245 : 16, background: state.colour)
  }

  /// The states that there are, in the order of the enumeration; with their names if those fit.
  private mutating func drawLegend(_ counts: [WatchBlockState: Int], row: Int) {
    let present = WatchBlockState.allCases.filter { counts[$0] != nil }
    let long = present.map { " \($0.title) \(counts[$0] ?? 0)  " }
    let short = present.map { "\(counts[$0] ?? 0) " }
    let texts = long.reduce(0) { $0 + $1.count + 1 } <= width ? long : short
    var column = 0
    for (state, text) in zip(present, texts) {
      if column + text.count > width { return }
      column = canvas.put(String(state.letter), row: row, column: column, Self.style(state))
      column = canvas.put(text, row: row, column: column)
    }
  }
}
