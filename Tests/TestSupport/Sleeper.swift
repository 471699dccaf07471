// A process to look at that does nothing: between two looks nothing of it moves, so two readers must see the same.

import Foundation

/// `sleep`, or a program that pauses. It ends with the value; a test that knows it by its number calls `end()`, which keeps
/// the value until then.
package final class Sleeper {
  private let process = Process()

  package var processIdentifier: pid_t { process.processIdentifier }
  package var number: Int { Int(process.processIdentifier) }
  package var isRunning: Bool { process.isRunning }

  /// Starts it, and returns when it has begun to sleep.
  package init(_ program: String = "/bin/sleep", _ arguments: [String] = ["120"]) throws {
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    try process.run()
    // Until it is the other program, which then loads its libraries; that is no state that can be read.
    let name = URL(fileURLWithPath: program).lastPathComponent + "\n"
    let limit = Date(timeIntervalSinceNow: 20)
    func isThere() -> Bool { (try? String(contentsOfFile: "/proc/\(number)/comm", encoding: .utf8)) == name }
    while !isThere(), process.isRunning, Date() < limit {
      usleep(10_000)
    }
    usleep(200_000)
  }

  /// Ends it, if it has not ended. Not by SIGTERM, which a thread of the test runner may have handed on as blocked.
  package func end() {
    guard process.isRunning else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  deinit { end() }
}
