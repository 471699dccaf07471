// What the tests of the recorder need: C programs made on the spot, and recordings of them.

import Foundation
import Testing
import TraceFormat

@testable import HugeSpanLab

/// Whether a C compiler is there.
let hasCompiler = FileManager.default.isExecutableFile(atPath: "/usr/bin/cc")

/// Whether programs can be recorded here: there is a compiler to make them, and the recorder beside this test can be
/// loaded. One that was built with a sanitizer cannot, into programs without it.
let canRecord: Bool = {
  guard hasCompiler, let library = try? PreloadedLibrary.recorder.locate(say: { _ in }) else { return false }
  return (try? Child(["/usr/bin/env", "LD_PRELOAD=\(library)", "/bin/true"]).wait()) == 0
}()

/// Why tests are skipped where `canRecord` is false.
let cannotRecord: Comment = "needs a C compiler, and a recorder built without a sanitizer"

/// A process with nothing for its standard input and outputs, and no signal blocked.
///
/// Foundation's `Process` hands on the signals that the calling thread happens to block, and threads that were born
/// while a recording ran in this process block some.
struct Child {
  let identifier: pid_t

  init(_ command: [String]) throws {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] {
      posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
    }
    var process: pid_t = 0
    let error = withCStrings(command) { posix_spawn(&process, command[0], &actions, &attributes, $0, environ) }
    try #require(error == 0, "\(command[0]) does not start")
    identifier = process
  }

  /// Its exit status, or 128 and the signal that ended it.
  func wait() -> Int32 {
    var status: Int32 = 0
    while waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + status & 0x7F
  }
}

/// A directory that goes away with the last reference to it.
final class Workshop {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "hugespan-recorder-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Compiles a program from the body of a C (or, by the compiler `c++`, C++) file.
  func compile(_ source: String, flags: [String] = [], compiler: String = "cc") throws -> String {
    let program = "\(path)/program\(Int.random(in: 0..<1_000_000))"
    let file = program + (compiler == "cc" ? ".c" : ".cpp")
    let prologue = """
      #define _GNU_SOURCE
      #include <stdint.h>
      #include <stdio.h>
      #include <stdlib.h>
      #include <string.h>
      #include <sys/mman.h>
      #include <sys/wait.h>
      #include <pthread.h>
      #include <unistd.h>
      static void *volatile sink;

      """
    try (prologue + source).write(toFile: file, atomically: true, encoding: .utf8)
    // Without the optimiser, which removes allocations that nobody looks at.
    let status = try Child(["/usr/bin/\(compiler)", "-O0", "-fno-builtin", "-o", program, file, "-pthread"] + flags)
      .wait()
    try #require(status == 0, "the test's program does not compile: \(file)")
    return program
  }

  /// Records a command and reads its trace.
  func record(_ command: [String]) throws -> Recorded {
    let output = "\(path)/trace\(Int.random(in: 0..<1_000_000)).hstrace"
    let (ending, report) = try HugeSpanLab.record(RecordingRequest(output: output, command: command)) { _ in }
    #expect(!FileManager.default.fileExists(atPath: output + ".raw"))
    return try Recorded(path: output, programEnding: ending, report: report)
  }
}

/// A trace with what is asked of it most.
struct Recorded {
  let events: [TraceEvent]
  let ending: TraceEnding?
  let header: TraceHeader
  var programEnding: ProgramEnding?
  var report: ConversionReport?

  init(path: String, programEnding: ProgramEnding? = nil, report: ConversionReport? = nil) throws {
    var reader = try TraceReader(path: path)
    var events: [TraceEvent] = []
    while let event = try reader.next() { events.append(event) }
    self.events = events
    ending = reader.ending
    header = reader.header
    self.programEnding = programEnding
    self.report = report
  }

  /// The objects that were born with `bytes` bytes, in order.
  func births(of bytes: Int) -> [(object: Int, event: TraceEvent)] {
    events.compactMap { event in
      if case .allocate(let object, bytes, _, _) = event.body { return (object, event) }
      return nil
    }
  }

  /// What happened to an object, in order, without its times.
  func story(of object: Int) -> [TraceEventBody] {
    events.map(\.body).filter { body in
      switch body {
      case .allocate(let other, _, _, _), .resize(let other, _), .free(let other): other == object
      default: false
      }
    }
  }

  /// The one object born with `bytes` bytes.
  func story(ofBirth bytes: Int) throws -> [TraceEventBody] {
    let births = births(of: bytes)
    try #require(births.count == 1, "\(births.count) births of \(bytes) bytes")
    // The birth without its number, which depends on what the C library did before.
    return story(of: births[0].object).map { body in
      switch body {
      case .allocate(_, let bytes, let alignment, let kind):
        .allocate(object: 0, bytes: bytes, alignment: alignment, kind: kind)
      case .resize(_, let bytes): .resize(object: 0, bytes: bytes)
      case .free: .free(object: 0)
      default: body
      }
    }
  }
}

/// The command, built beside this test.
func commandPath() -> String? {
  guard let library = try? PreloadedLibrary.recorder.locate(say: { _ in }) else { return nil }
  let candidate = (library as NSString).deletingLastPathComponent + "/hugespan"
  return FileManager.default.isExecutableFile(atPath: candidate) ? candidate : nil
}
