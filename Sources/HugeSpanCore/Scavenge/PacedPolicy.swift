// `paced`: memory above a goal goes in the background, for one percent of a processor's time, and not where it is dense.
//
// The rule of Go's background scavenger (mgcscavenge.go, Go 1.21 on):
//
//   goal     after each collection: memory in use at its end x how much the live heap grew or shrank since the one
//            before + 10 %. What is retained beyond it is released; nothing before the second collection.
//   pace     a run lasts a millisecond (in steps of 64 KiB), then the scavenger sleeps run time / ratio. The ratio starts at
//            0.001 and is set after each sleep by a PI controller (Kp 0.3375, Ti 3.2 ms, reset time 1 s, 0.001 to
//            1000) so that runs take 1 % of the time. A run that found nothing, or nothing to do, parks it until the
//            next collection, which also ends a sleep.
//   density  a chunk of 512 pages that has 96.875 % (496) of them in use, or had when the collection ended, is left alone.
//   order    the highest address first; memory that is freed above the place where the scavenger is waits for the next
//            collection. A hugepage that is free goes as one, of other ranges 64 KiB at a time.
//
// A heap that is told what is free has no collections. A generation stands for one; it ends when one would be due by
// Go's defaults: when in-use memory and what was allocated since reach twice what was in use at the beginning (GOGC 100), at least
// 4 MiB, or after two minutes. In use at its end, with what a collection is about to find dead, is the generation's peak; the live
// heap after it are the pages in use at that moment, and below 2 MiB it counts as that, as the heap goal is 4 MiB then. The processor is one, where Go counts GOMAXPROCS of them. The release of fragments when the heap grows is
// not taken over.

/// Go's background scavenger.
package struct PacedPolicy: ScavengePolicy {
  static var leastRun: UInt64 { 1_000_000 }
  static var quantumPages: Int { 16 }
  static var startingRatio: Double { 0.001 }
  static var cooldown: UInt64 { 5_000_000_000 }
  /// 4 MiB: no heap goal is lower.
  static var leastHeapGoal: Int { 1024 }
  static var extraShare: Double { 0.1 }

  let options: PacedOptions

  // The generation that runs.
  private var generations = 0
  private var began: UInt64 = 0
  private var usedAtBegin = 0
  private var usedAtTick = 0
  private var allocated = 0
  private var peak = 0
  /// Pages in use when the last generation ended.
  private var lastLive = 0
  /// Pages that may be retained; `Int.max` if nothing is to be done in this generation.
  package private(set) var goal = Int.max

  // The scavenger.
  private enum State { case parked, awake, sleeping }
  private var state = State.parked
  private var hasBegun = false
  private var now: UInt64 = 0
  private var ran: UInt64 = 0
  /// What the last run took, and whether that is known yet.
  private var worked: UInt64 = 0
  private var isWorkKnown = true
  package private(set) var ratio = PacedPolicy.startingRatio
  private var controller = PaceController()
  private var cooldownLeft: UInt64 = 0

  /// The rule with the budget and the period of `options`.
  package init(_ options: PacedOptions) { self.options = options }

  package mutating func plan(_ input: ScavengeInput) -> ScavengePlan {
    var order = ReleaseOrder(preferBroken: false, length: .longest)
    order.walk = .highest
    // Ten looks a second, so that a peak is seen.
    var plan = ScavengePlan(pages: 0, order: order, nextTick: 100_000_000)
    if !hasBegun || input.now < now {
      hasBegun = true
      now = input.now
      ran = input.now
      begin(input)
      plan.beginsGeneration = true
      return plan
    }
    now = input.now
    if !isWorkKnown {
      worked = max(input.releaseNanoseconds, PacedPolicy.leastRun)
      isWorkKnown = true
    }
    if endsGeneration(input) {
      plan.beginsGeneration = true
      if state == .parked { state = .awake }
      if state == .sleeping { wake() }
    }
    if state == .sleeping {
      let due = ran + worked + UInt64(min(Double(worked) / ratio, 1e18))
      if now < due {
        plan.nextTick = min(max(due - now, 1_000_000), plan.nextTick)
        return plan
      }
      wake()
    }
    if state == .parked { return plan }
    let retained = input.usedPages + input.releasablePages
    if retained <= goal {
      state = .parked
      return plan
    }
    plan.pages = retained - goal
    plan.roundPages = PacedPolicy.quantumPages
    plan.nanoseconds = PacedPolicy.leastRun
    ran = now
    isWorkKnown = false
    state = .sleeping
    return plan
  }

  package mutating func booked(wanted: Int, released: Int) {
    if wanted > 0 && released == 0 {
      state = .parked
      isWorkKnown = true
    }
  }

  // MARK: Generations

  private mutating func begin(_ input: ScavengeInput) {
    began = input.now
    usedAtBegin = input.usedPages
    usedAtTick = input.usedPages
    peak = input.usedPages
    allocated = 0
  }

  /// Follows the generation; at its end a goal is set and the next one begins.
  private mutating func endsGeneration(_ input: ScavengeInput) -> Bool {
    allocated += max(input.usedPages - usedAtTick + input.freedPages, 0)
    usedAtTick = input.usedPages
    peak = max(peak, input.usedPages)
    let heapGoal = max(2 * usedAtBegin, PacedPolicy.leastHeapGoal)
    if usedAtBegin + allocated < heapGoal && input.now - began < options.periodNanoseconds { return false }
    setGoal(input)
    generations += 1
    lastLive = input.usedPages
    begin(input)
    return true
  }

  private mutating func setGoal(_ input: ScavengeInput) {
    goal = .max
    if generations == 0 { return }
    let least = PacedPolicy.leastHeapGoal / 2
    let expected = Double(peak) * Double(max(input.usedPages, least)) / Double(max(lastLive, least))
    let pages = expected * (1 + PacedPolicy.extraShare)
    if !(pages < 0x1p40) { return }
    let whole = Int(pages)
    let rounded = Double(whole) < pages ? whole + 1 : whole
    if input.usedPages + input.releasablePages > rounded { goal = rounded }
  }

  // MARK: Pace

  /// Ends a sleep, and learns from it.
  private mutating func wake() {
    state = .awake
    let slept = now - ran > worked ? now - ran - worked : 0
    let period = slept + worked
    if cooldownLeft > 0 {
      cooldownLeft -= min(cooldownLeft, period)
      return
    }
    let share = Double(worked) / Double(period)
    if let next = controller.next(share, aim: options.budgetPercent / 100, period: Double(period)) {
      ratio = next
    } else {
      ratio = PacedPolicy.startingRatio
      cooldownLeft = PacedPolicy.cooldown
    }
  }
}

/// Go's PI controller: it answers with the ratio of work to sleep.
struct PaceController {
  private var integral: Double = 0

  private static var gain: Double { 0.3375 }
  private static var integralTime: Double { 3.2e6 }
  private static var resetTime: Double { 1e9 }
  static var least: Double { 0.001 }
  static var most: Double { 1000 }

  /// The next output for a sample that was taken over `period` nanoseconds; nil, and all forgotten, if that overflows.
  mutating func next(_ sample: Double, aim: Double, period: Double) -> Double? {
    let raw = PaceController.gain * (aim - sample) + integral
    if !raw.isFinite {
      integral = 0
      return nil
    }
    let output = min(max(raw, PaceController.least), PaceController.most)
    integral +=
      PaceController.gain * period / PaceController.integralTime * (aim - sample)
      + period / PaceController.resetTime * (output - raw)
    if !integral.isFinite {
      integral = 0
      return nil
    }
    return output
  }
}
