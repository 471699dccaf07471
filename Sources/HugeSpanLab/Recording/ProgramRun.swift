// Runs the program with the recorder in it: start, sample, pass signals on, wait.

import CRecordingLog
import Glibc
import TraceFormat

/// How the program ended.
package enum ProgramEnding: Equatable, Sendable {
  case exited(status: Int32)
  case signalled(signal: Int32)
}

/// One run of a program under the recorder.
package struct ProgramRun {
  /// Samples are at least every 100 ms; half of that is left for a busy machine to be late.
  static let samplePeriod: UInt64 = 50_000_000

  package var program: RecordableProgram
  /// The program's name as it sees it, and its arguments.
  package var arguments: [String]
  package var library: String
  package var recording: RawRecording

  package init(program: RecordableProgram, arguments: [String], library: String, recording: RawRecording) {
    self.program = program
    self.arguments = arguments
    self.library = library
    self.recording = recording
  }

  /// Starts the program and returns when it has ended.
  ///
  /// Signals that are sent to this process meanwhile are passed on; those of the terminal reach the program anyway.
  package func run() throws(RecordingError) -> ProgramEnding {
    // With the signals blocked, one call waits for the program's end, for a signal, and for the time of a sample.
    var awaited = sigset_t()
    sigemptyset(&awaited)
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD] {
      sigaddset(&awaited, signal)
    }
    var original = sigset_t()
    pthread_sigmask(SIG_BLOCK, &awaited, &original)
    defer { pthread_sigmask(SIG_SETMASK, &original, nil) }
    // A shell may have started us with SIGCHLD ignored, and then there would be no status to wait for.
    signal(SIGCHLD, SIG_DFL)
    let process = try spawn(mask: &original)
    return wait(for: process, signals: &awaited)
  }

  private func spawn(mask: inout sigset_t) throws(RecordingError) -> pid_t {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    posix_spawnattr_setsigmask(&attributes, &mask)
    var process: pid_t = 0
    let error = withCStrings(arguments) { argv in
      withCStrings(environment()) { posix_spawn(&process, program.path, nil, &attributes, argv, $0) }
    }
    if error != 0 { throw RecordingError(.usage, "\(program.path): cannot be started: \(errorText(error))") }
    return process
  }

  /// Ours, with the log named and the recorder before whatever is preloaded already.
  private func environment() -> [String] {
    var result: [String] = []
    var preload = library
    var entry = environ
    while let text = entry.pointee {
      entry += 1
      let variable = String(cString: text)
      if variable.hasPrefix("LD_PRELOAD=") {
        let others = variable.dropFirst("LD_PRELOAD=".count)
        if !others.isEmpty { preload += ":\(others)" }
      } else if !variable.hasPrefix("\(HS_LOG_VARIABLE)=") {
        result.append(variable)
      }
    }
    return result + ["LD_PRELOAD=\(preload)", "\(HS_LOG_VARIABLE)=\(recording.logPath)"]
  }

  private func wait(for process: pid_t, signals: inout sigset_t) -> ProgramEnding {
    var sampler = ProgramSampler(process: process, recording: recording, startMonotonic: startMonotonic())
    var due = nanoseconds(CLOCK_MONOTONIC)
    while true {
      var status: Int32 = 0
      let result = waitpid(process, &status, WNOHANG)
      if result == process {
        let signal = status & 0x7F
        return signal == 0 ? .exited(status: (status >> 8) & 0xFF) : .signalled(signal: signal)
      }
      let now = nanoseconds(CLOCK_MONOTONIC)
      if now >= due {
        sampler?.sample()
        // From now, not from when it was due: a machine that was asleep must not be made up for.
        due = now + Self.samplePeriod
      }
      let rest = due - min(due, nanoseconds(CLOCK_MONOTONIC))
      var timeout = timespec(tv_sec: Int(rest / 1_000_000_000), tv_nsec: Int(rest % 1_000_000_000))
      var information = siginfo_t()
      let arrived = sigtimedwait(&signals, &information, &timeout)
      // A code of 0 or less was sent by a process; a terminal's signals come from the kernel, to the whole group.
      if arrived > 0 && arrived != SIGCHLD && information.si_code <= 0 { kill(process, arrived) }
    }
  }

  private func startMonotonic() -> UInt64 {
    let file = open(recording.logPath, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return 0 }
    defer { close(file) }
    var header = hs_log_header()
    _ = withUnsafeMutableBytes(of: &header) { pread(file, $0.baseAddress, $0.count, 0) }
    return header.start_monotonic
  }
}
