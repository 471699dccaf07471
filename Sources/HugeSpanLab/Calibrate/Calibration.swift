// `hugespan calibrate`: the price list of this machine.
//
// Prices differ by 2 to 15 times between machines and moments, and a policy that decides by prices is only as good as they
// are. Everything is measured several times, medians count, and a machine on which others worked meanwhile is said to
// have been one.

import Foundation
import HugeSpanCore

/// Why nothing could be measured.
package struct CalibrationError: Error, CustomStringConvertible, Sendable {
  package var description: String
  init(_ text: String) { description = text }
}

/// What was measured.
package struct Calibration: Sendable {
  package var costs = CostModel()
  package var measured: [(price: CostModel.Price, figures: Measured)] = []
  /// First touch of a hugepage in microseconds, by seconds of idleness before it.
  package var faultsByIdleness: [(seconds: Double, figures: Measured)] = []
  /// What a reader should know of the figures.
  package var notes: [String] = []
  package var machine: Machine

  /// A spread between quartiles beyond this share of the median is noise.
  static let quietSpread = 0.25
  /// CPUs that others may keep busy on a quiet machine.
  static let quietCPUs = 0.1

  /// Measures everything.
  ///
  /// - Parameters:
  ///   - idleRounds: How often idle hugepages are waited for, ten seconds each; 0 leaves that out.
  ///   - progress: Told what is being done, often.
  package static func run(idleRounds: Int, progress: (String) -> Void) throws(CalibrationError) -> Calibration {
    let kernel = LinuxKernel()
    guard kernel.capabilities.contains(.hugePages) else {
      throw CalibrationError(
        "this kernel gives no transparent hugepages (see /sys/kernel/mm/transparent_hugepage/enabled: it must be "
          + "'always' or 'madvise')")
    }
    for (capability, name) in [(KernelCapabilities.honestSplit, "MADV_COLD"), (.collapse, "MADV_COLLAPSE")]
    where !kernel.capabilities.contains(capability) {
      throw CalibrationError("this kernel does not split or rebuild hugepages with \(name) (it came with Linux 6.1)")
    }
    let disturbance = Disturbance()
    var result = Calibration(machine: .current())

    progress("kernel operations")
    var prices = try KernelPrices(kernel)
    defer { prices.end() }
    for round in 0..<16 { try prices.run(isCounted: round > 0) }
    for price in CostModel.Price.all {
      guard let samples = prices.samples[price], !samples.isEmpty else { continue }
      result.book(price, Measured(samples))
    }

    progress("look-ups on hugepages and on base pages")
    result.book(.taxShare, Measured(try TaxMeasurement.run(kernel, rounds: 9)))

    if idleRounds > 0 {
      try result.waitForIdlePages(kernel, rounds: idleRounds, progress)
    } else {
      result.costs.coldBlockFault = result.costs.blockFault
      result.notes.append("idle hugepages were not waited for: coldBlockFault is taken to be blockFault")
    }
    result.judge(busyCPUs: disturbance.busyCPUs)
    return result
  }

  private mutating func book(_ price: CostModel.Price, _ figures: Measured) {
    costs[price] = figures.median
    measured.append((price, figures))
  }

  private mutating func waitForIdlePages(
    _ kernel: LinuxKernel, rounds: Int, _ progress: (String) -> Void
  ) throws(CalibrationError) {
    var faults = try ColdFaults(kernel)
    defer { faults.end() }
    for round in 1...rounds { faults.run { progress("idle hugepages, round \(round) of \(rounds): \($0)") } }
    for (seconds, samples) in zip(ColdFaults.idleness, faults.samples) where !samples.isEmpty {
      faultsByIdleness.append((seconds, Measured(samples)))
    }
    guard let longest = faultsByIdleness.last, longest.seconds > 0 else {
      costs.coldBlockFault = costs.blockFault
      notes.append("no idle hugepages were to be had: coldBlockFault is taken to be blockFault")
      return
    }
    book(.coldBlockFault, longest.figures)
    // From where on it is nearer to the cold price than to the warm one.
    let middle = (costs.blockFault * longest.figures.median).squareRoot()
    costs.coldAfter = faultsByIdleness.first { $0.figures.median >= middle }?.seconds ?? longest.seconds
    if longest.figures.median > 2 * costs.blockFault {
      let factor = String(format: "%.1f", longest.figures.median / costs.blockFault)
      notes.append(
        "a hugepage that was idle for \(plain(longest.seconds)) s costs \(factor) times a fresh one: "
          + (Self.reportsFreePages
            ? "the balloon of this virtual machine reports free pages, and the host takes them"
            : "somebody under this kernel takes free pages back, as hypervisors do"))
    }
  }

  private mutating func judge(busyCPUs: Double?) {
    if let busy = busyCPUs, busy > Self.quietCPUs {
      notes.append(
        "noisy: others kept \(String(format: "%.1f", busy)) CPUs busy meanwhile; measure again on a quiet machine")
    }
    let wide = measured.filter { $0.figures.spread > Self.quietSpread && costs[$0.price] > 1 }
    if !wide.isEmpty {
      notes.append(
        "noisy: half of the samples spread over more than a quarter of the median: "
          + wide.map(\.price.text).joined(separator: ", "))
    }
  }

  /// Whether a balloon has the feature bit of free page reporting (VIRTIO_BALLOON_F_REPORTING, 5).
  private static var reportsFreePages: Bool {
    let root = "/sys/bus/virtio/drivers/virtio_balloon"
    let devices = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    return devices.contains { device in
      guard let features = contents(ofFile: "\(root)/\(device)/features"), features.utf8.count > 5 else { return false }
      return features.utf8[features.utf8.index(features.utf8.startIndex, offsetBy: 5)] == UInt8(ascii: "1")
    }
  }
}

