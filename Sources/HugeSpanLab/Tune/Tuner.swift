// The search for a configuration: successive halving on the simulated kernel, then a look at what nobody was tuned on.
//
// Candidates are drawn, run on the beginning of each trace, the better third runs on more of it, and what is left runs on all of it;
// the best of those are varied for further rounds. So most of the time goes into the few that deserve it. A run is a replay on a
// simulated kernel of its own; as many run at once as there are processors. The same seed and the same number of rounds give the
// same answer; the budget cuts rounds short.
//
// A trace is cut into eight slices. Candidates are chosen by what the even ones cost (the first, the third, ...), and what is reported
// besides is the odd ones, which had no say. Halves were tried and refused: programs live in phases, and what is best for the
// first half may be the worst for what comes after (sqlite: 4 % better on the one, 17 % worse on the other). A slice is longer than
// the waits that are chosen between; what a release in one slice earns in the next is lost to both sides alike.
//
// Of several traces each counts the same: what counts is the cost by the default's on that trace.

import Dispatch
import HugeSpanCore
import Synchronization

/// What is looked for.
package enum TuningGoal: String, CaseIterable, Sendable {
  /// The least total: memory at its price, CPU time, TLB misses.
  case cost
  /// The most of the used memory on hugepages, for at most a quarter more memory than the default holds.
  case coverage
  /// The least memory charged.
  case memory
}

/// What a candidate came to on a stretch of all traces, each figure by the default's on the same stretch.
package struct Standing: Sendable {
  package var candidate: Candidate
  /// By trace.
  package var runs: [RunResult]
  /// Lower is better; infinite if it may not be.
  package var score = Double.infinity
}

/// What tuning is told.
package struct TuningRequest: Sendable {
  package var options = ReplayOptions()
  package var goal = TuningGoal.cost
  /// Seconds that the search may take.
  package var seconds = 40.0
  package var limitBytes: Int?
  package var seed: UInt64 = 1
  package var rounds = 6
  package var candidatesPerRound = 48
  package var jobs = 2

  package init() {}
}

/// Traces that are tuned on, decoded. Shared by the threads, which only read.
package final class TuningTraces: @unchecked Sendable {
  package let names: [String]
  private let programs: UnsafeMutablePointer<TraceProgram>
  package private(set) var count = 0

  package init(_ traces: [(name: String, path: String)]) throws {
    names = traces.map(\.name)
    programs = .allocate(capacity: max(traces.count, 1))
    // What was made goes with the object, also when the next trace is refused.
    for trace in traces {
      (programs + count).initialize(to: try TraceProgram(path: trace.path))
      count += 1
    }
  }

  /// The same traces, each `factor` times as fast.
  package init(_ other: TuningTraces, acceleratedBy factor: Double) {
    names = other.names
    count = other.count
    programs = .allocate(capacity: max(count, 1))
    for index in 0..<count {
      (programs + index).initialize(to: other.programs[index].accelerated(by: factor))
    }
  }

  deinit {
    programs.deinitialize(count: count)
    programs.deallocate()
  }

  package func summary(_ index: Int) -> ProgramTotals { programs[index].summary }

  /// Replays the first `slices` slices of trace `index`.
  package func run(
    _ index: Int, _ candidate: Candidate, _ base: ReplayOptions, slices: Int
  ) throws -> RunResult {
    var options = base
    guard case .rentOrBuy(var priced) = try PolicyChoice(notation: candidate.policy) else {
      options.policy = try PolicyChoice(notation: candidate.policy)
      return try finish(index, candidate, &options, slices)
    }
    priced.costs = base.costs
    options.policy = .rentOrBuy(priced)
    return try finish(index, candidate, &options, slices)
  }

  private func finish(
    _ index: Int, _ candidate: Candidate, _ options: inout ReplayOptions, _ slices: Int
  ) throws -> RunResult {
    options.strategy = try StrategyChoice(notation: candidate.strategy)
    if options.simulation == nil { options.simulation = SimulationOptions() }
    options.isTimed = false
    options.reference = false
    options.slices = Tuner.slices
    if slices < Tuner.slices {
      options.until = programs[index].summary.nanoseconds / UInt64(Tuner.slices) * UInt64(slices)
    }
    var result = try replay(programs[index], options: options, group: nil)
    result.trace = names[index]
    return result
  }
}

