// The page heap: what the public API and the C library stand on.
//
// A heap owns arenas of 2 MiB pageblocks, hands out spans of pages, takes any range of them back, and gives free memory
// to the kernel when its policy says so, in the way its strategy knows. One spin lock guards everything; it is held for
// bit operations and list links, never across a call that releases, collapses or prefaults memory. A range that is in
// flight to the kernel is marked used while the lock is open, so that its neighbours can be had and it can not.
//
// Files: Block, PageMap, Arena (tables); PlacementLists (where a span goes, and why); HeapState (guarded steps); this
// file (life and limits); PageHeap+Allocate, +Free, +Resize, +Lookup (spans); PageHeap+Moving (hugepages to where
// they are needed), PageHeap+Release (scavenging),
// +Residency (what the kernel really has), +Fork (what a fork takes along), +Discard (contents that stay as long as
// memory lasts), +Statistics, +Conditions, +Invariants.

import CHugeSpanShims

/// `bytes`, rounded up to whole cache lines.
private func cacheLines(_ bytes: Int) -> Int { (bytes + 63) & ~63 }

/// A heap on the kernel `K`. Every method may be called from any thread.
///
/// A struct with an internal lock: no method is mutating, so two threads may use one heap at once.
package struct PageHeapCore<K: Kernel>: ~Copyable {
  package let kernel: K
  /// Whether lazily freed blocks carry marks (PageHeap+TakeBack.swift); read without the lock.
  let marksLazyBlocks: Bool
  /// Whether free hugepages are moved to where a span needs them (PageHeap+Moving.swift).
  let movesBlocks: Bool
  let lock = SpinLock()
  let state: UnsafeMutablePointer<HeapState>
  let table: UnsafeMutableRawPointer
  let tableBytes: Int

  /// Makes an empty heap. Maps its fixed tables (under 400 KiB of address space, faulted as they are used); arenas
  /// are reserved when they are first needed.
  ///
  /// - Throws: `unsupportedPageSize`, `kernel` when the tables cannot be mapped, `invalidRequest` for limits below zero
  ///   or a first arena under one block.
  package init(kernel: K, options: HeapOptions) throws(HeapError) {
    let geometry = kernel.geometry
    guard geometry.pageBytes == 1 << pageShift, geometry.hugePageBytes == bytesPerBlock else {
      throw .unsupportedPageSize(pageBytes: geometry.pageBytes, hugePageBytes: geometry.hugePageBytes)
    }
    guard options.firstArenaBytes >= bytesPerBlock, options.softLimitBytes ?? 0 >= 0, options.hardLimitBytes ?? 0 >= 0
    else { throw .invalidRequest }

    guard options.customStrategy != nil || kernel.capabilities.supports(options.strategy.kind) else {
      throw .strategyNotSupported
    }

    let stateBytes = cacheLines(MemoryLayout<HeapState>.stride)
    let arenaBytes = cacheLines(MemoryLayout<Arena>.stride * maximumArenas)
    let listBytes = cacheLines(PlacementLists.byteCount)
    let releasableBytes = cacheLines(ReleasableLists.byteCount)
    let batchBytes = cacheLines(ReleaseBatch.byteCount)
    let originBytes = cacheLines(FlightOrigin.byteCount)
    let pageMask = (1 << pageShift) - 1
    let bytes =
      (stateBytes + arenaBytes + listBytes + releasableBytes + batchBytes + originBytes + pageMask) & ~pageMask
    let memory: UnsafeMutableRawPointer
    do throws(KernelError) {
      memory = try kernel.mapMetadata(byteCount: bytes)
    } catch { throw .kernel(error) }

    let statePointer = memory.assumingMemoryBound(to: HeapState.self)
    let arenaTable = memory + stateBytes
    let arenas = arenaTable.assumingMemoryBound(to: Arena.self)
    let lists = PlacementLists(memory: arenaTable + arenaBytes)
    let releasable = ReleasableLists(memory: arenaTable + arenaBytes + listBytes)
    let batch = ReleaseBatch(memory: arenaTable + arenaBytes + listBytes + releasableBytes)
    let origins = arenaTable + arenaBytes + listBytes + releasableBytes + batchBytes
    statePointer.initialize(
      to: HeapState(
        arenas: arenas, lists: lists, releasable: releasable, options: options,
        policy: PolicyState(
          options.policy, custom: options.customPolicy, strategy: options.strategy, capabilities: kernel.capabilities),
        batch: batch, origins: origins.assumingMemoryBound(to: FlightOrigin.self)))
    statePointer.pointee.metadataBytes = bytes
    if let bytes = options.hardLimitBytes { statePointer.pointee.hardLimitPages = bytes >> pageShift }
    if let bytes = options.softLimitBytes { statePointer.pointee.softLimitPages = bytes >> pageShift }
    marksLazyBlocks =
      options.strategy.kind == .deferred && options.strategy.freesWholeBlocks && options.customStrategy == nil
    statePointer.pointee.marksLazyBlocks = marksLazyBlocks
    movesBlocks =
      options.movesBlocks && kernel.capabilities.contains(.move)
      && (options.adviseHugePages || kernel.capabilities.contains(.hugePagesUnasked))
    statePointer.pointee.displacedLimit = Self.mostDisplacedBlocks
    self.kernel = kernel
    state = statePointer
    table = memory
    tableBytes = bytes
  }

  /// Gives every arena and table back. Waits for releases in flight; the caller must not use the heap any more.
  deinit {
    while true {
      lock.lock()
      let pending = state.pointee.pendingOperations
      lock.unlock()
      if pending == 0 { break }
      hs_shim_sleep_nanoseconds(100_000)
    }
    for index in 0..<state.pointee.arenaCount {
      let arena = state.pointee.arenas[index]
      kernel.unreserve(arena.range)
      kernel.unmapMetadata(arena.metadata, byteCount: arena.metadataBytes)
      if let discards = arena.discards { kernel.unmapMetadata(discards, byteCount: arena.discardBytes) }
    }
    kernel.unmapMetadata(table, byteCount: tableBytes)
  }

  /// New limits in bytes; nil is none. What is above a lowered one goes when the heap grows next, or by `releaseNow`.
  package func setLimits(softBytes: Int?, hardBytes: Int?) {
    lock.lock()
    state.pointee.softLimitPages = softBytes.map { $0 >> pageShift } ?? Int.max
    state.pointee.hardLimitPages = hardBytes.map { $0 >> pageShift } ?? Int.max
    lock.unlock()
  }

  /// Whether a policy or a strategy is the embedder's own.
  package var runsForeignCode: Bool {
    lock.lock()
    defer { lock.unlock() }
    return state.pointee.options.customPolicy != nil || state.pointee.options.customStrategy != nil
  }

  /// Number of arenas.
  package var arenaCount: Int {
    lock.lock()
    defer { lock.unlock() }
    return state.pointee.arenaCount
  }

  /// The committed part of arena `index`.
  package func arena(at index: Int) -> AddressRange {
    lock.lock()
    defer { lock.unlock() }
    let arena = state.pointee.arenas[index]
    return AddressRange(start: arena.range.start, byteCount: arena.committedBlocks << bytesPerBlockShift)
  }
}

