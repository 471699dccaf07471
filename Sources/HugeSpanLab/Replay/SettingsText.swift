// Policies and strategies as the libraries read them: `policy:seed,rate:50`.
//
// On the command line settings stand behind their policy's name and can be short; in HUGESPAN_CONF all keys stand side by side and have
// names of their own.

import HugeSpanCore

extension PolicyChoice {
  /// As HUGESPAN_CONF has it.
  package var settings: String {
    func word(_ isOn: Bool) -> String { isOn ? "on" : "off" }
    switch self {
    case .never, .immediate: return "policy:\(notation)"
    case .gperftools(let rate): return "policy:gperftools,rate:\(rate)"
    case .demandWindow(let options):
      return
        "policy:demand-window,release-rate:\(options.bytesPerSecond),short-interval:\(options.shortNanoseconds)ns,"
        + "long-interval:\(options.longNanoseconds)ns"
    case .decay(let options): return "policy:decay,decay-time:\(options.decayNanoseconds)ns"
    case .paced(let options):
      return "policy:paced,cpu-budget:\(options.budgetPercent),goal-period:\(options.periodNanoseconds)ns"
    case .rentOrBuy(let options):
      return
        "policy:rent-or-buy,memory-price:\(options.memoryPrice),rebuild:\(word(options.rebuild)),"
        + "steering:\(word(options.steering))"
    case .seed(let options):
      return
        "policy:seed,rate:\(options.rate),prefer-broken:\(word(options.preferBroken)),"
        + "prefer-long:\(word(options.preferLong)),discount-refaults:\(word(options.discountRefaults))"
    }
  }
}

extension StrategyChoice {
  /// As HUGESPAN_CONF has it.
  package var settings: String {
    let name = notation.prefix { $0 != ":" }
    switch kind {
    case .freeThenDontneed: return "strategy:\(name),second-stage:\(secondStageNanoseconds)ns"
    case .deferred: return "strategy:\(name),free-whole:\(freesWholeBlocks ? "on" : "off")"
    default: return "strategy:\(name)"
    }
  }
}
