// Any kernel, with faults.
//
// Between the heap and a kernel, model or real: fails the calls that a test picks, with the errno that it picks, lets
// batches succeed in part, holds calls up at a gate, and keeps the books of what was reserved and mapped, so that a test
// sees whether everything was given back. What was failed never reaches the kernel below, as with a real refusal.

import HugeSpanCore

/// One call, as it was seen.
package struct RecordedCall: Equatable, Sendable {
  package var call: KernelCall
  package var ranges: [AddressRange]
  package var error: KernelError?
}

/// `Base` with faults. Copies share one plan of faults.
package struct FaultInjectingKernel<Base: Kernel>: Kernel {
  package let base: Base
  package var geometry: PageGeometry
  package var capabilities: KernelCapabilities
  package let faults: FaultPlan

  package init(_ base: Base) {
    self.base = base
    geometry = base.geometry
    capabilities = base.capabilities
    faults = FaultPlan()
  }

  package func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    let asked = AddressRange(start: 0, byteCount: byteCount)
    if let error = faults.begin(.reserve, [asked]).error { throw error }
    let range = try base.reserve(byteCount: byteCount, alignment: alignment)
    faults.book { $0.reservations.append(range) }
    return range
  }

  package func commit(_ range: AddressRange) throws(KernelError) {
    if let error = faults.begin(.commit, [range]).error { throw error }
    try base.commit(range)
  }

  package func unreserve(_ range: AddressRange) {
    _ = faults.begin(.unreserve, [range])
    faults.book { books in books.reservations.removeAll { $0 == range } }
    base.unreserve(range)
  }

  package func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    let decision = faults.begin(.advise(advice), Array(ranges))
    decision.gate?.pass()
    guard let error = decision.error else { return base.advise(advice, ranges) }
    let done = min(decision.completedRanges, max(0, ranges.count - 1))
    var outcome = AdviseOutcome(completedRanges: 0, error: nil, calls: 0, nanoseconds: 0, longestNanoseconds: 0)
    if done > 0 { outcome = base.advise(advice, UnsafeBufferPointer(rebasing: ranges[..<done])) }
    if outcome.error == nil {
      outcome.error = error
      outcome.calls += 1
    }
    return outcome
  }

  package func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    let decision = faults.begin(.move, [source, AddressRange(start: destination, byteCount: source.byteCount)])
    decision.gate?.pass()
    guard let error = decision.error else { return base.move(source, to: destination) }
    return AdviseOutcome(completedRanges: 0, error: error, calls: 1, nanoseconds: 0, longestNanoseconds: 0)
  }

  package func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    let decision = faults.begin(.residency, [range])
    decision.gate?.pass()
    if let error = decision.error { throw error }
    return try base.residency(of: range, into: regions)
  }

  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    let decision = faults.begin(.sharing, [range])
    decision.gate?.pass()
    if let error = decision.error { throw error }
    return try base.sharedPages(of: range, limit: limit)
  }

  package func zero(_ range: AddressRange) {
    _ = faults.begin(.zero, [range])
    base.zero(range)
  }

  package func word(at address: UInt) -> UInt64 { base.word(at: address) }
  package func setWord(_ value: UInt64, at address: UInt) { base.setWord(value, at: address) }
  package func pin(at address: UInt) -> UInt64 { base.pin(at: address) }

  package func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    if let error = faults.begin(.mapMetadata, [AddressRange(start: 0, byteCount: byteCount)]).error { throw error }
    let pointer = try base.mapMetadata(byteCount: byteCount)
    let address = UInt(bitPattern: pointer)
    faults.book { $0.metadata.append(AddressRange(start: address, byteCount: byteCount)) }
    return pointer
  }

  package func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
    let range = AddressRange(start: UInt(bitPattern: pointer), byteCount: byteCount)
    _ = faults.begin(.unmapMetadata, [range])
    faults.book { books in books.metadata.removeAll { $0 == range } }
    base.unmapMetadata(pointer, byteCount: byteCount)
  }
}

