// `hugespan watch`, as it is typed and as it is seen: on a pseudo-terminal, and where there is none.

import Foundation
import Glibc
import TestSupport
import Testing

@testable import HugeSpanLab

/// The whole screen is there: a title at the top, keys at the bottom, and nothing beyond the edges.
private func isWhole(_ screen: ScreenModel, _ width: Int, _ height: Int) -> Bool {
  screen.rows.count == height && screen.width == width && screen.line(height - 1).contains("q quit")
}

private func isRunning(_ process: pid_t) -> Bool {
  guard let text = contents(ofFile: "/proc/\(process)/stat"), let end = text.lastIndex(of: ")") else { return false }
  return !text[end...].hasPrefix(") Z")
}

@Suite("hugespan watch on a terminal")
struct WatchTerminalTests {
  private func watch(
    _ sleeper: Sleeper, _ more: [String] = [], width: Int = 80, height: Int = 24, environment: [String: String] = [:]
  ) throws -> PseudoTerminal {
    let arguments = ["watch", "\(sleeper.number)", "--interval", "50ms"] + more
    return try PseudoTerminal(arguments, width: width, height: height, environment: environment)
  }

  @Test(
    "every view fits the screen, and q gives the terminal back as it was", arguments: [(80, 24), (20, 8), (200, 60)])
  func sizes(width: Int, height: Int) throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let terminal = try watch(sleeper, width: width, height: height)
    #expect(terminal.wait { isWhole($0, width, height) && $0.text.contains("RSS") }, "\(terminal.screen)")
    #expect(terminal.isRaw && terminal.screen.isAlternate && !terminal.screen.isCursorShown)
    for view in ["map", "mappings", "numbers"] {
      terminal.press(view == "mappings" ? "\t" : "v")
      let isShown = terminal.wait { isWhole($0, width, height) && $0.line(0).hasSuffix("\(view) ") }
      #expect(isShown, "\(terminal.screen.text)")
      if view == "mappings" { #expect(terminal.wait { $0.line(1).hasPrefix("mapping") && $0.line(2).contains("K") }) }
    }
    terminal.press("?")
    #expect(terminal.wait { isWhole($0, width, height) && $0.line(0).hasSuffix("help ") })
    terminal.press("vq")
    #expect(terminal.waitForEnd() == 0 && terminal.isRestored && terminal.screen.unknown.isEmpty)
    #expect(sleeper.isRunning, "a program that watch did not start goes on")
  }

