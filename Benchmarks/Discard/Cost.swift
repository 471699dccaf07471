// What a call costs, without anybody else in the way: medians of CPU time over many spans of one size.

import CHugeSpanShims
import Foundation
import HugeSpanCore

/// Spans of one size on hugepages, or on base pages.
private struct CostCase {
  var name: String
  var pages: Int
  var isSplit: Bool
  var spans: Int
}

private let cases = [
  CostCase(name: "4 KiB, base pages", pages: 1, isSplit: true, spans: 512),
  CostCase(name: "64 KiB, base pages", pages: 16, isSplit: true, spans: 512),
  CostCase(name: "1 MiB, base pages", pages: 256, isSplit: true, spans: 128),
  CostCase(name: "2 MiB, base pages", pages: 512, isSplit: true, spans: 64),
  CostCase(name: "2 MiB, a hugepage", pages: 512, isSplit: false, spans: 64),
  CostCase(name: "32 MiB, hugepages", pages: 8192, isSplit: false, spans: 8),
]

/// The table, a line for each case: microseconds of a discard, of an undo that finds all there, and of one that finds all
/// lost. Of the pages two in five have their mark planted.
func costTable() throws -> String {
  var lines = ["                    discard  undo: intact    lost   (us of CPU time)"]
  for each in cases {
    var times: [[Double]] = [[], [], []]
    for _ in 0..<max(2, 512 / each.spans / 4) { try measure(each, &times) }
    let medians = times.map { $0.sorted()[$0.count / 2] }
    lines.append(
      each.name.padding(toLength: 20, withPad: " ", startingAt: 0)
        + String(format: "%7.1f  %12.1f  %6.1f", medians[0], medians[1], medians[2]))
  }
  return lines.joined(separator: "\n")
}

private func measure(_ each: CostCase, _ times: inout [[Double]]) throws {
  var options = HeapOptions()
  options.policy = .never
  let heap = try Heap(kernel: LinuxKernel(), options: options)
  let spans = try (0..<each.spans).map { _ in try heap.allocate(SpanRequest(pageCount: each.pages)).span }
  for span in spans {
    for page in 0..<span.pageCount { Payload(seed: 7).write(page, at: span.address + UInt(page * 4096)) }
    if each.isSplit { _ = advise(heap, .cold, PageSpan(address: span.address, pageCount: 1)) }
  }
  for round in 0..<3 {
    for span in spans {
      let first = timed { try? heap.discard(span) }
      if round == 2 { _ = advise(heap, .pageout, span) }
      let second = timed { _ = try? heap.undoDiscard(span) }
      // The first discard of a span writes to the tables, which are not in memory yet.
      if round > 0 { times[0].append(first) }
      if round > 0 { times[round].append(second) }
    }
  }
}

private func timed(_ body: () -> Void) -> Double {
  let start = hs_shim_thread_cpu_nanoseconds()
  body()
  return Double(hs_shim_thread_cpu_nanoseconds() - start) / 1000
}

private func advise(_ heap: borrowing Heap, _ advice: Advice, _ span: PageSpan) -> AdviseOutcome {
  let range = AddressRange(start: span.address, byteCount: span.pageCount * 4096)
  return withUnsafePointer(to: range) { heap.kernel.advise(advice, UnsafeBufferPointer(start: $0, count: 1)) }
}
