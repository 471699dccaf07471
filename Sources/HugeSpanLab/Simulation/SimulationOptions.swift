// The machine that is simulated: what it has, how its kernel is set, and what its operations cost.
//
// Every switch stands for one of the kernel's and has its source beside it. The defaults are those of a kernel as it comes, with
// THP in mode `madvise`, no memory limit and no swap, on which nobody but the heap makes hugepages: a replay goes a hundred
// times faster than its program, in which time khugepaged gets to a few blocks at most.

import HugeSpanCore

/// How the simulated machine is set up.
package struct SimulationOptions: Equatable, Sendable {
  /// Share of hugepages that a fault asks for in vain, as on a fragmented machine; and of collapses.
  package var hugeFailure = 0.0
  package var collapseFailure = 0.0
  /// Pages that khugepaged scans in a second; 0 is off. The kernel's default of 4,096 each 10 s is 409.6 (Documentation/admin-guide/mm/transhuge:
  /// pages_to_scan, scan_sleep_millisecs).
  package var khugepagedPagesPerSecond = 0.0
  /// khugepaged fills up to so many absent pages, and so many swapped ones (transhuge: max_ptes_none, max_ptes_swap).
  package var maxPtesNone = 511
  package var maxPtesSwap = 64
  /// Under pressure, hugepages of which more than `maxPtesNone` pages are zeros are split (transhuge: shrink_underused).
  package var splitsUnderused = true
  /// What is free is told to the host, which takes it: the fault of a block that was away for long is a cold one.
  package var reportsFreePages = true
  /// Bytes that may be charged, others' included; nil is no limit (cgroup-v2: memory.max).
  package var limitBytes: Int?
  /// Bytes of swap.
  package var swapBytes = 0
  package var seed: UInt64 = 1

  package init() {}

  /// Names of the switches, for help and messages.
  package static let names = [
    "huge-failure", "collapse-failure", "khugepaged", "max-ptes-none", "max-ptes-swap", "underused",
    "free-page-reporting",
    "limit", "swap", "seed",
  ]

  /// Reads `name=value,…`.
  ///
  /// - Throws: A `NotationError` that names the switch, what is wrong and what would be right.
  package init(notation: String) throws(NotationError) {
    for part in notation.split(separator: ",", omittingEmptySubsequences: false) {
      let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard sides.count == 2 else {
        throw NotationError(message: "'\(part)' is no switch: write NAME=VALUE, with one of \(Self.list)")
      }
      let (name, value) = (sides[0], sides[1])
      switch name {
      case "huge-failure": hugeFailure = try Self.share(name, value)
      case "collapse-failure": collapseFailure = try Self.share(name, value)
      case "khugepaged": khugepagedPagesPerSecond = try Self.number(name, value, 0...1e12, "pages a second")
      case "max-ptes-none": maxPtesNone = Int(try Self.number(name, value, 0...511, "pages of a block"))
      case "max-ptes-swap": maxPtesSwap = Int(try Self.number(name, value, 0...511, "pages of a block"))
      case "underused": splitsUnderused = try Self.boolean(name, value)
      case "free-page-reporting": reportsFreePages = try Self.boolean(name, value)
      case "limit": limitBytes = try Self.size(name, value)
      case "swap": swapBytes = try Self.size(name, value)
      case "seed": seed = UInt64(try Self.number(name, value, 0...1e15, "any whole number"))
      default: throw NotationError(message: "'\(name)' is no switch of the simulated kernel: there are \(Self.list)")
      }
    }
  }

  private static var list: String { names.joined(separator: ", ") }

  private static func number(
    _ name: String, _ text: String, _ bounds: ClosedRange<Double>, _ what: String
  ) throws(NotationError) -> Double {
    guard let number = Double(text), bounds.contains(number) else {
      let (low, high) = (fixed(bounds.lowerBound, 0), fixed(bounds.upperBound, 0))
      throw NotationError(message: "\(name)=\(text): a number from \(low) to \(high) is wanted, \(what)")
    }
    return number
  }

  private static func share(_ name: String, _ text: String) throws(NotationError) -> Double {
    try number(name, text, 0...1, "a share")
  }

  private static func boolean(_ name: String, _ text: String) throws(NotationError) -> Bool {
    switch text {
    case "on": return true
    case "off": return false
    default: throw NotationError(message: "\(name)=\(text): 'on' or 'off' is wanted")
    }
  }

  private static func size(_ name: String, _ text: String) throws(NotationError) -> Int {
    let digits = text.prefix { $0.isNumber }
    let shift: Int? =
      switch text.dropFirst(digits.count) {
      case "", "B": 0
      case "K", "KiB": 10
      case "M", "MiB": 20
      case "G", "GiB": 30
      case "T", "TiB": 40
      default: nil
      }
    guard let number = Int(digits), let shift, number < 1 << (62 - shift) else {
      throw NotationError(message: "\(name)=\(text): a size is wanted, such as 700MiB or 2GiB")
    }
    return number << shift
  }

  /// What else the kernel's operations cost, in microseconds; the others are the cost model's. Measured on Linux 6.18.
  package struct Prices {
    /// Unmapping a part of a hugepage: its entry becomes a page table.
    static let pmdSplit = 14.0
    static let lazyBlock = 2.0
    static let lazyPage = 0.06
    /// Swapping a page out, and in again, with zram.
    static let swapOut = 4.0
    static let swapIn = 6.0
    static let coldBlock = 1.0
  }
}
