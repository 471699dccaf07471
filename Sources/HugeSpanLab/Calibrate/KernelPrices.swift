// What the kernel's operations cost here: sixteen blocks go through every state that a heap brings them into.
//
// Each round makes them huge, splits them, releases parts, faults parts back, makes them huge again, makes phantom and cures
// it, and releases them whole; every step is timed in CPU time of the thread, which is what prices are in. The first
// round is not counted: it brings the memory and the page tables into being.

import HugeSpanCore

/// Samples of every price, in microseconds.
struct KernelPrices {
  private(set) var samples: [CostModel.Price: [Double]] = [:]
  private let kernel: LinuxKernel
  private let range: AddressRange
  static let blocks = 16

  init(_ kernel: LinuxKernel) throws(CalibrationError) {
    self.kernel = kernel
    range = try ScratchBlocks.make(Self.blocks, kernel)
  }

  func end() { kernel.unreserve(range) }

  private func pages(_ first: Int, _ count: Int, of block: Int) -> AddressRange {
    AddressRange(start: range.start + UInt(block << 21 + first << 12), byteCount: count << 12)
  }

  private func ofEach(_ first: Int, _ count: Int) -> [AddressRange] {
    (0..<Self.blocks).map { pages(first, count, of: $0) }
  }

  /// CPU time of one batch of advice.
  private func timed(_ advice: Advice, _ ranges: [AddressRange]) throws(CalibrationError) -> Double {
    let start = threadMicroseconds()
    let outcome = ranges.withUnsafeBufferPointer { kernel.advise(advice, $0) }
    let spent = threadMicroseconds() - start
    if let error = outcome.error { throw CalibrationError("the kernel refused \(advice): errno \(error.code)") }
    return spent
  }

  /// CPU time of one move.
  private func timedMove(_ source: AddressRange, to destination: AddressRange) throws(CalibrationError) -> Double {
    let start = threadMicroseconds()
    let outcome = kernel.move(source, to: destination.start)
    let spent = threadMicroseconds() - start
    if let error = outcome.error { throw CalibrationError("the kernel refused a move: errno \(error.code)") }
    return spent
  }

  private func touch(_ first: Int, _ count: Int) -> Double {
    let start = threadMicroseconds()
    for block in 0..<Self.blocks {
      let part = pages(first, count, of: block)
      for address in stride(from: part.start, to: part.end, by: 4096) {
        UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = 1
      }
    }
    return threadMicroseconds() - start
  }

  /// One round through all states.
  mutating func run(isCounted: Bool) throws(CalibrationError) {
    let n = Double(Self.blocks)
    func note(_ price: CostModel.Price, _ value: Double, _ samples: inout [CostModel.Price: [Double]]) {
      if isCounted { samples[price, default: []].append(max(value, 0.01)) }
    }
    let fault = touch(0, 1) / n
    guard ScratchBlocks.areHuge(range, kernel) else {
      // Somebody else has the hugepages just now; the round proves nothing.
      _ = try timed(.dontneed, [range])
      return
    }
    note(.blockFault, fault, &samples)
    note(.split, try timed(.cold, ofEach(0, 1)) / n, &samples)

    // Three batches tell call, range and page apart.
    let one = try timed(.dontneed, [pages(1, 1, of: 0)])
    let many = try timed(.dontneed, ofEach(2, 1))
    let long = try timed(.dontneed, ofEach(256, 256))
    let each = max((many - one) / (n - 1), 0)
    let page = max((long - many) / (n * 255), 0)
    note(.releasePage, page, &samples)
    note(.releaseRange, each - page, &samples)
    note(.releaseCall, one - each, &samples)

    note(.pageFault, touch(256, 256) / (n * 256), &samples)
    _ = try timed(.dontneed, ofEach(256, 128))
    var collapse = 0.0
    for block in 0..<Self.blocks { collapse += try timed(.collapse, [pages(0, 512, of: block)]) }
    note(.collapse, collapse / n, &samples)

    _ = try timed(.dontneed, ofEach(256, 256))
    note(.cure, try timed(.cold, ofEach(0, 1)) / n, &samples)
    for block in 0..<Self.blocks { _ = try timed(.collapse, [pages(0, 512, of: block)]) }
    if kernel.capabilities.contains(.move) {
      // Each to the place of the one before; the last place is filled by the touch.
      var move = 0.0
      _ = try timed(.dontneed, [pages(0, 512, of: 0)])
      for block in 1..<Self.blocks { move += try timedMove(pages(0, 512, of: block), to: pages(0, 512, of: block - 1)) }
      note(.blockMove, move / (n - 1), &samples)
      _ = touch(0, 1)
    }
    note(.releaseBlock, (try timed(.dontneed, ofEach(0, 512)) - max(one - each, 0)) / n, &samples)
  }
}

/// Memory to try things on.
enum ScratchBlocks {
  static func make(_ count: Int, _ kernel: LinuxKernel) throws(CalibrationError) -> AddressRange {
    do throws(KernelError) {
      let range = try kernel.reserve(byteCount: count << 21, alignment: 1 << 21)
      do throws(KernelError) { try kernel.commit(range) } catch {
        kernel.unreserve(range)
        throw error
      }
      _ = withUnsafePointer(to: range) { kernel.advise(.hugepage, UnsafeBufferPointer(start: $0, count: 1)) }
      return range
    } catch { throw CalibrationError("\(count << 1) MiB of memory cannot be had: errno \(error.code)") }
  }

  /// Whether every block of `range` is one hugepage.
  static func areHuge(_ range: AddressRange, _ kernel: LinuxKernel) -> Bool {
    var position = range.start
    var huge = 0
    return withUnsafeTemporaryAllocation(of: ResidentRegion.self, capacity: 64) { buffer in
      while position < range.end {
        guard
          let (count, end) = try? kernel.residency(
            of: AddressRange(start: position, byteCount: Int(range.end - position)), into: buffer)
        else { return false }
        for index in 0..<count where buffer[index].isHuge { huge += buffer[index].range.byteCount }
        if end <= position { return false }
        position = end
      }
      return huge == range.byteCount
    }
  }
}
