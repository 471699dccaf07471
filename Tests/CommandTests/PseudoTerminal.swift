// A terminal for tests: a pseudo-terminal whose master side is read into a little model of a screen.

import Foundation
import Glibc
import Testing

/// What a terminal would show, as far as the live view uses its control sequences.
struct ScreenModel {
  private(set) var isAlternate = false
  private(set) var isCursorShown = true
  private(set) var isWrapping = true
  /// Sequences that are none that the view should send.
  private(set) var unknown: [String] = []
  private(set) var hasColours = false
  /// Rows of what was written since the screen was last cleared, however wide and many.
  private(set) var rows: [[Unicode.Scalar]] = []
  private(set) var clearings = 0
  /// Text that was written outside the alternate screen.
  private(set) var outside = ""
  private var row = 0
  private var column = 0
  private var pending: [UInt8] = []

  mutating func read(_ bytes: [UInt8]) {
    pending += bytes
    var index = 0
    while index < pending.count {
      let byte = pending[index]
      if byte == 0x1B {
        // ESC [ parameters letter
        let isFinal = { (byte: UInt8) in byte >= 0x40 && byte <= 0x7E && byte != 0x5B }
        guard let end = pending[(index + 1)...].firstIndex(where: isFinal) else { break }
        obey(String(decoding: pending[min(index + 2, end)..<end], as: UTF8.self), pending[end])
        index = end + 1
        continue
      }
      let length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2
      guard index + length <= pending.count else { break }
      write(String(decoding: pending[index..<index + length], as: UTF8.self).unicodeScalars.first!)
      index += length
    }
    pending.removeFirst(index)
  }

  private mutating func write(_ scalar: Unicode.Scalar) {
    if !isAlternate {
      outside.unicodeScalars.append(scalar)
      return
    }
    while rows.count <= row { rows.append([]) }
    while rows[row].count <= column { rows[row].append(" ") }
    rows[row][column] = scalar
    column += 1
  }

  private mutating func obey(_ parameters: String, _ letter: UInt8) {
    switch (parameters, letter) {
    case ("?1049", UInt8(ascii: "h")): isAlternate = true
    case ("?1049", UInt8(ascii: "l")): isAlternate = false
    case ("?25", UInt8(ascii: "h")): isCursorShown = true
    case ("?25", UInt8(ascii: "l")): isCursorShown = false
    case ("?7", UInt8(ascii: "h")): isWrapping = true
    case ("?7", UInt8(ascii: "l")): isWrapping = false
    case ("2", UInt8(ascii: "J")):
      rows = []
      clearings += 1
    case (_, UInt8(ascii: "H")):
      let numbers = parameters.split(separator: ";").compactMap { Int($0) }
      (row, column) = (max((numbers.first ?? 1) - 1, 0), max((numbers.count > 1 ? numbers[1] : 1) - 1, 0))
    case (_, UInt8(ascii: "m")):
      if parameters.contains("8;5;") { hasColours = true }
    default: unknown.append("\(parameters)\(letter)")
    }
  }

  func line(_ row: Int) -> String {
    guard row >= 0, row < rows.count else { return "" }
    var text = String.UnicodeScalarView()
    text.append(contentsOf: rows[row])
    return String(text)
  }

  var text: String { rows.indices.map(line).joined(separator: "\n") }
  var width: Int { rows.map(\.count).max() ?? 0 }
}

/// A command on a pseudo-terminal, as the leader of a session of its own.
final class PseudoTerminal {
  let process: pid_t
  private let master: Int32
  private let slave: Int32
  private(set) var screen = ScreenModel()
  private let modesBefore: [UInt8]
  private(set) var status: Int32?

