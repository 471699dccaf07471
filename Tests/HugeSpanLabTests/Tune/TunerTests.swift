// The search for a configuration: what it draws can be run and written down, and what it finds is what was asked for.

import Foundation
import HugeSpanCore
import TestSupport
import Testing
import TraceFormat

@testable import HugeSpanLab

/// A program that is busy and big, idle and small, in turns.
private func tidalTrace(_ folder: TemporaryFolder, name: String = "tide") throws -> String {
  var events: [TraceEvent] = []
  var cpu: UInt64 = 0
  func sample(_ time: UInt64, _ bytes: Int) {
    events.append(
      TraceEvent(
        time: time, thread: 0,
        body: .sample(
          ProgramSample(
            cpuNanoseconds: cpu, anonymousBytes: bytes, hugeBytes: 0, minorFaults: 0, majorFaults: 0))))
  }
  var next = 0
  var live: [Int] = []
  for tide in 0..<8 {
    let start = UInt64(tide) * 4_000_000_000
    for step in 0..<120 {
      let time = start + UInt64(step) * 10_000_000
      events.append(allocation(next, 300_000, at: time))
      live.append(next)
      next += 1
      cpu += 9_000_000
      if step % 10 == 0 { sample(time, live.count * 300_000) }
    }
    for object in live where object % 7 != 0 { events.append(release(object, at: start + 1_300_000_000)) }
    live.removeAll { $0 % 7 != 0 }
    for step in 13..<40 { sample(start + UInt64(step) * 100_000_000 + 1, live.count * 300_000) }
  }
  let path = folder.path + "/\(name).hstrace"
  let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  defer { close(file) }
  var writer = try TraceWriter(header: TraceHeader(program: "tide"), output: .descriptor(file))
  for event in events.sorted(by: { $0.time < $1.time }) { try writer.append(event) }
  try writer.finish(.exited(status: 0))
  return path
}

@Suite struct Tuning {
  private func tuner(_ configure: (inout TuningRequest) -> Void = { _ in }) throws -> Tuner {
    let folder = try TemporaryFolder()
    var request = TuningRequest()
    request.options.simulation = SimulationOptions()
    request.options.samples = 100
    request.rounds = 2
    request.candidatesPerRound = 16
    request.seconds = 120
    configure(&request)
    let traces = try withExtendedLifetime(folder) { try TuningTraces([("tide", tidalTrace(folder))]) }
    let tuner = Tuner(request, traces, progress: ProgressLine())
    try tuner.search()
    return tuner
  }

  @Test("draws and varies configurations that can be run and written down", arguments: [1, 2, 3])
  func draws(seed: UInt64) throws {
    var space = CandidateSpace(memoryPrice: [400, 25, 0][Int(seed) - 1], seed: seed)
    var candidates = space.first
    for _ in 0..<400 {
      candidates.append(space.draw())
      candidates.append(space.vary(candidates[candidates.count / 2]))
    }
    #expect(Set(candidates).count > 300)
    for candidate in candidates {
      let policy = try PolicyChoice(notation: candidate.policy)
      let strategy = try StrategyChoice(notation: candidate.strategy)
      #expect(try candidate.settings == policy.settings + "," + strategy.settings)
    }
  }

  @Test("gives the same answer for the same seed, on one thread or three, and orders it")
  func isDeterministic() throws {
    let one = try tuner { $0.jobs = 1 }
    let three = try tuner { $0.jobs = 3 }
    #expect(one.field.map(\.candidate) == three.field.map(\.candidate))
    #expect(one.field.map(\.score) == three.field.map(\.score))
    #expect(one.field.map(\.score) == one.field.map(\.score).sorted() && one.field.count >= 8)
    #expect(one.field.contains { $0.candidate == one.standard && $0.score == 1 })
    #expect(one.evaluations == three.evaluations && one.evaluations > 32)
  }

  @Test("finds what the goal asks for")
  func reachesItsGoal() throws {
    let least = try tuner { $0.goal = .memory }
    let most = try tuner { $0.goal = .coverage }
    func figures(_ tuner: Tuner) throws -> TunedFigures {
      try #require(TunedFigures(tuner.field[0].runs[0], slices: Tuner.tuned))
    }
    let (memory, coverage) = (try figures(least), try figures(most))
    #expect(memory.chargedBytes < coverage.chargedBytes && memory.coverage <= coverage.coverage)
    let standard = try #require(least.field.first { $0.candidate == least.standard })
    #expect(memory.chargedBytes <= (try #require(TunedFigures(standard.runs[0], slices: Tuner.tuned))).chargedBytes)
  }

