// Policies and strategies as people write them: `seed:rate=50,prefer-long=off`, `split-dontneed-whole`.
//
// A name, then settings after a colon. One table per kind holds the names with what they mean; parsing, error messages
// and help texts all read it. Every value has one written form, so a run's name in a report can be given back to the
// command line.

import HugeSpanCore

/// What is wrong with a policy or strategy as it was written, in words for the user.
package struct NotationError: Error, Equatable, Sendable {
  package var message: String
}

/// A name and what it means.
package struct NamedChoice: Sendable {
  package var name: String
  package var help: String
}

/// Settings after the colon: `a=1,b=on`.
private struct Settings {
  private let owner: String
  private var values: [(key: String, value: String)] = []

  init(_ owner: String, _ text: Substring?) throws(NotationError) {
    self.owner = owner
    for part in (text ?? "").split(separator: ",") {
      let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard sides.count == 2 else {
        throw NotationError(message: "'\(part)' in '\(owner):\(text!)' is no setting; a setting is NAME=VALUE")
      }
      if values.contains(where: { $0.key == sides[0] }) {
        throw NotationError(message: "'\(sides[0])' is set twice in '\(owner):\(text!)'")
      }
      values.append((String(sides[0]), String(sides[1])))
    }
  }

  private mutating func take(_ key: String) -> String? {
    guard let index = values.firstIndex(where: { $0.key == key }) else { return nil }
    return values.remove(at: index).value
  }

  mutating func number(_ key: String, _ bounds: ClosedRange<Double>, default value: Double) throws(NotationError)
    -> Double
  {
    guard let text = take(key) else { return value }
    guard let number = Double(text), bounds.contains(number) else {
      throw NotationError(
        message: "\(owner): \(key)=\(text) is not a number in \(plain(bounds.lowerBound))...\(plain(bounds.upperBound))"
      )
    }
    return number
  }

  mutating func flag(_ key: String, default value: Bool) throws(NotationError) -> Bool {
    switch take(key) {
    case nil: return value
    case "on": return true
    case "off": return false
    case .some(let text): throw NotationError(message: "\(owner): \(key)=\(text) is neither 'on' nor 'off'")
    }
  }

  mutating func nanoseconds(
    _ key: String, upTo longest: UInt64 = 9_000_000_000_000_000_000, default value: UInt64
  ) throws(NotationError) -> UInt64 {
    guard let text = take(key) else { return value }
    for (unit, scale) in [("ms", 1e6), ("s", 1e9), ("m", 60e9)] where text.hasSuffix(unit) {
      guard let number = Double(text.dropLast(unit.count)), number >= 0, number * scale < 9e18 else { continue }
      if UInt64(number * scale) <= longest { return UInt64(number * scale) }
      throw NotationError(message: "\(owner): \(key)=\(text) is more than \(duration(longest))")
    }
    throw NotationError(message: "\(owner): \(key)=\(text) is not a time such as 500ms, 10s or 2m")
  }

  func finish(known: [String]) throws(NotationError) {
    guard let extra = values.first else { return }
    throw NotationError(
      message: known.isEmpty
        ? "\(owner) has no settings, but '\(extra.key)' is set"
        : "\(owner) has no setting '\(extra.key)' (known: \(known.joined(separator: ", ")))")
  }
}

/// A number without a needless fraction.
func plain(_ value: Double) -> String {
  value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
}

/// A time as it is written: whole seconds, else milliseconds.
private func duration(_ nanoseconds: UInt64) -> String {
  let milliseconds = Double(nanoseconds) / 1e6
  return nanoseconds % 1_000_000_000 == 0 ? "\(nanoseconds / 1_000_000_000)s" : "\(plain(milliseconds))ms"
}

private func split(_ text: String) -> (name: String, settings: Substring?) {
  guard let colon = text.firstIndex(of: ":") else { return (text, nil) }
  return (String(text[..<colon]), text[text.index(after: colon)...])
}

private func unknown(_ kind: String, _ name: String, _ known: [String]) -> NotationError {
  NotationError(message: "unknown \(kind) '\(name)' (known: \(known.joined(separator: ", ")))")
}

