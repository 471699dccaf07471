// A program that watch started: kept from the screen, given our signals, ended when the user ends the view.

import CHugeSpanShims
import Glibc
import HugeSpanLab
import OptionTable

final class WatchedProgram {
  let process: pid_t
  let name: String
  /// In a group of its own the terminal's signals do not reach it, and all are passed on.
  private let hasOwnGroup: Bool
  private var ending: ProgramEnding?

  /// Starts `arguments`, looked up in PATH.
  ///
  /// - Parameters:
  ///   - output: Where standard output and standard error go; nil if they are this process'.
  ///   - isAlone: Without this process' standard input, and in a process group of its own.
  init(_ arguments: [String], output: Int32?, isAlone: Bool) throws {
    name = arguments[0]
    hasOwnGroup = isAlone
    // What the program leaves behind when it is ended becomes ours to end.
    hs_shim_adopt_orphans()
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if isAlone { posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) }
    if let output {
      posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
      posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO)
    }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var defaults = sigset_t()
    sigemptyset(&defaults)
    sigaddset(&defaults, SIGPIPE)
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    var flags = POSIX_SPAWN_SETSIGDEF
    if isAlone {
      flags |= POSIX_SPAWN_SETPGROUP
      posix_spawnattr_setpgroup(&attributes, 0)
    }
    posix_spawnattr_setflags(&attributes, Int16(flags))
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var started: pid_t = 0
    let code = posix_spawnp(&started, name, &actions, &attributes, &words, environ)
    if code != 0 {
      throw CommandFailure("\(name): cannot be started: \(String(cString: strerror(code)))", status: .missingInput)
    }
    process = started
  }

  /// How it ended; nil while it runs.
  func ended() -> ProgramEnding? {
    if ending != nil { return ending }
    var status: Int32 = 0
    let result = waitpid(process, &status, WNOHANG)
    if result == process {
      let signal = status & 0x7F
      ending = signal == 0 ? .exited(status: (status >> 8) & 0xFF) : .signalled(signal: signal)
    } else if result < 0 && errno == ECHILD {
      // Somebody else has taken the status: it is gone, however it ended.
      ending = .exited(status: 0)
    }
    return ending
  }

  /// A program in a group of its own is meant with all that it has started, as the terminal means it.
  private var target: pid_t { hasOwnGroup ? -process : process }

  /// Passes a signal on that this process was sent. After its end the number may be another process'.
  func send(_ signal: WatchSignal) {
    if ended() == nil && (hasOwnGroup || !signal.isFromKernel) { kill(target, signal.number) }
  }

  /// Lets it go on if it was stopped.
  func resume() { if ended() == nil { kill(target, SIGCONT) } }

  /// Ends it with all that it has started: politely, and after three seconds not.
  func end() {
    if ended() != nil { return }
    tell(SIGTERM)
    for _ in 0..<300 {
      if ended() != nil && orphans.isEmpty { return }
      // Those that lose their parent meanwhile have not been told yet.
      if ended() != nil { tell(SIGTERM) }
      usleep(10_000)
    }
    // One that the kernel does not let go cannot be waited for.
    for _ in 0..<300 where ended() == nil || !orphans.isEmpty {
      tell(SIGKILL)
      usleep(10_000)
    }
  }

  private func tell(_ signal: Int32) {
    for each in (ended() == nil ? [target] : []) + orphans {
      kill(each, signal)
      // One that is stopped would not notice.
      kill(each, SIGCONT)
    }
  }

  /// Descendants of the program whose parents have ended: this process' own children besides the program.
  private var orphans: [pid_t] {
    var status: Int32 = 0
    let children = contents(ofFile: "/proc/self/task/\(getpid())/children") ?? ""
    return children.split(separator: " ").compactMap { pid_t($0) }.filter { child in
      // One that has ended is taken note of, and gone.
      child != process && waitpid(child, &status, WNOHANG) == 0
    }
  }
}
