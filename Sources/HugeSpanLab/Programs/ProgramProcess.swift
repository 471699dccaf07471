// Another program as a child of this one: started, watched, given our signals, waited for.

import Glibc

/// How the program ended.
package enum ProgramEnding: Equatable, Sendable {
  case exited(status: Int32)
  case signalled(signal: Int32)
}

/// A program that is to be run.
package struct ProgramProcess {
  package var program: PreloadableProgram
  /// The program's name as it sees it, and its arguments.
  package var arguments: [String]
  package var environment: [String]

  package init(program: PreloadableProgram, arguments: [String], environment: [String]) {
    self.program = program
    self.arguments = arguments
    self.environment = environment
  }

  /// Starts the program and returns when it has ended, with what the kernel says that it and its children used.
  ///
  /// Signals that are sent to this process meanwhile are passed on; those of the terminal reach the program anyway. When job
  /// control stops the program this process stops too, so that the shell that waits for it notices, and whoever continues it
  /// continues both.
  /// `look` is called at once and then with at least `period` nanoseconds in between.
  package func run(
    every period: UInt64, look: (pid_t) -> Void
  ) throws(ProgramError) -> (process: pid_t, ending: ProgramEnding, usage: rusage) {
    // With the signals blocked, one call waits for the program's end, for a signal, and for the time of a look.
    var awaited = sigset_t()
    sigemptyset(&awaited)
    for signal in Self.passedOn + [SIGCHLD] { sigaddset(&awaited, signal) }
    var original = sigset_t()
    pthread_sigmask(SIG_BLOCK, &awaited, &original)
    defer { pthread_sigmask(SIG_SETMASK, &original, nil) }
    // A shell may have started us with SIGCHLD ignored, and then there would be no status to wait for.
    signal(SIGCHLD, SIG_DFL)
    let process = try spawn(mask: &original)
    let (ending, usage) = wait(for: process, signals: &awaited, period, look)
    return (process, ending, usage)
  }

  /// All that can be caught and that others send. Not those of this process' own faults, nor SIGPIPE, which its own writing brings.
  private static var passedOn: [Int32] {
    [
      SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGVTALRM, SIGPROF, SIGURG, SIGIO, SIGPWR,
      SIGTSTP, SIGCONT,
    ] + Array(__libc_current_sigrtmin()...__libc_current_sigrtmax())
  }

  private func spawn(mask: inout sigset_t) throws(ProgramError) -> pid_t {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    posix_spawnattr_setsigmask(&attributes, &mask)
    var process: pid_t = 0
    let error = withCStrings(arguments) { argv in
      withCStrings(environment) { posix_spawn(&process, program.path, nil, &attributes, argv, $0) }
    }
    if error != 0 { throw ProgramError(.usage, "\(program.path): cannot be started: \(errorText(error))") }
    return process
  }

  private func wait(
    for process: pid_t, signals: inout sigset_t, _ period: UInt64, _ look: (pid_t) -> Void
  ) -> (ProgramEnding, rusage) {
    var due = nanoseconds(CLOCK_MONOTONIC)
    var usage = rusage()
    while true {
      var status: Int32 = 0
      let result = wait4(process, &status, WNOHANG | WUNTRACED, &usage)
      if result == process && status & 0xFF == 0x7F {
        // Not for SIGSTOP: whoever stops the program alone may continue it alone.
        if [SIGTSTP, SIGTTIN, SIGTTOU].contains((status >> 8) & 0xFF) {
          kill(getpid(), SIGSTOP)
          kill(process, SIGCONT)
        }
      } else if result == process {
        let signal = status & 0x7F
        return (signal == 0 ? .exited(status: (status >> 8) & 0xFF) : .signalled(signal: signal), usage)
      }
      let now = nanoseconds(CLOCK_MONOTONIC)
      if now >= due {
        look(process)
        // From now, not from when it was due: a machine that was asleep must not be made up for.
        due = now + period
      }
      let rest = due - min(due, nanoseconds(CLOCK_MONOTONIC))
      var timeout = timespec(tv_sec: Int(rest / 1_000_000_000), tv_nsec: Int(rest % 1_000_000_000))
      var information = siginfo_t()
      let arrived = sigtimedwait(&signals, &information, &timeout)
      // A code of 0 or less was sent by a process; a terminal's signals come from the kernel, to the whole group.
      if arrived > 0 && arrived != SIGCHLD && information.si_code <= 0 { kill(process, arrived) }
    }
  }
}

/// Environment variables, to begin with those of this process.
package struct Environment {
  private var values: [(name: String, value: String)] = []

  package init() {
    var entry = environ
    while let text = entry.pointee {
      entry += 1
      let variable = String(cString: text)
      let name = variable.prefix { $0 != "=" }
      values.append((String(name), String(variable.dropFirst(name.count + 1))))
    }
  }

  /// The value of a variable; nil if it is not set.
  package subscript(name: String) -> String? {
    get { values.last { $0.name == name }?.value }
    set {
      values.removeAll { $0.name == name }
      if let newValue { values.append((name, newValue)) }
    }
  }

  /// As exec wants them.
  package var entries: [String] { values.map { "\($0.name)=\($0.value)" } }
}
