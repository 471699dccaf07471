// What the value of an option may be. Values are checked while the command line is parsed, so that a mistake is
// reported before anything has begun, with the option's name and what would have been right.

/// A value that an option knows by name.
package struct Choice: Sendable {
  package var name: String
  package var help: String

  /// Creates a choice.
  package init(_ name: String, _ help: String = "") {
    self.name = name
    self.help = help
  }
}

/// What an option takes.
package enum ValueType: Sendable {
  /// Nothing: the option is there or it is not.
  case flag
  /// Any text. `check` returns a complaint (such as "unknown policy; known are …") or nil; `known` feeds help and completions.
  case text(_ valueName: String, known: [Choice] = [], check: (@Sendable (String) -> String?)? = nil)
  /// A file name. `-` is for the command to interpret.
  case file(_ valueName: String = "FILE")
  /// A whole number within bounds.
  case count(_ valueName: String = "N", in: ClosedRange<Int> = 0...Int.max)
  /// A decimal number within bounds.
  case number(_ valueName: String = "X", in: ClosedRange<Double> = 0...Double.greatestFiniteMagnitude)
  /// Bytes: `4096`, `64KiB`, `2M`, `1.5GiB`.
  case size(_ valueName: String = "SIZE")
  /// A time: `250us`, `100ms`, `10s`, `2m`, `1h`. Kept in nanoseconds.
  case duration(_ valueName: String = "TIME")
  /// A duration, or the word `off`, which reads as 0.
  case durationOrOff(_ valueName: String = "TIME")
  /// One of these words.
  case choice([Choice])

  /// The word for the value in help texts; nil for a flag.
  package var valueName: String? {
    switch self {
    case .flag: nil
    case .text(let valueName, _, _), .file(let valueName), .count(let valueName, _),
      .number(let valueName, _), .size(let valueName), .duration(let valueName):
      valueName
    case .durationOrOff(let valueName): valueName + "|off"
    case .choice(let choices): choices.map(\.name).joined(separator: "|")
    }
  }

  /// Words that may stand for the value, for help and completions.
  package var knownValues: [Choice] {
    switch self {
    case .text(_, let known, _): known
    case .choice(let choices): choices
    case .durationOrOff: [Choice("off")]
    default: []
    }
  }

  /// What is wrong with `text` as a value, or nil.
  func complaint(about text: String) -> String? {
    switch self {
    case .flag: return "takes no value"
    case .text(_, _, let check): return check?(text)
    case .file: return text.isEmpty ? "needs a file name" : nil
    case .count(_, let bounds):
      guard let number = Int(text) else { return "'\(text)' is not a whole number" }
      if bounds.contains(number) { return nil }
      return bounds.upperBound == .max
        ? "\(number) is too small; the least is \(bounds.lowerBound)"
        : "\(number) is not in \(bounds.lowerBound)...\(bounds.upperBound)"
    case .number(_, let bounds):
      guard let number = Double(text), number.isFinite else { return "'\(text)' is not a number" }
      if bounds.contains(number) { return nil }
      return number < bounds.lowerBound
        ? "\(text) is too small; the least is \(bounds.lowerBound)"
        : "\(text) is too large; the most is \(bounds.upperBound)"
    case .size:
      return ByteCount(argument: text) == nil ? "'\(text)' is not a size such as 4096, 64KiB, 2MiB or 1GiB" : nil
    case .duration:
      return Nanoseconds(argument: text) == nil ? "'\(text)' is not a time such as 250ms, 10s or 2m" : nil
    case .durationOrOff:
      return text == "off" || Nanoseconds(argument: text) != nil
        ? nil : "'\(text)' is not a time such as 250ms, 10s or 2m, and not 'off'"
    case .choice(let choices):
      if choices.contains(where: { $0.name == text }) { return nil }
      let names = choices.map(\.name)
      let hint = nearMiss(of: text, in: names).map { "; did you mean '\($0)'?" } ?? ""
      return "unknown value '\(text)'\(hint) (known: \(names.joined(separator: ", ")))"
    }
  }
}

/// A size given as text, in bytes. `K`, `M`, `G`, `T` and `KiB`… are powers of 1024, `kB`, `MB`… powers of 1000.
package struct ByteCount: Equatable, Sendable {
  package var bytes: Int

  /// Reads `argument`, or fails.
  package init?(argument: String) {
    let units: [(String, Double)] = [
      ("", 1), ("B", 1), ("K", 1024), ("KiB", 1024), ("kB", 1e3), ("KB", 1e3), ("M", 1_048_576), ("MiB", 1_048_576),
      ("MB", 1e6), ("G", 1_073_741_824), ("GiB", 1_073_741_824), ("GB", 1e9), ("T", 1_099_511_627_776),
      ("TiB", 1_099_511_627_776), ("TB", 1e12),
    ]
    guard let value = scaled(argument, units), value < 9e18, value == value.rounded() else { return nil }
    bytes = Int(value)
  }
}

/// A time given as text, in nanoseconds. A unit is needed for anything but 0.
package struct Nanoseconds: Equatable, Sendable {
  package var count: UInt64

  /// Reads `argument`, or fails.
  package init?(argument: String) {
    let units: [(String, Double)] = [
      ("ns", 1), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("min", 60e9), ("h", 3600e9),
    ]
    if argument == "0" {
      count = 0
      return
    }
    guard let value = scaled(argument, units), value < 9e18 else { return nil }
    count = UInt64(value.rounded())
  }
}

/// A decimal number followed by one of `units`.
private func scaled(_ text: String, _ units: [(String, Double)]) -> Double? {
  let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
  guard let value = Double(String(digits)) else { return nil }
  let unit = text.dropFirst(digits.count)
  return units.first { $0.0 == unit }.map { value * $0.1 }
}

/// The word of `known` that `word` was most likely meant to be: at most a third of its letters are wrong.
package func nearMiss(of word: String, in known: [String]) -> String? {
  let limit = max(1, word.count / 3)
  let ranked = known.map { ($0, editDistance(word, $0)) }.filter { $0.1 <= limit }
  return ranked.min { $0.1 < $1.1 }?.0
}

/// Insertions, deletions, replacements and exchanges of neighbours between two words.
private func editDistance(_ first: String, _ second: String) -> Int {
  let a = Array(first)
  let b = Array(second)
  var table = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
  for i in 0...a.count { table[i][0] = i }
  for j in 0...b.count { table[0][j] = j }
  for i in a.indices {
    for j in b.indices {
      var best = min(table[i][j + 1] + 1, table[i + 1][j] + 1, table[i][j] + (a[i] == b[j] ? 0 : 1))
      if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { best = min(best, table[i - 1][j - 1] + 1) }
      table[i + 1][j + 1] = best
    }
  }
  return table[a.count][b.count]
}
