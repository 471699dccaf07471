// Carries a comparison out: a few runs at a time, each in a process and a memory group of its own.
//
// The parent makes and removes the groups, so they are gone however a run ends. A signal ends the children and the
// planning, not the comparison: what is done is still reported. A run that fails is left out with its reason, and the
// others go on.

import Foundation
import Glibc

/// What a comparison needs to know.
package struct ComparisonPlan: Sendable {
  /// The program to start for each run, and what it is told for every run.
  package var executable: String
  package var commonArguments: [String]
  /// What only runs on the one kernel are told, or on the other.
  package var machineArguments: [String] = []
  package var simulationArguments: [String] = []
  package var runs: [PlannedRun]
  /// How often a run on the real kernel is made again at most because khugepaged put hugepages together beside it. It scans by
  /// its own clock, a few blocks each ten seconds, so one run in several meets it; and what it puts together is broken again.
  package var retriesOfDisturbed: Int
  /// Runs at the same time.
  package var jobs: Int
  /// Seconds after which no run may be going on; nil is no limit.
  package var budget: Double?

  package init(
    executable: String, commonArguments: [String], machineArguments: [String] = [], simulationArguments: [String] = [],
    retriesOfDisturbed: Int = 0, runs: [PlannedRun], jobs: Int, budget: Double?
  ) {
    self.executable = executable
    self.commonArguments = commonArguments
    self.machineArguments = machineArguments
    self.simulationArguments = simulationArguments
    self.retriesOfDisturbed = retriesOfDisturbed
    self.runs = runs
    self.jobs = jobs
    self.budget = budget
  }
}

/// What came of it.
package struct ComparisonOutcome: Sendable {
  /// By trace and row.
  package var results: [RunResult] = []
  package var leftOut: [LeftOut] = []
  /// Exit status of the first run that failed, 0 if none did.
  package var failureStatus: Int32 = 0
  /// The signal that ended it early.
  package var signal: Int32?
}

