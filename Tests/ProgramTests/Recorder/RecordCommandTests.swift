// The command itself: exit status, signals, and what is left when it is killed.

import Foundation
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("hugespan record", .enabled(if: canRecord, cannotRecord)) struct RecordCommandTests {
  private func start(_ arguments: [String]) throws -> Child {
    try Child([try #require(commandPath(), "the command is not built")] + arguments)
  }

  private func status(_ arguments: [String]) throws -> Int32 { try start(arguments).wait() }

  @Test("ends as the program does") func exitStatus() throws {
    let workshop = try Workshop()
    let trace = workshop.path + "/t.hstrace"
    #expect(try status(["record", "-o", trace, "--", "/bin/sh", "-c", "exit 42"]) == 42)
    #expect(try status(["record", "-o", trace, "--", "/bin/sh", "-c", "kill -TERM $$"]) == 128 + 15)
    #expect(try status(["record", "-o", trace, "--", "/no/such/program"]) == 66)
    #expect(try status(["record", "-o", trace]) == 64)
    #expect(try status(["trace", "info", trace]) == 0)
    #expect(try status(["trace", "info", "/no/such/trace"]) == 66)
    #expect(try status(["trace", "info", "/bin/true"]) == 65)
  }

  @Test("passes signals on") func signals() throws {
    let workshop = try Workshop()
    let ready = workshop.path + "/ready"
    let program = try workshop.compile(
      """
      #include <signal.h>
      #include <fcntl.h>
      static void stop(int signal) { _exit(20 + (signal == SIGTERM)); }
      int main(int count, char **arguments) {
        signal(SIGTERM, stop);
        close(open(arguments[1], O_CREAT | O_WRONLY, 0600));
        for (;;) pause();
      }
      """)
    let process = try start(["record", "-o", workshop.path + "/t.hstrace", "--", program, ready])
    try wait(for: ready)
    kill(process.identifier, SIGTERM)
    #expect(process.wait() == 21)
  }

  @Test("that is killed leaves a raw log from which the trace is made later") func killed() throws {
    let workshop = try Workshop()
    let ready = workshop.path + "/ready"
    let over = workshop.path + "/over"
    let trace = workshop.path + "/t.hstrace"
    let program = try workshop.compile(
      """
      #include <fcntl.h>
      int main(int count, char **arguments) {
        for (int i = 0; i < 20000; i++) sink = malloc(10007);
        close(open(arguments[1], O_CREAT | O_WRONLY, 0600));
        usleep(500000);
        for (int i = 0; i < 20000; i++) sink = malloc(10009);
        close(open(arguments[2], O_CREAT | O_WRONLY, 0600));
        return 0;
      }
      """)
    let process = try start(["record", "-o", trace, "--", program, ready, over])
    try wait(for: ready)
    kill(process.identifier, SIGKILL)
    #expect(process.wait() == 128 + SIGKILL)
    #expect(!FileManager.default.fileExists(atPath: trace))
    // The program knows nothing of it, and its log grows on.
    try wait(for: over)
    #expect(try status(["record", "--convert", trace + ".raw"]) == 0)
    let recorded = try Recorded(path: trace)
    #expect(recorded.births(of: 10007).count == 20000)
    #expect(recorded.births(of: 10009).count == 20000)
    #expect(recorded.ending == .stopped)
  }

  private func wait(for path: String) throws {
    for _ in 0..<3000 {
      if FileManager.default.fileExists(atPath: path) { return }
      usleep(10_000)
    }
    Issue.record("\(path) never came")
  }
}
