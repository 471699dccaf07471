// A kernel without memory, for tests that want to know everything.
//
// Addresses are fictional, so a heap of terabytes costs nothing and every run has the same addresses; only tables
// (metadata) are real. The model knows of memory what it is told: `touch` stands for the program's writes, and of contents it
// keeps the first word of each page. It follows the
// rules of ModelBlock and it is strict: advice outside of what is committed, a release of pages that somebody uses, a
// reservation given back in pieces, are written down as violations, and a test expects none.

import HugeSpanCore

/// A deterministic model of a kernel. Copies share one state.
package struct ModelKernel: Kernel {
  package let geometry: PageGeometry
  package var capabilities: KernelCapabilities
  private let shared: Locked<State>

  /// - Parameters:
  ///   - givesHugePages: Whether advised memory gets hugepages by a fault; false is THP set to never.
  ///   - hasSwap: Whether what is paged out has somewhere to go.
  package init(
    geometry: PageGeometry = PageGeometry(pageBytes: 4096, hugePageBytes: 1 << 21),
    capabilities: KernelCapabilities = .all, givesHugePages: Bool = true, hasSwap: Bool = false
  ) {
    self.geometry = geometry
    self.capabilities = capabilities
    shared = Locked(State(givesHugePages: givesHugePages, hasSwap: hasSwap))
  }

  private func locked<Result>(_ body: (inout State) -> Result) -> Result { shared.withLock(body) }

  // MARK: Kernel

  package func reserve(byteCount: Int, alignment: Int) throws(KernelError) -> AddressRange {
    guard byteCount > 0, alignment >= 4096, alignment & (alignment - 1) == 0 else { throw .invalid }
    guard byteCount < 1 << 46 else { throw .outOfMemory }
    return locked { $0.reserve(byteCount: byteCount, alignment: alignment) }
  }

  package func commit(_ range: AddressRange) throws(KernelError) {
    if !locked({ $0.commit(range) }) { throw .outOfMemory }
  }

  package func unreserve(_ range: AddressRange) { locked { $0.unreserve(range) } }

  package func advise(_ advice: Advice, _ ranges: UnsafeBufferPointer<AddressRange>) -> AdviseOutcome {
    let list = Array(ranges)
    let (completed, error) = locked { $0.advise(advice, list) }
    let pages = list.prefix(completed).reduce(0) { $0 + $1.byteCount >> 12 }
    let time = UInt64(pages) * locked { $0.nanosecondsPerPage }
    return AdviseOutcome(
      completedRanges: completed, error: error, calls: list.isEmpty ? 0 : 1, nanoseconds: time,
      longestNanoseconds: time)
  }

  package func move(_ source: AddressRange, to destination: UInt) -> AdviseOutcome {
    let error = locked { $0.move(source, to: destination) }
    return AdviseOutcome(
      completedRanges: error == nil ? 1 : 0, error: error, calls: 1, nanoseconds: 0, longestNanoseconds: 0)
  }

  package func residency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    let (found, walkedTo) = locked { $0.residency(of: range, capacity: regions.count) }
    for (index, region) in found.enumerated() { regions.initializeElement(at: index, to: region) }
    return (found.count, walkedTo)
  }

  package func sharedPages(of range: AddressRange, limit: Int) throws(KernelError) -> PageSharing {
    locked { state in
      state.counts[.sharing, default: 0] += 1
      var sharing = PageSharing()
      state.forEachBlock(of: range) { block, pages in
        for page in pages where block.pages[page] != .absent && sharing.shared < limit {
          sharing.present += 1
          if block.isShared[page] { sharing.shared += 1 }
        }
      }
      return sharing
    }
  }

  package func zero(_ range: AddressRange) {
    locked { state in
      state.counts[.zero, default: 0] += 1
      state.touch(range)
      state.forEachBlock(of: range) { block, pages in block.clearWritten(pages) }
    }
  }

  package func word(at address: UInt) -> UInt64 { locked { $0.word(at: address) { $0.words[$1] } } }

  package func setWord(_ value: UInt64, at address: UInt) {
    locked { state in
      state.touch(AddressRange(start: address, byteCount: 4096))
      state.word(at: address) { $0.setWord(value, of: $1) }
    }
  }

  package func pin(at address: UInt) -> UInt64 {
    locked { state in
      state.touch(AddressRange(start: address, byteCount: 4096), changes: false)
      return state.word(at: address) { $0.words[$1] }
    }
  }

  package func mapMetadata(byteCount: Int) throws(KernelError) -> UnsafeMutableRawPointer {
    guard byteCount < 1 << 34 else { throw .outOfMemory }
    let pointer = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
    pointer.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    let address = UInt(bitPattern: pointer)
    locked {
      $0.counts[.mapMetadata, default: 0] += 1
      $0.metadata[address] = byteCount
    }
    return pointer
  }

  package func unmapMetadata(_ pointer: UnsafeMutableRawPointer, byteCount: Int) {
    let address = UInt(bitPattern: pointer)
    locked {
      $0.counts[.unmapMetadata, default: 0] += 1
      let known = $0.metadata.removeValue(forKey: address)
      if known != byteCount { $0.violations.append("unmapped \(byteCount) bytes of tables, not \(known ?? 0)") }
    }
    pointer.deallocate()
  }

  // MARK: What a test says

  /// The program writes to `range`.
  package func touch(_ range: AddressRange) { locked { $0.touch(range) } }

  /// Whether releasing `range` is a violation from now on.
  package func setUsed(_ range: AddressRange, _ used: Bool) {
    locked { state in state.forEachBlock(of: range) { block, pages in for page in pages { block.isUsed[page] = used } }
    }
  }

  /// Memory gets short: everything lazily freed goes.
  package func reclaimLazy() { locked { state in for key in state.blocks.keys { state.blocks[key]!.reclaimLazy() } } }

  /// The kernel takes what is lazily free of `range`; of a hugepage all or nothing.
  package func reclaimLazy(_ range: AddressRange) {
    locked { state in state.forEachBlock(of: range) { block, pages in block.reclaimLazy(pages) } }
  }

  /// A child is forked, and shares all that is in memory until it goes, or until one of both writes.
  package func fork() { locked { state in for key in state.blocks.keys { state.blocks[key]!.fork() } } }
  /// The children go.
  package func endChildren() { locked { state in for key in state.blocks.keys { state.blocks[key]!.endChildren() } } }

  /// The kernel splits, or makes huge, what is under `range`, on its own account.
  package func splitBehindTheBack(_ range: AddressRange) {
    locked { state in state.forEachBlock(of: range) { block, _ in block.split() } }
  }
  package func collapseBehindTheBack(_ range: AddressRange) {
    locked { state in state.forEachBlock(of: range) { block, _ in _ = block.collapse() } }
  }

  /// The pages of `range` are there no more and not gone either: swapped out, or being moved.
  package func setAway(_ range: AddressRange) { locked { $0.away.append(range) } }

  /// Advice takes so long from now on; nothing at first.
  package func setNanosecondsPerPage(_ nanoseconds: UInt64) { locked { $0.nanosecondsPerPage = nanoseconds } }

  /// Turns hugepages on or off.
  package func setGivesHugePages(_ gives: Bool) { locked { $0.givesHugePages = gives } }

  // MARK: What a test asks

  package var violations: [String] { locked { $0.violations } }
  package func count(of call: KernelCall) -> Int { locked { $0.counts[call] ?? 0 } }
  package var reservations: [AddressRange] { locked { $0.reservations.map(\.range) } }
  package var metadataBytes: Int { locked { $0.metadata.values.reduce(0, +) } }
  /// Nothing is reserved or mapped.
  package var isEmpty: Bool { locked { $0.reservations.isEmpty && $0.metadata.isEmpty } }
  /// Whether a read of any byte of `range` gives zero.
  package func readsAsZero(_ range: AddressRange) -> Bool {
    locked { state in
      var isZero = true
      state.forEachBlock(of: range) { block, pages in isZero = isZero && block.readsAsZero(pages) }
      return isZero
    }
  }
  /// How often the page at `address` lost what was in it.
  package func drops(at address: UInt) -> Int { locked { $0.word(at: address) { $0.drops[$1] } } }
  package var presentBytes: Int { sum { $0.presentPages } }
  package var chargedBytes: Int { sum { $0.chargedPages } }
  package var phantomBytes: Int { sum { $0.phantomPages } }
  package var lazyBytes: Int { sum { $0.lazyPages } }
  package var hugeBytes: Int { sum { $0.isMappedHuge ? ModelBlock.pageCount : 0 } }

  private func sum(_ pages: (ModelBlock) -> Int) -> Int {
    locked { state in state.blocks.values.reduce(0) { $0 + pages($1) } } * 4096
  }
}

