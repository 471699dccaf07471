// Looks as lines of text and of JSON.

import Foundation

/// Values of quantities.
package enum WatchNumber {
  /// A value of a quantity, with its unit.
  package static func long(_ value: Double?, of quantity: WatchQuantity) -> String {
    guard let value else { return "-" }
    return quantity.isShare ? HumanNumber.percent(value) : HumanNumber.mebibytes(value) + " MiB"
  }

  package static func short(_ value: Double?, of quantity: WatchQuantity) -> String {
    guard let value else { return "-" }
    return quantity.isShare ? "\(Int((100 * value).rounded()))%" : HumanNumber.short(value)
  }
}

/// A line for each look, where there is no terminal to draw on.
package enum WatchPlain {
  /// Every so many lines the heading comes again.
  package static let linesPerHeading = 20

  /// States that have a column; a heap's own only if there is a heap.
  private static func states(_ hasHeap: Bool) -> [WatchBlockState] {
    WatchBlockState.allCases.filter { hasHeap || $0 != .waiting }
  }

  /// - Parameter hasHeap: Whether the source tells used bytes.
  package static func heading(hasHeap: Bool) -> String {
    var heads = ["seconds"] + (hasHeap ? ["used"] : []) + ["RSS", "charged", "anon", "huge", "coverage", "LazyFree"]
    heads += states(hasHeap).map { $0 == .lazilyFree ? "lazy" : $0.rawValue }
    return line(heads)
  }

  package static func line(_ sample: WatchSample, hasHeap: Bool) -> String {
    func cell(_ bytes: Int?) -> String { bytes.map { HumanNumber.mebibytes($0) } ?? "-" }
    var cells = [String(format: "%.2f", sample.seconds)] + (hasHeap ? [cell(sample.usedBytes)] : [])
    cells += [
      cell(sample.residentBytes), cell(sample.chargedBytes), cell(sample.anonymousBytes), cell(sample.hugeBytes),
      HumanNumber.percent(sample.coverage), cell(sample.lazyFreeBytes),
    ]
    let counts = sample.counts
    // Nothing to see is not the same as nothing there.
    cells += states(hasHeap).map { sample.blocks.isEmpty ? "-" : "\(counts[$0] ?? 0)" }
    return line(cells)
  }

  private static func line(_ cells: [String]) -> String {
    cells.map { String(repeating: " ", count: max(8 - $0.count, 0)) + $0 }.joined(separator: " ") + "\n"
  }
}

/// A look, as `watch --json` writes it.
package struct WatchRecord: Codable, Equatable, Sendable {
  /// Neighbouring blocks in the same state.
  package struct Run: Codable, Equatable, Sendable {
    package var address: String
    package var count: Int
    package var state: WatchBlockState
  }

  package var schema = "hugespan.watch/1"
  package var seconds: Double
  package var process: Int
  package var name: String
  package var usedBytes: Int?
  package var releasedBytes: Int?
  package var residentBytes: Int
  package var chargedBytes: Int?
  package var anonymousBytes: Int
  package var hugeBytes: Int
  package var lazyFreeBytes: Int?
  package var swappedBytes: Int?
  package var coverage: Double?
  package var intervalSeconds: Double
  package var blockBytes: Int
  package var blocks: [Run] = []
  package var notes: [String]

  package init(_ sample: WatchSample, interval: UInt64) {
    seconds = sample.seconds
    process = sample.process
    name = sample.name
    usedBytes = sample.usedBytes
    releasedBytes = sample.releasedBytes
    residentBytes = sample.residentBytes
    chargedBytes = sample.chargedBytes
    anonymousBytes = sample.anonymousBytes
    hugeBytes = sample.hugeBytes
    lazyFreeBytes = sample.lazyFreeBytes
    swappedBytes = sample.swappedBytes
    coverage = sample.coverage
    intervalSeconds = Double(interval) / 1e9
    blockBytes = Int(BlockTally.blockBytes)
    notes = sample.notes
    var end: UInt = 0
    for block in sample.blocks {
      if let last = blocks.last, last.state == block.state, end == block.address {
        blocks[blocks.count - 1].count += 1
      } else {
        blocks.append(Run(address: String(block.address, radix: 16), count: 1, state: block.state))
      }
      end = block.address + BlockTally.blockBytes
    }
  }

  /// One line.
  package func line() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
  }
}
