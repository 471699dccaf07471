// Aligned tables for a terminal or a file.

/// How a table is drawn.
package struct TableStyle: Sendable {
  /// Marks are bold as well.
  package var isTerminal = false
  /// Characters per line; a table that is wider is drawn in two parts. Nil is no limit.
  package var width: Int?

  package init(isTerminal: Bool = false, width: Int? = nil) {
    self.isTerminal = isTerminal
    self.width = width
  }
}

extension TableStyle {
  /// Sentences in lines that fit, broken at spaces, each `indent` columns in; every line of `text` is one by itself and ends in a line feed. Where
  /// there is no limit they are as long as they are, or `usual` columns if that is given.
  package func wrapped(_ text: String, indent: Int = 0, usual: Int? = nil) -> String {
    let margin = String(repeating: " ", count: indent)
    guard let limit = (width ?? usual).map({ max($0, 40) }) else {
      return text.split(separator: "\n").map { margin + $0 + "\n" }.joined()
    }
    var result = ""
    for sentence in text.split(separator: "\n") {
      var line = margin
      for word in sentence.split(separator: " ") {
        if line.count > indent && line.count + 1 + word.count > limit {
          result += line + "\n"
          line = margin
        }
        line += (line.count > indent ? " " : "") + word
      }
      result += line + "\n"
    }
    return result
  }
}

/// A table of text cells. The first `labelCount` columns are left-aligned and repeated in every part.
package struct TextTable: Sendable {
  package struct Cell: Equatable, Sendable {
    package var text: String
    package var isMarked: Bool

    package init(_ text: String, isMarked: Bool = false) {
      self.text = text
      self.isMarked = isMarked
    }
  }

  package var heads: [String]
  package var rows: [[Cell]]
  package var labelCount: Int

  package init(heads: [String], rows: [[Cell]], labelCount: Int) {
    self.heads = heads
    self.rows = rows
    self.labelCount = labelCount
  }

  private func width(_ column: Int) -> Int {
    // Every figure has a place for the mark behind it.
    let mark = column < labelCount ? 0 : 1
    return max(heads[column].count, rows.map { $0[column].text.count }.max() ?? 0) + mark
  }

  private func width(of columns: [Int]) -> Int { columns.reduce(0) { $0 + width($1) + 1 } - 1 }

  /// The table, in as many parts as the width asks for.
  package func text(_ style: TableStyle) -> String {
    let labels = Array(0..<labelCount)
    var parts: [[Int]] = [labels]
    for column in labelCount..<heads.count {
      if let limit = style.width, parts[parts.count - 1].count > labelCount,
        width(of: parts[parts.count - 1] + [column]) > limit
      {
        parts.append(labels)
      }
      parts[parts.count - 1].append(column)
    }
    return parts.map { part($0, style) }.joined(separator: "\n")
  }

  private func part(_ columns: [Int], _ style: TableStyle) -> String {
    var text = line(columns.map { Cell(heads[$0]) }, columns, style)
    for row in rows { text += line(columns.map { row[$0] }, columns, style) }
    return text
  }

  private func line(_ cells: [Cell], _ columns: [Int], _ style: TableStyle) -> String {
    var words: [String] = []
    for (cell, column) in zip(cells, columns) {
      if column < labelCount {
        words.append(cell.text + String(repeating: " ", count: width(column) - cell.text.count))
      } else {
        let space = String(repeating: " ", count: width(column) - 1 - cell.text.count)
        let shown =
          style.isTerminal && cell.isMarked
          ? "\u{1B}[1m\(cell.text)*\u{1B}[0m" : cell.text + (cell.isMarked ? "*" : " ")
        words.append(space + shown)
      }
    }
    var text = words.joined(separator: " ")
    while text.hasSuffix(" ") { text.removeLast() }
    return text + "\n"
  }
}