/// Runs a plan.
package final class ComparisonRunner {
  private struct Active {
    var run: PlannedRun
    var child: ChildProcess
    var group: MemoryCgroup?
    var started: ContinuousClock.Instant
  }

  private let plan: ComparisonPlan
  private let progress: ProgressLine
  private let membership: Result<(group: CgroupMembership, delegation: CgroupDelegation), CgroupUnavailable>
  private var estimator: RunEstimator
  private var waiting: [PlannedRun]
  private var active: [Active] = []
  private var finished: [(run: PlannedRun, result: RunResult)] = []
  private var outcome = ComparisonOutcome()
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant
  private var groupNumber = 0

  /// - Parameter progress: Where the user is told how far it is.
  package init(_ plan: ComparisonPlan, progress: ProgressLine) {
    self.plan = plan
    self.progress = progress
    membership = Result { () throws(CgroupUnavailable) in
      let membership = try CgroupMembership.find()
      MemoryCgroup.removeStale(under: membership)
      return (membership, try CgroupDelegation(membership))
    }
    var sizes: [String: Int] = [:]
    for run in plan.runs where sizes[run.trace] == nil {
      var status = stat()
      sizes[run.trace] = stat(run.trace, &status) == 0 ? Int(status.st_size) : 0
    }
    estimator = RunEstimator(sizes: sizes)
    waiting = plan.runs
    start = clock.now
  }

  private var elapsed: Double { seconds(since: start) }

  private func seconds(since instant: ContinuousClock.Instant) -> Double {
    let parts = (clock.now - instant).components
    return Double(parts.seconds) + Double(parts.attoseconds) / 1e18
  }

  /// Makes all runs and returns when the last has ended.
  package func run() -> ComparisonOutcome {
    Interrupts.note()
    while !waiting.isEmpty || !active.isEmpty {
      if let signal = Interrupts.noted { stop(signal) }
      while active.count < plan.jobs, !waiting.isEmpty, outcome.signal == nil { startNext() }
      progress.show(status)
      waitForOutput()
      finishEnded()
    }
    progress.clear()
    if case .success((_, var delegation)) = membership { delegation.undo() }
    outcome.results = finished.sorted { ($0.run.trace, $0.run.row) < ($1.run.trace, $1.run.row) }.map(\.result)
    return outcome
  }

  private var total: Int { finished.count + outcome.leftOut.count + waiting.count + active.count }

  private var status: String {
    var text = "[\(finished.count + outcome.leftOut.count)/\(total)] "
    text += active.map(\.run.title).joined(separator: ", ")
    let time = fixed(elapsed, 0)
    text += plan.budget.map { "  \(time) s of \(fixed($0, 0)) s" } ?? "  \(time) s"
    return text
  }

  private func leaveOut(_ run: PlannedRun, _ reason: String) {
    // It has a result, if not as good a one as it might.
    if run.earlierAttempts > 0 { return }
    outcome.leftOut.append(
      LeftOut(trace: traceName(run.trace), policy: run.policy, strategy: run.strategy, reason: reason))
  }

  private func startNext() {
    let run = waiting.removeFirst()
    let expected = estimator.seconds(run)
    if let budget = plan.budget, elapsed + expected > budget {
      leaveOut(run, "about \(fixed(expected, 1)) s more do not fit into \(fixed(budget, 0)) s")
      return
    }
    var arguments = ["replay", run.trace, "--policy", run.policy, "--strategy", run.strategy, "--json", "-"]
    arguments += ["--kernel", run.kernel]
    arguments += plan.commonArguments
    var group: MemoryCgroup?
    if run.kernel == "real" { arguments += plan.machineArguments } else { arguments += plan.simulationArguments }
    do throws(CgroupUnavailable) {
      if run.kernel != "real" { throw CgroupUnavailable(reason: "the kernel is simulated") }
      group = try MemoryCgroup.make(under: membership.get().group, number: groupNumber)
      groupNumber += 1
      arguments += ["--cgroup", group!.directory]
    } catch { arguments += ["--no-cgroup", error.reason] }
    do throws(ChildStartFailure) {
      let child = try ChildProcess(plan.executable, arguments)
      active.append(Active(run: run, child: child, group: group, started: clock.now))
    } catch {
      group?.remove()
      fail(run, "cannot be started: \(String(cString: strerror(error.code)))", status: 69)
    }
  }

  private func waitForOutput() {
    var polled: [pollfd] = []
    for run in active {
      for descriptor in run.child.descriptors where descriptor >= 0 {
        polled.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
      }
    }
    if polled.isEmpty || poll(&polled, nfds_t(polled.count), 200) <= 0 { return }
    for entry in polled where entry.revents != 0 {
      for run in active where run.child.descriptors.contains(entry.fd) { run.child.read(entry.fd) }
    }
  }

  private func finishEnded() {
    let ended = active.filter { $0.child.hasEnded }
    active.removeAll { $0.child.hasEnded }
    for item in ended {
      let status = item.child.wait()
      item.group?.remove()
      if outcome.signal != nil && status != 0 {
        leaveOut(item.run, "interrupted")
        continue
      }
      let seconds = seconds(since: item.started)
      guard status == 0,
        let result = try? JSONDecoder().decode(RunResult.self, from: Data(item.child.outputBytes))
      else {
        let message = String(decoding: item.child.errorBytes, as: UTF8.self)
        let line = message.split(separator: "\n").first.map(String.init)
        fail(
          item.run,
          status < 0 ? "ended by signal \(-status)" : line ?? "no result, exit status \(status)",
          status: status > 0 ? status : 70)
        continue
      }
      estimator.record(item.run, seconds: seconds)
      finished.append((item.run, result))
      if result.khugepagedCollapses ?? 0 > 0, item.run.earlierAttempts < plan.retriesOfDisturbed, outcome.signal == nil
      {
        var again = item.run
        again.earlierAttempts += 1
        waiting.append(again)
      }
      progress.note(
        "[\(finished.count + outcome.leftOut.count)/\(total)] \(item.run.title): \(fixed(seconds, 1)) s")
    }
  }

  private func fail(_ run: PlannedRun, _ reason: String, status: Int32) {
    // The child's message begins with the program's name, as ours will.
    let text = reason.hasPrefix("hugespan: ") ? String(reason.dropFirst("hugespan: ".count)) : reason
    leaveOut(run, text)
    if outcome.failureStatus == 0 && run.earlierAttempts == 0 { outcome.failureStatus = status }
    progress.note("\(run.title): \(text)")
  }

  private func stop(_ signal: Int32) {
    guard outcome.signal == nil else { return }
    outcome.signal = signal
    for run in active { run.child.end(SIGTERM) }
    for run in waiting { leaveOut(run, "interrupted") }
    waiting.removeAll()
  }
}
