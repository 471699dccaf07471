import HugeSpanCore
import Testing

@testable import HugeSpanLab

@Suite("Policies and strategies as they are written")
struct NotationTests {
  @Test(
    "what was read is written the same way",
    arguments: [
      "never", "immediate", "gperftools", "gperftools:rate=10", "gperftools:rate=0.5", "seed", "seed:rate=50",
      "seed:prefer-broken=off", "seed:rate=250,prefer-long=off,discount-refaults=off", "demand-window",
      "demand-window:rate=0.5,short=10s,long=90s", "demand-window:short=0s,long=0s", "decay", "decay:time=0s",
      "decay:time=250ms", "paced", "paced:cpu=0.5,period=1500ms",
    ])
  func policies(_ text: String) throws { #expect(try PolicyChoice(notation: text).notation == text) }

  @Test(
    "strategies too",
    arguments: [
      "keep", "dontneed", "dontneed-whole", "free", "free-whole", "free-then-dontneed", "free-then-dontneed-whole",
      "free-then-dontneed:after=2s", "free-then-dontneed-whole:after=250ms", "split-dontneed", "split-dontneed-whole",
      "cold", "cold-whole", "pageout", "pageout-whole", "decommit",
      "deferred", "deferred:free-whole=off",
    ])
  func strategies(_ text: String) throws { #expect(try StrategyChoice(notation: text).notation == text) }

  @Test("settings mean what they say")
  func settings() throws {
    #expect(try PolicyChoice(notation: "gperftools:rate=10") == .gperftools(rate: 10))
    var options = SeedOptions()
    options.preferBroken = false
    #expect(try PolicyChoice(notation: "seed:prefer-broken=off,rate=100") == .seed(options))
    var demand = DemandWindowOptions()
    demand.bytesPerSecond = 3 << 19
    demand.longNanoseconds = 600_000_000_000
    #expect(try PolicyChoice(notation: "demand-window:rate=1.5,long=10m") == .demandWindow(demand))
    let strategy = try StrategyChoice(notation: "free-then-dontneed-whole:after=2m")
    #expect(strategy.secondStageNanoseconds == 120_000_000_000 && strategy.wholeBlocksOnly)
    #expect(strategy.isLazy)
    #expect(try !StrategyChoice(notation: "dontneed").isLazy)
  }

  @Test(
    "a mistake is named, with what is known",
    arguments: [
      ("lazy", "unknown policy 'lazy' (known: never, immediate, gperftools, seed"),
      ("seed:speed=1", "seed has no setting 'speed' (known: rate, prefer-broken, prefer-long, discount-refaults)"),
      ("seed:rate=fast", "seed: rate=fast is not a number in 0.01...100000"),
      ("gperftools:rate=1000", "gperftools: rate=1000 is not a number in 0.01...100"),
      ("seed:prefer-long=maybe", "seed: prefer-long=maybe is neither 'on' nor 'off'"),
      ("decay:time=soon", "decay: time=soon is not a time such as 500ms, 10s or 2m"),
      ("demand-window:long=11m", "demand-window: long=11m is more than 600s"),
      ("paced:cpu=0", "paced: cpu=0 is not a number in 0.01...100"),
      ("never:rate=1", "never has no settings, but 'rate' is set"),
      ("seed:rate", "'rate' in 'seed:rate' is no setting; a setting is NAME=VALUE"),
      ("seed:rate=1,rate=2", "'rate' is set twice in 'seed:rate=1,rate=2'"),
    ])
  func policyMistakes(_ text: String, _ message: String) {
    #expect { try PolicyChoice(notation: text) } throws: { ($0 as? NotationError)?.message.hasPrefix(message) == true }
  }

  @Test(
    "strategy mistakes",
    arguments: ["zap", "keep-whole", "decommit-whole", "-whole", "free:after=1s", "free-then-dontneed:after=1"])
  func strategyMistakes(_ text: String) {
    #expect(throws: NotationError.self) { try StrategyChoice(notation: text) }
  }

  @Test("every name that is known can be read")
  func known() throws {
    for choice in PolicyChoice.knownNames { _ = try PolicyChoice(notation: choice.name) }
    for choice in StrategyChoice.knownNames { _ = try StrategyChoice(notation: choice.name) }
  }
}
