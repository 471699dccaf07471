// Discarded contents on the model of a kernel: what is kept, what is told, and a kernel that does its worst between any two
// steps.

import HugeSpanCore
import TestKernels
import Testing

private func options(_ strategy: StrategyKind = .splitDontneed) -> HeapOptions {
  var options = HeapOptions()
  options.firstArenaBytes = 16 << 21
  options.policy = .immediate
  options.strategy = StrategyChoice(strategy)
  options.effectSamplePeriod = 0
  return options
}

extension PageSpan {
  fileprivate func address(_ page: Int) -> UInt { address + UInt(page * 4096) }
  fileprivate func pages(_ first: Int, _ count: Int) -> PageSpan { PageSpan(address: address(first), pageCount: count) }
}

/// What is written to a page: every third one has nothing but zeros.
private func payload(_ address: UInt) -> UInt64 { address >> 12 % 3 == 0 ? 0 : UInt64(address) | 1 }

extension ModelKernel {
  fileprivate func fill(_ span: PageSpan) {
    for page in 0..<span.pageCount { setWord(payload(span.address(page)), at: span.address(page)) }
  }

  fileprivate func isFilled(_ span: PageSpan) -> Bool {
    (0..<span.pageCount).allSatisfy { word(at: span.address($0)) == payload(span.address($0)) }
  }
}

/// A bit for each page.
private struct LostPages {
  var words: [UInt64]
  init(_ count: Int) { words = [UInt64](repeating: ~0, count: (count + 63) / 64) }
  subscript(page: Int) -> Bool { words[page / 64] >> UInt64(page % 64) & 1 != 0 }
}