extension PolicyChoice {
  /// Names that `init(notation:)` knows.
  package static let knownNames = [
    NamedChoice(name: "never", help: "releases nothing"),
    NamedChoice(name: "immediate", help: "releases everything free at each tick"),
    NamedChoice(
      name: "gperftools",
      help: "gperftools' counter: pages freed, divided by the rate, until the next release; setting rate=1 (0.01...100)"
    ),
    NamedChoice(
      name: "seed",
      help: """
        prefer blocks without a hugepage, prefer longer spans, discount refaults; settings rate=100 (pages released \
        per 1000 freed), prefer-broken=on, prefer-long=on, discount-refaults=on
        """),
    NamedChoice(
      name: "demand-window",
      help: """
        TCMalloc's background release at a rate, no hugepage broken below recent demand; settings rate=32 (MiB a second, \
        0...1e6), short=60s, long=300s (where fluctuation and trend are looked for, up to 10m)
        """),
    NamedChoice(
      name: "decay",
      help: "jemalloc's decay: unused memory goes along a smooth curve, until none is left; setting time=10s"),
    NamedChoice(
      name: "paced",
      help: """
        Go's background scavenger: memory above a goal, in little runs; settings cpu=1 (percent of a processor, 0.01...100), \
        period=120s (the longest until the goal is set anew)
        """),
    NamedChoice(
      name: "rent-or-buy",
      help: """
        holding memory against releasing it and faulting it back, block by block; settings price=400 (memory price in \
        CPU-seconds per GiB-hour, 0...1e9), rebuild=on, steering=on
        """),
  ]

  /// Reads a policy as it is written on the command line.
  package init(notation: String) throws(NotationError) {
    let (name, text) = split(notation)
    var settings = try Settings(name, text)
    var known: [String] = []
    switch name {
    case "never": self = .never
    case "immediate": self = .immediate
    case "gperftools":
      known = ["rate"]
      self = .gperftools(rate: try settings.number("rate", 0.01...100, default: 1))
    case "seed":
      known = ["rate", "prefer-broken", "prefer-long", "discount-refaults"]
      var options = SeedOptions()
      options.rate = try settings.number("rate", 0.01...100_000, default: options.rate)
      options.preferBroken = try settings.flag("prefer-broken", default: true)
      options.preferLong = try settings.flag("prefer-long", default: true)
      options.discountRefaults = try settings.flag("discount-refaults", default: true)
      self = .seed(options)
    case "demand-window":
      known = ["rate", "short", "long"]
      var options = DemandWindowOptions()
      let longest = DemandWindowOptions.longestNanoseconds
      let rate = try settings.number("rate", 0...1e6, default: Double(options.bytesPerSecond) / 1_048_576)
      options.bytesPerSecond = UInt64(rate * 1_048_576)
      options.shortNanoseconds = try settings.nanoseconds("short", upTo: longest, default: options.shortNanoseconds)
      options.longNanoseconds = try settings.nanoseconds("long", upTo: longest, default: options.longNanoseconds)
      self = .demandWindow(options)
    case "decay":
      known = ["time"]
      var options = DecayOptions()
      options.decayNanoseconds = try settings.nanoseconds("time", default: options.decayNanoseconds)
      self = .decay(options)
    case "paced":
      known = ["cpu", "period"]
      var options = PacedOptions()
      options.budgetPercent = try settings.number("cpu", 0.01...100, default: options.budgetPercent)
      options.periodNanoseconds = try settings.nanoseconds("period", default: options.periodNanoseconds)
      self = .paced(options)
    case "rent-or-buy":
      known = ["price", "rebuild", "steering"]
      var options = RentOrBuyOptions()
      options.memoryPrice = try settings.number("price", 0...1e9, default: options.memoryPrice)
      options.rebuild = try settings.flag("rebuild", default: true)
      options.steering = try settings.flag("steering", default: true)
      self = .rentOrBuy(options)
    default: throw unknown("policy", name, Self.knownNames.map(\.name))
    }
    try settings.finish(known: known)
  }

  /// The shortest text that reads back as this policy.
  package var notation: String {
    switch self {
    case .never: return "never"
    case .immediate: return "immediate"
    case .gperftools(let rate): return rate == 1 ? "gperftools" : "gperftools:rate=\(plain(rate))"
    case .seed(let options):
      var parts: [String] = []
      if options.rate != 100 { parts.append("rate=\(plain(options.rate))") }
      if !options.preferBroken { parts.append("prefer-broken=off") }
      if !options.preferLong { parts.append("prefer-long=off") }
      if !options.discountRefaults { parts.append("discount-refaults=off") }
      return parts.isEmpty ? "seed" : "seed:" + parts.joined(separator: ",")
    case .demandWindow(let options):
      let defaults = DemandWindowOptions()
      var parts: [String] = []
      if options.bytesPerSecond != defaults.bytesPerSecond {
        parts.append("rate=\(plain(Double(options.bytesPerSecond) / 1_048_576))")
      }
      if options.shortNanoseconds != defaults.shortNanoseconds {
        parts.append("short=\(duration(options.shortNanoseconds))")
      }
      if options.longNanoseconds != defaults.longNanoseconds {
        parts.append("long=\(duration(options.longNanoseconds))")
      }
      return parts.isEmpty ? "demand-window" : "demand-window:" + parts.joined(separator: ",")
    case .decay(let options):
      return options == DecayOptions() ? "decay" : "decay:time=\(duration(options.decayNanoseconds))"
    case .paced(let options):
      let defaults = PacedOptions()
      var parts: [String] = []
      if options.budgetPercent != defaults.budgetPercent { parts.append("cpu=\(plain(options.budgetPercent))") }
      if options.periodNanoseconds != defaults.periodNanoseconds {
        parts.append("period=\(duration(options.periodNanoseconds))")
      }
      return parts.isEmpty ? "paced" : "paced:" + parts.joined(separator: ",")
    case .rentOrBuy(let options):
      var parts: [String] = []
      if options.memoryPrice != 400 { parts.append("price=\(plain(options.memoryPrice))") }
      if !options.rebuild { parts.append("rebuild=off") }
      if !options.steering { parts.append("steering=off") }
      return parts.isEmpty ? "rent-or-buy" : "rent-or-buy:" + parts.joined(separator: ",")
    }
  }
}

