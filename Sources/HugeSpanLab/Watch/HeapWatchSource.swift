// Looks at a process on a heap: by /proc as at any other, and by the statistics page, if it publishes one.
//
// The kernel knows what is in memory and on hugepages, the heap what is used and what a free block waits for. Where both speak of a block
// the kernel decides whether it is on a hugepage, since what the heap believes is as old as its last residency pass. A program
// may come to its heap late (an interpreter, a wrapper that executes another program), and make another one later, so pages are looked for again now and then.

import HugeSpanCore

/// Looks at a process, with its heap if it tells of one.
package struct HeapWatchSource: WatchSource {
  private var kernel: ProcessWatchSource
  private let process: Int
  private var reader: PageReader?
  /// Looks until the page is looked for again.
  private var pause = 0

  /// Looks from one search for pages to the next.
  private static let looksPerSearch = 4

  package init(process: Int) {
    self.process = process
    kernel = ProcessWatchSource(process: process)
  }

  package mutating func look(mappings: Bool) throws(CoverageError) -> WatchSample {
    var sample = try kernel.look(mappings: mappings)
    if pause == 0 { reader = try? PageReader(process: process) }
    pause = (pause + 1) % HeapWatchSource.looksPerSearch
    guard let heaps = try? reader?.read() else {
      reader = nil
      return sample
    }
    HeapWatchSource.enter(heaps, &sample)
    return sample
  }

  /// Adds what the heaps say.
  static func enter(_ heaps: [PublishedSnapshot], _ sample: inout WatchSample) {
    sample.usedBytes = heaps.reduce(0) { $0 + Int($1.heap.usedPages) << 12 }
    // Whole blocks that were released are no pages of the state any more.
    sample.releasedBytes = heaps.reduce(0) { sum, heap in
      heap.blocks.reduce(sum) { $0 + ($1.isReleased ? 1 << 21 : $1.kind == 0 ? 0 : $1.goneBytes) }
    }
    var told: [UInt: WatchBlockState] = [:]
    for heap in heaps { for block in heap.blocks { told[UInt(block.address)] = block.watchState } }
    for index in sample.blocks.indices {
      guard let state = told.removeValue(forKey: sample.blocks[index].address) else { continue }
      sample.blocks[index].state = state.corrected(by: sample.blocks[index].state)
    }
    // What the kernel's map leaves out as a stretch without memory.
    let rest = told.filter { $0.value == .released }.map { WatchBlock(address: $0.key, state: $0.value) }
    if !rest.isEmpty { sample.blocks = (sample.blocks + rest).sorted { $0.address < $1.address } }
  }
}

extension PublishedBlock {
  /// Wholly free, had memory, and has been given back.
  var isReleased: Bool { kind == BlockKindNumber.absent && flags & 16 != 0 }

  /// Bytes that were given to the kernel and are gone.
  var goneBytes: Int { (Int(released) - min(Int(lazy), Int(released))) << 12 }

  /// The block as the heap has it.
  var watchState: WatchBlockState {
    switch kind {
    case BlockKindNumber.absent: return isReleased ? .released : .empty
    case BlockKindNumber.occupied: break
    default: return lazy == released && lazy > 0 ? .lazilyFree : .waiting
    }
    if isBroken || backing == Backing.split.rawValue { return .broken }
    return idle == 0 ? .full : .sparse
  }
}

extension WatchBlockState {
  /// What the heap says, corrected by what the kernel has.
  func corrected(by kernel: WatchBlockState) -> WatchBlockState {
    switch (self, kernel) {
    // Used, and nothing of it was ever touched.
    case (.full, .empty), (.sparse, .empty), (.broken, .empty): .empty
    case (.full, .broken), (.full, .sparse), (.sparse, .broken): .broken
    // Made huge again behind the heap's back.
    case (.broken, .full): .full
    default: self
    }
  }
}
