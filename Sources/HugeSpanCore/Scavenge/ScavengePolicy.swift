// What to release and when: the question a policy answers once a tick.
//
// A policy sees totals, answers with a plan, and learns what came of it. It makes no system call, reads no clock and
// holds no reference to the heap; so the same decisions can be replayed, compared with a model, and simulated. The plan
// says how many pages and in which order; finding them in that order is the heap's work (`Selection`), because only
// its lists can do it without looking at every block.

/// What a policy is told at a tick.
public struct ScavengeInput: Sendable {
  /// The caller's clock, in nanoseconds.
  public var now: UInt64 = 0
  /// Nanoseconds since the last tick.
  public var elapsed: UInt64 = 0
  /// CPU time of the process so far, in nanoseconds.
  public var processCPU: UInt64 = 0
  /// Pages that the caller freed since the last tick.
  public var freedPages: Int = 0
  /// Pages that came back from released state since the last tick.
  public var refaultedPages: Int = 0
  /// Free pages that could be released now.
  public var releasablePages: Int = 0
  /// Pages that are handed out, and not discarded.
  public var usedPages: Int = 0
  /// Pages that were released and are charged on, out of hugepages that are still whole.
  public var phantomPages: Int = 0
  /// Nanoseconds that calls which release memory took since the last tick, whoever ordered them.
  public var releaseNanoseconds: UInt64 = 0

  /// Nothing happened.
  public init() {}
}

/// In which order free memory is released.
public struct ReleaseOrder: Equatable, Sendable {
  /// How the next span is chosen by its length.
  public enum Length: UInt8, Sendable {
    /// The longest span first.
    case longest
    /// One span of each length in turn, as a free list per length gives them up.
    case roundRobin
  }
  /// Blocks that lost their hugepage first.
  public var preferBroken: Bool
  /// Which length is next.
  public var length: Length
  /// Wholly free blocks before everything else: the cheapest bytes first.
  public var wholeFirst: Bool = false
  /// No intact block is broken.
  package var sparesIntact: Bool = false
  /// Wholly free blocks and nothing else.
  package var wholeOnly: Bool = false
  /// Orders that no list has, and for which the blocks are gone through; they take the place of the others.
  package enum Walk: UInt8, Sendable {
    case none
    /// By the time of the last free into the block or release from it, the earliest first, to a sixteenth of the age.
    case oldest
    /// From the newest arena's last block down, a call's pages at a time; where a block is or was dense (496 of its 512
    /// pages used, now or when the generation began) nothing goes. It goes on where it was until a generation begins.
    case highest
  }
  /// Which walk, if any.
  package var walk: Walk = .none

  /// An order by these two.
  public init(preferBroken: Bool, length: Length) {
    self.preferBroken = preferBroken
    self.length = length
  }
}

/// What a policy wants done in a tick.
public struct ScavengePlan: Equatable, Sendable {
  /// Pages to release; the last span may overshoot.
  public var pages: Int = 0
  /// In which order.
  public var order = ReleaseOrder(preferBroken: true, length: .longest)
  /// Blocks whose phantom should be given back by splitting their hugepage.
  public var cures: Int = 0
  /// The next tick should come no later than this, in nanoseconds.
  public var nextTick: UInt64 = 1_000_000_000
  /// Parts of blocks only as long as no more pages than this have gone, wholly free blocks included.
  package var pagesWithParts: Int = .max
  /// Pages given to the kernel in one round; between rounds time is looked at.
  package var roundPages: Int = .max
  /// No further round when the calls of this tick took so long.
  package var nanoseconds: UInt64 = .max
  /// A generation begins, for `ReleaseOrder.Walk.highest`.
  package var beginsGeneration: Bool = false

  /// A plan; without arguments nothing is released, and a second passes.
  public init(
    pages: Int = 0, order: ReleaseOrder = ReleaseOrder(preferBroken: true, length: .longest), cures: Int = 0,
    nextTick: UInt64 = 1_000_000_000
  ) {
    self.pages = pages
    self.order = order
    self.cures = cures
    self.nextTick = nextTick
  }
}

/// A scavenge policy: a value with whatever memory it needs, asked at each tick.
public protocol ScavengePolicy: Sendable {
  /// Decides. Called once per tick, under the heap's lock: bounded work, no calls.
  mutating func plan(_ input: ScavengeInput) -> ScavengePlan
  /// Learns that a plan for `wanted` pages released `released`.
  mutating func booked(wanted: Int, released: Int)
}

/// The closed set of policies, each with its state.
enum PolicyState {
  case never
  case immediate(ImmediatePolicy)
  case counting(CountingPolicy)
  case demandWindow(DemandWindowPolicy)
  case decay(DecayPolicy)
  case paced(PacedPolicy)
  case rentOrBuy(RentOrBuyPolicy)
  case custom(CustomPolicy)

  init(
    _ choice: PolicyChoice, custom: CustomPolicy?, strategy: StrategyChoice, capabilities: KernelCapabilities
  ) {
    if let custom {
      self = .custom(custom)
      return
    }
    switch choice {
    case .never: self = .never
    case .immediate: self = .immediate(ImmediatePolicy())
    case .gperftools(let rate): self = .counting(CountingPolicy(gperftoolsRate: rate))
    case .seed(let options): self = .counting(CountingPolicy(seed: options))
    case .demandWindow(let options): self = .demandWindow(DemandWindowPolicy(options))
    case .decay(let options): self = .decay(DecayPolicy(options))
    case .paced(let options): self = .paced(PacedPolicy(options))
    case .rentOrBuy(let options):
      self = .rentOrBuy(RentOrBuyPolicy(options, strategy: strategy, capabilities: capabilities))
    }
  }

  /// Whether the policy keeps something of each block.
  var keepsAccounts: Bool {
    if case .rentOrBuy = self { return true }
    return false
  }

  mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    switch self {
    // The priced policy judges blocks (PageHeap+Judging) instead of ordering a number of pages.
    case .never, .rentOrBuy: return ScavengePlan()
    case .immediate(var policy):
      let plan = policy.plan(input)
      self = .immediate(policy)
      return plan
    case .counting(var policy):
      let plan = policy.plan(input)
      self = .counting(policy)
      return plan
    case .demandWindow(var policy):
      let plan = policy.plan(input)
      self = .demandWindow(policy)
      return plan
    case .decay(var policy):
      let plan = policy.plan(input)
      self = .decay(policy)
      return plan
    case .paced(var policy):
      let plan = policy.plan(input)
      self = .paced(policy)
      return plan
    case .custom(var policy): return policy.plan(input)
    }
  }

  mutating func booked(wanted: Int, released: Int) {
    switch self {
    case .never, .immediate, .decay, .rentOrBuy: break
    case .counting(var policy):
      policy.booked(wanted: wanted, released: released)
      self = .counting(policy)
    case .demandWindow(var policy):
      policy.booked(wanted: wanted, released: released)
      self = .demandWindow(policy)
    case .paced(var policy):
      policy.booked(wanted: wanted, released: released)
      self = .paced(policy)
    case .custom(var policy): policy.booked(wanted: wanted, released: released)
    }
  }
}
