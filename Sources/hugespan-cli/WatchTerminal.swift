// The terminal: taken over for the view, and given back as it was.
//
// Signals of keys stay on, so that Ctrl-C and Ctrl-Z are what they always are. Keys are read from standard input, or, if that
// is something else, from the controlling terminal; without either there are no keys. Whoever stops this
// process and continues it later may have changed the terminal: entering again takes the modes as they are then.

import Glibc
import HugeSpanLab

final class WatchTerminal {
  private let output = STDOUT_FILENO
  /// Where keys come from, -1 if from nowhere.
  private(set) var keys: Int32
  private let ownsKeys: Bool
  private var saved: termios?
  private var isActive = false
  /// What the terminal shows; nil if that is not known.
  private var shown: WatchCanvas?

  init() {
    ownsKeys = isatty(STDIN_FILENO) == 0
    keys = ownsKeys ? open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY) : STDIN_FILENO
  }

  deinit { if ownsKeys && keys >= 0 { close(keys) } }

  /// Whether a screen can be drawn there.
  static func isUsable(_ environment: (String) -> String?) -> Bool {
    let kind = environment("TERM") ?? ""
    return isatty(STDOUT_FILENO) != 0 && !kind.isEmpty && kind != "dumb"
  }

  /// Columns and rows.
  var size: (width: Int, height: Int) {
    var size = winsize()
    guard ioctl(output, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
    return (Int(size.ws_col), Int(size.ws_row))
  }

  func enter() {
    var modes = termios()
    // Modes that are still ours, since somebody stopped this process by SIGSTOP, are not those to give back.
    if !isActive && keys >= 0 && tcgetattr(keys, &modes) == 0 { saved = modes }
    if let saved {
      var raw = saved
      raw.c_lflag &= ~tcflag_t(ICANON | ECHO | IEXTEN)
      raw.c_iflag &= ~tcflag_t(ICRNL | INLCR | IXON)
      tcsetattr(keys, TCSANOW, &raw)
    }
    WatchSignals.restoreOnFault(output: output, modes: saved, on: keys, WatchSequences.leave)
    isActive = true
    shown = nil
    send(WatchSequences.enter)
  }

  /// Gives the terminal back; does nothing if that is done.
  func leave() {
    guard isActive else { return }
    isActive = false
    if var saved { tcsetattr(keys, TCSANOW, &saved) }
    // Output that the user has stopped would hold up the end.
    var wait = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
    if poll(&wait, 1, 500) > 0 { send(WatchSequences.leave) }
  }

  /// The source of keys has nothing more to give.
  func dropKeys() { keys = -1 }

  /// Draws what differs from the last drawing. False if the terminal is gone.
  @discardableResult
  func show(_ canvas: WatchCanvas, hasColour: Bool) -> Bool {
    guard isActive else { return true }
    let isShown = send(canvas.sequences(after: shown, hasColour: hasColour))
    if isShown { shown = canvas }
    return isShown || errno == EINTR
  }

  /// False if not all was written. A signal may ask to leave while the terminal takes nothing, so that one gives up then; the next
  /// drawing is a whole one.
  @discardableResult
  private func send(_ text: String) -> Bool {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { write(output, $0.baseAddress!, $0.count) }
      if count < 0 {
        shown = nil
        return false
      }
      bytes = bytes.dropFirst(count)
    }
    return true
  }
}