  @Test("a screen that changes its size is filled again")
  func resized() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    // So long that no look comes to fill it.
    let terminal = try PseudoTerminal(["watch", "\(sleeper.number)", "--interval", "1m"], width: 80, height: 24)
    #expect(terminal.wait { isWhole($0, 80, 24) })
    for (width, height) in [(20, 8), (200, 60), (33, 11)] {
      terminal.resize(width: width, height: height)
      #expect(terminal.wait { isWhole($0, width, height) }, "\(width)x\(height): \(terminal.screen.text)")
    }
    terminal.press("q")
    #expect(terminal.waitForEnd() == 0 && terminal.isRestored)
  }

  @Test("a pause stands still while looks go on, and the view goes on after it")
  func pause() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let folder = try TemporaryFolder()
    let file = folder.path + "/looks.jsonl"
    let terminal = try watch(sleeper, ["--json", file])
    func looks() -> Int { contents(ofFile: file)?.count { $0 == "\n" } ?? 0 }
    #expect(terminal.wait { isWhole($0, 80, 24) && !$0.line(0).contains("last 0ms") })
    terminal.press("p")
    #expect(terminal.wait { $0.line(23).hasPrefix("PAUSED") })
    let before = (0..<23).map(terminal.screen.line)
    let count = looks()
    // Long enough for the length of the window to be another number: it is shown in tenths of a second.
    #expect(terminal.wait { _ in looks() >= count + 6 })
    #expect((0..<23).map(terminal.screen.line) == before)
    terminal.press(" ")
    #expect(terminal.wait { !$0.line(23).contains("PAUSED") && $0.line(0) != before[0] }, "\(terminal.screen.text)")
    terminal.press("q")
    #expect(terminal.waitForEnd() == 0)
    let last = contents(ofFile: file)!.split(separator: "\n").last!
    let record = try JSONDecoder().decode(WatchRecord.self, from: Data(last.utf8))
    #expect(record.schema == "hugespan.watch/1" && record.name == "sleep" && record.residentBytes > 0)
  }

  @Test("+ and - change the interval")
  func interval() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    // Long, so that no machine is too slow for it.
    let terminal = try PseudoTerminal(["watch", "\(sleeper.number)", "--interval", "5s"], width: 80, height: 24)
    #expect(terminal.wait { $0.line(23).hasPrefix("5s ") })
    terminal.press("+")
    #expect(terminal.wait { $0.line(23).hasPrefix("10s ") })
    terminal.press("--")
    #expect(terminal.wait { $0.line(23).hasPrefix("2s ") })
    // The mappings are read at once, not when the interval is over.
    terminal.press("vv")
    #expect(terminal.wait(seconds: 10) { $0.text.contains("[stack]") })
  }

  @Test(
    "a signal ends it as signals do, with the terminal restored",
    arguments: [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV])
  func signals(_ signal: Int32) throws {
    // The sanitizer has its own way with faults.
    if signal == SIGSEGV && hasAddressSanitizer { return }
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let terminal = try watch(sleeper)
    #expect(terminal.wait { isWhole($0, 80, 24) })
    if signal == SIGINT { terminal.press("\u{3}") } else { kill(terminal.process, signal) }
    #expect(terminal.waitForEnd() == -signal && terminal.isRestored && sleeper.isRunning)
  }

  @Test("stopped it gives the terminal back, and takes it again when it goes on")
  func stopped() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let terminal = try watch(sleeper)
    #expect(terminal.wait { isWhole($0, 80, 24) })
    let clearings = terminal.screen.clearings
    kill(terminal.process, SIGTSTP)
    let isStopped = { contents(ofFile: "/proc/\(terminal.process)/stat")?.contains(") T ") == true }
    #expect(terminal.wait { _ in isStopped() && terminal.isRestored })
    kill(terminal.process, SIGCONT)
    #expect(terminal.wait { $0.clearings > clearings && isWhole($0, 80, 24) && terminal.isRaw })
    terminal.press("q")
    #expect(terminal.waitForEnd() == 0 && terminal.isRestored)
  }

  @Test("a process that ends while it is watched is one line, and no failure")
  func ended() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let terminal = try watch(sleeper)
    #expect(terminal.wait { isWhole($0, 80, 24) })
    sleeper.end()
    #expect(terminal.waitForEnd() == 0 && terminal.isRestored)
    #expect(terminal.screen.outside == "hugespan: sleep (\(sleeper.number)) has ended\r\n")
  }

  @Test("a failure restores the terminal before it is told")
  func failure() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let terminal = try watch(sleeper, ["--json", "/dev/full"])
    #expect(terminal.waitForEnd() == 69 && terminal.isRestored && terminal.screen.clearings > 0)
    #expect(terminal.screen.outside.hasPrefix("hugespan: /dev/full: cannot be written"), "\(terminal.screen.outside)")
  }

  @Test("a program that watch started ends with q, and nothing of its output is on the screen")
  func ownProgram() throws {
    let program = ["sh", "-c", "echo NOISE; echo NOISE >&2; exec sleep 120"]
    let terminal = try PseudoTerminal(["watch", "--interval", "50ms", "--"] + program, width: 80, height: 24)
    #expect(terminal.wait { isWhole($0, 80, 24) && $0.line(0).contains("sleep (") }, "\(terminal.screen.text)")
    #expect(terminal.screen.text.contains("output is discarded"))
    let number = try #require(
      pid_t(terminal.screen.line(0).drop { $0 != "(" }.dropFirst().prefix { $0 != ")" }), "\(terminal.screen.text)")
    #expect(isRunning(number))
    terminal.press("q")
    #expect(terminal.waitForEnd() == 0 && terminal.isRestored && !isRunning(number))
    #expect(!terminal.screen.text.contains("NOISE") && terminal.screen.outside.isEmpty)
  }

  @Test("a program's own end is the command's, and its output is where it was asked to be")
  func ownEnd() throws {
    let folder = try TemporaryFolder()
    let file = folder.path + "/out"
    let terminal = try PseudoTerminal(
      ["watch", "--output", file, "--", "sh", "-c", "echo said; trap 'exit 9' USR1; while :; do sleep 0.02; done"],
      width: 80, height: 24)
    #expect(terminal.wait { isWhole($0, 80, 24) && contents(ofFile: file) == "said\n" })
    // Signals are passed on.
    kill(terminal.process, SIGUSR1)
    #expect(terminal.waitForEnd() == 9 && terminal.isRestored)
    #expect(terminal.screen.outside.hasSuffix("has ended with status 9\r\n"), "\(terminal.screen.outside)")
  }

  @Test("a program gets the signal that ends the view, and says how it ended")
  func passedOn() throws {
    let terminal = try PseudoTerminal(["watch", "--", "sleep", "120"], width: 80, height: 24)
    #expect(terminal.wait { isWhole($0, 80, 24) })
    kill(terminal.process, SIGTERM)
    #expect(terminal.waitForEnd() == 128 + SIGTERM && terminal.isRestored)
    #expect(terminal.screen.outside.hasSuffix("was ended by signal 15\r\n"))
  }

  @Test("the environment decides over characters and colours")
  func environment() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let colours = try watch(sleeper)
    #expect(colours.wait { isWhole($0, 80, 24) && $0.hasColours && $0.text.unicodeScalars.contains { $0 == "█" } })
    let plain = try watch(sleeper, environment: ["LC_ALL": "C", "NO_COLOR": "1"])
    #expect(plain.wait { isWhole($0, 80, 24) && $0.text.contains("####") })
    #expect(!plain.screen.hasColours && plain.screen.text.unicodeScalars.allSatisfy { $0.isASCII })
  }

  @Test("lines are written on a terminal that can do no more, or where they are asked for")
  func lines() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    for (more, environment) in [(["--plain"], [:]), ([], ["TERM": "dumb"])] {
      let terminal = try watch(sleeper, more + ["--count", "2"], environment: environment)
      #expect(terminal.waitForEnd() == 0 && terminal.screen.clearings == 0)
      #expect(terminal.screen.outside.count { $0 == "\r\n" } == 3, "\(terminal.screen.outside)")
    }
  }
}