  @Test("keeps within the limit, and finds nothing where nothing does")
  func keepsWithinLimit() throws {
    let free = try tuner()
    let peaks = free.field.compactMap { $0.runs[0].chargedBytes?.peak }.sorted()
    let limit = Int((peaks[0] + peaks[peaks.count - 1]) / 2)
    let bound = try tuner { $0.limitBytes = limit }
    #expect(bound.field[0].score.isFinite && bound.field[0].runs[0].chargedBytes!.peak <= Double(limit))
    #expect(bound.field.contains { !$0.score.isFinite })
    let none = try tuner { $0.limitBytes = 1 << 20 }
    #expect(none.field.allSatisfy { !$0.score.isFinite } && none.front.isEmpty)
  }

  @Test("shows a front of which none beats another, and how it fares in another world")
  func hasAFront() throws {
    let tuner = try tuner()
    let front = tuner.front.map { TunedFigures($0.runs[0], slices: Tuner.tuned)! }
    #expect(front.count > 1)
    for one in front {
      for other in front where other != one {
        #expect(
          !(other.chargedBytes <= one.chargedBytes && other.coverage >= one.coverage
            && other.modelledCPUSeconds <= one.modelledCPUSeconds))
      }
    }
    let sensitivity = try tuner.sensitivity(
      of: tuner.field[0].candidate, rivals: tuner.field.prefix(4).map(\.candidate))
    #expect(sensitivity.count == 6 && sensitivity.allSatisfy { $0.costToBest >= 1 && $0.costToBest < 10 })
    // The worst of the field is worse than the best of the front somewhere.
    let worst = try tuner.sensitivity(of: tuner.field.last!.candidate, rivals: [tuner.field[0].candidate])
    #expect(worst.contains { $0.costToBest > 1.01 })
  }

  @Test("reckons slices that add up to the whole run")
  func slicesAddUp() throws {
    let tuner = try tuner { $0.rounds = 1 }
    let run = tuner.field[0].runs[0]
    let all = try #require(TunedFigures(run, slices: Array(0..<Tuner.slices)))
    #expect(abs(all.cost - run.cost!) < 1e-9 && abs(all.chargedBytes / run.chargedBytes!.mean - 1) < 1e-6)
    #expect(abs(all.coverage - run.coverage!) < 1e-6 && abs(all.modelledCPUSeconds - run.modelledCPUSeconds!) < 1e-9)
    let (tuned, rest) = (TunedFigures(run, slices: Tuner.tuned)!, TunedFigures(run, slices: Tuner.heldOut)!)
    #expect(abs(tuned.cost + rest.cost - all.cost) < 1e-9 && tuned.cost > 0 && rest.cost > 0)
    #expect(TunedFigures(run, slices: [8]) == nil)
  }

  @Test("a program that runs faster costs less rent, and one that is busier more tax")
  func scalesTheWorld() throws {
    let folder = try TemporaryFolder()
    let traces = try withExtendedLifetime(folder) { try TuningTraces([("tide", tidalTrace(folder))]) }
    var options = ReplayOptions()
    options.samples = 100
    let never = Candidate(policy: "never", strategy: "keep")
    let plain = try traces.run(0, never, options, slices: 8)
    let fast = try TuningTraces(traces, acceleratedBy: 2).run(0, never, options, slices: 8)
    #expect(
      abs(fast.seconds * 2 - plain.seconds) < 0.001 && fast.cost! < plain.cost! * 0.6 && fast.events == plain.events)
    let releasing = Candidate(policy: "immediate", strategy: "split-dontneed")
    let idle = try traces.run(0, releasing, options, slices: 8)
    options.busyScale = 2
    let busy = try traces.run(0, releasing, options, slices: 8)
    #expect(busy.taxCPUSeconds! > idle.taxCPUSeconds! * 1.8 && idle.taxCPUSeconds! > 0)
  }
}