// MARK: - State

private struct State {
  struct Reservation {
    var range: AddressRange
    /// Committed parts, ascending and apart.
    var committed: [AddressRange] = []
    var advised: [AddressRange] = []
  }

  var givesHugePages: Bool
  var nanosecondsPerPage: UInt64 = 0
  var hasSwap: Bool
  /// Swapped out, or being moved: in no page table, and with contents.
  var away: [AddressRange] = []
  var reservations: [Reservation] = []
  var blocks: [UInt: ModelBlock] = [:]
  var metadata: [UInt: Int] = [:]
  var counts: [KernelCall: Int] = [:]
  var violations: [String] = []
  /// Reservations follow one another without a gap: the heap must not take neighbours for one.
  var next: UInt = 0x1000_0000_0000

  init(givesHugePages: Bool, hasSwap: Bool) {
    self.givesHugePages = givesHugePages
    self.hasSwap = hasSwap
  }

  mutating func reserve(byteCount: Int, alignment: Int) -> AddressRange {
    counts[.reserve, default: 0] += 1
    let start = (next + UInt(alignment - 1)) & ~UInt(alignment - 1)
    next = start + UInt(byteCount)
    reservations.append(Reservation(range: AddressRange(start: start, byteCount: byteCount)))
    return reservations.last!.range
  }

