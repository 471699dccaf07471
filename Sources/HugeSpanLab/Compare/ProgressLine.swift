// How far a long command is: one line that is written over on a terminal, a line per finished run elsewhere.

import CHugeSpanShims
import Glibc

/// Progress on standard error.
package final class ProgressLine {
  private let columns: Int
  private var shown = ""

  /// Looks whether standard error is a terminal.
  package init() { columns = Int(hs_shim_terminal_columns(STDERR_FILENO)) }

  /// Shows the present state; terminals only.
  package func show(_ text: String) {
    guard columns > 0 else { return }
    let line = String(text.prefix(columns - 1))
    if line == shown { return }
    shown = line
    emit("\r\u{1B}[K" + line)
  }

  /// Leaves `text` for good.
  package func note(_ text: String) {
    guard columns > 0 else {
      emit(text + "\n")
      return
    }
    show(text)
  }

  /// Removes the line.
  package func clear() {
    if columns > 0 { emit("\r\u{1B}[K") }
    shown = ""
  }

  private func emit(_ text: String) {
    _ = text.withCString { write(STDERR_FILENO, $0, strlen($0)) }
  }
}
