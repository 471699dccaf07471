// A curve in character cells: one column a look, eight levels a row.

/// What characters curves and marks are made of.
package struct WatchGlyphs: Equatable, Sendable {
  /// The terminal's encoding is UTF-8.
  package var isUnicode: Bool
  package var hasColour: Bool

  package init(isUnicode: Bool = true, hasColour: Bool = true) {
    self.isUnicode = isUnicode
    self.hasColour = hasColour
  }

  /// What the environment says of a terminal: its locale, and whether colours are wanted (no-color.org).
  package init(environment: (String) -> String?) {
    func value(_ name: String) -> String? { environment(name).flatMap { $0.isEmpty ? nil : $0 } }
    let locale = (value("LC_ALL") ?? value("LC_CTYPE") ?? value("LANG") ?? "").lowercased()
    isUnicode = locale.contains("utf-8") || locale.contains("utf8")
    hasColour = value("NO_COLOR") == nil
  }

  /// From one eighth of a row to a whole one.
  var levels: [Unicode.Scalar] {
    isUnicode ? ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"] : ["_", ".", ":", "-", "=", "+", "*", "#"]
  }
}

/// Draws curves.
package enum WatchCurve {
  /// Rows from the top, each `width` characters wide. The latest value is in the last column.
  ///
  /// The scale begins at 0, so that a small change of much memory looks small. What is above 0 is at least one level high; a
  /// value that is missing, or 0, is a blank.
  package static func rows(
    _ values: [Double?], top: Double, width: Int, height: Int, _ glyphs: WatchGlyphs
  ) -> [[Unicode.Scalar]] {
    guard width > 0, height > 0 else { return [] }
    var rows = [[Unicode.Scalar]](repeating: [Unicode.Scalar](repeating: " ", count: width), count: height)
    let levels = glyphs.levels
    let shown = values.suffix(width)
    var column = width - shown.count
    for value in shown {
      defer { column += 1 }
      guard let value, value > 0, top > 0 else { continue }
      let share = min(value / top, 1)
      let height8 = max(Int((share * Double(height * 8)).rounded()), 1)
      for row in 0..<height {
        let level = min(height8 - (height - 1 - row) * 8, 8)
        if level > 0 { rows[row][column] = levels[level - 1] }
      }
    }
    return rows
  }
}
