// `discard-verdicts`: verdicts on discarded spans while the kernel really reclaims, each compared with the truth.
//
// The process moves into a memory cgroup of its own whose limit is less than what it has discarded, so that each page that
// it writes makes the kernel take others. The group is removed at the end.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import HugeSpanLab
import OptionTable

private let command = Command(
  "discard-verdicts",
  abstract: "Discard spans and take them back under real reclaim, and compare each page with what it was",
  discussion: """
    Works in a memory cgroup of its own, which needs the right to make one (usually root). Exit status: 0 if no \
    verdict was wrong and at least a tenth of them each were lost and partly lost, 1 if not, 69 if there is no such \
    group here.
    """,
  options: [
    Option("verdicts", .count(), help: "Verdicts to make", defaultText: "1000000"),
    Option("threads", .count(in: 1...64), help: "Threads that discard", defaultText: "2"),
    Option("limit", .count(in: 32...1 << 20), help: "Limit of the group in MiB", defaultText: "192"),
    Option(
      "discarded", .count(in: 16...1 << 20), help: "What the threads discard together, in MiB", defaultText: "288"),
    Option("seed", .count(), help: "Of all that is random", defaultText: "1"),
    Option("cost", help: "Instead, time the calls on spans of several sizes, without pressure"),
    Option("json", .file(), help: "Write the figures as JSON to FILE, '-' for standard output"),
  ],
  examples: [
    Example("discard-verdicts", "A million verdicts"),
    Example("discard-verdicts --verdicts 20000 --limit 64 --discarded 96", "The short form"),
  ],
  run: run)

/// Enters a group with a limit; nil, and why on standard error, if there is none.
private func limitedGroup(_ bytes: Int) -> MemoryCgroup? {
  do throws(CgroupUnavailable) {
    let membership = try CgroupMembership.find()
    MemoryCgroup.removeStale(under: membership)
    let group = try MemoryCgroup.make(under: membership, number: 970)
    do throws(CgroupUnavailable) {
      try group.setLimit(bytes: bytes)
      try group.enter()
    } catch {
      group.remove()
      throw error
    }
    return group
  } catch {
    FileHandle.standardError.write(Data("discard-verdicts: \(error.reason)\n".utf8))
    return nil
  }
}

/// A counter of /proc/vmstat.
private func vmstat(_ name: String) -> Int {
  let text = contents(ofFile: "/proc/vmstat") ?? ""
  let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
  return line.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
}

private func run(_ invocation: Invocation) throws -> ExitCode {
  let verdicts = invocation.count("verdicts") ?? 1_000_000
  let threads = invocation.count("threads") ?? 2
  let limit = (invocation.count("limit") ?? 192) << 20
  let discarded = (invocation.count("discarded") ?? 288) << 20
  let seed = UInt64(invocation.count("seed") ?? 1)
  if invocation.has("cost") {
    printOutput(try costTable() + "\n")
    return .success
  }
  guard let group = limitedGroup(limit) else { return .unavailable }
  defer { group.leaveAndRemove() }

  var options = HeapOptions()
  options.policy = .never
  let heap = UnsafeMutablePointer<Heap>.allocate(capacity: 1)
  heap.initialize(to: try Heap(kernel: LinuxKernel(), options: options))
  defer {
    heap.deinitialize(count: 1)
    heap.deallocate()
  }
  let start = Date()
  let splitsBefore = vmstat("thp_split_page")
  let workers = try (0..<threads).map { try Worker(heap, bytes: discarded / threads, seed: seed &+ UInt64($0)) }
  let disturbance = Disturbance(workers.flatMap(\.largeSpans), on: heap.pointee.kernel)
  let done = DispatchSemaphore(value: 0)
  let failures = FailureBox()
  for worker in workers {
    Thread.detachNewThread {
      do { try worker.run(verdicts / threads) } catch { failures.add("\(error)") }
      done.signal()
    }
  }
  Thread.detachNewThread {
    disturbance.run()
    done.signal()
  }
  for _ in workers { done.wait() }
  disturbance.stop()
  done.wait()

  let tally = workers.reduce(Tally()) { $0 + $1.tally }
  let figures = Figures(
    tally, seconds: Date().timeIntervalSince(start), splits: vmstat("thp_split_page") - splitsBefore,
    collapses: disturbance.collapses.load(ordering: .relaxed), failures: failures.all)
  if let path = invocation.text("json") {
    let data = try figures.json()
    if path == "-" {
      printOutput(String(decoding: data, as: UTF8.self) + "\n")
    } else if !FileManager.default.createFile(atPath: path, contents: data) {
      throw CommandFailure("\(path) cannot be written", status: .missingInput)
    }
  }
  if invocation.text("json") != "-" { printOutput(figures.text + "\n") }
  return figures.isRight ? .success : .checkFailed
}

/// What went wrong in threads.
final class FailureBox: @unchecked Sendable {
  private let lock = NSLock()
  private var list: [String] = []
  func add(_ text: String) { lock.withLock { list.append(text) } }
  var all: [String] { lock.withLock { list } }
}

@main
struct Main {
  static func main() {
    exit(runProgram(command, version: "0.1.0", arguments: Array(CommandLine.arguments.dropFirst())).value)
  }
}
