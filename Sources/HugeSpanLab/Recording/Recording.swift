// `hugespan record` from its arguments to the trace: inspect, prepare, run, convert.

import Glibc
import TraceFormat

/// What to record, and where to.
package struct RecordingRequest: Sendable {
  /// The trace to be written.
  package var output: String
  /// The program as it was named, then its arguments.
  package var command: [String]
  /// Leave the raw recording beside the trace.
  package var keepsRaw: Bool
  /// What to record. Spans are recorded by the front end under jemalloc, on the heap; HUGESPAN_CONF has its settings.
  package var level: TraceLevel

  package init(output: String, command: [String], keepsRaw: Bool = false, level: TraceLevel = .malloc) {
    self.output = output
    self.command = command
    self.keepsRaw = keepsRaw
    self.level = level
  }

  /// The directory of the raw recording.
  package var rawDirectory: String { "\(output).raw" }
}

/// Runs the program under the recorder and writes its trace.
///
/// - Parameter say: told what is worth a line while it happens.
package func record(
  _ request: RecordingRequest, say: (String) -> Void
) throws(ProgramError) -> (ending: ProgramEnding, report: ConversionReport) {
  let program = try PreloadableProgram(
    named: request.command[0], searchPath: getenv("PATH").map { String(cString: $0) })
  var preloads: [PreloadName] = []
  switch request.level {
  case .malloc: preloads.append(try PreloadName(for: PreloadedLibrary.recorder.locate(say: say)))
  case .span:
    let jemalloc = try JemallocLibrary.locate()
    preloads.append(try PreloadName(for: PreloadedLibrary.jemalloc.locate(say: say)))
    preloads.append(try PreloadName(for: jemalloc))
  }
  let header = TraceHeader(
    program: program.path, arguments: Array(request.command.dropFirst()), system: systemName(), level: request.level)
  let recording = try RawRecording.create(at: absolutePath(request.rawDirectory), header: header)
  let run = ProgramRun(
    program: program, arguments: request.command, libraries: preloads.map(\.path), recording: recording,
    level: request.level)
  let ending: ProgramEnding
  do { ending = try run.run() } catch {
    recording.remove()
    throw error
  }
  let report: ConversionReport
  do { report = try LogConversion.convert(recording, to: request.output, ending: TraceEnding(ending)) } catch {
    throw ProgramError(error.kind, "\(error); the raw log is kept in \(recording.directory)")
  }
  if !request.keepsRaw { recording.remove() }
  return (ending, report)
}

extension TraceEnding {
  init(_ ending: ProgramEnding) {
    self =
      switch ending {
      case .exited(let status): .exited(status: Int(status))
      case .signalled(let signal): .signalled(signal: Int(signal))
      }
  }
}

extension ConversionReport {
  /// What the user should know about a trace that is not all it could be.
  package var warnings: [String] {
    var result: [String] = []
    if let problem { result.append("the recording is incomplete: \(problem)") }
    if !attached && level == .span {
      result.append(
        "the front end was not loaded into the program; the dynamic linker or the program's environment kept it out")
    } else if !attached {
      result.append(
        "the recorder was not loaded into the program; the dynamic linker or the program's environment kept it out")
    } else if heapBirths == 0 && level == .span {
      result.append("no span was asked for: the program brings an allocator of its own, or made no call of malloc")
    } else if heapBirths == 0 {
      result.append(
        "no call of malloc was seen: the program brings an allocator of its own, or made no call; only its mappings are in the trace"
      )
    }
    if unseenReleases > objects / 100 {
      result.append("\(unseenReleases) releases went unseen; the program frees memory past malloc's interface")
    }
    return result
  }
}

/// The path from the root, since the program may change its directory before it opens the log.
private func absolutePath(_ path: String) -> String {
  if path.hasPrefix("/") { return path }
  guard let directory = getcwd(nil, 0) else { return path }
  defer { free(directory) }
  return "\(String(cString: directory))/\(path)"
}

/// The kernel's name, release and machine.
private func systemName() -> String {
  var name = utsname()
  guard uname(&name) == 0 else { return "" }
  func text<Field>(_ field: Field) -> String {
    withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
  return "\(text(name.sysname)) \(text(name.release)) \(text(name.machine))"
}
