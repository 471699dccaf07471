// A screen in memory, and the control sequences that bring a terminal to show it.
//
// Everything is drawn into cells first: what does not fit is cut off there, so that nothing can wrap or scroll, and of two
// screens only the rows that differ are sent. Names of programs are other people's text: what is not a printable character of
// ASCII is shown as a question mark, and cannot control the terminal.

/// How a cell looks. Colours are of the terminal's 256.
package struct WatchStyle: Equatable, Sendable {
  package var foreground: UInt8?
  package var background: UInt8?
  package var isBold = false
  package var isReversed = false

  package init(foreground: UInt8? = nil, background: UInt8? = nil, isBold: Bool = false, isReversed: Bool = false) {
    self.foreground = foreground
    self.background = background
    self.isBold = isBold
    self.isReversed = isReversed
  }

  package static let plain = WatchStyle()
  package static let bold = WatchStyle(isBold: true)
  package static let reversed = WatchStyle(isReversed: true)

  /// The sequence that selects this and nothing else.
  func sequence(hasColour: Bool) -> String {
    var codes = "0"
    if isBold { codes += ";1" }
    if isReversed { codes += ";7" }
    if hasColour, let foreground { codes += ";38;5;\(foreground)" }
    if hasColour, let background { codes += ";48;5;\(background)" }
    return "\u{1B}[\(codes)m"
  }
}

/// Cells of a screen.
package struct WatchCanvas: Equatable, Sendable {
  package struct Cell: Equatable, Sendable {
    package var scalar: Unicode.Scalar = " "
    package var style = WatchStyle.plain
  }

  package let width: Int
  package let height: Int
  package private(set) var cells: [Cell]

  package init(width: Int, height: Int) {
    self.width = min(max(width, 1), 1000)
    self.height = min(max(height, 1), 1000)
    cells = [Cell](repeating: Cell(), count: self.width * self.height)
  }

  /// Writes `text` from `column` on, up to `limit` (or the right edge), and returns the column after it.
  @discardableResult
  package mutating func put(
    _ text: String, row: Int, column: Int, _ style: WatchStyle = .plain, limit: Int? = nil
  ) -> Int {
    put(Array(text.unicodeScalars), row: row, column: column, style, limit: limit)
  }

  @discardableResult
  package mutating func put(
    _ scalars: [Unicode.Scalar], row: Int, column: Int, _ style: WatchStyle = .plain, limit: Int? = nil
  ) -> Int {
    var column = column
    guard row >= 0, row < height else { return column }
    let end = min(limit ?? width, width)
    for scalar in scalars {
      if column >= end { break }
      if column >= 0 { cells[row * width + column] = Cell(scalar: scalar, style: style) }
      column += 1
    }
    return column
  }

  /// Writes `text` so that it ends before `column`.
  package mutating func putRight(_ text: String, row: Int, before column: Int, _ style: WatchStyle = .plain) {
    put(text, row: row, column: max(column - text.unicodeScalars.count, 0), style)
  }

  /// A row as text.
  package func line(_ row: Int) -> String {
    var text = String.UnicodeScalarView()
    for cell in cells[row * width..<(row + 1) * width] { text.append(cell.scalar) }
    return String(text)
  }

  /// What to send to a terminal that shows `previous`, or, without one, anything.
  package func sequences(after previous: WatchCanvas?, hasColour: Bool) -> String {
    let old = previous.flatMap { $0.width == width && $0.height == height ? $0 : nil }
    var text = old == nil ? "\u{1B}[0m\u{1B}[2J" : ""
    for row in 0..<height {
      let range = row * width..<(row + 1) * width
      if let old, old.cells[range] == cells[range] { continue }
      text += "\u{1B}[\(row + 1);1H"
      var style: WatchStyle?
      for cell in cells[range] {
        if cell.style != style {
          style = cell.style
          text += cell.style.sequence(hasColour: hasColour)
        }
        text.unicodeScalars.append(cell.scalar)
      }
    }
    return text.isEmpty ? "" : text + "\u{1B}[0m"
  }

  /// Somebody else's text, made harmless.
  package static func printable(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      result.unicodeScalars.append(scalar.value >= 0x20 && scalar.value < 0x7F ? scalar : "?")
    }
    return result
  }
}

/// What the terminal is told when the view begins and ends.
package enum WatchSequences {
  /// The alternate screen, no cursor, no wrapping.
  package static let enter = "\u{1B}[?1049h\u{1B}[?25l\u{1B}[?7l"
  package static let leave = "\u{1B}[0m\u{1B}[?7h\u{1B}[?25h\u{1B}[?1049l"
}
