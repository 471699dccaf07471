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
    if await Self.failure(of: seeds.map { .random(seed: $0, count: Self.length) }) == nil { return }
    for seed in seeds {
      let sequence = OperationSequence.random(seed: seed, count: Self.length)
      guard await Self.failure(of: [sequence]) != nil else { continue }
      let shrunk = await Self.shrink(sequence)
      let message = await Self.failure(of: [shrunk], isTracing: true) ?? "does not fail any more"
      let tail = message.split(separator: "\n").suffix(12).joined(separator: "\n")
      Issue.record("seed \(seed):\n\(tail)\n\n\(shrunk.source)")
      return
    }
    Issue.record("seeds \(seeds) fail together, and none of them alone")
  }

  private static func environment(_ name: String) -> UInt64? {
    ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
  }

  /// Runs sequences in a child; what it said before it died, or nil if it lives.
  private static func failure(of sequences: [OperationSequence], isTracing: Bool = false) async -> String? {
    var text: String? = nil
    // Success is what we hope for, and not a failure of this expectation.
    await withKnownIssue(isIntermittent: true) {
      let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        [sequences = sequences as [OperationSequence], isTracing = isTracing as Bool] in
        for sequence in sequences {
          do {
            try sequence.run { step in if isTracing { say(step) } }
          } catch {
            say("seed \(sequence.seed): \(error)")
            exit(1)
          }
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
        if await failure(of: [candidate]) != nil {
          best = candidate
          hasShrunk = true
        } else {
          start += size
        }
      }
      if size == 1 && !hasShrunk { return best }
      size = max(size / 2, 1)
    }
  }
}

/// Writes a line to standard error.
func say(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