/// Which calls fail, and what was called.
package final class FaultPlan: Sendable {
  package struct Decision: Sendable {
    package var error: KernelError? = nil
    /// Ranges of a batch that succeed before the one that fails.
    package var completedRanges = 0
    package var gate: Gate? = nil
  }

  /// A rule for one kind of call.
  fileprivate struct Rule {
    var call: KernelCall
    /// Calls of this kind that it lets pass first, and then takes.
    var skipping: Int
    var count: Int
    var decision: Decision
  }

  struct Books {
    fileprivate var rules: [Rule] = []
    fileprivate var random: (share: Double, error: KernelError, calls: Set<KernelCall>, generator: SeededGenerator)?
    var records: [RecordedCall] = []
    var isRecording = false
    var counts: [KernelCall: Int] = [:]
    var injected: [KernelCall: Int] = [:]
    var reservations: [AddressRange] = []
    var metadata: [AddressRange] = []
  }

  private let books = Locked(Books())

  func book(_ body: (inout Books) -> Void) { books.withLock { body(&$0) } }

  /// Notes a call and says what becomes of it.
  func begin(_ call: KernelCall, _ ranges: [AddressRange]) -> Decision {
    books.withLock { books in
      books.counts[call, default: 0] += 1
      var decision = Decision()
      for index in books.rules.indices where books.rules[index].call == call && books.rules[index].count > 0 {
        if books.rules[index].skipping > 0 {
          books.rules[index].skipping -= 1
        } else {
          books.rules[index].count -= 1
          decision = books.rules[index].decision
          break
        }
      }
      if decision.error == nil, decision.gate == nil, var random = books.random, random.calls.contains(call) {
        if Double.random(in: 0..<1, using: &random.generator) < random.share {
          decision.error = random.error
          decision.completedRanges = Int.random(in: 0...ranges.count, using: &random.generator)
        }
        books.random = random
      }
      if decision.error != nil { books.injected[call, default: 0] += 1 }
      if books.isRecording {
        books.records.append(RecordedCall(call: call, ranges: ranges, error: decision.error))
      }
      return decision
    }
  }

  // MARK: What a test says

  /// Fails `count` calls of a kind after the next `skipping` of them; of a batch, `completedRanges` succeed first.
  package func fail(
    _ call: KernelCall, skipping: Int = 0, count: Int = .max, completing completedRanges: Int = 0,
    with error: KernelError
  ) {
    let decision = Decision(error: error, completedRanges: completedRanges)
    book { $0.rules.append(Rule(call: call, skipping: skipping, count: count, decision: decision)) }
  }

  /// Holds the next call of a kind up at a gate.
  package func block(_ call: KernelCall, at gate: Gate, count: Int = 1) {
    book { $0.rules.append(Rule(call: call, skipping: 0, count: count, decision: Decision(gate: gate))) }
  }

  /// Fails a share of the calls of some kinds, chosen by a seed.
  package func failRandomly(_ calls: Set<KernelCall>, share: Double, seed: UInt64, with error: KernelError) {
    book { $0.random = (share, error, calls, SeededGenerator(seed: seed)) }
  }

  /// Takes all faults back.
  package func clear() {
    book {
      $0.rules = []
      $0.random = nil
    }
  }

  /// Keeps every call from now on.
  package func startRecording() { book { $0.isRecording = true } }

  // MARK: What a test asks

  package var records: [RecordedCall] { books.withLock { $0.records } }
  package func count(of call: KernelCall) -> Int { books.withLock { $0.counts[call] ?? 0 } }
  /// Calls that were failed.
  package var injected: Int { books.withLock { $0.injected.values.reduce(0, +) } }
  /// Calls of a kind that were failed.
  package func injected(_ call: KernelCall) -> Int { books.withLock { $0.injected[call] ?? 0 } }
  package var reservations: [AddressRange] { books.withLock { $0.reservations } }
  package var metadata: [AddressRange] { books.withLock { $0.metadata } }
  /// Everything that was reserved and mapped was given back.
  package var isBalanced: Bool { books.withLock { $0.reservations.isEmpty && $0.metadata.isEmpty } }
}
