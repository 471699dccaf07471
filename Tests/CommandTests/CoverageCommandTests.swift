// `hugespan coverage`, as it is typed.

import Foundation
import Glibc
import TestSupport
import Testing

@testable import HugeSpanLab

@Suite("hugespan coverage, as it is typed")
struct CoverageCommandTests {
  @Test("one process is a table of its mappings, or JSON")
  func one() throws {
    let child = try Sleeper()
    defer { child.end() }
    let outcome = try hugespan("coverage", "\(child.processIdentifier)")
    #expect(outcome.status == 0 && outcome.errors.isEmpty)
    #expect(outcome.output.contains("sleep (\(child.processIdentifier))") && outcome.output.contains("all mappings"))
    let json = try hugespan("coverage", "\(child.processIdentifier)", "--json", "-")
    let record = try JSONDecoder().decode(CoverageRecord.self, from: Data(json.output.utf8))
    #expect(record.schema == "hugespan.coverage/1" && record.process == Int(child.processIdentifier))
    #expect(record.figures.anonymousBytes > 0 && record.mappings.contains { $0.name == "[stack]" })
  }

  /// A program of nine bytes for 32-bit x86: it pauses.
  private static let narrowProgram =
    "f0VMRgEBAQAAAAAAAAAAAAIAAwABAAAAVIAECDQAAABwAAAAAAAAADQAIAABACgAAwACAAEAAABUAAAAVIAECFSABAgJAAAACQAA"
    + "AAcAAAABAAAAuB0AAADNgOv3AC5zaHN0cnRhYgAudGV4dAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    + "AAALAAAAAQAAAAcAAABUgAQIVAAAAAkAAAAAAAAAAAAAAAEAAAAAAAAAAQAAAAMAAAAAAAAAAAAAAF0AAAARAAAAAAAAAAAAAAAB"
    + "AAAAAAAAAA=="

  @Test("a 32-bit process has its own figures, to the page, and no statistics page")
  func narrowProcess() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/narrow"
    try #require(Data(base64Encoded: Self.narrowProgram)).write(to: URL(fileURLWithPath: path))
    chmod(path, 0o755)
    // A kernel without 32-bit programs refuses to start it.
    guard let child = try? Sleeper(path, []) else { return }
    defer { child.end() }
    if !child.isRunning { return }
    let json = try hugespan("coverage", "\(child.processIdentifier)", "--map", "--json", "-")
    let record = try JSONDecoder().decode(CoverageRecord.self, from: Data(json.output.utf8))
    let text = try #require(contents(ofFile: "/proc/\(child.processIdentifier)/smaps"))
    var anonymous = 0
    for line in text.split(separator: "\n") where line.hasPrefix("Anonymous:") {
      anonymous += Int(line.split(separator: " ")[1])! << 10
    }
    #expect(json.status == 0 && record.figures.anonymousBytes == anonymous)
    let stack = try #require(record.mappings.first { $0.name == "[stack]" })
    #expect(UInt(stack.end, radix: 16)! <= 1 << 32)
    let explained = try hugespan("explain", "\(child.processIdentifier)")
    #expect(explained.status == 66 && explained.errors.contains("publishes no statistics page"))
  }

  @Test("a map shows the pageblocks of the mappings, for people and for programs")
  func map() throws {
    let child = try Sleeper()
    defer { child.end() }
    let outcome = try hugespan("coverage", "\(child.processIdentifier)", "--map")
    #expect(outcome.status == 0 && outcome.output.contains("# on a hugepage"), "\(outcome)")
    let json = try hugespan("coverage", "\(child.processIdentifier)", "--map", "--json", "-")
    let record = try JSONDecoder().decode(CoverageRecord.self, from: Data(json.output.utf8))
    let stack = try #require(record.mappings.first { $0.name == "[stack]" })
    let blocks = try #require(stack.blocks)
    #expect(blocks.reduce(0) { $0 + $1.presentBytes } == stack.figures.anonymousBytes)
    for wrong in [["--all", "--map"], ["1", "--map", "--interval", "1s"], ["1", "--effort", "2"]] {
      #expect(try hugespan(["coverage"] + wrong).status == 64, "\(wrong)")
    }
    #expect(try hugespan("coverage", "1", "--interval", "1s", "--effort", "0").status == 64)
  }

  @Test("a series has a line for each look, and ends with its process")
  func series() throws {
    let child = try Sleeper()
    defer { child.end() }
    let outcome = try hugespan(
      "coverage", "\(child.processIdentifier)", "--interval", "20ms", "--count", "5", "--csv")
    #expect(outcome.status == 0 && outcome.output.split(separator: "\n").count == 6, "\(outcome)")
    let output = Pipe()
    let watcher = try start(["coverage", "\(child.processIdentifier)", "--interval", "20ms"], output: output)
    usleep(300_000)
    child.end()
    // To its end: that is the watcher's.
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    watcher.waitUntilExit()
    #expect(watcher.terminationStatus == 0 && text.contains("coverage"))
  }

  @Test("all processes are a line each, and one that is no more is passed over")
  func all() throws {
    let child = try Sleeper()
    defer { child.end() }
    let outcome = try hugespan("coverage", "--all")
    #expect(outcome.status == 0 && outcome.output.contains("processes"))
    #expect(outcome.output.split(separator: "\n").contains { $0.hasPrefix("\(child.processIdentifier) ") })
  }

  @Test(
    "what is wrong is one line that names it",
    arguments: [
      (["coverage"], "name a process", 64), (["coverage", "--all", "1"], "exclude each other", 64),
      (["coverage", "no-such-name"], "no-such-name", 66), (["coverage", "999999999"], "999999999", 66),
      (["coverage", "2"], "2 (kthreadd)", 69), (["coverage", "1", "--count", "2"], "--interval", 64),
      (["coverage", "--cgroup", "/nowhere"], "/nowhere", 66),
    ])
  func refusals(arguments: [String], part: String, status: Int32) throws {
    // In a container process 2 may be anybody.
    if arguments == ["coverage", "2"], contents(ofFile: "/proc/2/comm") != "kthreadd\n" { return }
    let outcome = try hugespan(arguments)
    #expect(outcome.status == status && outcome.output.isEmpty, "\(outcome)")
    #expect(outcome.errors.contains(part) && outcome.errors.split(separator: "\n").count <= 2, "\(outcome.errors)")
  }
}