  /// Starts `hugespan` with `arguments` and nothing of this process' environment but what is given.
  init(_ arguments: [String], width: Int, height: Int, environment: [String: String] = [:]) throws {
    // posix_openpt, unlockpt and ptsname are behind a macro; on Linux they are these (ioctl_tty(2)).
    master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
    var locked: Int32 = 0
    var number: UInt32 = 0
    try #require(master >= 0 && ioctl(master, 0x4004_5431, &locked) == 0 && ioctl(master, 0x8004_5430, &number) == 0)
    let name = "/dev/pts/\(number)"
    slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)
    try #require(slave >= 0)
    _ = fcntl(master, F_SETFL, O_NONBLOCK)
    var size = winsize(ws_row: UInt16(height), ws_col: UInt16(width), ws_xpixel: 0, ws_ypixel: 0)
    _ = ioctl(master, UInt(TIOCSWINSZ), &size)
    modesBefore = Self.modes(slave)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // The first terminal that the leader of a session opens is its own.
    posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0)
    posix_spawn_file_actions_adddup2(&actions, 0, 1)
    posix_spawn_file_actions_adddup2(&actions, 0, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // POSIX_SPAWN_SETSID, which is behind a macro, and no signals blocked, whichever thread this is.
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, 0x80 | Int16(POSIX_SPAWN_SETSIGMASK))
    var variables = ["TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"]
    variables.merge(environment) { $1 }
    var words: [UnsafeMutablePointer<CChar>?] = ([hugespanPath] + arguments).map { strdup($0) } + [nil]
    var entries: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0)=\($1)") } + [nil]
    defer { for word in words + entries { free(word) } }
    var started: pid_t = 0
    let code = posix_spawn(&started, hugespanPath, &actions, &attributes, &words, &entries)
    process = started
    try #require(code == 0)
  }

  deinit {
    if status == nil {
      kill(process, SIGKILL)
      var ignored: Int32 = 0
      waitpid(process, &ignored, 0)
    }
    close(slave)
    close(master)
  }

  private static func modes(_ terminal: Int32) -> [UInt8] {
    var modes = termios()
    tcgetattr(terminal, &modes)
    var bytes: [UInt8] = []
    for word in [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag] {
      withUnsafeBytes(of: word) { bytes += Array($0) }
    }
    withUnsafeBytes(of: modes.c_cc) { bytes += Array($0) }
    return bytes
  }

  /// The terminal is as it was before the command.
  var isRestored: Bool {
    Self.modes(slave) == modesBefore && !screen.isAlternate && screen.isCursorShown && screen.isWrapping
  }

  var isRaw: Bool { Self.modes(slave) != modesBefore }

  func press(_ keys: String) { _ = write(master, keys, keys.utf8.count) }

  /// The kernel sends SIGWINCH for it.
  func resize(width: Int, height: Int) {
    var size = winsize(ws_row: UInt16(height), ws_col: UInt16(width), ws_xpixel: 0, ws_ypixel: 0)
    _ = ioctl(master, UInt(TIOCSWINSZ), &size)
  }

  private func readAll() {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(master, &buffer, buffer.count)
      if count <= 0 { return }
      screen.read(Array(buffer[0..<count]))
    }
  }

  /// Reads what comes until `condition` holds, at most `seconds`: many, since under a sanitizer, beside all other tests, a command on two
  /// cores once took more than 20 to draw its first screen.
  func wait(seconds: Double = 90, until condition: (ScreenModel) -> Bool) -> Bool {
    let end = Date().addingTimeInterval(seconds)
    while true {
      readAll()
      if condition(screen) { return true }
      if Date() > end { return false }
      usleep(5_000)
    }
  }

  /// Waits for the end of the command: its exit status, or minus the signal's number.
  func waitForEnd(seconds: Double = 90) -> Int32? {
    _ = wait(seconds: seconds) { _ in
      var raw: Int32 = 0
      guard waitpid(process, &raw, WNOHANG) == process else { return false }
      status = raw & 0x7F == 0 ? (raw >> 8) & 0xFF : -(raw & 0x7F)
      return true
    }
    readAll()
    return status
  }
}
