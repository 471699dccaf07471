// The benchmarks' way of holding back what a virtual machine reports to its host, on files in the place of the kernel's.

import Foundation
import TestSupport
import Testing

@testable import HugeSpanLab

private let hasPython = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
  FileManager.default.isExecutableFile(atPath: $0 + "/python3")
}

@Suite("hold-free-memory", .enabled(if: hasPython, "there is no python3")) struct HoldFreeMemoryTests {
  private static let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Benchmarks/Harness/hold-free-memory").path

  private let folder: TemporaryFolder

  init() throws {
    folder = try TemporaryFolder()
    for (name, value) in ["min_free_ms": "0", "max_waiting_mib": "1024", "page_reporting_order": "9"] {
      try folder.write(value + "\n", "parameters/" + name)
    }
  }

  /// The parameters, in the order of their names.
  private var parameters: [String] {
    ["max_waiting_mib", "min_free_ms", "page_reporting_order"].map {
      (contents(ofFile: "\(folder.path)/parameters/\($0)") ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
    }
  }

  private func start(_ command: [String], parameters: String = "parameters") throws -> Process {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: Self.script)
    process.arguments = ["--gibibytes", "0", "--parameters", "\(folder.path)/\(parameters)"] + command
    process.currentDirectoryURL = URL(fileURLWithPath: folder.path)
    _ = FileManager.default.createFile(atPath: folder.path + "/err", contents: nil)
    process.standardError = FileHandle(forWritingAtPath: folder.path + "/err")
    try process.run()
    return process
  }

  private func status(_ command: [String], parameters: String = "parameters") throws -> Int32 {
    let process = try start(command, parameters: parameters)
    process.waitUntilExit()
    return process.terminationStatus
  }

  private let original = ["1024", "0", "9"]

  @Test("holds reports back while a command runs, puts the settings back, and ends as the command does")
  func holds() throws {
    #expect(try status(["sh", "-c", "cat parameters/* > seen; exit 7"]) == 7)
    #expect(contents(ofFile: folder.path + "/seen") == "1048576\n3600000\n10\n")
    #expect(parameters == original)
    #expect(try status(["sh", "-c", "kill -9 $$"]) == 137 && parameters == original)
  }

  @Test("puts the settings back where the command cannot be run, and says so in a line")
  func missingCommand() throws {
    #expect(try status(["/no/such/command"]) == 127 && parameters == original)
    #expect(contents(ofFile: folder.path + "/err") == "hold-free-memory: /no/such/command: No such file or directory\n")
  }

  @Test("passes an interrupt on once, and then puts the settings back")
  func interrupt() throws {
    let process = try start([
      "sh", "-c", "trap 'echo interrupt >> log' INT; echo > ready; while :; do sleep 0.02; [ -s log ] && exit 5; done",
    ])
    let end = Date().addingTimeInterval(60)
    while !FileManager.default.fileExists(atPath: folder.path + "/ready") && Date() < end { usleep(5_000) }
    #expect(parameters == ["1048576", "3600000", "10"])
    kill(process.processIdentifier, SIGINT)
    process.waitUntilExit()
    #expect(process.terminationStatus == 5 && parameters == original)
    #expect(contents(ofFile: folder.path + "/log") == "interrupt\n")
  }

  @Test("leaves alone what could not be put back, and refuses a second one beside the first")
  func refuses() throws {
    try folder.write("-1\n", "parameters/page_reporting_order")
    #expect(try status(["sh", "-c", "cat parameters/page_reporting_order > seen"]) == 0)
    #expect(contents(ofFile: folder.path + "/seen") == "-1\n")
    #expect(try status([Self.script, "--parameters", folder.path + "/parameters", "true"]) == 75)
    #expect(parameters == ["1024", "0", "-1"])
  }

  @Test("runs the command as it is where nothing is reported, and refuses a line that means nothing")
  func nothingToHold() throws {
    #expect(try status(["sh", "-c", "exit 3"], parameters: "none") == 3)
    #expect(try #require(contents(ofFile: folder.path + "/err")).contains("nothing to hold"))
    #expect(try status([]) == 64)
    #expect(contents(ofFile: folder.path + "/err") == "hold-free-memory: no command (see --help)\n")
  }
}
