// Advice for many ranges by few system calls.
//
// process_madvise takes up to 1,024 ranges a call and works on the process itself (Linux 6.13 for what drops memory).
// It halves the cost of many small ranges. What it needs care in:
//  - It stops at the first range that fails and tells only how many bytes were done before. Asking again from there
//    gives the error of that range, so that the outcome is the same as that of a loop.
//  - A call silently stops after 2 GiB in total, in the middle of a range. Batches are kept under 1 GiB.
//  - Its own reasons to fail (a filter, a closed descriptor, no memory for the list) are not the range's. So an error of
//    a batch that did nothing is believed only after madvise of its first range says so too.

import CHugeSpanShims

extension LinuxKernel {
  private static let rangesPerCall = 1024  // UIO_MAXIOV
  private static let bytesPerCall = 1 << 30
  /// How often a call is repeated that says "try again": enough for a lock that is held for a moment.
  private static let retries = 4

  package func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    var outcome = AdviseOutcome(completedRanges: 0, error: nil, calls: 0, nanoseconds: 0, longestNanoseconds: 0)
    var mayBatch = batchable & (1 << advice.rawValue) != 0
    while outcome.completedRanges < ranges.count {
      let rest = UnsafeBufferPointer(rebasing: ranges[outcome.completedRanges...])
      let batch = mayBatch ? Self.batchLength(rest) : 1
      if batch > 1 {
        let completed = adviseBatch(advice, UnsafeBufferPointer(rebasing: rest[..<batch]), &outcome)
        outcome.completedRanges += completed
        // Nothing done: either the first range is at fault, or batching is. The loop below finds out.
        if completed > 0 { continue }
        mayBatch = false
      }
      if let error = adviseOne(advice, rest[0], &outcome) {
        outcome.error = error
        break
      }
      outcome.completedRanges += 1
    }
    return outcome
  }

  package func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    var outcome = AdviseOutcome(completedRanges: 0, error: nil, calls: 0, nanoseconds: 0, longestNanoseconds: 0)
    let result = Self.timed(&outcome) {
      hs_shim_move(source.start, source.byteCount, destination, !capabilities.contains(.hugePagesUnasked))
    }
    if result == 0 { outcome.completedRanges = 1 } else { outcome.error = KernelError(code: Int32(-result)) }
    return outcome
  }

  /// How many of the first ranges go into one call.
  private static func batchLength(_ ranges: UnsafeBufferPointer<AddressRange>) -> Int {
    var bytes = 0
    var count = 0
    while count < ranges.count, count < rangesPerCall, ranges[count].byteCount <= bytesPerCall - bytes {
      bytes += ranges[count].byteCount
      count += 1
    }
    return max(1, count)
  }

  /// One call for all of `ranges`; returns how many were done completely.
  private func adviseBatch(
    _ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>, _ outcome: inout AdviseOutcome
  ) -> Int {
    let process = processHandle
    var bytes = Self.timed(&outcome) {
      // An address range has the layout of `struct iovec`: a word of address, a word of length.
      ranges.withMemoryRebound(to: iovec.self) {
        hs_shim_process_madvise(process, $0.baseAddress, $0.count, advice.value)
      }
    }
    var completed = 0
    while completed < ranges.count, bytes >= ranges[completed].byteCount {
      bytes -= ranges[completed].byteCount
      completed += 1
    }
    return completed
  }

  private func adviseOne(_ advice: Advice, _ range: AddressRange, _ outcome: inout AdviseOutcome) -> KernelError? {
    var attempts = 0
    while true {
      let result = Self.timed(&outcome) {
        advice == .decommit
          ? hs_shim_decommit(range.start, range.byteCount)
          : hs_shim_madvise(range.start, range.byteCount, advice.value)
      }
      if result == 0 { return nil }
      let error = KernelError(code: Int32(-result))
      attempts += 1
      if attempts > Self.retries || (error != .tryAgain && error != .interrupted) { return error }
      hs_shim_yield()
    }
  }

  /// Makes one system call and books its time.
  @inline(__always)
  private static func timed(_ outcome: inout AdviseOutcome, _ call: () -> Int) -> Int {
    let start = hs_shim_monotonic_nanoseconds()
    let result = call()
    let elapsed = hs_shim_monotonic_nanoseconds() &- start
    outcome.calls += 1
    outcome.nanoseconds += elapsed
    outcome.longestNanoseconds = max(outcome.longestNanoseconds, elapsed)
    return result
  }

  /// What stands for this process in process_madvise.
  private var processHandle: Int32 {
    batching == .selfHandle ? Int32(HS_SHIM_PIDFD_SELF) : ownPidfd.value()
  }

  /// Finds which advice can be batched, on two pages of a scratch mapping, and by which handle. An inherited pidfd would
  /// advise the parent after a fork; `ownPidfd` sees to that.
  mutating func probeBatching(on page: AddressRange) {
    while batching != .none {
      batchable = 0
      let candidates: InlineArray<4, Advice> = [.dontneed, .free, .cold, .pageout]
      for index in candidates.indices {
        let advice = candidates[index]
        var range = iovec(iov_base: UnsafeMutableRawPointer(bitPattern: page.start), iov_len: page.byteCount)
        if hs_shim_process_madvise(processHandle, &range, 1, advice.value) == page.byteCount {
          batchable |= 1 << advice.rawValue
        }
      }
      if batchable != 0 { return }
      batching = batching == .selfHandle ? .pidfd : .none
    }
  }
}

extension Advice {
  /// The number that madvise takes; `decommit` has none.
  var value: Int32 {
    switch self {
    case .dontneed: Int32(HS_SHIM_MADV_DONTNEED)
    case .free: Int32(HS_SHIM_MADV_FREE)
    case .cold: Int32(HS_SHIM_MADV_COLD)
    case .pageout: Int32(HS_SHIM_MADV_PAGEOUT)
    case .collapse: Int32(HS_SHIM_MADV_COLLAPSE)
    case .hugepage: Int32(HS_SHIM_MADV_HUGEPAGE)
    case .populate: Int32(HS_SHIM_MADV_POPULATE_WRITE)
    case .decommit: -1
    }
  }
}

extension KernelError {
  static let interrupted = KernelError(code: 4)  // EINTR
}