@Suite struct DiscardedContents {
  /// Whole hugepages, a part of one, single pages, and spans over several blocks.
  @Test(arguments: [1, 2, 16, 100, 511, 512, 513, 1024, 1300], [true, false])
  func surviveWhileThereIsMemory(pages: Int, givesHugePages: Bool) throws {
    let kernel = ModelKernel(givesHugePages: givesHugePages)
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: pages)).span
    kernel.fill(span)
    try heap.discard(span)
    heap.checkInvariants()
    #expect(kernel.lazyBytes >= pages * 4096 && heap.statistics().discardedPages == pages)
    #expect(heap.statistics().usedPages == pages)
    var lost = LostPages(pages)
    let undone = try lost.words.withUnsafeMutableBufferPointer {
      try heap.undoDiscard(span, lostPages: $0.baseAddress)
    }
    #expect(undone == UndoneDiscard(verdict: .intact, lostPages: 0) && lost.words.allSatisfy { $0 == 0 })
    heap.checkInvariants()
    // Nothing of them is the kernel's any more.
    kernel.reclaimLazy()
    #expect(kernel.isFilled(span) && heap.statistics().discardedPages == 0 && heap.statistics().undoneIntact == 1)
    #expect(kernel.violations == [])
  }

  @Test(arguments: [1, 100, 512, 1300])
  func areLostWhenMemoryIsShortAndReadAsZero(pages: Int) throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: pages)).span
    kernel.fill(span)
    try heap.discard(span)
    kernel.reclaimLazy()
    let before = kernel.presentBytes
    #expect(try heap.undoDiscard(span) == UndoneDiscard(verdict: .lost, lostPages: pages))
    #expect(kernel.presentBytes == before, "to be told costs no memory")
    #expect(kernel.readsAsZero(span.range))
    #expect(heap.statistics().undoneLost == 1 && heap.statistics().discardedPagesLost == pages)
    // And can be used, and discarded, again.
    kernel.fill(span)
    try heap.discard(span)
    #expect(try heap.undoDiscard(span).verdict == .intact)
    #expect(kernel.isFilled(span))
    heap.checkInvariants()
  }

  @Test func tellWhichPagesAreLost() throws {
    let kernel = ModelKernel(givesHugePages: false)
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 1300)).span
    kernel.fill(span)
    // Not at a word's border of the map, and not at a block's.
    let range = span.pages(7, 1200)
    try heap.discard(range)
    kernel.reclaimLazy(range.pages(60, 10).range)
    kernel.reclaimLazy(range.pages(500, 8).range)
    kernel.reclaimLazy(range.pages(1199, 1).range)
    var lost = LostPages(1200)
    let undone = try lost.words.withUnsafeMutableBufferPointer {
      try heap.undoDiscard(range, lostPages: $0.baseAddress)
    }
    #expect(undone == UndoneDiscard(verdict: .partlyLost, lostPages: 19))
    for page in 0..<1200 {
      let isGone = 60..<70 ~= page || 500..<508 ~= page || page == 1199
      #expect(lost[page] == isGone)
      #expect(kernel.word(at: range.address(page)) == (isGone ? 0 : payload(range.address(page))))
    }
    #expect(kernel.isFilled(span.pages(0, 7)) && kernel.isFilled(span.pages(1207, 93)))
    #expect(heap.statistics().undonePartly == 1 && heap.statistics().discardedPagesLost == 19)
  }

  @Test func ofPagesThatNobodyTouchedTakeNoMemoryAndAreNeverLost() throws {
    let kernel = ModelKernel(givesHugePages: false)
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 600)).span
    kernel.fill(span.pages(100, 1))
    try heap.discard(span)
    #expect(kernel.presentBytes == 4096)
    kernel.reclaimLazy()
    var lost = LostPages(600)
    let undone = try lost.words.withUnsafeMutableBufferPointer {
      try heap.undoDiscard(span, lostPages: $0.baseAddress)
    }
    #expect(undone == UndoneDiscard(verdict: .partlyLost, lostPages: 1) && lost[100])
    #expect(kernel.presentBytes == 0 && kernel.readsAsZero(span.range))
  }

  @Test func ofNeighboursInABlockAreApart() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let spans = try (0..<16).map { _ in try heap.allocate(SpanRequest(pageCount: 32)).span }
    for span in spans { kernel.fill(span) }
    for index in stride(from: 0, to: 16, by: 2) { try heap.discard(spans[index]) }
    heap.checkInvariants()
    #expect(heap.statistics().discardSplits == 1, "a part of a hugepage can be given away after a split only")
    // Those that are not discarded can not be undone, nor the others discarded.
    for index in 0..<16 {
      #expect(throws: HeapError.invalidRequest) {
        if index % 2 == 0 { try heap.discard(spans[index]) } else { _ = try heap.undoDiscard(spans[index]) }
      }
    }
    kernel.reclaimLazy(spans[4].range)
    for index in stride(from: 0, to: 16, by: 2) {
      #expect(try heap.undoDiscard(spans[index]).verdict == (index == 4 ? .lost : .intact))
    }
    kernel.reclaimLazy()
    for index in 0..<16 where index != 4 { #expect(kernel.isFilled(spans[index])) }
  }

  @Test func keepAWholeHugePageHuge() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 1024)).span
    kernel.fill(span)
    try heap.discard(span)
    #expect(kernel.hugeBytes == 2 << 21)
    #expect(try heap.undoDiscard(span).verdict == .intact)
    #expect(kernel.hugeBytes == 2 << 21 && heap.statistics().discardSplits == 0)
  }

  @Test func mayBeFreedWithOthersAndInPart() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 700)).span
    kernel.fill(span)
    try heap.discard(span.pages(300, 300))
    heap.free(span.pages(250, 150))
    heap.checkInvariants()
    #expect(heap.statistics().discardedPages == 200)
    _ = heap.shrink(span.pages(400, 300), toPages: 150)
    heap.checkInvariants()
    #expect(heap.statistics().discardedPages == 150)
    #expect(throws: HeapError.invalidRequest) { try heap.undoDiscard(span.pages(390, 20)) }
    #expect(try heap.undoDiscard(span.pages(400, 150)).verdict == .intact)
    #expect(kernel.isFilled(span.pages(400, 150)))
    // What was freed is free as ever, and what comes of it starts afresh.
    let next = try heap.allocate(SpanRequest(pageCount: 100)).span
    kernel.fill(next)
    try heap.discard(next)
    #expect(try heap.undoDiscard(next).verdict == .intact && kernel.isFilled(next))
    heap.checkInvariants()
  }

  @Test func doNotGrow() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 10)).span
    kernel.fill(span)
    try heap.discard(span)
    #expect(heap.grow(span, by: 1) == nil)
    var wish = SpanRequest(pageCount: 5)
    wish.wishedAddress = span.address(5)
    #expect(throws: HeapError.addressNotFree) { try heap.allocate(wish) }
    #expect(try heap.undoDiscard(span).verdict == .intact)
    #expect(heap.grow(span, by: 1) != nil)
  }

  @Test func thatAreNobodysAreRefused() throws {
    let kernel = ModelKernel()
    let heap = try PageHeapCore(kernel: kernel, options: options())
    let span = try heap.allocate(SpanRequest(pageCount: 10)).span
    for wrong in [
      span.pages(0, 11), span.pages(10, 1), PageSpan(address: span.address + 8, pageCount: 1),
      PageSpan(address: span.address, pageCount: 0), PageSpan(address: span.address, pageCount: -1),
      PageSpan(address: span.address, pageCount: .max), PageSpan(address: 4096, pageCount: 1),
      PageSpan(address: UInt.max & ~4095, pageCount: 2),
    ] {
      #expect(throws: HeapError.invalidRequest) { try heap.discard(wrong) }
      #expect(throws: HeapError.invalidRequest) { try heap.undoDiscard(wrong) }
    }
    #expect(kernel.count(of: .advise(.free)) == 0)
    heap.checkInvariants()
  }

  @Test func areLeftAloneByEveryPassOfTheHeap() throws {
    let kernel = ModelKernel()
    var options = options(.splitDontneed)
    options.policy = .rentOrBuy(RentOrBuyOptions())
    let heap = try PageHeapCore(kernel: kernel, options: options)
    let spans = try (0..<6).map { _ in try heap.allocate(SpanRequest(pageCount: 128)).span }
    let whole = try heap.allocate(SpanRequest(pageCount: 512)).span
    for span in spans + [whole] { kernel.fill(span) }
    for index in [0, 2, 5] { try heap.discard(spans[index]) }
    try heap.discard(whole)
    for index in [1, 3] { heap.free(spans[index]) }
    // Busy and idle, so that it releases, and would rebuild.
    for second in 1...200 {
      _ = heap.tick(at: UInt64(second) * 1_000_000_000, processCPU: UInt64(min(second, 100)) * 900_000_000)
      if second % 20 == 0 { _ = try heap.residencyPass() }
    }
    _ = heap.releaseNow(byteCount: .max)
    _ = heap.curePhantom(blocks: 10)
    heap.checkInvariants()
    #expect(kernel.count(of: .advise(.collapse)) == 0, "a rebuild would keep what the kernel may take")
    #expect(kernel.lazyBytes == (3 * 128 + 512) * 4096)
    kernel.reclaimLazy(spans[2].range)
    for index in [0, 2, 5] { #expect(try heap.undoDiscard(spans[index]).verdict == (index == 2 ? .lost : .intact)) }
    #expect(try heap.undoDiscard(whole).verdict == .intact)
    for span in [spans[0], spans[4], spans[5], whole] { #expect(kernel.isFilled(span)) }
    // Undone, they are a reason to rebuild again.
    for second in 201...400 {
      _ = heap.tick(at: UInt64(second) * 1_000_000_000, processCPU: UInt64(second) * 900_000_000)
    }
    #expect(kernel.count(of: .advise(.collapse)) > 0)
    heap.checkInvariants()
  }

  @Test func countAsUsedInLimits() throws {
    let kernel = ModelKernel()
    var options = options()
    options.hardLimitBytes = 4 << 21
    let heap = try PageHeapCore(kernel: kernel, options: options)
    let span = try heap.allocate(SpanRequest(pageCount: 3 * 512)).span
    kernel.fill(span)
    try heap.discard(span)
    kernel.reclaimLazy()
    #expect(throws: HeapError.limitExceeded) { try heap.allocate(SpanRequest(pageCount: 1024)) }
    heap.free(span)
    _ = try heap.allocate(SpanRequest(pageCount: 1024))
  }
}

// MARK: - Refusals

private typealias Faulty = FaultInjectingKernel<ModelKernel>

/// A filled span in a heap whose kernel's calls can fail.
private final class Discardable {
  let kernel = Faulty(ModelKernel())
  let heap: PageHeapCore<Faulty>
  let span: PageSpan

  init(_ pages: Int) throws {
    heap = try PageHeapCore(kernel: kernel, options: options())
    span = try heap.allocate(SpanRequest(pageCount: pages)).span
    kernel.base.fill(span)
  }

  /// A fork, from here on in the parent, or in the child.
  func fork(goesOnInChild: Bool = false) {
    heap.prepareForFork()
    kernel.base.fork()
    if goesOnInChild { heap.resumeInChild() } else { heap.resumeInParent() }
  }
}

@Suite struct ADiscardWhoseKernelRefuses {
  @Test func tablesChangesNothing() throws {
    let memory = try Discardable(20)
    memory.kernel.faults.fail(.mapMetadata, count: 1, with: .outOfMemory)
    #expect(throws: HeapError.kernel(.outOfMemory)) { try memory.heap.discard(memory.span) }
    memory.heap.checkInvariants()
    #expect(memory.kernel.base.isFilled(memory.span) && memory.heap.statistics().discardedPages == 0)
    try memory.heap.discard(memory.span)
    #expect(try memory.heap.undoDiscard(memory.span).verdict == .intact)
  }

  @Test(arguments: [20, 512, 40 * 512])
  func toTakeThemChangesNothing(pages: Int) throws {
    let memory = try Discardable(pages)
    memory.kernel.faults.fail(.advise(.free), count: 1, with: .invalid)
    #expect(throws: HeapError.kernel(.invalid)) { try memory.heap.discard(memory.span) }
    memory.heap.checkInvariants()
    memory.kernel.base.reclaimLazy()
    #expect(memory.kernel.base.isFilled(memory.span))
    #expect(memory.heap.statistics().discardedPages == 0 && memory.heap.statistics().discards == 0)
  }

  /// The rest of a long span: what the kernel has been given can be gone by then, so that there is no way back.
  @Test func toTakeTheRestKeepsTheRest() throws {
    let memory = try Discardable(40 * 512)
    memory.kernel.faults.fail(.advise(.free), skipping: 1, with: .invalid)
    try memory.heap.discard(memory.span)
    memory.kernel.base.reclaimLazy()
    let undone = try memory.heap.undoDiscard(memory.span)
    #expect(undone == UndoneDiscard(verdict: .partlyLost, lostPages: 32 * 512))
    #expect(memory.kernel.base.isFilled(memory.span.pages(32 * 512, 8 * 512)))
    memory.heap.checkInvariants()
  }

  /// Without a word on residency every page is looked at, which costs memory and no truth.
  @Test(arguments: [20, 512, 1300])
  func toSayWhatIsThereGoesByTheMarks(pages: Int) throws {
    let memory = try Discardable(pages)
    memory.kernel.faults.fail(.residency, with: .notSupported)
    try memory.heap.discard(memory.span)
    #expect(try memory.heap.undoDiscard(memory.span).verdict == .intact)
    memory.kernel.base.reclaimLazy()
    #expect(memory.kernel.base.isFilled(memory.span))
    try memory.heap.discard(memory.span)
    memory.kernel.base.reclaimLazy()
    #expect(try memory.heap.undoDiscard(memory.span) == UndoneDiscard(verdict: .lost, lostPages: pages))
    memory.heap.checkInvariants()
  }

  @Test func givesItsTablesBack() throws {
    let kernel = Faulty(ModelKernel())
    do {
      let heap = try PageHeapCore(kernel: kernel, options: options())
      let before = heap.statistics().metadataBytes
      // Two arenas.
      let spans = try (0..<3).map { _ in try heap.allocate(SpanRequest(pageCount: 10 * 512)).span }
      let tables = heap.statistics().metadataBytes
      for span in spans {
        kernel.base.fill(span)
        try heap.discard(span)
      }
      #expect(tables > before && heap.statistics().metadataBytes > tables)
    }
    #expect(kernel.faults.isBalanced)
  }
}

// MARK: - Forks

@Suite struct DiscardedContentsOfAFork {
  @Test(arguments: [20, 512, 700]) func areNotGivenAwayWhileAChildSharesThem(pages: Int) throws {
    let memory = try Discardable(pages)
    let huge = memory.kernel.base.hugeBytes
    memory.fork()
    #expect(throws: HeapError.sharedWithChild) { try memory.heap.discard(memory.span) }
    #expect(memory.kernel.base.hugeBytes == huge, "no mark is written, and no page copied")
    #expect(memory.kernel.base.isFilled(memory.span))
    #expect(memory.kernel.faults.count(of: .advise(.free)) == 0 && memory.heap.statistics().discardedPages == 0)
    memory.heap.checkInvariants()
    memory.kernel.base.endChildren()
    try memory.heap.discard(memory.span)
    #expect(try memory.heap.undoDiscard(memory.span).verdict == .intact)
  }

  @Test func areNotGivenAwayWhereNobodySaysWhoSharesThem() throws {
    let memory = try Discardable(20)
    memory.fork()
    memory.kernel.base.endChildren()
    memory.kernel.faults.fail(.sharing, count: 1, with: .notSupported)
    #expect(throws: HeapError.sharedWithChild) { try memory.heap.discard(memory.span) }
    try memory.heap.discard(memory.span)
  }

  @Test(arguments: [20, 512, 700], [true, false])
  func canBeUndoneInBoth(pages: Int, inChild: Bool) throws {
    let memory = try Discardable(pages)
    try memory.heap.discard(memory.span)
    memory.fork(goesOnInChild: inChild)
    memory.heap.checkInvariants()
    #expect(memory.heap.statistics().discardedPages == pages)
    #expect(try memory.heap.undoDiscard(memory.span).verdict == .intact)
    memory.kernel.base.endChildren()
    memory.kernel.base.reclaimLazy()
    #expect(memory.kernel.base.isFilled(memory.span))
  }

  /// The child has the tables and the memory of that moment, and no thread that goes on. Wherever it was: what counts as
  /// intact is what it was.
  @Test func inTheMiddleOfADiscardAreNeverTakenForIntactUnlessTheyAre() throws {
    let steps = 64
    for step in 1...steps {
      let model = ModelKernel(givesHugePages: step % 2 == 0)
      let counter = Locked(0)
      let heap = UnsafeMutablePointer<PageHeapCore<DisturbedKernel<ModelKernel>>>.allocate(capacity: 1)
      defer {
        heap.deinitialize(count: 1)
        heap.deallocate()
      }
      let isForked = Locked(false)
      // The span is nobody's in the child; here it is undone as if it were wanted after all.
      let answer = Locked<UndoneDiscard?>(nil)
      let lost = Locked(LostPages(24))
      let place = Locked<PageSpan?>(nil)
      let base = UInt(bitPattern: heap)
      let kernel = DisturbedKernel(model) {
        guard let span = place.withLock({ $0 }), !isForked.withLock({ $0 }) else { return }
        let number = counter.withLock { value in
          value += 1
          return value
        }
        if number != step { return }
        isForked.withLock { $0 = true }
        let heap = UnsafeMutablePointer<PageHeapCore<DisturbedKernel<ModelKernel>>>(bitPattern: base)!
        // What the child would find: its own operation goes on here afterwards, so that this stays the parent.
        heap.pointee.prepareForFork()
        heap.pointee.resumeInParent()
        heap.pointee.checkInvariants()
        lost.withLock { lost in
          lost.words.withUnsafeMutableBufferPointer { words in
            answer.withLock { $0 = try? heap.pointee.undoDiscard(span, lostPages: words.baseAddress) }
          }
        }
      }
      heap.initialize(to: try PageHeapCore(kernel: kernel, options: options()))
      let span = try heap.pointee.allocate(SpanRequest(pageCount: 24)).span
      model.fill(span)
      place.withLock { $0 = span }
      // One thread plays both processes: when this returns, the child's undo is done.
      try? heap.pointee.discard(span)
      guard isForked.withLock({ $0 }), answer.withLock({ $0 }) != nil else { continue }
      let words = lost.withLock { $0 }
      for page in 0..<24 where !words[page] {
        // What the interrupted discard wrote after the child's answer is not the child's.
        let word = model.word(at: span.address(page))
        #expect(word == payload(span.address(page)) || (word == 1 && payload(span.address(page)) == 0))
      }
    }
  }
}

// MARK: - A kernel that does its worst

@Suite struct DiscardsUnderAKernelThatReclaimsAllTheTime {
  /// Spans of one to 1,300 pages, whole hugepages among them, some on base pages; pages of zeros; and between any two
  /// accesses or calls the kernel may take pages, split and rebuild. A page is called lost exactly if the kernel took it, and
  /// what is called intact is what it was and stays.
  @Test(arguments: 1...12) func tellTheTruthOfEachPage(seed: UInt64) throws {
    let model = ModelKernel(givesHugePages: seed % 4 != 0)
    let generator = Locked(SeededGenerator(seed: seed))
    let isActive = Locked(false)
    let blocks = Locked<[UInt]>([])
    // A thousandth to a tenth of all steps: rare disturbances find other moments than frequent ones.
    let share = [0.1, 0.02, 0.003][Int(seed % 3)]
    let kernel = DisturbedKernel(model) {
      if !isActive.withLock({ $0 }) { return }
      generator.withLock { generator in
        if Double.random(in: 0..<1, using: &generator) > share { return }
        guard let block = blocks.withLock({ $0.randomElement(using: &generator) }) else { return }
        let range = AddressRange(start: block, byteCount: 1 << 21)
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
          switch Int.random(in: 0..<10, using: &generator) {
          case 0: model.reclaimLazy(range)
          case 1...3: model.splitBehindTheBack(range)
          case 4, 5: model.collapseBehindTheBack(range)
          default:
            let first = Int.random(in: 0..<512, using: &generator)
            let count = Int.random(in: 1...min(512 - first, 64), using: &generator)
            model.splitBehindTheBack(range)
            model.reclaimLazy(AddressRange(start: block + UInt(first * 4096), byteCount: count * 4096))
          }
        }
      }
    }
    let heap = try PageHeapCore(kernel: kernel, options: options())
    var random = SeededGenerator(seed: seed + 100)
    let sizes = [1, 2, 3, 8, 16, 100, 512, 512, 700, 1300]
    var spans: [PageSpan] = []
    for size in sizes {
      let span = try heap.allocate(SpanRequest(pageCount: size)).span
      model.fill(span)
      spans.append(span)
    }
    let first = spans.map { $0.address & ~UInt((1 << 21) - 1) }.min()!
    let last = spans.map { $0.range.end - 1 }.max()!
    blocks.withLock { $0 = Array(stride(from: first, through: last, by: 1 << 21)) }
    var verdicts: [DiscardVerdict: Int] = [:]
    for _ in 0..<120 {
      let span = spans.randomElement(using: &random)!
      let drops = (0..<span.pageCount).map { model.drops(at: span.address($0)) }
      isActive.withLock { $0 = true }
      try heap.discard(span)
      for _ in 0..<Int.random(in: 0...60, using: &random) { kernel.disturb() }
      // Sometimes memory is really short.
      if Int.random(in: 0..<6, using: &random) == 0 { model.reclaimLazy(span.range) }
      var lost = LostPages(span.pageCount)
      let undone = try lost.words.withUnsafeMutableBufferPointer {
        try heap.undoDiscard(span, lostPages: $0.baseAddress)
      }
      // Pinned is pinned, whatever comes.
      for _ in 0..<20 { kernel.disturb() }
      isActive.withLock { $0 = false }
      model.reclaimLazy(span.range)
      heap.checkInvariants()
      verdicts[undone.verdict, default: 0] += 1
      var count = 0
      for page in 0..<span.pageCount {
        let address = span.address(page)
        let word = model.word(at: address)
        if lost[page] {
          count += 1
          #expect(word == 0, "page \(page) is lost and not zero")
          #expect(model.drops(at: address) > drops[page], "page \(page) is called lost and was never taken")
        } else {
          #expect(word == payload(address), "page \(page) is called intact and is not")
        }
      }
      #expect(count == undone.lostPages)
      #expect((undone.verdict == .intact) == (count == 0))
      #expect((undone.verdict == .lost) == (count == span.pageCount))
      model.fill(span)
    }
    #expect(verdicts.count == 3, "all verdicts come up: \(verdicts)")
    #expect(model.violations == [])
  }
}
