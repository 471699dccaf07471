// Runs the program with the recorder in it, and samples it from outside.

import CRecordingLog
import Glibc
import TraceFormat

/// One run of a program under the recorder.
package struct ProgramRun {
  /// Samples are at least every 100 ms; half of that is left for a busy machine to be late.
  static let samplePeriod: UInt64 = 50_000_000

  package var program: PreloadableProgram
  /// The program's name as it sees it, and its arguments.
  package var arguments: [String]
  /// What is preloaded, in this order.
  package var libraries: [String]
  package var recording: RawRecording
  package var level: TraceLevel

  package init(
    program: PreloadableProgram, arguments: [String], libraries: [String], recording: RawRecording, level: TraceLevel
  ) {
    self.program = program
    self.arguments = arguments
    self.libraries = libraries
    self.recording = recording
    self.level = level
  }

  /// Starts the program and returns when it has ended. Signals that are sent to this process meanwhile are passed on.
  package func run() throws(ProgramError) -> ProgramEnding {
    var sampler: ProgramSampler?
    let process = ProgramProcess(program: program, arguments: arguments, environment: environment())
    return try process.run(every: Self.samplePeriod) { identifier in
      if sampler == nil {
        sampler = ProgramSampler(process: identifier, recording: recording, startMonotonic: startMonotonic())
      }
      sampler?.sample()
    }.ending
  }

  /// Ours, with the log named and the recorder before whatever is preloaded already.
  private func environment() -> [String] {
    var result = Environment()
    let preloaded = result["LD_PRELOAD"].map { $0.isEmpty ? [] : [$0] } ?? []
    result["LD_PRELOAD"] = (libraries + preloaded).joined(separator: ":")
    if level == .span { result["MALLOC_CONF"] = jemallocConfiguration(before: result["MALLOC_CONF"]) }
    result[HS_LOG_VARIABLE] = recording.logPath
    return result.entries
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