/// The search.
package final class Tuner {
  package let request: TuningRequest
  package let traces: TuningTraces
  /// Parts of each trace, and those of them that are tuned on and held out.
  package static let slices = 8
  package static let tuned = [0, 2, 4, 6]
  package static let heldOut = [1, 3, 5, 7]
  /// Slices that candidates have to survive.
  private static let stretches = [1, 3, 8]

  private var space: CandidateSpace
  private var defaults: [Int: [RunResult]] = [:]
  /// Everybody who ran all of the tuning part, the best first.
  package private(set) var field: [Standing] = []
  package private(set) var evaluations = 0
  package private(set) var isInterrupted = false
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant
  private let progress: ProgressLine

  package init(_ request: TuningRequest, _ traces: TuningTraces, progress: ProgressLine) {
    self.request = request
    self.traces = traces
    self.progress = progress
    space = CandidateSpace(memoryPrice: request.options.memoryPrice, seed: request.seed)
    start = clock.now
  }

  /// The default configuration, at the memory price that counts.
  package var standard: Candidate { space.first[0] }

  package var elapsed: Double {
    let parts = (clock.now - start).components
    return Double(parts.seconds) + Double(parts.attoseconds) / 1e18
  }

  private var isOver: Bool {
    if Interrupts.noted != nil { isInterrupted = true }
    return isInterrupted || elapsed > request.seconds
  }

  /// Searches until the rounds, the budget or the user's patience are at their end.
  package func search() throws {
    for length in Self.stretches { defaults[length] = try results(standard, length, request.options) }
    noteFinished(Standing(candidate: standard, runs: defaults[Self.slices]!))
    var seen: Set<Candidate> = [standard]
    for round in 0..<request.rounds where !isOver {
      var candidates: [Candidate] = []
      func add(_ candidate: Candidate) { if seen.insert(candidate).inserted { candidates.append(candidate) } }
      if round == 0 { space.first.forEach(add) }
      var attempts = 0
      while candidates.count < request.candidatesPerRound && attempts < 1000 {
        attempts += 1
        // From the second round on three of four are like one of the best.
        let isNew = round == 0 || attempts % 4 == 0
        add(isNew ? space.draw() : space.vary(field[attempts % min(field.count, 4)].candidate))
      }
      try halve(candidates, round)
    }
    progress.clear()
  }

  /// Runs `candidates` on longer and longer stretches, and on each only the better third of those before.
  private func halve(_ candidates: [Candidate], _ round: Int) throws {
    var left = candidates
    for length in Self.stretches {
      let standings = evaluate(left, length, round)
      if length == Self.slices {
        for standing in standings { noteFinished(standing) }
        return
      }
      let kept = standings.sorted { $0.score < $1.score }.prefix(max(left.count / 3, 4))
      left = kept.map(\.candidate)
      if isOver { return }
    }
  }

  private func noteFinished(_ standing: Standing) {
    var standing = standing
    standing.score = Self.score(standing.runs, against: defaults[Self.slices]!, Self.slices, request)
    field.append(standing)
    field.sort { $0.score < $1.score }
  }

  /// All of `candidates` on the first `length` slices of all traces.
  private func evaluate(_ candidates: [Candidate], _ length: Int, _ round: Int) -> [Standing] {
    let found = Mutex<[Int: Standing]>([:])
    let (traces, options, goal) = (traces, request.options, request)
    let reference = defaults[length]!
    let done = Atomic<Int>(0)
    let (total, number, limit) = (candidates.count, evaluations, self)
    progress.show(
      "round \(round + 1) of \(request.rounds), \(length) of \(Self.slices) slices: \(total) candidates; "
        + "\(number) runs so far, \(fixed(elapsed, 0)) s of \(fixed(request.seconds, 0)) s")
    nonisolated(unsafe) let tuner = limit
    let batches = max(1, request.jobs)
    DispatchQueue.concurrentPerform(iterations: batches) { batch in
      var index = batch
      while index < candidates.count {
        if Interrupts.noted != nil || (tuner.isLate && index >= batches) { return }
        let candidate = candidates[index]
        let runs = (0..<traces.count).map { try? traces.run($0, candidate, options, slices: length) }
        if runs.allSatisfy({ $0 != nil }) {
          var standing = Standing(candidate: candidate, runs: runs.map { $0! })
          standing.score = Tuner.score(standing.runs, against: reference, length, goal)
          found.withLock { $0[index] = standing }
        }
        done.add(1, ordering: .relaxed)
        index += batches
      }
    }
    evaluations += done.load(ordering: .relaxed) * traces.count
    return found.withLock { all in candidates.indices.compactMap { all[$0] } }
  }

  /// Too late to start another run, by a clock that all threads may read.
  nonisolated private var isLate: Bool {
    let parts = (ContinuousClock().now - start).components
    return Double(parts.seconds) > request.seconds
  }

  private func results(_ candidate: Candidate, _ length: Int, _ options: ReplayOptions) throws -> [RunResult] {
    try (0..<traces.count).map { try traces.run($0, candidate, options, slices: length) }
  }

  /// What a candidate is worth: 1 is the default's.
  private static func score(
    _ runs: [RunResult], against defaults: [RunResult], _ length: Int, _ request: TuningRequest
  ) -> Double {
    let slices = tuned.filter { $0 < length }
    var sum = 0.0
    for (run, standard) in zip(runs, defaults) {
      guard let own = TunedFigures(run, slices: slices), let usual = TunedFigures(standard, slices: slices)
      else { return .infinity }
      if let limit = request.limitBytes, run.chargedBytes?.peak ?? .infinity > Double(limit) { return .infinity }
      let costs = own.cost / max(usual.cost, 1e-9)
      switch request.goal {
      case .cost: sum += costs
      case .coverage:
        // Without a limit it may hold a quarter more than the default.
        if request.limitBytes == nil && own.chargedBytes > usual.chargedBytes * 1.25 { return .infinity }
        sum += 1 - own.coverage + 0.02 * costs
      case .memory: sum += own.chargedBytes / max(usual.chargedBytes, 1) + 0.02 * costs
      }
    }
    return sum / Double(max(runs.count, 1))
  }

  // MARK: After the search

  /// Those of the field that no other beats in memory, coverage and CPU time at once, by memory.
  package var front: [Standing] {
    func figures(_ standing: Standing) -> [Double] {
      let parts = standing.runs.compactMap { TunedFigures($0, slices: Self.tuned) }
      return [
        parts.reduce(0) { $0 + $1.chargedBytes }, -parts.reduce(0) { $0 + $1.coverage },
        parts.reduce(0) { $0 + $1.modelledCPUSeconds },
      ]
    }
    let all = field.filter { $0.score.isFinite }.map { ($0, figures($0)) }
    var front: [(Standing, [Double])] = []
    for (standing, own) in all {
      let isBeaten = all.contains { other in
        zip(other.1, own).allSatisfy { $0 <= $1 } && zip(other.1, own).contains { $0 < $1 }
      }
      if !isBeaten && !front.contains(where: { $0.1 == own }) { front.append((standing, own)) }
    }
    return front.sorted { $0.1[0] < $1.1[0] }.map(\.0)
  }

  /// What a configuration costs when the world is another, by what the best of `rivals` costs there: 1 is as good as any.
  package func sensitivity(of candidate: Candidate, rivals: [Candidate]) throws -> [Sensitivity] {
    var answers: [Sensitivity] = []
    for change in Sensitivity.Change.allCases {
      for factor in [0.7, 1.3] {
        if isOver && isInterrupted { return answers }
        var options = request.options
        var programs = traces
        switch change {
        case .load: programs = TuningTraces(traces, acceleratedBy: factor)
        case .busyShare: options.busyScale = factor
        case .memoryPrice: options.memoryPrice *= factor
        }
        func total(_ candidate: Candidate) throws -> Double {
          try (0..<programs.count).reduce(0) {
            $0 + (try programs.run($1, candidate, options, slices: Self.slices).cost ?? .infinity)
          }
        }
        let own = try total(candidate)
        let best = try rivals.map(total).min() ?? own
        answers.append(Sensitivity(change: change, factor: factor, costToBest: own / max(min(best, own), 1e-9)))
      }
    }
    return answers
  }
}

/// How much worse a configuration gets than the best one for a changed world.
package struct Sensitivity: Codable, Equatable, Sendable {
  package enum Change: String, CaseIterable, Codable, Sendable {
    case load, busyShare, memoryPrice
  }
  package var change: Change
  package var factor: Double
  package var costToBest: Double
}
