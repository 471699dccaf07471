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
  private var child: Int?
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
    if pause == 0 {
      child = nil
      do throws(PageError) { reader = try PageReader(process: process) } catch {
        reader = nil
        // A launcher: the heap is its program's.
        if case .noPage(_, _, let found) = error { child = found }
      }
    }
    pause = (pause + 1) % HeapWatchSource.looksPerSearch
    if let child { sample.notes.append("Its child \(child) is on a heap: hugespan watch \(child).") }
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
      heap.blocks.reduce(sum) { $0 + $1.goneBytes }
    }
    var told: [UInt: PublishedBlock] = [:]
    for heap in heaps { for block in heap.blocks { told[UInt(block.address)] = block } }
    for index in sample.blocks.indices {
      guard let block = told.removeValue(forKey: sample.blocks[index].address) else { continue }
      sample.blocks[index].state = block.watchState(kernel: sample.blocks[index].state)
    }
    // What the kernel's map leaves out as a stretch without memory.
    let rest = told.values.filter { $0.blockKind == .absent && !$0.isUntouched }
      .map { WatchBlock(address: UInt($0.address), state: .released) }
    if !rest.isEmpty { sample.blocks = (sample.blocks + rest).sorted { $0.address < $1.address } }
  }
}

extension PublishedBlock {
  /// Bytes that were given to the kernel and are gone.
  var goneBytes: Int {
    if isUntouched { return 0 }
    return blockKind == .absent ? 1 << 21 : (Int(released) - min(Int(lazy), Int(released))) << 12
  }

  /// The block as the heap has it, on a hugepage or not by what the kernel has there.
  func watchState(kernel: WatchBlockState) -> WatchBlockState {
    switch blockKind {
    case .absent: return isUntouched ? .empty : .released
    case .occupied: break
    default: return lazy == released && lazy > 0 ? .lazilyFree : .waiting
    }
    switch kernel {
    // Handed out, and nothing of it was ever touched.
    case .empty: return .empty
    case .full: return Int(used) * 2 >= 512 ? .full : .sparse
    // In swap; and discarded, which the kernel may take.
    case .released, .lazilyFree: return kernel
    default: return .broken
    }
  }
}