  private func reservation(of range: AddressRange) -> Int? {
    reservations.firstIndex { $0.range.contains(range) }
  }

  mutating func commit(_ range: AddressRange) -> Bool {
    counts[.commit, default: 0] += 1
    guard range.start % 4096 == 0, range.byteCount > 0, let index = reservation(of: range) else {
      violations.append("commit of \(range.hexadecimal), which is not reserved")
      return false
    }
    Self.insert(range, into: &reservations[index].committed)
    return true
  }

  /// Adds a range to a list of ranges that do not touch.
  private static func insert(_ range: AddressRange, into list: inout [AddressRange]) {
    var merged = range
    list.removeAll { other in
      guard other.start <= merged.end && merged.start <= other.end else { return false }
      let start = min(other.start, merged.start)
      merged = AddressRange(start: start, byteCount: Int(max(other.end, merged.end) - start))
      return true
    }
    list.append(merged)
    list.sort { $0.start < $1.start }
  }

  /// Takes a range out of a list of ranges that do not touch.
  private static func remove(_ range: AddressRange, from list: inout [AddressRange]) {
    list = list.flatMap { other in
      let before = AddressRange(
        start: other.start, byteCount: max(0, Int(min(other.end, range.start)) - Int(other.start)))
      let first = max(other.start, range.end)
      let after = AddressRange(start: first, byteCount: max(0, Int(other.end) - Int(first)))
      return [before, after].filter { $0.byteCount > 0 }
    }
  }

  mutating func unreserve(_ range: AddressRange) {
    counts[.unreserve, default: 0] += 1
    guard let index = reservations.firstIndex(where: { $0.range == range }) else {
      violations.append("unreserve of \(range.hexadecimal), which is no reservation")
      return
    }
    reservations.remove(at: index)
    blocks = blocks.filter { !range.contains(AddressRange(start: $0.key, byteCount: 1)) }
  }

  mutating func forEachBlock(of range: AddressRange, _ body: (inout ModelBlock, Range<Int>) -> Void) {
    var address = range.start
    while address < range.end {
      let start = address & ~UInt((1 << 21) - 1)
      let end = min(start + 1 << 21, range.end)
      let pages = Int(address - start) / 4096..<Int(end - start) / 4096
      body(&blocks[start, default: ModelBlock()], pages)
      address = end
    }
  }

  /// Passes the page whose first word is at `address` on.
  mutating func word<Result>(at address: UInt, _ body: (inout ModelBlock, Int) -> Result) -> Result {
    if address % 4096 != 0 { violations.append("the model keeps no word at 0x\(String(address, radix: 16))") }
    let start = address & ~UInt((1 << 21) - 1)
    return body(&blocks[start, default: ModelBlock()], Int(address - start) / 4096)
  }

  mutating func touch(_ range: AddressRange, changes: Bool = true) {
    guard let index = reservation(of: range), reservations[index].committed.contains(where: { $0.contains(range) })
    else {
      violations.append("a write to \(range.hexadecimal), which is not committed")
      return
    }
    let reservation = reservations[index]
    let givesHugePages = givesHugePages
    var address = range.start
    forEachBlock(of: range) { block, pages in
      let whole = AddressRange(start: address & ~UInt((1 << 21) - 1), byteCount: 1 << 21)
      let mayBeHuge =
        reservation.advised.contains { $0.contains(whole) } && reservation.committed.contains { $0.contains(whole) }
      block.touch(pages, givesHugePages: givesHugePages && mayBeHuge, changes: changes)
      address = whole.end
    }
  }

