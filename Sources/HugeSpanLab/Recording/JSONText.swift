// JSON as text, for output that is written as it is read: an encoder would want a whole trace in memory.

/// The pieces that JSON output is put together from.
package enum JSONText {
  /// `text` as a JSON string.
  package static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }

  /// An object on one line; the values are JSON already.
  package static func object(_ fields: [(String, String)]) -> String {
    "{" + fields.map { "\(quoted($0.0)): \($0.1)" }.joined(separator: ", ") + "}"
  }

  /// An object with a line for each field.
  package static func document(_ fields: [(String, String)]) -> String {
    "{\n" + fields.map { "  \(quoted($0.0)): \($0.1)" }.joined(separator: ",\n") + "\n}\n"
  }

  /// An array on one line.
  package static func array(_ values: [String]) -> String { "[" + values.joined(separator: ", ") + "]" }

  /// Nanoseconds as seconds.
  package static func seconds(_ nanoseconds: UInt64) -> String { decimal(Double(nanoseconds) / 1e9, 6) }
}
