// The `hugespan` command. Each subcommand has a file of its own; this one only lists them.

import Glibc
import OptionTable

/// The version of the package that this was built from.
let programVersion = "0.1.0"

/// The table of the whole command line.
let hugespanCommand = Command(
  "hugespan",
  abstract: "Keep a heap on transparent hugepages, and see what that costs",
  discussion: """
    Records the allocations of real programs, replays them on a page heap over the real kernel, and compares what \
    scavenge policies and madvise strategies cost in memory, hugepages and time. Runs unchanged programs on the heap.

    Exit status: 0 done; 1 a check failed; 64 the command line is wrong; 65 an input is malformed; 66 an input is \
    missing; 69 the kernel or the system lacks something that is needed; 70 a bug.
    """,
  subcommands: [
    recordCommand, traceCommand, runCommand,
    compareCommand, reportCommand, replayCommand, tuneCommand, generateCommand, calibrateCommand, coverageCommand,
    watchCommand, explainCommand, doctorCommand,
    completionsCommand, optionTablesCommand,
  ])

@main
struct Main {
  static func main() {
    let status = runProgram(
      hugespanCommand, version: programVersion, arguments: Array(CommandLine.arguments.dropFirst()))
    exit(status.value)
  }
}
