// Random sequences of every operation, against an independent model, with the invariants checked after every step.
//
// Each sequence runs in a process of its own, since a heap that finds itself broken ends the process. A sequence that
// fails is shrunk by dropping operations as long as it still fails, and printed as source.
//
// HUGESPAN_TEST_SEED starts at another seed, HUGESPAN_TEST_SEQUENCES runs more than the usual number of sequences.

import Foundation
import HugeSpanCore
import TestKernels
import Testing

@Suite struct RandomSequencesOfOperations {
  static let firstSeed = environment("HUGESPAN_TEST_SEED") ?? 1
  static let batches = 4
  static let perBatch = UInt64((environment("HUGESPAN_TEST_SEQUENCES") ?? 20) + 3) / 4
  static let length = 250

  @Test(arguments: 0..<batches)
  func keepTheHeapConsistentWithTheModel(batch: Int) async throws {
    let first = Self.firstSeed + UInt64(batch) * Self.perBatch
    let seeds = first..<(first + Self.perBatch)
    if await Self.passes(seeds.map { .random(seed: $0, count: Self.length) }) { return }
    for seed in seeds {
      let sequence = OperationSequence.random(seed: seed, count: Self.length)
      if await Self.passes([sequence]) { continue }
      let shrunk = await Self.shrink(sequence)
      let tail = await Self.lastWords(of: shrunk).split(separator: "\n").suffix(12).joined(separator: "\n")
      Issue.record("seed \(seed):\n\(tail)\n\n\(shrunk.source)")
      return
    }
    Issue.record("seeds \(seeds) fail together, and none of them alone")
  }

  private static func environment(_ name: String) -> UInt64? {
    ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
  }

  /// Runs sequences in a child and answers whether it lives to the end.
  private static func passes(_ sequences: [OperationSequence]) async -> Bool {
    var passes = false
    await withKnownIssue(isIntermittent: true) {
      _ = try await #require(processExitsWith: .success) { [sequences = sequences as [OperationSequence]] in
        for sequence in sequences { try sequence.run() }
      }
      passes = true
    }
    return passes
  }

  /// What a child says before it dies of a sequence.
  private static func lastWords(of sequence: OperationSequence) async -> String {
    var text = "nothing: it did not fail again"
    await withKnownIssue(isIntermittent: true) {
      let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        [sequence = sequence as OperationSequence] in
        do {
          try sequence.run(trace: say)
        } catch {
          say("\(error)")
          exit(1)
        }
      }
      text = String(decoding: result.standardErrorContent, as: UTF8.self)
    }
    return text
  }

  /// Drops halves, quarters, and so on down to single operations, as long as the rest still fails.
  private static func shrink(_ sequence: OperationSequence) async -> OperationSequence {
    var best = sequence
    var size = max(best.operations.count / 2, 1)
    while true {
      var start = 0
      var hasShrunk = false
      while start < best.operations.count {
        var candidate = best
        candidate.operations.removeSubrange(start..<min(start + size, best.operations.count))
        if await passes([candidate]) {
          start += size
        } else {
          best = candidate
          hasShrunk = true
        }
      }
      if size == 1 && !hasShrunk { return best }
      size = max(size / 2, 1)
    }
  }
}

/// Writes a line to standard error.
func say(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
