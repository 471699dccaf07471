// Releases that somebody needs now: the program, a limit, others who want memory.
//
// They go in price order, by an honest strategy whatever the configured one is, and answer how many bytes are really
// uncharged. The rounds are those of PageHeap+Release.

import CHugeSpanShims

extension PageHeapCore {
  /// Releases free memory until at least `byteCount` bytes are uncharged, or nothing is left, and answers how many
  /// bytes surely are, by what the kernel said was resident before; phantom memory goes besides. Ignores the policy;
  /// uses an honest strategy (`split-dontneed`, or `dontneed` where hugepages cannot be split) whatever the configured one is.
  package func releaseNow(byteCount: Int) -> Int {
    if byteCount <= 0 { return 0 }
    lock.lock()
    awaitScavenging()
    state.pointee.releaseCause = .request
    let wanted = (byteCount - 1) >> pageShift + 1
    var pages = releaseHonestly(pages: wanted, measured: true)
    if pages < wanted && !state.pointee.wasPostponed && state.pointee.refusalsToCheck > 0 {
      // What was refused once comes last: it may be refused again, and a release gives up after some refusals.
      state.pointee.forgetRefusals(.max)
      pages += releaseHonestly(pages: wanted - pages, measured: true)
    }
    endScavenging()
    lock.unlock()
    return pages << pageShift
  }

  /// Makes room under a limit before the heap grows: by what the heap believes to be charged, as the limit itself does.
  /// Held lock on entry and return; open in between. False if nothing was left to release.
  func releaseForLimit(pages: Int) -> Bool {
    awaitScavenging()
    state.pointee.releaseCause = .limit
    defer { endScavenging() }
    return releaseHonestly(pages: pages, measured: false) > 0
  }

  /// In price order: wholly free blocks, broken blocks, what is lazily free, phantom, long spans of intact blocks. Answers how
  /// many pages went: those that were resident before, by the kernel's word, or those that were believed charged.
  func releaseHonestly(pages: Int, measured: Bool) -> Int {
    let kind: StrategyKind = kernel.capabilities.supports(.splitDontneed) ? .splitDontneed : .dontneed
    var order = ReleaseOrder(preferBroken: true, length: .longest)
    order.wholeFirst = true
    order.sparesIntact = true
    var uncharged = releaseInOrder(order, pages: pages, kind, measured: measured)
    uncharged += releaseLazy(pages: pages - uncharged, kind, measured: measured)
    // A cure costs no hugepage. What it gave back is believed only, so it shortens the rest of the way and is no part of an
    // answer that has to be sure.
    var cured = 0
    if uncharged < pages && state.pointee.phantomPages > 0 {
      let before = state.pointee.phantomPages
      cure(.max, pages: pages - uncharged, examining: .max)
      cured = max(before - state.pointee.phantomPages, 0)
    }
    order.sparesIntact = false
    let rest = releaseInOrder(order, pages: pages - uncharged - cured, kind, measured: measured)
    return uncharged + rest + (measured ? 0 : cured)
  }

  private func releaseInOrder(_ order: ReleaseOrder, pages: Int, _ kind: StrategyKind, measured: Bool) -> Int {
    let configured = state.pointee.options.strategy
    var uncharged = 0
    // The selection asks the configured strategy whether anything is released at all, and whether parts are.
    while uncharged < pages && !state.pointee.wasPostponed {
      state.pointee.options.strategy = StrategyChoice(kind, wholeBlocksOnly: configured.wholeBlocksOnly)
      var selected = 0
      while selected < pages - uncharged {
        let sent = state.pointee.sendNext(order, wanted: pages - uncharged - selected)
        if sent == 0 { break }
        selected += sent
      }
      state.pointee.options.strategy = configured
      if selected == 0 { break }
      uncharged += releaseHonestBatch(kind, measured: measured)
    }
    return uncharged
  }

  private func releaseLazy(pages: Int, _ kind: StrategyKind, measured: Bool) -> Int {
    var uncharged = 0
    while uncharged < pages && state.pointee.lazyPages > 0 && !state.pointee.wasPostponed {
      let before = uncharged
      var selected = 0
      var examined = 0
      let blocks = state.pointee.occupiedBlocks + state.pointee.freeResidentBlocks + state.pointee.absentBlocks
      while examined < blocks && selected < pages - uncharged && !state.pointee.batch.isFull {
        var cursor = state.pointee.lazyCursor
        guard let block = state.pointee.next(&cursor) else { break }
        if block.pointee.lazy > 0 && block.pointee.kind != .releasing && !block.pointee.flags.contains(.refused) {
          selected += Int(block.pointee.lazy)
          if !state.pointee.sendLazy(block) { break }
        }
        state.pointee.lazyCursor = cursor
        examined += 1
      }
      if state.pointee.batch.count == 0 { break }
      uncharged += releaseHonestBatch(kind, measured: measured)
      if uncharged == before && examined >= blocks { break }
    }
    return uncharged
  }

  /// Releases the batch and answers how many of its pages are gone now, charge included: of those that were resident
  /// before by the kernel's word, or of those that were believed charged.
  private func releaseHonestBatch(_ kind: StrategyKind, measured: Bool) -> Int {
    let batch = state.pointee.batch
    lock.unlock()
    var resident = InlineArray<128, Int32>(repeating: -1)
    for index in 0..<batch.count {
      if measured { resident[index] = residentPages(of: index, in: batch) }
      // An answer that has to be true does not build on what was true once: a split block may be huge again, or whole
      // below its pages.
      batch.known[index].backing = .unknown
      batch.known[index].wholeFolio = true
    }
    lock.lock()
    var believed = releaseBatch(kind)
    var pages = 0
    for index in 0..<batch.count {
      let size = batch.ranges[index].byteCount >> pageShift
      switch batch.known[index].effect {
      case .gone: pages += resident[index] >= 0 ? Int(resident[index]) : size
      case .goneFromWholeFolio: believed -= size
      case .postponed, .refused, .lazy, .cold, .swapped, .decommitted: break
      }
    }
    // A block that goes as a whole takes its phantom along, but how much that was is only believed: pages of its folio
    // that came back as base pages are not told apart. The answer is what is sure.
    return measured ? pages : believed
  }

  /// Pages of range `index` in memory by the kernel's word, or -1 if it does not say. What a child may share is not
  /// uncharged before the child goes, and does not count.
  private func residentPages(of index: Int, in scratch: ReleaseBatch) -> Int32 {
    let range = scratch.ranges[index]
    if scratch.known[index].sharing != .none {
      do throws(KernelError) {
        let sharing = try kernel.sharedPages(of: range, limit: .max)
        return Int32(sharing.present - sharing.shared)
      } catch { return 0 }
    }
    var pages = 0
    var start = range.start
    while start < range.end {
      do throws(KernelError) {
        let answer = try kernel.residency(
          of: AddressRange(start: start, byteCount: Int(range.end - start)),
          into: UnsafeMutableBufferPointer(start: scratch.regions, count: ReleaseBatch.regionCapacity))
        for index in 0..<answer.count where scratch.regions[index].isPresent {
          pages += scratch.regions[index].range.byteCount >> pageShift
        }
        if answer.walkedTo <= start { break }
        start = answer.walkedTo
      } catch { return -1 }
    }
    return Int32(pages)
  }
}
