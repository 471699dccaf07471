// `hugespan run`: an unchanged program on the heap, under stock jemalloc or under CPython's own allocator.
//
// For jemalloc two libraries are preloaded: the front end, which has the heap in it, and the system's jemalloc behind it. For
// CPython a package of ours is put before the program (PythonCommand.swift). Every
// process that the program starts gets both, and each reports to a file of its own, so that nobody writes over another's
// figures; those of the program itself are told by its process number.

import Foundation
import Glibc

/// What stands between a program and the heap.
package enum HeapFrontEnd: String, Sendable {
  /// malloc and its family.
  case jemalloc
  /// CPython's arenas.
  case python

  /// As in a title: what of `program` is on the heap.
  package func title(of program: String) -> String {
    switch self {
    case .jemalloc: "\(program) on jemalloc over the heap"
    case .python: "\(program) with its arenas on the heap"
    }
  }
}

/// What to run, and how.
package struct HeapRunRequest: Sendable {
  package var frontEnd: HeapFrontEnd
  /// The program as it was named, then its arguments.
  package var command: [String]
  /// Settings for HUGESPAN_CONF, without statistics.
  package var configuration: String

  package init(frontEnd: HeapFrontEnd = .jemalloc, command: [String], configuration: String) {
    self.frontEnd = frontEnd
    self.command = command
    self.configuration = configuration
  }
}

/// The system's jemalloc.
package enum JemallocLibrary {
  /// The name that all releases since 4.0 have.
  static let fileName = "libjemalloc.so.2"

  /// Where a dynamic linker would look, as far as can be known without asking one.
  package static var usualDirectories: [String] {
    let own = getenv("LD_LIBRARY_PATH").map { String(cString: $0).split(separator: ":").map(String.init) } ?? []
    #if arch(x86_64)
      let triple = "x86_64-linux-gnu"
    #else
      let triple = "aarch64-linux-gnu"
    #endif
    return own + [
      "/usr/local/lib", "/usr/local/lib/\(triple)", "/lib/\(triple)", "/usr/lib/\(triple)", "/lib64", "/usr/lib64",
      "/lib", "/usr/lib",
    ]
  }

  /// Finds the library. It is not loaded for that: it wants thread-local storage that a running program does not have.
  package static func locate(in directories: [String] = usualDirectories) throws(ProgramError) -> String {
    for directory in directories where access("\(directory)/\(fileName)", R_OK) == 0 {
      return "\(directory)/\(fileName)"
    }
    throw ProgramError(
      .unavailable,
      "\(fileName) is not installed: apt-get install libjemalloc2 (Debian, Ubuntu) or dnf install jemalloc (Fedora); "
        + "LD_LIBRARY_PATH is looked through first")
  }
}

/// What jemalloc must be told so that the heap sees every free.
let jemallocSettings = "retain:false,dirty_decay_ms:0,muzzy_decay_ms:0"

/// The same before the user's own settings: of one that comes twice jemalloc takes the last.
func jemallocConfiguration(before own: String?) -> String {
  [jemallocSettings, own ?? ""].filter { !$0.isEmpty }.joined(separator: ",")
}

/// Runs the program to its end.
///
/// - Parameter say: told what is worth a line while it happens.
package func runOnHeap(
  _ request: HeapRunRequest, say: (String) -> Void
) throws(ProgramError) -> HeapRunResult {
  let reports = try ReportDirectory()
  var environment = Environment()
  // Kept until the program has ended.
  let preload: [PreloadName]
  let program: PreloadableProgram
  let arguments: [String]
  switch request.frontEnd {
  case .jemalloc:
    arguments = request.command
    program = try PreloadableProgram(
      named: arguments[0], searchPath: getenv("PATH").map { String(cString: $0) }, verb: "run")
    let jemalloc = try PreloadName(for: try JemallocLibrary.locate())
    preload = [try PreloadName(for: try PreloadedLibrary.jemalloc.locate(say: say)), jemalloc]
    environment["LD_PRELOAD"] = (preload.map(\.path) + [environment["LD_PRELOAD"] ?? ""])
      .filter { !$0.isEmpty }.joined(separator: ":")
    environment["MALLOC_CONF"] = jemallocConfiguration(before: environment["MALLOC_CONF"])
  case .python:
    preload = []
    let command = try PythonCommand(
      request.command, directory: try PreloadedLibrary.pythonPackage(),
      searchPath: getenv("PATH").map { String(cString: $0) })
    program = command.program
    arguments = command.arguments
    if environment["HUGESPAN_LIBRARY"] == nil {
      environment["HUGESPAN_LIBRARY"] = try PreloadedLibrary.heap.locate(say: say)
    }
  }
  environment["HUGESPAN_CONF"] = ["page:on", request.configuration, "statistics:\(reports.path)/%p.json"]
    .filter { !$0.isEmpty }.joined(separator: ",")

  var watch = MemoryWatch()
  let start = nanoseconds(CLOCK_MONOTONIC)
  let process = ProgramProcess(program: program, arguments: arguments, environment: environment.entries)
  let (identifier, ending, usage) = try withExtendedLifetime(preload) { () throws(ProgramError) in
    try process.run(every: MemoryWatch.period) { watch.look(at: $0) }
  }
  func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
  let text = reports.text(of: identifier)
  return HeapRunResult(
    ending: ending, process: Int(identifier), seconds: Double(nanoseconds(CLOCK_MONOTONIC) - start) / 1e9,
    userSeconds: seconds(usage.ru_utime), systemSeconds: seconds(usage.ru_stime), minorFaults: usage.ru_minflt,
    meanBytes: watch.meanBytes, peakBytes: watch.peakBytes, hugeShare: watch.hugeShare,
    report: text.flatMap(HeapReport.init(json:)), reportText: text, others: reports.others(than: identifier),
    configuration: request.configuration)
}

/// Where the processes of a run leave their reports.
private struct ReportDirectory {
  private let directory: PrivateDirectory
  var path: String { directory.path }

  init() throws(ProgramError) {
    // A server may become another user before it ends.
    directory = try PrivateDirectory(for: "the heap's reports", mode: 0o1777)
  }

  func text(of process: pid_t) -> String? { try? String(contentsOfFile: "\(path)/\(process).json", encoding: .utf8) }

  func others(than process: pid_t) -> [HeapReport] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    return names.sorted().filter { $0 != "\(process).json" }.compactMap { name in
      (try? String(contentsOfFile: "\(path)/\(name)", encoding: .utf8)).flatMap(HeapReport.init(json:))
    }
  }
}