extension Calibration {
  /// The file that commands take: prices first, then how they came about.
  package func json() throws -> String {
    struct File: Encodable {
      struct Figures: Encodable {
        var median: Double
        var low: Double
        var high: Double
        var samples: Int
      }
      struct Fault: Encodable {
        var idleSeconds: Double
        var microseconds: Figures
      }
      var schema = CostModel.schema
      var prices: [String: Double]
      var units: [String: String]
      var measured: [String: Figures]
      var blockFaultByIdleness: [Fault]
      var notes: [String]
      var machine: Machine
    }
    func figures(_ measured: Measured) -> File.Figures {
      File.Figures(median: measured.median, low: measured.low, high: measured.high, samples: measured.count)
    }
    let file = File(
      prices: costs.prices, units: Dictionary(uniqueKeysWithValues: CostModel.Price.all.map { ($0.text, $0.unit) }),
      measured: Dictionary(uniqueKeysWithValues: measured.map { ($0.price.text, figures($0.figures)) }),
      blockFaultByIdleness: faultsByIdleness.map {
        File.Fault(idleSeconds: $0.seconds, microseconds: figures($0.figures))
      },
      notes: notes, machine: machine)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(file), as: UTF8.self) + "\n"
  }

  /// A table for people.
  package var table: String {
    var rows = [["price", "value", "unit", "half of the samples in", "default", "of"]]
    let defaults = CostModel()
    for price in CostModel.Price.all {
      let figures = measured.first { $0.price == price }?.figures
      rows.append([
        price.text, Self.figure(costs[price]), price.unit,
        figures.map { "\(Self.figure($0.low)) to \(Self.figure($0.high))" } ?? "-", Self.figure(defaults[price]),
        price.help,
      ])
    }
    var text = aligned(rows, right: [1, 4])
    if !faultsByIdleness.isEmpty {
      text += "\nFirst touch of a hugepage by how long it was free:\n"
      text += aligned(
        [["idle s", "us", "half of the samples in"]]
          + faultsByIdleness.map {
            [
              plain($0.seconds), Self.figure($0.figures.median),
              "\(Self.figure($0.figures.low)) to \(Self.figure($0.figures.high))",
            ]
          }, right: [0, 1])
    }
    for note in notes { text += "note: \(note)\n" }
    return text
  }

  private static func figure(_ value: Double) -> String {
    value >= 100 ? String(format: "%.0f", value) : String(format: value >= 10 ? "%.1f" : "%.2f", value)
  }
}

/// Columns side by side, those in `right` aligned at their end.
private func aligned(_ rows: [[String]], right: Set<Int>) -> String {
  let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max()! }
  return rows.map { row in
    var line = ""
    for (column, cell) in row.enumerated() {
      let pad = String(repeating: " ", count: widths[column] - cell.count)
      line += (column == 0 ? "" : "  ") + (right.contains(column) ? pad + cell : cell + pad)
    }
    while line.hasSuffix(" ") { line.removeLast() }
    return line + "\n"
  }.joined()
}
