// What tuning chooses from: a policy with its parameters and a strategy, and how new ones come about.
//
// Parameters are drawn on a logarithmic scale, because it is their ratio that matters, and are rounded to two digits, because more
// would pretend to a precision that no trace can give. Which combinations make sense is one table: a strategy that leaves all
// memory charged is not tried where memory counts, and one that splits is not tried whole.

import Glibc
import HugeSpanCore

/// A configuration of the heap.
package struct Candidate: Equatable, Hashable, Sendable {
  /// As they are written on the command line.
  package var policy: String
  package var strategy: String

  package init(policy: String, strategy: String) {
    self.policy = policy
    self.strategy = strategy
  }

  package var name: String { "\(policy)/\(strategy)" }

  /// The defaults of the library.
  package static let defaults = Candidate(
    policy: HeapOptions().policy.notation, strategy: HeapOptions().strategy.notation)

  /// As HUGESPAN_CONF and the libraries read it.
  package var settings: String {
    get throws(NotationError) {
      let policy = try PolicyChoice(notation: policy).settings
      return policy + "," + (try StrategyChoice(notation: strategy).settings)
    }
  }
}

/// Where candidates come from.
struct CandidateSpace {
  let memoryPrice: Double
  private var random: SeededRandom

  init(memoryPrice: Double, seed: UInt64) {
    self.memoryPrice = memoryPrice
    random = SeededRandom(seed: seed)
  }

  /// What everybody would try first: the default, and each policy as its source has it.
  var first: [Candidate] {
    let own = "rent-or-buy" + (memoryPrice == 400 ? "" : ":price=\(plain(memoryPrice))")
    var candidates = [Candidate(policy: own, strategy: "split-dontneed")]
    for policy in ["rent-or-buy", "seed", "decay", "demand-window", "gperftools", "paced", "immediate"] {
      let notation = policy == "rent-or-buy" ? own : policy
      for strategy in ["split-dontneed", "dontneed-whole"] {
        let candidate = Candidate(policy: notation, strategy: strategy)
        if !candidates.contains(candidate) { candidates.append(candidate) }
      }
    }
    return candidates + [Candidate(policy: "never", strategy: "keep"), Candidate(policy: own, strategy: "deferred")]
  }

  private mutating func between(_ low: Double, _ high: Double) -> Double {
    let position = Double(random.next() >> 11) / Double(1 << 53)
    return low * pow(high / low, position)
  }

  private mutating func pick<T>(_ values: [T]) -> T { values[Int(random.next() % UInt64(values.count))] }

  /// Two significant digits.
  private static func rounded(_ value: Double) -> String {
    if value <= 0 { return "0" }
    var scale = 1.0
    while value * scale < 10 { scale *= 10 }
    while value * scale >= 100 { scale /= 10 }
    let number = (value * scale).rounded() / scale
    return number >= 1 ? plain((number * 100).rounded() / 100) : plain((number * 1e6).rounded() / 1e6)
  }

  private static func seconds(_ value: Double) -> String {
    value >= 10 ? "\(Int(value.rounded()))s" : "\(Int((value * 1000).rounded()))ms"
  }

  /// Something new.
  mutating func draw() -> Candidate {
    let strategy = pick([
      "split-dontneed", "split-dontneed", "split-dontneed-whole", "dontneed-whole", "dontneed",
      "free-then-dontneed-whole",
      "deferred",
    ])
    return Candidate(policy: drawPolicy(), strategy: strategy)
  }

  private mutating func drawPolicy() -> String {
    switch pick([0, 0, 0, 0, 1, 2, 3, 4, 5]) {
    case 0:
      var parts = ["price=\(Self.rounded(max(memoryPrice, 1) * between(0.15, 6)))"]
      if pick([true, false, false, false]) { parts.append("rebuild=off") }
      if pick([true, false, false, false]) { parts.append("steering=off") }
      return "rent-or-buy:" + parts.joined(separator: ",")
    case 1: return "seed:rate=\(Self.rounded(between(20, 5000)))"
    case 2: return "decay:time=\(Self.seconds(between(0.3, 120)))"
    case 3:
      return "demand-window:rate=\(Self.rounded(between(4, 1000))),short=\(Self.seconds(between(1, 100))),"
        + "long=\(Self.seconds(between(5, 500)))"
    case 4: return "gperftools:rate=\(Self.rounded(between(0.1, 20)))"
    default: return "paced:cpu=\(Self.rounded(between(0.1, 10))),period=\(Self.seconds(between(5, 200)))"
    }
  }

  /// Something like `candidate`: each number a little up or down, now and then a switch or the strategy.
  mutating func vary(_ candidate: Candidate) -> Candidate {
    var result = candidate
    let sides = candidate.policy.split(separator: ":", maxSplits: 1).map(String.init)
    if sides[0] == "rent-or-buy" && sides.count == 1 {
      result.policy = "rent-or-buy:price=\(Self.rounded(max(memoryPrice, 1) * between(0.5, 2)))"
      return result
    }
    if sides.count == 2 {
      let parts = sides[1].split(separator: ",").map { part -> String in
        let pair = part.split(separator: "=", maxSplits: 1).map(String.init)
        if pair[1] == "off" { return pick([true, false]) ? "" : String(part) }
        if pair[1] == "on" { return String(part) }
        let unit = pair[1].hasSuffix("ms") ? 0.001 : 1
        let isTime = pair[1].hasSuffix("s")
        guard let number = Double(pair[1].prefix { $0.isNumber || $0 == "." || $0 == "e" || $0 == "-" }) else {
          return String(part)
        }
        let next = number * unit * between(0.6, 1.6)
        return "\(pair[0])=\(isTime ? Self.seconds(min(next, 590)) : Self.rounded(next))"
      }.filter { !$0.isEmpty }
      result.policy = parts.isEmpty ? sides[0] : sides[0] + ":" + parts.joined(separator: ",")
    }
    if pick([true, false, false, false, false]) || sides.count == 1 { result.strategy = draw().strategy }
    // A number that left its bounds makes no policy.
    guard (try? PolicyChoice(notation: result.policy)) != nil else { return candidate }
    return result
  }
}
