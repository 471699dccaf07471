// Bytes, shares and times as people read them, in the tables of the commands that look at processes.

import Foundation

/// Numbers for people.
package enum HumanNumber {
  /// Bytes in at most five characters, `412M`.
  package static func short(_ bytes: Double) -> String {
    if bytes == 0 { return "0" }
    var value = bytes / 1024
    for unit in ["K", "M", "G", "T"] {
      if value < 9.95 && unit != "K" { return String(format: "%.1f", value) + unit }
      if value < 1000 { return "\(Int(value.rounded()))" + unit }
      value /= 1024
    }
    return "\(Int(value.rounded()))P"
  }

  /// Bytes in mebibytes with one decimal.
  package static func mebibytes(_ bytes: Double) -> String { String(format: "%.1f", bytes / 1_048_576) }
  package static func mebibytes(_ bytes: Int) -> String { mebibytes(Double(bytes)) }

  /// A share as percent; `-` if it is not known.
  package static func percent(_ share: Double?) -> String { share.map { String(format: "%.1f%%", 100 * $0) } ?? "-" }

  /// A time in the largest unit that keeps it above 1.
  package static func duration(_ seconds: Double) -> String {
    if seconds < 1 { return "\(Int((seconds * 1000).rounded()))ms" }
    if seconds < 10 && seconds != seconds.rounded() { return String(format: "%.1fs", seconds) }
    if seconds < 120 { return "\(Int(seconds.rounded()))s" }
    if seconds < 7200 { return "\(Int((seconds / 60).rounded()))m" }
    return "\(Int((seconds / 3600).rounded()))h"
  }
}
