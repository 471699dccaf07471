// `hugespan doctor`: whether this machine gives a heap hugepages, and what stands in the way.

import Foundation
import HugeSpanLab
import OptionTable

let doctorCommand = Command(
  "doctor",
  abstract: "Say whether hugepages can be had here, and what stands in their way",
  discussion: """
    Reads the kernel's settings of hugepages, khugepaged, memory groups, swap, the host's claims and limits, asks what \
    this process may have, and tries each way to release memory. Each line has a verdict (fine, note, warning, \
    impossible), what the value means for hugepages, and, where it is not good, the command that changes it. Nothing is \
    changed. Needs no root.

    Exit status 1 if memory of the heap cannot be on hugepages here, else 0.
    """,
  options: [
    Option("brief", help: "Show only what is not fine"),
    Option(
      "root", .file("DIRECTORY"),
      help: "Judge the files under this directory, recorded on another machine; nothing is tried then",
      defaultText: "/"),
    Option("json", .file(), help: "Write JSON to FILE, '-' for standard output"),
  ],
  examples: [
    Example("hugespan doctor", "Every setting, and what it means"),
    Example("hugespan doctor --brief", "What could be better"),
    Example("hugespan doctor --json - > machine.json", "For a program, or a report of a bug"),
  ],
  run: { invocation in
    let root = invocation.text("root") ?? "/"
    let isHere = !invocation.has("root")
    // A typing mistake would otherwise be a machine without anything.
    if !isHere && !FileManager.default.fileExists(atPath: root + "/sys") {
      throw CommandFailure(
        "\(root): has no directory 'sys'; it must hold 'proc' and 'sys' as they are under /", status: .missingInput)
    }
    let json = try invocation.output("json")
    let diagnosis = Diagnosis(SystemReader.read(root: root), isHere ? .current() : ProcessFacts())
    try json?.write(jsonText(DoctorRecord(diagnosis)))
    if invocation.text("json") != "-" {
      let least: Verdict = invocation.has("brief") ? .note : .fine
      printOutput(DoctorText.lines(diagnosis, least: least, terminalStyle()))
    }
    return diagnosis.isPossible ? .success : .checkFailed
  })
