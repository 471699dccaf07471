// The command: what it passes on, what it refuses, what it prints.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("hugespan run", .enabled(if: canRunOnHeap && commandPath() != nil, cannotRunOnHeap)) struct RunCommandTests {
  /// Runs the command; standard output and standard error.
  private func hugespanRun(_ arguments: [String], _ workshop: Workshop) throws -> (status: Int32, String, String) {
    let name = "\(workshop.path)/command\(Int.random(in: 0..<1_000_000))"
    let shell = ["/bin/sh", "-c", "exec \"$@\" >\(name).out 2>\(name).err", "sh"]
    let status = try Child(shell + [try #require(commandPath()), "run"] + arguments).wait()
    return (
      status, try String(contentsOfFile: name + ".out", encoding: .utf8),
      try String(contentsOfFile: name + ".err", encoding: .utf8)
    )
  }

  @Test("ends as the program does and prints a table that lines up") func table() throws {
    let workshop = try Workshop()
    let (status, output, errors) = try hugespanRun(["--", "/bin/sh", "-c", "echo out; exit 42"], workshop)
    #expect(status == 42 && output == "out\n")
    let lines = errors.split(separator: "\n")
    let rows = lines.filter { $0.hasPrefix("  ") }
    #expect(lines[0].hasPrefix("hugespan: /bin/sh on jemalloc") && rows.count > 5, "\(errors)")
    #expect(Set(rows.map(\.count)).count == 1, "\(errors)")
    #expect(try hugespanRun(["-q", "--", "/bin/true"], workshop).2.isEmpty)
    let killed = try hugespanRun(["--", "/bin/sh", "-c", "kill -KILL $$"], workshop)
    #expect(killed.status == 128 + 9 && killed.2.contains("no report of the heap: the program was ended by signal 9"))
  }

  @Test("writes what the heap saw, of the program and not of its children") func json() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(int count, char **arguments) {
        char *p = malloc(count > 1 ? 9000000 : 40000000);
        memset(p, 1, count > 1 ? 9000000 : 40000000);
        if (count > 1) return 0;
        char command[4096];
        snprintf(command, sizeof command, "%s child", arguments[0]);
        usleep(300000);
        return system(command);
      }
      """)
    let path = workshop.path + "/run.json"
    let (status, _, _) = try hugespanRun(
      ["--json", path, "--policy", "seed:rate=5", "--strategy", "dontneed-whole", "--", program], workshop)
    #expect(status == 0)
    let text = try Data(contentsOf: URL(fileURLWithPath: path))
    let object = try #require(JSONSerialization.jsonObject(with: text) as? [String: Any])
    #expect(object["schema"] as? String == "hugespan.run/1" && object["frontEnd"] as? String == "jemalloc")
    #expect((object["configuration"] as? String)?.contains("rate:5.0") == true)
    let heap = (object["report"] as? [String: Any])?["heap"] as? [String: Any]
    #expect(heap?["peakUsedBytes"] as? Int ?? 0 > 40_000_000)
    #expect(object["otherProcesses"] as? Int ?? 0 >= 1)
    #expect((object["anonymousBytes"] as? [String: Any])?["mean"] as? Double ?? 0 > 20_000_000)
    if hasHugePages { #expect(object["hugeShare"] as? Double ?? 0 > 0.5) }
  }

  @Test("passes signals on, whichever can be caught") func signals() throws {
    let workshop = try Workshop()
    let ready = workshop.path + "/ready"
    let program = try workshop.compile(
      """
      #include <signal.h>
      #include <fcntl.h>
      static void stop(int signal) { exit(signal); }
      int main(int count, char **arguments) {
        for (int number = 1; number < SIGRTMAX; number++) signal(number, stop);
        close(open(arguments[1], O_CREAT | O_WRONLY, 0600));
        for (;;) pause();
      }
      """)
    for number in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGALRM, SIGTSTP, SIGCONT, __libc_current_sigrtmin() + 3]
    {
      unlink(ready)
      let child = try Child([try #require(commandPath()), "run", "-q", "--", program, ready])
      waitFor { FileManager.default.fileExists(atPath: ready) }
      kill(child.identifier, number)
      #expect(child.wait() == number)
    }
  }

  @Test("stops and continues with its program, as a shell's job does") func jobs() throws {
    let workshop = try Workshop()
    let file = workshop.path + "/process"
    // A session of its own, whose leader stays: a group that nobody watches is not stopped by the terminal's signals.
    let child = try Child([
      "/bin/sh", "-c", "set -m; \"$@\" & echo $! >\(file).job; exec sleep 1000", "sh", try #require(commandPath()),
      "run",
      "-q", "--", "/bin/sh", "-c", "echo $$ >\(file).new; mv \(file).new \(file); exec sleep 1000",
    ])
    func number(_ path: String) -> Int32? {
      (try? String(contentsOfFile: path, encoding: .utf8)).flatMap { Int32($0.dropLast()) }
    }
    waitFor { number(file) != nil && number(file + ".job") != nil }
    let program = try #require(number(file))
    let job = try #require(number(file + ".job"))
    func state(_ process: Int32) -> String? {
      (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8))?.split(separator: ")").last?
        .split(separator: " ").first.map(String.init)
    }
    kill(job, SIGTSTP)
    waitFor { state(program) == "T" && state(job) == "T" }
    #expect(state(program) == "T" && state(job) == "T")
    kill(job, SIGCONT)
    waitFor { state(program) == "S" && state(job) == "S" }
    #expect(state(program) == "S" && state(job) == "S")
    kill(job, SIGTERM)
    waitFor { state(program) == nil }
    #expect(state(program) == nil)
    kill(child.identifier, SIGKILL)
    _ = child.wait()
  }

  @Test("refuses what cannot run on the heap, and settings that are wrong") func refusals() throws {
    let workshop = try Workshop()
    let fixed = try workshop.compile("int main(void) { return 0; }", flags: ["-static"])
    let refused = try hugespanRun(["--", fixed], workshop)
    #expect(refused.status == 69 && refused.2.contains("statically linked") && refused.2.contains("run a dynamically"))
    #expect(try hugespanRun(["--", "/no/such/program"], workshop).status == 66)
    #expect(try hugespanRun([], workshop).status == 64)
    #expect(try hugespanRun(["--frontend", "tcmalloc", "--", "/bin/true"], workshop).status == 64)
    let wrong = try hugespanRun(["--conf", "rate:fast", "--", "/bin/true"], workshop)
    #expect(wrong.status == 64 && wrong.2.contains("--conf: rate: 'fast' is not a number"))
    #expect(try hugespanRun(["--policy", "seed", "--memory-price", "9", "--", "/bin/true"], workshop).status == 64)
    #expect(try hugespanRun(["--memory-price", "9", "--", "/bin/true"], workshop).2.contains("policy:rent-or-buy"))
    #expect(try hugespanRun(["--conf", "statistics:/tmp/x", "--", "/bin/true"], workshop).status == 64)
  }

  @Test("refuses a report that cannot be written before it starts the program") func unwritable() throws {
    let workshop = try Workshop()
    for target in ["/no/such/directory/run.json", "/"] {
      let (status, output, errors) = try hugespanRun(["--json", target, "--", "/bin/echo", "here"], workshop)
      #expect(status == 64 && output.isEmpty && errors.hasPrefix("hugespan: \(target): cannot be made"), "\(errors)")
    }
    // And what an earlier run left is not lost to a program that is not there.
    let path = workshop.path + "/earlier.json"
    try "earlier, and longer than what comes\n".write(toFile: path, atomically: true, encoding: .utf8)
    #expect(try hugespanRun(["--json", path, "--", "/no/such/program"], workshop).status == 66)
    #expect(try String(contentsOfFile: path, encoding: .utf8).hasPrefix("earlier"))
    #expect(try hugespanRun(["-q", "--json", path, "--", "/bin/true"], workshop).status == 0)
    #expect(try String(contentsOfFile: path, encoding: .utf8).hasPrefix("{"))
  }

  @Test("says how to get jemalloc where it is missing") func missing() {
    let error = #expect(throws: ProgramError.self) { try JemallocLibrary.locate(in: ["/no/such/directory"]) }
    #expect(error?.kind == .unavailable && error?.description.contains("apt-get install libjemalloc2") == true)
  }
}

/// Waits until something is so, or twenty seconds have passed.
private func waitFor(_ condition: () -> Bool) {
  let end = Date().addingTimeInterval(20)
  while !condition() && Date() < end { usleep(10_000) }
}
