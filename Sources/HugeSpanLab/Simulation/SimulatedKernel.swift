// The simulated machine as the kernel of a heap.
//
// Addresses are fictional, so a heap of terabytes costs nothing but tables; the heap's own tables are real memory, and
// are charged. What takes time says how much it would have taken, by the cost model; nothing waits. Deterministic: the same
// trace, options and seed give the same run. Copies share one machine, which one thread uses.

import CHugeSpanShims
import Glibc
import HugeSpanCore

/// Owns the machine's memory, and knows of the heap's tables, which are real.
private final class SimulatedMachine {
  let state: UnsafeMutablePointer<SimulatedState>
  var tables: [UnsafeMutableRawPointer: Int] = [:]
  private var seen: (commits: Int, age: Int, bytes: Int) = (-1, 0, 0)

  init(_ options: SimulationOptions, _ costs: CostModel) {
    state = .allocate(capacity: 1)
    state.initialize(to: SimulatedState(options, costs))
  }
  deinit {
    state.pointee.destroy()
    state.deinitialize(count: 1)
    state.deallocate()
  }

  /// What of the tables is in memory. They are mapped for a whole arena and used as it grows, so it is looked at when it grew,
  /// and now and then.
  func residentTableBytes() -> Int {
    if seen.commits == state.pointee.commits && seen.age < 32 {
      seen.age += 1
      return seen.bytes
    }
    var pages = 0
    for (table, byteCount) in tables {
      let count = (byteCount + 4095) >> 12
      pages += withUnsafeTemporaryAllocation(of: UInt8.self, capacity: count) { residency in
        guard mincore(table, byteCount, residency.baseAddress!) == 0 else { return 0 }
        return residency.reduce(0) { $0 + Int($1 & 1) }
      }
    }
    seen = (state.pointee.commits, 0, pages << 12)
    state.pointee.metadataBytes = pages << 12
    return pages << 12
  }
}

/// A deterministic kernel without memory.
package struct SimulatedKernel: ReplayableKernel {
  // Used by one thread.
  nonisolated(unsafe) private let machine: SimulatedMachine
  nonisolated(unsafe) let state: UnsafeMutablePointer<SimulatedState>

  package init(_ options: SimulationOptions = SimulationOptions(), costs: CostModel = CostModel()) {
    machine = SimulatedMachine(options, costs)
    state = machine.state
  }

  // MARK: What the replay asks and says

  package var totals: SimulatedTotals { state.pointee.totals }
  /// Somebody had to be killed.
  package var isOutOfMemory: Bool { state.pointee.isOutOfMemory }
  /// Bytes of the machine's own tables.
  package var tableBytes: Int {
    state.pointee.tables.byteCount + state.pointee.blockCount * MemoryLayout<SimulatedBlock>.stride
  }
  /// Bytes of the heap's tables that are in memory.
  package var heapTableBytes: Int { machine.residentTableBytes() }
  /// Bytes that may still be charged; nil without a limit.
  package var headroom: Int? { state.pointee.options.limitBytes.map { $0 - state.pointee.chargedBytes } }

  package func advance(to time: UInt64) { state.pointee.advance(to: time) }
  package func fork() { state.pointee.fork() }
  package func endChildren() { state.pointee.endChildren() }
  /// Others under the same limit are charged for `bytes`.
  package func setOtherBytes(_ bytes: Int) { state.pointee.otherBytes = bytes }

  package static var hasMemory: Bool { false }

  @inline(__always)
  package func touch(_ address: UInt, pages count: Int) { state.pointee.touch(address, pages: count) }

  package var simulatedNanoseconds: UInt64 {
    UInt64(state.pointee.totals.faultNanoseconds + state.pointee.totals.reclaimNanoseconds)
  }

  // MARK: Kernel

  package var geometry: PageGeometry { PageGeometry(pageBytes: 4096, hugePageBytes: 1 << 21) }

  package var capabilities: KernelCapabilities { .all }

  package func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    guard byteCount > 0, byteCount < 1 << 46, alignment & (alignment - 1) == 0 else { throw .invalid }
    let perBlock = 1 << 21
    // A block between two reservations, so that nothing grows from one into the next.
    let step = max(alignment >> 21, 1)
    let first = (state.pointee.blockCount + 1 + step - 1) / step * step
    let count = (byteCount + perBlock - 1) >> 21
    guard first + count <= SimulatedState.capacity else { throw .outOfMemory }
    state.pointee.blockCount = first + count
    return AddressRange(start: state.pointee.address(first), byteCount: byteCount)
  }

  package func commit(_ range: AddressRange) throws(KernelError) {
    state.pointee.commits += 1
    forEachBlock(range) { state.pointee.blocks[$0].flags |= SimulatedBlock.Flag.committed }
  }

  package func unreserve(_ range: AddressRange) {
    forEachBlock(range) { index in
      state.pointee.change(index) { $0.drop(index) }
      state.pointee.blocks[index].flags = 0
    }
  }

  private func forEachBlock(_ range: AddressRange, _ body: (Int) -> Void) {
    if range.byteCount == 0 { return }
    for index in state.pointee.index(range.start)...state.pointee.index(range.end - 1) { body(index) }
  }

  package func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    var microseconds = ranges.isEmpty ? 0 : state.pointee.costs.releaseCall
    var completed = 0
    var error: KernelError?
    for range in ranges {
      error = state.pointee.advise(advice, range, &microseconds)
      if error != nil { break }
      completed += 1
    }
    let time = UInt64(microseconds * 1000)
    return AdviseOutcome(
      completedRanges: completed, error: error, calls: ranges.isEmpty ? 0 : 1, nanoseconds: time,
      longestNanoseconds: time)
  }

  package func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    state.pointee.move(state.pointee.index(source.start), to: state.pointee.index(destination))
    let time = UInt64(state.pointee.costs.blockMove * 1000)
    return AdviseOutcome(completedRanges: 1, error: nil, calls: 1, nanoseconds: time, longestNanoseconds: time)
  }

  package func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    state.pointee.residency(of: range, into: regions)
  }

  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    state.pointee.sharing(of: range, limit: limit)
  }

  package func zero(_ range: AddressRange) {
    state.pointee.touch(range.start, pages: range.byteCount >> 12, changes: false)
  }

  /// Only the first word of a block is kept; any other reads as zero, which is "lost" to whoever marked it.
  package func word(at address: UInt) -> UInt64 {
    address & (1 << 21 - 1) == 0 ? state.pointee.blocks[state.pointee.index(address)].word : 0
  }

  package func setWord(_ value: UInt64, at address: UInt) {
    state.pointee.touch(address, pages: 1)
    if address & (1 << 21 - 1) == 0 { state.pointee.blocks[state.pointee.index(address)].word = value }
  }

  package func pin(at address: UInt) -> UInt64 {
    state.pointee.touch(address, pages: 1, changes: false)
    return word(at: address)
  }

  package func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    let address = hs_shim_map(byteCount)
    if address < 0 && address > -4096 { throw KernelError(code: Int32(-address)) }
    let pointer = UnsafeMutableRawPointer(bitPattern: address)!
    machine.tables[pointer] = byteCount
    return pointer
  }

  package func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
    machine.tables[pointer] = nil
    _ = hs_shim_unmap(UInt(bitPattern: pointer), byteCount)
  }
}
