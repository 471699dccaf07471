// A thread that does what the kernel does of its own accord, only all the time: it splits hugepages of discarded spans,
// has pages of them taken, and puts the rest together again, with zeros in the place of what was taken.
//
// None of it may change what anybody wrote and nobody gave away. MADV_COLD on one page splits, MADV_PAGEOUT takes what is
// lazily free (and, without swap, nothing else), MADV_COLLAPSE makes a hugepage of what is there.

import CHugeSpanShims
import HugeSpanCore
import Synchronization

final class Disturbance: Sendable {
  private let blocks: [UInt]
  private let kernel: LinuxKernel
  private let isStopped = Atomic<Bool>(false)
  let splits = Atomic<Int>(0)
  let collapses = Atomic<Int>(0)

  init(_ spans: [PageSpan], on kernel: LinuxKernel) {
    blocks = spans.flatMap { span in
      stride(from: span.address, to: span.address + UInt(span.pageCount) << 12, by: 1 << 21)
    }
    self.kernel = kernel
  }

  func stop() { isStopped.store(true, ordering: .relaxed) }

  func run() {
    var state: UInt64 = 0x5851_f42d_4c95_7f2d
    while !isStopped.load(ordering: .relaxed) {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      let block = blocks[Int(state >> 20) % blocks.count]
      let page = block + UInt(state >> 8 & 511) << 12
      let count = min(1 + Int(state >> 50 & 31), Int(block + 1 << 21 - page) >> 12)
      if advise(.cold, page, 1) { splits.add(1, ordering: .relaxed) }
      if state >> 5 & 3 == 0 { _ = advise(.pageout, page, count) }
      if state >> 3 & 1 == 0, advise(.collapse, block, 512) { collapses.add(1, ordering: .relaxed) }
      hs_shim_sleep_nanoseconds(300_000)
    }
  }

  private func advise(_ advice: Advice, _ start: UInt, _ pages: Int) -> Bool {
    let range = AddressRange(start: start, byteCount: pages * 4096)
    return withUnsafePointer(to: range) { kernel.advise(advice, UnsafeBufferPointer(start: $0, count: 1)) }.error == nil
  }
}
