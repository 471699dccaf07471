// How far the simulated kernel scales: heaps from a gibibyte to terabytes, in operations a second of CPU time and in memory.
//
// A heap is filled to its size with spans, a share of its blocks is broken by releases of what is left free between them, and then
// spans are freed and allocated at random, each touched, with a tick of the default policy for every second of simulated time. The
// program's own table of spans is counted in the memory, and said.

import CHugeSpanShims
import Foundation
import Glibc
import HugeSpanCore
import HugeSpanLab
import OptionTable

/// One size of heap, and what its spans are like.
struct ScaleCase {
  var name: String
  var bytes: Int
  /// Pages of a span: uniform from 1 to twice the mean, or always 1.
  var meanPages: Int
  /// Share of the blocks that is broken before the measurement.
  var broken: Double
  var operations: Int
}

private let gibibyte = 1 << 30

private let cases = [
  ScaleCase(name: "1 GiB, 1-16 pages", bytes: gibibyte, meanPages: 8, broken: 0.05, operations: 4_000_000),
  ScaleCase(name: "1 GiB, one page", bytes: gibibyte, meanPages: 1, broken: 0.05, operations: 4_000_000),
  ScaleCase(name: "16 GiB, 1-512 pages", bytes: 16 * gibibyte, meanPages: 256, broken: 0.05, operations: 2_000_000),
  ScaleCase(name: "64 GiB, one page", bytes: 64 * gibibyte, meanPages: 1, broken: 0.05, operations: 4_000_000),
  ScaleCase(name: "100 GiB, one page", bytes: 100 * gibibyte, meanPages: 1, broken: 0.05, operations: 4_000_000),
  ScaleCase(name: "256 GiB, 16 MiB mean", bytes: 256 * gibibyte, meanPages: 4096, broken: 0.05, operations: 1_000_000),
  ScaleCase(name: "4 TiB, 16 MiB mean", bytes: 4096 * gibibyte, meanPages: 4096, broken: 0.05, operations: 500_000),
]

/// What one case came to.
struct ScaleResult: Codable {
  var name: String
  var spans: Int
  var blocks: Int
  var brokenShare: Double
  var operationsPerSecond: Double
  var fillOperationsPerSecond: Double
  /// Anonymous memory of the process: everything, the tables of the heap, of the kernel, and of this program.
  var residentBytes: Int
  var heapTableBytes: Int
  var kernelTableBytes: Int
  var ownTableBytes: Int
}

private func cpuSeconds() -> Double { Double(hs_shim_thread_cpu_nanoseconds()) / 1e9 }

private func run(_ scale: ScaleCase) throws -> ScaleResult {
  let kernel = SimulatedKernel()
  var options = HeapOptions()
  options.policy = .never
  options.firstArenaBytes = max(scale.bytes + scale.bytes / 8, 1 << 30)
  let heap = try PageHeapCore(kernel: kernel, options: options)
  var random = SeededRandom(seed: 7)
  let goal = scale.bytes >> 12
  let capacity = goal / max(scale.meanPages, 1) + goal / max(scale.meanPages, 1) / 8 + 1024
  // An address and a length fit into one word: pages below 2^44 bytes, lengths below 2^26 pages.
  let spans = MappedArray<UInt64>(uninitializedCount: capacity)
  var count = 0
  var pages = 0

  func length() -> Int { scale.meanPages == 1 ? 1 : 1 + Int(random.next() % UInt64(2 * scale.meanPages - 1)) }
  func allocate(at index: Int) throws {
    let wanted = length()
    let span = try heap.allocate(SpanRequest(pageCount: wanted)).span
    kernel.touch(span.address, pages: wanted)
    spans[index] = UInt64(span.address >> 12) << 26 | UInt64(wanted)
    pages += wanted
  }
  func free(_ index: Int) {
    let word = spans[index]
    let length = Int(word & (1 << 26 - 1))
    heap.free(PageSpan(address: UInt(word >> 26) << 12, pageCount: length))
    pages -= length
  }

  let started = cpuSeconds()
  while pages < goal && count < capacity {
    try allocate(at: count)
    count += 1
  }
  let filled = cpuSeconds() - started
  // Holes: one span in fifty goes, and what it leaves of its blocks is released until enough are broken.
  let blocks = heap.statistics().blocks
  let wanted = Int(Double(blocks) * scale.broken)
  while kernel.totals.splitBlocks < wanted {
    for _ in 0..<max(count / 200, 1) {
      let index = Int(random.next() % UInt64(count))
      free(index)
      spans[index] = spans[count - 1]
      count -= 1
    }
    if heap.releaseNow(byteCount: max(blocks / 100, 1) << 20) == 0 { break }
  }
  while pages < goal && count < capacity {
    try allocate(at: count)
    count += 1
  }

  var time: UInt64 = 0
  let begun = cpuSeconds()
  for step in 0..<scale.operations / 2 {
    let index = Int(random.next() % UInt64(count))
    free(index)
    try allocate(at: index)
    // A million operations to a second of the program's.
    if step % 100_000 == 99_999 {
      time += 200_000_000
      kernel.advance(to: time)
      _ = heap.tick(at: time, processCPU: time)
    }
  }
  let taken = cpuSeconds() - begun
  let totals = kernel.totals
  let result = ScaleResult(
    name: scale.name, spans: count, blocks: blocks, brokenShare: Double(totals.splitBlocks) / Double(max(blocks, 1)),
    operationsPerSecond: Double(scale.operations) / taken, fillOperationsPerSecond: Double(count) / max(filled, 1e-9),
    residentBytes: ProcessMemory().anonymousBytes() ?? 0, heapTableBytes: kernel.heapTableBytes,
    kernelTableBytes: kernel.tableBytes, ownTableBytes: count * 8)
  heap.checkInvariants()
  return result
}