  mutating func move(_ source: AddressRange, to destination: UInt) -> KernelError? {
    counts[.move, default: 0] += 1
    let target = AddressRange(start: destination, byteCount: source.byteCount)
    for range in [source, target] {
      guard range.byteCount == 1 << 21, range.start % (1 << 21) == 0, let index = reservation(of: range),
        reservations[index].committed.contains(where: { $0.contains(range) })
      else {
        violations.append("a move between \(range.hexadecimal), which is no committed block")
        return .invalid
      }
      if blocks[range.start]?.isUsed.contains(true) == true {
        violations.append("a move between \(range.hexadecimal), which is in use")
      }
    }
    if let block = blocks[destination], block.presentPages > 0 || block.isSwapped.contains(true) {
      violations.append("a move to \(target.hexadecimal), which is not empty")
    }
    blocks[destination] = blocks.removeValue(forKey: source.start)
    return nil
  }

  mutating func advise(_ advice: Advice, _ ranges: [AddressRange]) -> (Int, KernelError?) {
    counts[.advise(advice), default: 0] += 1
    for (index, range) in ranges.enumerated() {
      if ranges[..<index].contains(where: { $0.overlaps(range) }) {
        violations.append("\(advice) of \(range.hexadecimal) twice in one batch")
      }
      if let error = advise(advice, range) { return (index, error) }
    }
    return (ranges.count, nil)
  }

  private mutating func advise(_ advice: Advice, _ range: AddressRange) -> KernelError? {
    guard range.start % 4096 == 0, range.byteCount > 0, range.byteCount % 4096 == 0 else {
      violations.append("\(advice) of \(range.hexadecimal), which is not whole pages")
      return .invalid
    }
    guard let index = reservation(of: range),
      advice == .hugepage || reservations[index].committed.contains(where: { $0.contains(range) })
    else {
      violations.append("\(advice) of \(range.hexadecimal), which is not committed")
      return .outOfMemory
    }
    switch advice {
    case .hugepage: Self.insert(range, into: &reservations[index].advised)
    case .populate: touch(range)
    case .cold: forEachBlock(of: range) { block, pages in block.cool(pages) }
    case .pageout:
      let hasSwap = hasSwap
      forEachBlock(of: range) { block, pages in block.pageOut(pages, hasSwap: hasSwap) }
    case .collapse:
      var isEmpty = false
      forEachBlock(of: range) { block, pages in
        if pages.count < ModelBlock.pageCount || !block.collapse() { isEmpty = true }
      }
      return isEmpty ? .invalid : nil
    case .dontneed, .free, .decommit:
      var used = 0
      forEachBlock(of: range) { block, pages in
        used += pages.count { block.isUsed[$0] }
        if advice == .free { block.free(pages) } else { block.dontneed(pages) }
      }
      if advice == .decommit {
        Self.remove(range, from: &reservations[index].committed)
        Self.remove(range, from: &reservations[index].advised)
      }
      if used > 0 { violations.append("\(advice) of \(range.hexadecimal), of which \(used) pages are in use") }
    }
    return nil
  }

  mutating func residency(of range: AddressRange, capacity: Int) -> ([ResidentRegion], UInt) {
    counts[.residency, default: 0] += 1
    var found: [ResidentRegion] = []
    var start = range.start & ~UInt((1 << 21) - 1)
    while start < range.end {
      defer { start += 1 << 21 }
      guard let block = blocks[start], block.presentPages > 0 || block.isSwapped.contains(true) else { continue }
      let first = range.start > start ? Int(range.start - start) / 4096 : 0
      let last = min(ModelBlock.pageCount, Int(range.end - start) / 4096)
      for page in first..<last where block.pages[page] != .absent || block.isSwapped[page] {
        let position = start + UInt(page * 4096)
        let isPresent =
          !block.isSwapped[page] && !away.contains { $0.contains(AddressRange(start: position, byteCount: 4096)) }
        if let last = found.last, last.range.end == position, last.isHuge == (block.isMappedHuge && isPresent),
          last.isPresent == isPresent
        {
          found[found.count - 1].range.byteCount += 4096
        } else if found.count == capacity {
          return (found, position)
        } else {
          found.append(
            ResidentRegion(
              range: AddressRange(start: position, byteCount: 4096), isHuge: block.isMappedHuge && isPresent,
              isPresent: isPresent))
        }
      }
    }
    return (found, range.end)
  }
}
