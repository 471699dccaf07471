// Programs that cannot be recorded are refused before they run, with the reason.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("A program that cannot be recorded") struct RefusalTests {
  private func refusal(_ name: String, searchPath: String? = nil) -> ProgramError? {
    do {
      _ = try PreloadableProgram(named: name, searchPath: searchPath)
      return nil
    } catch { return error }
  }

  @Test("is named when it is missing") func missing() {
    #expect(refusal("/no/such/program") == ProgramError(.missing, "/no/such/program: no such program"))
    #expect(refusal("no-such-program-here", searchPath: "/usr/bin:/bin")?.kind == .missing)
  }

  @Test("is refused when it may not be executed, or is no program") func notExecutable() throws {
    let workshop = try Workshop()
    let path = workshop.path + "/text"
    try "hello\n".write(toFile: path, atomically: true, encoding: .utf8)
    #expect(refusal(path)?.kind == .usage)
    #expect(refusal(workshop.path)?.kind == .usage)
    #expect(chmod(path, 0o755) == 0)
    #expect(refusal(path)?.description == "\(path): neither an ELF program nor a script with an interpreter")
  }

  @Test("is refused when it is statically linked", .enabled(if: hasCompiler, "needs a C compiler"))
  func statically() throws {
    let program = try Workshop().keep { try $0.compile("int main(void) { return 0; }", flags: ["-static"]) }
    #expect(refusal(program.1)?.kind == .unavailable)
    #expect(refusal(program.1)?.description.contains("statically linked") == true)
  }

  @Test("is refused when it is set-user-id or set-group-id", arguments: [mode_t(0o4755), 0o2755])
  func setIdentity(mode: mode_t) throws {
    let workshop = try Workshop()
    let path = workshop.path + "/true"
    try FileManager.default.copyItem(atPath: "/bin/true", toPath: path)
    #expect(refusal(path) == nil)
    #expect(chmod(path, mode) == 0)
    #expect(refusal(path)?.kind == .unavailable)
    #expect(refusal(path)?.description.contains("id program") == true)
  }

  @Test("is found through its script's interpreter") func scripts() throws {
    let workshop = try Workshop()
    let path = workshop.path + "/script"
    try "#!/bin/sh -e\nexit 0\n".write(toFile: path, atomically: true, encoding: .utf8)
    #expect(chmod(path, 0o755) == 0)
    #expect(refusal(path) == nil)
    try "#!/no/such/interpreter\n".write(toFile: path, atomically: false, encoding: .utf8)
    #expect(refusal(path)?.kind == .missing)
  }
}

extension Workshop {
  /// Keeps the workshop alive together with what was made in it.
  func keep<Result>(_ body: (Workshop) throws -> Result) rethrows -> (Workshop, Result) { (self, try body(self)) }
}