// The pointers are to memory that only this heap knows, and everything behind them is guarded by the lock.
extension PageHeapCore: @unchecked Sendable {}

// MARK: Growth

extension PageHeapCore {
  /// Blocks committed at a time where that many are reserved: 32 MiB, one system call for sixteen blocks.
  static var commitStep: Int { 16 }

  /// Makes at least `blocks` consecutive absent blocks, aligned to `alignment` bytes. Under the lock: growing is a
  /// rare, short system call on address space that nobody else knows yet.
  @inline(never)
  func grow(blocks: Int, alignment: UInt) -> KernelError? {
    // The newest arenas have room at their end.
    var index = state.pointee.arenaCount - 1
    while index >= 0 {
      if extend(index, blocks: blocks, alignment: alignment) { return nil }
      index -= 1
    }
    return addArena(blocks: blocks, alignment: alignment)
  }

  /// Commits blocks at the end of arena `index` until a free run of `blocks` ends it.
  private func extend(_ index: Int, blocks: Int, alignment: UInt) -> Bool {
    let arena = state.pointee.arenas + index
    let room = arena.pointee.totalBlocks - arena.pointee.committedBlocks
    if room == 0 { return false }
    var needed = max(blocks - arena.pointee.freeTail, 1)
    if alignment > UInt(bytesPerBlock) {
      // The run that will be used begins at the first aligned block of the free tail.
      let start = arena.pointee.committedBlocks - arena.pointee.freeTail
      let address = arena.pointee.address(ofBlock: start)
      let aligned = (address &+ alignment &- 1) & ~(alignment &- 1)
      needed = max(blocks + Int((aligned - address) >> UInt(bytesPerBlockShift)) - arena.pointee.freeTail, 1)
    }
    if needed > room { return false }
    return commit(index, min(max(needed, Self.commitStep), room)) || commit(index, needed)
  }

