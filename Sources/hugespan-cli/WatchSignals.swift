// Signals as something to poll for.
//
// A handler may do next to nothing, and between two looks the command waits for keys, time and signals at once. So the handler
// writes a signal's number into a pipe, and the loop reads it there. Faults of this process itself cannot wait: their
// handler restores the terminal with two system calls, from memory that was prepared before, and lets the fault take its way.

import Glibc
import OptionTable

/// A signal that has arrived.
struct WatchSignal {
  var number: Int32
  /// From the terminal, which sends it to the whole process group.
  var isFromKernel: Bool
}

enum WatchSignals {
  // Set before a handler is installed, read by handlers.
  nonisolated(unsafe) private static var writer: Int32 = -1
  nonisolated(unsafe) private static var savedModes: UnsafeMutablePointer<termios>?
  nonisolated(unsafe) private static var modesDescriptor: Int32 = -1
  nonisolated(unsafe) private static var farewell: UnsafeMutableBufferPointer<UInt8>?

  static let ending = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]

  /// From now on `numbers` are written into a pipe, whose end for reading is returned.
  static func catching(_ numbers: [Int32]) throws -> Int32 {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
      throw CommandFailure("no pipe can be made: \(String(cString: strerror(errno)))", status: .unavailable)
    }
    for end in ends {
      _ = fcntl(end, F_SETFD, FD_CLOEXEC)
      _ = fcntl(end, F_SETFL, O_NONBLOCK)
    }
    writer = ends[1]
    var action = sigaction()
    action.sa_flags = SA_SIGINFO
    action.__sigaction_handler.sa_sigaction = { number, information, _ in
      let code = errno
      // A code of 0 or less was sent by a process.
      let isFromKernel = (information?.pointee.si_code ?? 0) > 0
      var bytes: (UInt8, UInt8) = (UInt8(truncatingIfNeeded: number), isFromKernel ? 1 : 0)
      _ = write(WatchSignals.writer, &bytes, 2)
      errno = code
    }
    var set = sigset_t()
    sigemptyset(&set)
    for number in numbers {
      // What this command was started without (nohup) it goes on without.
      var before = sigaction()
      sigaction(number, nil, &before)
      if Self.ending.contains(number) && isIgnored(before) { continue }
      sigaction(number, &action, nil)
      sigaddset(&set, number)
    }
    // A program that is started from a worker thread of another begins with signals blocked.
    pthread_sigmask(SIG_UNBLOCK, &set, nil)
    return ends[0]
  }

  private static func isIgnored(_ action: sigaction) -> Bool {
    withUnsafeBytes(of: action.__sigaction_handler) { $0.loadUnaligned(as: Int.self) }
      == unsafeBitCast(SIG_IGN, to: Int.self)
  }

  /// What has arrived.
  static func read(from reader: Int32) -> [WatchSignal] {
    var bytes = [UInt8](repeating: 0, count: 64)
    let count = Glibc.read(reader, &bytes, bytes.count)
    guard count >= 2 else { return [] }
    return stride(from: 0, to: count - 1, by: 2).map {
      WatchSignal(number: Int32(bytes[$0]), isFromKernel: bytes[$0 + 1] != 0)
    }
  }

  /// A fault of this process from now on restores the terminal before it ends it.
  static func restoreOnFault(output: Int32, modes: termios?, on keys: Int32, _ text: String) {
    if farewell == nil {
      let bytes = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: text.utf8.count)
      _ = bytes.initialize(from: text.utf8)
      farewell = bytes
    }
    if let modes {
      if savedModes == nil { savedModes = .allocate(capacity: 1) }
      savedModes?.initialize(to: modes)
      modesDescriptor = keys
    }
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT] {
      signal(number) { number in
        if let bytes = WatchSignals.farewell { _ = write(STDOUT_FILENO, bytes.baseAddress, bytes.count) }
        if let modes = WatchSignals.savedModes { tcsetattr(WatchSignals.modesDescriptor, TCSANOW, modes) }
        signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  /// Ends this process by `number`, as it would have without a handler.
  static func end(by number: Int32) -> Never {
    signal(number, SIG_DFL)
    raise(number)
    exit(128 + number)
  }
}
