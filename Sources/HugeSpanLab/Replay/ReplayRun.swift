// One run from a trace's path to its result: decode, enter a memory group, replay, leave.
//
// A run that was asked for on the command line makes a group for itself and takes it away at its end; one that
// is part of a comparison gets its group from the parent, which removes it whatever becomes of the run.

import Foundation
import HugeSpanCore
import TraceFormat

/// Where a run's memory is charged.
package enum GroupChoice: Sendable {
  /// Make a group for this run.
  case own
  /// Use this one, which somebody else removes.
  case given(MemoryCgroup)
  /// Do without.
  case none(reason: String)
}

/// Replays the trace at `path` in this process.
///
/// - Throws: `TraceError` for the input, `ReplayFailure` for the run.
package func replayTrace(path: String, options: ReplayOptions, group choice: GroupChoice) throws -> RunResult {
  let program = try TraceProgram(path: path)
  if options.simulation != nil {
    var result = try replay(program, options: options, group: nil)
    result.trace = traceName(path)
    return result
  }
  if options.touch == .all {
    // Some programs map far more than they use; touching all of that would bring the machine down.
    let available = MemoryWarming.available()
    if available > 0, program.summary.peakLiveBytes > available / 10 * 9 {
      throw ReplayFailure.memory(needed: program.summary.peakLiveBytes, available: available)
    }
  }
  var group: MemoryCgroup?
  var reason: String?
  var isOwn = false
  var delegation: CgroupDelegation?
  do throws(CgroupUnavailable) {
    switch choice {
    case .own:
      let membership = try CgroupMembership.find()
      MemoryCgroup.removeStale(under: membership)
      delegation = try CgroupDelegation(membership)
      group = try MemoryCgroup.make(under: membership, number: 0, home: delegation!.home)
      isOwn = true
      // From here on an interrupt must not leave the group behind.
      Interrupts.removeOnInterrupt(group!)
    case .given(let given): group = given
    case .none(let why): reason = why
    }
    try group?.enter()
  } catch {
    if isOwn { group?.leaveAndRemove() }
    delegation?.undo()
    group = nil
    reason = error.reason
  }
  defer {
    if isOwn, let group {
      group.leaveAndRemove()
      delegation?.undo()
      Interrupts.removeOnInterrupt(nil)
    }
  }
  let collapsesBefore = Machine.khugepagedCollapses()
  var result = try replay(program, options: options, group: group)
  result.trace = traceName(path)
  if let collapsesBefore, let collapses = Machine.khugepagedCollapses() {
    result.khugepagedCollapses = collapses - collapsesBefore
  }
  if result.chargedBytes == nil, result.chargeUnknownReason == nil { result.chargeUnknownReason = reason }
  return result
}

/// A trace's name in reports: the file's, without folder and extension.
package func traceName(_ path: String) -> String {
  URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
}