  /// Commits `count` more blocks of arena `index` and enters them as absent.
  func commit(_ index: Int, _ count: Int) -> Bool {
    let arena = state.pointee.arenas + index
    let first = arena.pointee.committedBlocks
    let range = AddressRange(start: arena.pointee.address(ofBlock: first), byteCount: count << bytesPerBlockShift)
    do throws(KernelError) { try kernel.commit(range) } catch { return false }
    for number in first..<(first + count) {
      let block = arena.pointee.block(number)
      block.initialize(
        to: BlockHeader(
          index: UInt32(number), stamp: 0, used: 0, released: 0, lazy: 0, spans: 0, inFlight: 0,
          longest: UInt16(pagesPerBlock), phantomAndCause: 0, list: noList, releasable: 0, version: 0, kind: .absent,
          backing: .absent, arena: UInt8(index), flags: .none))
      arena.pointee.committedBlocks += 1
      arena.pointee.markFree(number, resident: false)
    }
    state.pointee.absentBlocks += count
    return true
  }

  /// Reserves a new arena for at least `blocks` blocks and commits them.
  private func addArena(blocks: Int, alignment: UInt) -> KernelError? {
    let count = state.pointee.arenaCount
    if count == maximumArenas { return .outOfMemory }
    // Each arena is twice the one before, so that their number stays small; an address space that is short of room
    // gets what fits.
    let previous = count == 0 ? 0 : state.pointee.arenas[count - 1].range.byteCount
    let least = blocks << bytesPerBlockShift
    var wanted = max(least, previous == 0 ? state.pointee.options.firstArenaBytes & ~(bytesPerBlock - 1) : previous * 2)
    while true {
      let error = addArena(byteCount: wanted, alignment: max(Int(alignment), bytesPerBlock))
      guard let error else { break }
      if wanted == least { return error }
      wanted = max(wanted / 2 & ~(bytesPerBlock - 1), least)
    }
    let room = state.pointee.arenas[count].totalBlocks
    if commit(count, min(max(blocks, Self.commitStep), room)) || commit(count, blocks) { return nil }
    // An arena that holds nothing is given back, so that a failed allocation leaves nothing behind.
    let arena = state.pointee.arenas[count]
    state.pointee.arenaCount = count
    state.pointee.metadataBytes -= arena.metadataBytes
    kernel.unreserve(arena.range)
    kernel.unmapMetadata(arena.metadata, byteCount: arena.metadataBytes)
    return .outOfMemory
  }

  /// Reserves one arena and its table, or returns why not and leaves nothing behind.
  private func addArena(byteCount: Int, alignment: Int) -> KernelError? {
    let blocks = byteCount >> bytesPerBlockShift
    let words = (blocks + 63) / 64
    let userDataBytes = state.pointee.options.userData ? blocks * pagesPerBlock * MemoryLayout<UInt64>.stride : 0
    let entriesOffset = (words * 4 * MemoryLayout<UInt64>.stride + 63) & ~63
    let userDataOffset = (entriesOffset + blocks * bytesPerBlockEntry + 4095) & ~4095
    let accountsOffset = (userDataOffset + userDataBytes + 7) & ~7
    let accountBytes = state.pointee.policy.keepsAccounts ? blocks * MemoryLayout<BlockAccount>.stride : 0
    let metadataBytes = (accountsOffset + accountBytes + 4095) & ~4095
    do throws(KernelError) {
      let range = try kernel.reserve(byteCount: byteCount, alignment: alignment)
      let metadata: UnsafeMutableRawPointer
      do throws(KernelError) {
        metadata = try kernel.mapMetadata(byteCount: metadataBytes)
      } catch {
        kernel.unreserve(range)
        throw error
      }
      if advisesHugePages {
        // Refusal is no failure: a heap without hugepages is a slower heap.
        _ = withUnsafePointer(to: range) { pointer in
          kernel.advise(.hugepage, UnsafeBufferPointer(start: pointer, count: 1))
        }
      }
      let words64 = metadata.assumingMemoryBound(to: UInt64.self)
      (state.pointee.arenas + state.pointee.arenaCount).initialize(
        to: Arena(
          range: range, committedBlocks: 0, totalBlocks: blocks, freeWords: words64, residentWords: words64 + words,
          sharedWords: words64 + 2 * words, denseWords: words64 + 3 * words, entries: metadata + entriesOffset,
          userData: userDataBytes == 0 ? nil : (metadata + userDataOffset).assumingMemoryBound(to: UInt64.self),
          accounts: accountBytes == 0 ? nil : (metadata + accountsOffset).assumingMemoryBound(to: BlockAccount.self),
          metadata: metadata, metadataBytes: metadataBytes, freeBlocks: 0, absentHint: 0))
      state.pointee.arenaCount += 1
      state.pointee.metadataBytes += metadataBytes
      return nil
    } catch { return error }
  }
}
