import Foundation
import OptionTable
import Testing

@testable import HugeSpanLab
@testable import hugespan_cli

@Suite("The command line as a whole")
struct CommandLineTests {
  @Test("the reference page is what the tables say; write it with 'hugespan option-tables > Docs/CommandLine.md'")
  func reference() throws {
    let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Docs/CommandLine.md")
    #expect(contents(ofFile: page.path) == markdownReference(of: hugespanCommand))
  }

  /// Every command with its full name.
  private func commands(_ command: Command, _ path: [String] = []) -> [(path: [String], command: Command)] {
    [(path, command)] + command.subcommands.flatMap { commands($0, path + [$0.name]) }
  }

  @Test("every command has help that fits a terminal, and examples that can be parsed")
  func help() throws {
    for (path, command) in commands(hugespanCommand) {
      let outcome = try hugespan(path + ["--help"])
      #expect(outcome.status == 0 && outcome.output.contains("Usage: "), "\(path)")
      for line in outcome.output.split(separator: "\n") { #expect(line.count <= 120, "\(path): \(line)") }
      for example in command.examples where example.line.hasPrefix("hugespan ") {
        let words = example.line.split(separator: " ").map(String.init).dropFirst()
        let typed = Array(words.prefix { !["|", ">", "<", "&&", "2>"].contains($0) })
        #expect(throws: Never.self, "\(example.line)") { _ = try parse(typed, as: hugespanCommand) }
      }
    }
  }

  @Test("no two options of a command have the same name or letter")
  func distinctNames() {
    for (path, command) in commands(hugespanCommand) {
      #expect(Set(command.options.map(\.name)).count == command.options.count, "\(path)")
      let letters = command.options.compactMap(\.short)
      #expect(Set(letters).count == letters.count, "\(path)")
    }
  }

  @Test("bash takes the completion script, and completes with it")
  func completion() throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/bash")
    process.arguments = [
      "-c",
      """
      source <("$0" completions bash) || exit 3
      COMP_WORDS=(hugespan replay --touch re) COMP_CWORD=3; _hugespan_complete; echo "${COMPREPLY[*]}"
      COMP_WORDS=(hugespan comp) COMP_CWORD=1; _hugespan_complete; echo "${COMPREPLY[*]}"
      """, hugespanPath,
    ]
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    #expect(text.split(separator: "\n") == ["recorded", "compare completions"])
  }

  @Test("the version is printed")
  func version() throws {
    let outcome = try hugespan("--version")
    #expect(outcome.status == 0 && outcome.output == "hugespan \(programVersion)\n")
  }
}