extension StrategyChoice {
  /// Names that `init(notation:)` knows; each but `keep`, `decommit` and `deferred` may be
  /// followed by `-whole`.
  package static let knownNames = [
    NamedChoice(name: "keep", help: "releases nothing, whatever the policy orders"),
    NamedChoice(name: "dontneed", help: "MADV_DONTNEED"),
    NamedChoice(name: "free", help: "MADV_FREE: the kernel takes the memory when it needs it"),
    NamedChoice(
      name: "free-then-dontneed", help: "MADV_FREE, and MADV_DONTNEED when it has aged; setting after=10s"),
    NamedChoice(
      name: "split-dontneed", help: "splits the hugepage before a part of it is released, so that the charge falls too"),
    NamedChoice(name: "cold", help: "MADV_COLD: kept, and swapped out first when memory is short"),
    NamedChoice(name: "pageout", help: "MADV_PAGEOUT: swapped out at once; without swap nothing goes"),
    NamedChoice(
      name: "decommit", help: "whole pageblocks become a reservation again, and are committed when they are reused"),
    NamedChoice(
      name: "deferred",
      help: """
        nothing before memory gets short, but wholly free pageblocks are lazily free; setting free-whole=on
        """),
  ]

  /// Strategies that have no form with `-whole`.
  private static let indivisible = ["keep", "decommit", "deferred"]

  private static let suffix = "-whole"

  /// Reads a strategy as it is written on the command line.
  package init(notation: String) throws(NotationError) {
    let (name, text) = split(notation)
    var settings = try Settings(name, text)
    let isWhole = name.hasSuffix(Self.suffix) && !Self.indivisible.contains { name == $0 + Self.suffix }
    let base = isWhole ? String(name.dropLast(Self.suffix.count)) : name
    var known: [String] = []
    switch base {
    case "keep": self.init(.keep)
    case "dontneed": self.init(.dontneed, wholeBlocksOnly: isWhole)
    case "free": self.init(.free, wholeBlocksOnly: isWhole)
    case "free-then-dontneed":
      known = ["after"]
      self.init(.freeThenDontneed, wholeBlocksOnly: isWhole)
      secondStageNanoseconds = try settings.nanoseconds("after", default: secondStageNanoseconds)
    case "split-dontneed": self.init(.splitDontneed, wholeBlocksOnly: isWhole)
    case "cold": self.init(.cold, wholeBlocksOnly: isWhole)
    case "pageout": self.init(.pageout, wholeBlocksOnly: isWhole)
    case "decommit": self.init(.decommit)
    case "deferred":
      known = ["free-whole"]
      self.init(.deferred)
      freesWholeBlocks = try settings.flag("free-whole", default: true)
    default:
      throw unknown(
        "strategy", name,
        Self.knownNames.map(\.name) + ["and each but keep, decommit and deferred with '-whole' for whole blocks only"])
    }
    try settings.finish(known: known)
  }

  /// The shortest text that reads back as this strategy.
  package var notation: String {
    let name =
      switch kind {
      case .keep: "keep"
      case .dontneed: "dontneed"
      case .free: "free"
      case .freeThenDontneed: "free-then-dontneed"
      case .splitDontneed: "split-dontneed"
      case .cold: "cold"
      case .pageout: "pageout"
      case .decommit: "decommit"
      case .deferred: "deferred"
      }
    var text = name + (wholeBlocksOnly ? Self.suffix : "")
    if kind == .freeThenDontneed, secondStageNanoseconds != 10_000_000_000 {
      text += ":after=\(duration(secondStageNanoseconds))"
    }
    if kind == .deferred && !freesWholeBlocks { text += ":free-whole=off" }
    return text
  }

  /// Freed memory may stay charged until the kernel wants it.
  package var isLazy: Bool { kind == .free || kind == .freeThenDontneed || kind == .deferred }
}
