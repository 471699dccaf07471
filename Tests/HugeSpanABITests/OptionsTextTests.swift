// Options as text, the form of HUGESPAN_CONF.

import CHugeSpan
import Foundation
import HugeSpanABI
import Testing

/// What a text came to.
private struct Outcome {
  var status: hs_status
  var options = hs_options()
  var process = hs_process_options()
  var message = ""
  var wrong = ""
  /// The path in `process`, which points into the text.
  var statisticsPath: String?
}

private func parse(_ text: String, withProcess: Bool = true) -> Outcome {
  var outcome = Outcome(status: HS_OK)
  hs_options_init(&outcome.options, MemoryLayout<hs_options>.size)
  hs_process_options_init(&outcome.process, MemoryLayout<hs_process_options>.size)
  var error = hs_options_error()
  text.withCString { pointer in
    outcome.status =
      withProcess
      ? hs_options_parse(pointer, &outcome.options, &outcome.process, &error)
      : hs_options_parse(pointer, &outcome.options, nil, &error)
    if let path = outcome.process.statistics_path {
      let bytes = UnsafeRawBufferPointer(start: path, count: outcome.process.statistics_path_length)
      outcome.statisticsPath = String(decoding: bytes, as: UTF8.self)
    }
  }
  if outcome.status != HS_OK {
    outcome.message = withUnsafeBytes(of: error.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    outcome.wrong = String(decoding: Array(text.utf8)[error.offset..<error.offset + error.length], as: UTF8.self)
  }
  return outcome
}

/// A key with values that it takes and values that it does not.
private let samples: [(key: String, good: [String], bad: [String])] = [
  (
    "policy", ["never", "immediate", "gperftools", "seed", "demand-window", "decay", "paced", "rent-or-buy"],
    ["", "Seed", "seed:rate=5", "none"]
  ),
  ("rate", ["0", "1", "0.5", "1000000", "1.25"], ["", "-1", "1e3", "1000001", "fast", "1s", ".", "1.2.3"]),
  ("prefer-broken", ["on", "off"], ["", "true", "1", "ON"]),
  ("prefer-long", ["on", "off"], ["yes"]),
  ("discount-refaults", ["on", "off"], ["no"]),
  ("release-rate", ["0", "32MiB", "4096", "1TB"], ["", "-1", "32MiB/s", "fast"]),
  ("short-interval", ["0", "60s", "10m", "500ms"], ["", "60", "11m", "601s"]),
  ("long-interval", ["0", "300s", "600s"], ["", "1h", "s"]),
  ("decay-time", ["0", "10s", "1h", "9ns"], ["", "10", "soon"]),
  ("cpu-budget", ["1", "0.01", "100"], ["", "0", "101", "1%", "-1"]),
  ("goal-period", ["120s", "2m", "0"], ["", "2"]),
  ("memory-price", ["0", "400", "0.5", "1000000000"], ["", "-1", "1000000001", "cheap"]),
  ("rebuild", ["on", "off"], ["maybe"]),
  ("steering", ["on", "off"], [""]),
  (
    "costs",
    [
      "split=170", "split=1.5/taxShare=1/coldAfter=0", "releaseCall=1/releaseRange=1/releasePage=0/releaseBlock=9",
      "pageFault=1/blockFault=2/coldBlockFault=10000000/collapse=4/cure=5",
    ], ["", "split", "split=", "splitt=1", "split=-1", "split=1/", "/split=1", "taxShare=1.1", "cure=10000001", "=1"]
  ),
  (
    "strategy",
    [
      "keep", "dontneed", "free", "free-then-dontneed", "split-dontneed", "dontneed-whole", "free-whole",
      "free-then-dontneed-whole", "split-dontneed-whole", "cold", "pageout", "cold-whole", "pageout-whole", "decommit",
      "deferred",
    ], ["", "-whole", "keep-whole", "decommit-whole", "deferred-whole", "dontneed-whole-whole", "split"]
  ),
  ("second-stage", ["10s", "0", "500ms", "2m", "1h", "7us", "9ns"], ["", "10", "s", "10 s", "99999999999999999h"]),
  ("free-whole", ["on", "off"], ["yes"]),
  ("pressure-limit", ["0", "600MiB"], ["some"]),
  (
    "soft-limit", ["0", "4096", "512MiB", "1.5G", "2TB", "1B", "3K", "4kB"], ["", "-1", "1.5", "G", "10Q", "99999999T"]
  ),
  ("hard-limit", ["0", "4GiB"], ["lots"]),
  ("huge-pages", ["on", "off"], ["madvise"]),
  ("moving", ["on", "off"], ["1"]),
  ("first-arena", ["2MiB", "64TiB"], ["0", "1MiB", "65TiB"]),
  ("scavenger", ["on", "bare", "off"], ["maybe", "bar", "barely"]),
  ("statistics", ["/tmp/x", "a b", "%p.json", "100%%:x"], ["", "%", "%d", "a%"]),
  ("page", ["on", "off"], ["", "1", "yes"]),
]

@Suite struct OptionsTextTests {
  @Test func pricesThatAreNotNamedStay() {
    let outcome = parse("costs:split=394/coldBlockFault=4800,costs:cure=7")
    #expect(outcome.status == HS_OK)
    #expect(outcome.options.costs.split == 394 && outcome.options.costs.cold_block_fault == 4800)
    #expect(outcome.options.costs.cure == 7 && outcome.options.costs.collapse == 400)
    #expect(outcome.options.costs.tax_share == 0.15)
  }

  @Test func everyKeyTakesItsValuesAndNoOthers() {
    for sample in samples {
      for value in sample.good {
        let outcome = parse("\(sample.key):\(value)")
        #expect(outcome.status == HS_OK, "\(sample.key):\(value): \(outcome.message)")
        var options = outcome.options
        var handle: OpaquePointer?
        // What is accepted as text is accepted as options, wherever the kernel can do it.
        let status = hs_heap_create(&options, &handle)
        #expect(status != HS_INVALID, "\(sample.key):\(value)")
        if status == HS_OK { hs_heap_destroy(handle!) }
      }
      for value in sample.bad {
        let outcome = parse("rate:7,\(sample.key):\(value),rate:9")
        #expect(outcome.status == HS_INVALID, "\(sample.key):\(value)")
        #expect(outcome.wrong == value && outcome.options.rate == 100, "nothing has changed")
        #expect(outcome.message.hasPrefix("\(sample.key): '\(value)' is not "), "\(outcome.message)")
      }
    }
  }

  @Test func theMemoryPriceGoesWithItsPolicy() {
    let outcome = parse("policy:rent-or-buy,memory-price:1600,rebuild:off")
    #expect(outcome.options.policy_kind == HS_POLICY_RENT_OR_BUY && outcome.options.memory_price == 1600)
    #expect(!outcome.options.rebuild && outcome.options.steering)
    var options = outcome.options
    var heap: OpaquePointer?
    #expect(hs_heap_create(&options, &heap) == HS_OK)
    if let heap { hs_heap_destroy(heap) }
    options.memory_price = -1
    #expect(hs_heap_create(&options, &heap) == HS_INVALID)
  }

  @Test func policiesOfOthersHaveTheirDefaultsAndTheirSettings() {
    let defaults = parse("policy:decay").options
    #expect(defaults.policy_kind == HS_POLICY_DECAY && defaults.decay_nanoseconds == 10_000_000_000)
    #expect(defaults.release_rate == 32 << 20 && defaults.short_interval_nanoseconds == 60_000_000_000)
    #expect(defaults.long_interval_nanoseconds == 300_000_000_000)
    #expect(defaults.cpu_budget_percent == 1 && defaults.goal_period_nanoseconds == 120_000_000_000)
    let given = parse(
      "policy:paced,decay-time:1s,release-rate:1MiB,short-interval:2s,long-interval:3s,cpu-budget:4,goal-period:5s")
    #expect(given.options.policy_kind == HS_POLICY_PACED && given.options.decay_nanoseconds == 1_000_000_000)
    #expect(given.options.release_rate == 1 << 20 && given.options.short_interval_nanoseconds == 2_000_000_000)
    #expect(given.options.long_interval_nanoseconds == 3_000_000_000)
    #expect(given.options.cpu_budget_percent == 4 && given.options.goal_period_nanoseconds == 5_000_000_000)
    // What the text refuses, the options refuse too.
    var heap: OpaquePointer?
    var options = given.options
    options.cpu_budget_percent = 0
    #expect(hs_heap_create(&options, &heap) == HS_INVALID)
    options.cpu_budget_percent = .nan
    #expect(hs_heap_create(&options, &heap) == HS_INVALID)
    options = given.options
    options.policy_kind = HS_POLICY_DEMAND_WINDOW
    options.long_interval_nanoseconds = 600_000_000_001
    #expect(hs_heap_create(&options, &heap) == HS_INVALID)
  }

  @Test func anUnknownKeyIsNamedWithTheKnownOnes() {
    let outcome = parse("policy:never,memmory:4")
    #expect(outcome.status == HS_INVALID && outcome.wrong == "memmory")
    #expect(outcome.message.hasPrefix("unknown key 'memmory' (known: "))
    let known = outcome.message.dropFirst("unknown key 'memmory' (known: ".count).dropLast()
    #expect(known.split(separator: ",").map { $0.drop { $0 == " " } } == samples.map { $0.key[...] })
    // A heap alone has no process.
    let alone = parse("scavenger:on", withProcess: false)
    #expect(alone.status == HS_INVALID && alone.message.hasPrefix("unknown key 'scavenger'"))
    #expect(!alone.message.contains("statistics"))
  }

  @Test func valuesArriveWhereTheyBelong() {
    let text = """
      policy:seed,rate:12.5,prefer-broken:off,prefer-long:off,discount-refaults:off,strategy:free-then-dontneed-whole,\
      second-stage:1500ms,soft-limit:1.5GiB,hard-limit:2GB,huge-pages:off,moving:off,first-arena:64M,scavenger:off,\
      statistics:/tmp/a b:%p.json
      """
    let outcome = parse(text)
    let options = outcome.options
    #expect(outcome.status == HS_OK)
    #expect(options.policy_kind == HS_POLICY_SEED && options.rate == 12.5)
    #expect(!options.prefer_broken && !options.prefer_long && !options.discount_refaults)
    #expect(options.strategy_kind == HS_STRATEGY_FREE_THEN_DONTNEED && options.whole_blocks_only)
    #expect(options.second_stage_nanoseconds == 1_500_000_000)
    #expect(options.soft_limit_bytes == 3 << 29 && options.hard_limit_bytes == 2_000_000_000)
    #expect(!options.advise_huge_pages && !options.move_blocks && options.first_arena_bytes == 64 << 20)
    #expect(!outcome.process.scavenger && outcome.statisticsPath == "/tmp/a b:%p.json")
  }

  @Test func theLastValueOfAKeyCountsAndAnEmptyTextChangesNothing() {
    #expect(parse("").status == HS_OK)
    #expect(parse("strategy:dontneed-whole,strategy:free").options.whole_blocks_only == false)
    #expect(parse("policy:never,policy:immediate").options.policy_kind == HS_POLICY_IMMEDIATE)
  }

  @Test func theRateThatIsNotGivenIsThePolicysOwn() {
    #expect(parse("policy:gperftools").options.rate == 1)
    #expect(parse("policy:gperftools,policy:seed").options.rate == 100)
    #expect(parse("rate:3,policy:gperftools").options.rate == 3)
  }

  @Test(arguments: [",", "policy", "policy:seed,", ",policy:seed", ":", ":x", "a,b", "policy=seed"])
  func whatIsNoPairIsNamed(_ text: String) {
    let outcome = parse(text)
    #expect(outcome.status == HS_INVALID && outcome.message.contains("is no setting; a setting is KEY:VALUE"))
  }

  @Test func structuresOfAnOlderHeaderAreRefused() {
    var options = hs_options()
    hs_options_init(&options, MemoryLayout<hs_options>.size)
    options.size -= 8
    #expect(hs_options_parse("policy:never", &options, nil, nil) == HS_INVALID)
  }

  @Test func messagesOfLongAndGarbledTextsStayInTheirBuffer() {
    let outcome = parse(String(repeating: "x\u{1B}", count: 100_000) + ":1")
    #expect(outcome.status == HS_INVALID && outcome.message.utf8.count < 512)
    #expect(outcome.message.contains("'x?x?") && !outcome.message.contains("\u{1B}"))
  }

  @Test func noTextIsReadPastItsEnd() {
    var random = SystemRandomNumberGenerator()
    let seed = UInt64.random(in: 0...UInt64.max, using: &random)
    var state = seed
    func next(_ bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    let parts =
      samples.map(\.key) + samples.flatMap(\.good) + samples.flatMap(\.bad) + [":", ",", "%", "\u{7F}", "é"]
    for _ in 0..<20_000 {
      let text = (0..<next(12)).map { _ in next(3) == 0 ? [":", ","][next(2)] : parts[next(parts.count)] }.joined()
      let outcome = parse(text)
      let isWhole = outcome.status == HS_OK || outcome.status == HS_INVALID && !outcome.message.isEmpty
      #expect(isWhole, "seed \(seed): \(text)")
    }
  }
}

@Suite struct AFileOfSettings {
  private func written(_ text: String, _ body: (String) throws -> Void) throws {
    let path = NSTemporaryDirectory() + "hugespan-settings-\(UUID().uuidString)"
    try text.write(toFile: path, atomically: false, encoding: .utf8)
    defer { try? FileManager.default.removeItem(atPath: path) }
    try body(path)
  }

  @Test func isReadLikeTheText() throws {
    let text = "# by hand\n\n policy:decay , decay-time:3s\r\nstrategy:dontneed-whole # whole\nsoft-limit:64MiB"
    try written(text) { path in
      let outcome = parse("@\(path)")
      #expect(outcome.status == HS_OK, "\(outcome.message)")
      #expect(outcome.options.policy_kind == HS_POLICY_DECAY && outcome.options.decay_nanoseconds == 3_000_000_000)
      #expect(outcome.options.strategy_kind == HS_STRATEGY_DONTNEED && outcome.options.soft_limit_bytes == 64 << 20)
      // What comes behind it has the last word.
      let later = parse("policy:seed,@\(path),soft-limit:1GiB")
      #expect(later.options.policy_kind == HS_POLICY_DECAY && later.options.soft_limit_bytes == 1 << 30)
    }
  }

  @Test(arguments: [
    ("policy:seed\nrat:5\n", "line 2: unknown key 'rat'"), ("policy:no\n", "line 1: policy: 'no' is not one of"),
    ("\n\n# fine\nwhat", "line 4: 'what' is no setting"),
    ("statistics:/tmp/x", "line 1: 'statistics:/tmp/x' is no setting"),
    ("@/etc/passwd", "line 1: '@/etc/passwd' is no setting"),
  ])
  func saysWhichLineIsWrong(text: String, message: String) throws {
    try written(text) { path in
      let outcome = parse("soft-limit:1GiB,@\(path)")
      #expect(outcome.status == HS_INVALID && outcome.message.contains(message), "\(outcome.message)")
      #expect(
        outcome.wrong == "@\(path)" && outcome.options.soft_limit_bytes == 0 && outcome.process.statistics_path == nil)
    }
  }

  @Test func hasToBeThereAndSmall() throws {
    for name in ["@/nowhere/at/all", "@"] {
      let outcome = parse(name)
      #expect(outcome.status == HS_INVALID && outcome.message.contains("no such file of settings"))
    }
    for (count, status) in [(8192, HS_INVALID), (8191, HS_OK)] {
      try written(String(repeating: "#", count: count)) { path in #expect(parse("@\(path)").status == status) }
    }
  }
}
