import Foundation
import Glibc
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

/// What a command printed, and how it ended.
struct CommandOutcome {
  var status: Int32
  var output: String
  var errors: String
}

/// The built `hugespan`, which lies beside the test program.
let hugespanPath: String = {
  let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
  return folder.appendingPathComponent("hugespan").path
}()

/// Starts `hugespan` without waiting for it.
func start(_ arguments: [String], output: Pipe = Pipe(), errors: Pipe = Pipe()) throws -> Process {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: hugespanPath)
  process.arguments = arguments
  process.standardInput = FileHandle.nullDevice
  process.standardOutput = output
  process.standardError = errors
  try process.run()
  return process
}

/// Runs `hugespan` to its end.
func hugespan(_ arguments: String...) throws -> CommandOutcome { try hugespan(arguments) }

func hugespan(_ arguments: [String]) throws -> CommandOutcome {
  let folder = try TemporaryFolder()
  // Files rather than pipes: nobody has to read while the command writes.
  _ = FileManager.default.createFile(atPath: folder.path + "/out", contents: nil)
  _ = FileManager.default.createFile(atPath: folder.path + "/err", contents: nil)
  let process = Process()
  process.executableURL = URL(fileURLWithPath: hugespanPath)
  process.arguments = arguments
  process.standardInput = FileHandle.nullDevice
  process.standardOutput = FileHandle(forWritingAtPath: folder.path + "/out")
  process.standardError = FileHandle(forWritingAtPath: folder.path + "/err")
  try process.run()
  process.waitUntilExit()
  return CommandOutcome(
    status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
    output: contents(ofFile: folder.path + "/out") ?? "", errors: contents(ofFile: folder.path + "/err") ?? "")
}

/// Writes a trace of `events` into `folder`.
func writeTrace(_ events: [TraceEvent], _ path: String) throws {
  let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  defer { close(file) }
  var writer = try TraceWriter(header: TraceHeader(program: "test"), output: .descriptor(file))
  for event in events { try writer.append(event) }
  try writer.finish(.exited(status: 0))
}

/// A generated trace of `seconds` of trace time.
func generatedTrace(_ folder: TemporaryFolder, seconds: Int = 3, peak: String = "24MiB") throws -> String {
  let path = folder.path + "/small.hstrace"
  let outcome = try hugespan("generate", "-o", path, "--length", "\(seconds)s", "--peak", peak, "--churn", "500")
  #expect(outcome.status == 0, "\(outcome.errors)")
  return path
}

/// Groups of this project that are there now and belong to `owner`.
func groups(of owner: Int32) -> [String] {
  guard let membership = try? CgroupMembership.find() else { return [] }
  let names = (try? FileManager.default.contentsOfDirectory(atPath: membership.directory)) ?? []
  return names.filter { $0.hasPrefix("hugespan-\(owner)-") }
}

/// This program, and the command beside it, were built with the address sanitizer.
let hasAddressSanitizer = dlsym(nil, "__asan_init") != nil

/// Whether this process may make memory groups.
let canMakeGroup: Bool = {
  guard let membership = try? CgroupMembership.find(),
    let group = try? MemoryCgroup.make(under: membership, number: 97)
  else { return false }
  return group.remove()
}()

/// Whether memory that asks for hugepages gets them.
let hasHugePages: Bool = {
  let huge = Machine.selected(contents(ofFile: "/sys/kernel/mm/transparent_hugepage/enabled"))
  return huge == "always" || huge == "madvise"
}()

/// Waits until `condition` holds, at most `seconds`.
func wait(seconds: Double = 20, until condition: () -> Bool) -> Bool {
  let end = Date().addingTimeInterval(seconds)
  while !condition() {
    if Date() > end { return false }
    usleep(20_000)
  }
  return true
}