@Suite("hugespan watch without a terminal")
struct WatchLinesTests {
  @Test("a line for each look stands under a heading that comes again")
  func lines() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let outcome = try hugespan("watch", "\(sleeper.number)", "--interval", "10ms", "--count", "25")
    let lines = outcome.output.split(separator: "\n")
    #expect(outcome.status == 0 && lines.count == 27 && Set(lines.map(\.count)).count == 1, "\(outcome)")
    #expect(lines[0].contains("coverage") && lines[21] == lines[0])
  }

  @Test("it ends with its process, and JSON alone is a line a look")
  func json() throws {
    let sleeper = try Sleeper()
    defer { sleeper.end() }
    let output = Pipe()
    let errors = Pipe()
    let watcher = try start(
      ["watch", "\(sleeper.number)", "--interval", "10ms", "--json", "-"], output: output, errors: errors)
    var text = Data()
    while text.count(where: { $0 == 10 }) < 3 { text += output.fileHandleForReading.availableData }
    sleeper.end()
    text += output.fileHandleForReading.readDataToEndOfFile()
    watcher.waitUntilExit()
    #expect(watcher.terminationStatus == 0)
    let records = try text.split(separator: 10).map { try JSONDecoder().decode(WatchRecord.self, from: $0) }
    #expect(records.count >= 3 && records[0].seconds == 0 && records.map(\.seconds) == records.map(\.seconds).sorted())
    let said = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    #expect(said.hasSuffix("hugespan: sleep (\(sleeper.number)) has ended\n"))
  }

  @Test("a program that ends by itself gives the status; one that is left by --count is ended")
  func program() throws {
    let ended = try hugespan("watch", "--", "sh", "-c", "exit 7")
    #expect(ended.status == 7 && ended.errors.contains("has ended with status 7"), "\(ended)")
    let kept = try hugespan("watch", "--plain", "--count", "1", "--output", "-", "--", "sh", "-c", "exec sleep 120")
    #expect(kept.status == 0 && kept.output.contains("RSS"), "\(kept)")
  }

  @Test("what a program has started is ended with it", arguments: [[], ["setsid"]])
  func descendants(prefix: [String]) throws {
    // A number that no other sleep has.
    let seconds = "\(100_000 + Int(getpid()) % 50_000 + prefix.count * 50_000)"
    let outcome = try hugespan(
      ["watch", "--plain", "--count", "2", "--interval", "50ms", "--"] + prefix + [
        "sh", "-c", "sleep \(seconds); true",
      ])
    #expect(outcome.status == 0, "\(outcome)")
    for process in CoverageReader().processes() {
      #expect(contents(ofFile: "/proc/\(process)/cmdline") != "sleep\0\(seconds)\0", "\(process) is left")
    }
  }

  @Test("a signal that was ignored from the beginning stays ignored")
  func nohup() throws {
    let errors = Pipe()
    let child = Process()
    child.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    child.arguments = ["nohup", hugespanPath, "watch", "--plain", "--interval", "20ms", "\(getpid())"]
    child.standardInput = FileHandle.nullDevice
    let output = Pipe()
    child.standardOutput = output
    child.standardError = errors
    try child.run()
    defer {
      kill(child.processIdentifier, SIGKILL)
      child.waitUntilExit()
    }
    func lines(_ count: Int) {
      var seen = 0; while seen < count { seen += output.fileHandleForReading.availableData.count { $0 == 10 } }
    }
    lines(3)
    kill(child.processIdentifier, SIGHUP)
    lines(3)
    #expect(child.isRunning)
  }

  @Test(
    "what is wrong is one line that names it",
    arguments: [
      (["watch"], "name a process", 64), (["watch", "1", "2"], "one process", 64),
      (["watch", "1", "--output", "x"], "PROGRAM", 64),
      (["watch", "1", "--interval", "1ms"], "at least 10ms", 64), (["watch", "no-such-name"], "no-such-name", 66),
      (["watch", "999999999"], "999999999", 66), (["watch", "2"], "2 (kthreadd)", 69),
      (["watch", "--", "/no/such/program"], "/no/such/program", 66),
      (["watch", "--output", "/no/such/folder/x", "--", "true"], "/no/such/folder/x", 64),
    ])
  func refusals(arguments: [String], part: String, status: Int32) throws {
    // In a container process 2 may be anybody.
    if arguments == ["watch", "2"], contents(ofFile: "/proc/2/comm") != "kthreadd\n" { return }
    let outcome = try hugespan(arguments)
    #expect(outcome.status == status && outcome.output.isEmpty, "\(outcome)")
    #expect(outcome.errors.contains(part) && outcome.errors.split(separator: "\n").count <= 2, "\(outcome.errors)")
  }
}