let simulationScale = Command(
  "simulation-scale",
  abstract: "Measure how far the simulated kernel scales",
  discussion: """
    Each case is a process of its own, so that its memory is its own. Operations are allocations and frees of spans, each span \
    touched, with a tick of a policy now and then.
    """,
  options: [
    Option("filter", .text("TEXT"), help: "Only cases with this in their name"),
    Option("json", .file(), help: "Write the results as JSON"),
    Option("case", .count(in: 0...100), help: "Internal: this case, in this process", isHidden: true),
  ],
  examples: [Example("simulation-scale --filter TiB", "Terabytes only")],
  run: { invocation in
    if let number = invocation.count("case") {
      print(try jsonText(run(cases[number])), terminator: "")
      return .success
    }
    var results: [ScaleResult] = []
    print("case                       spans    blocks  broken  Mops/s  fill  resident  heap tables  kernel  own (MiB)")
    for (number, scale) in cases.enumerated() {
      if let filter = invocation.text("filter"), !scale.name.contains(filter) { continue }
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
      process.arguments = ["--case", String(number)]
      let pipe = Pipe()
      process.standardOutput = pipe
      try process.run()
      let output = pipe.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      guard process.terminationStatus == 0 else {
        throw CommandFailure(
          "\(scale.name): the case ended with status \(process.terminationStatus)", status: .unavailable)
      }
      let result = try JSONDecoder().decode(ScaleResult.self, from: output)
      results.append(result)
      func mebibytes(_ bytes: Int) -> String { fixed(Double(bytes) / 1_048_576, 0) }
      let cells = [
        (String(result.spans), 9), (String(result.blocks), 9), (fixed(result.brokenShare * 100, 1) + "%", 7),
        (fixed(result.operationsPerSecond / 1e6, 2), 7), (fixed(result.fillOperationsPerSecond / 1e6, 2), 5),
        (mebibytes(result.residentBytes), 9), (mebibytes(result.heapTableBytes), 12),
        (mebibytes(result.kernelTableBytes), 7), (mebibytes(result.ownTableBytes), 9),
      ]
      let name = result.name.padding(toLength: 22, withPad: " ", startingAt: 0)
      print(name + cells.map { " " + String(repeating: " ", count: max(0, $0.1 - $0.0.count)) + $0.0 }.joined())
    }
    if let path = invocation.text("json") {
      try jsonText(results).write(toFile: path, atomically: true, encoding: .utf8)
    }
    return .success
  })

exit(
  runProgram(simulationScale, version: "0.1.0", arguments: Array(CommandLine.arguments.dropFirst())).value)
