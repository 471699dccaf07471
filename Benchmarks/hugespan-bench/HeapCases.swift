// The page heap's own cases: pairs of free and allocate over a set of live spans, memory untouched.
//
// Each case keeps a number of spans alive; an operation frees one of them, chosen at random, and allocates one in its
// place. That is the pair that the figures of other page heaps are given for. Random numbers and sizes are drawn by a
// multiplication, a nanosecond or two of each pair.

import Harness
import HugeSpanCore

/// A small random generator: a Weyl sequence through a multiplication.
struct QuickRandom {
  var state: UInt64

  /// A number below `bound`.
  @inline(__always)
  mutating func next(below bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    let mixed = (state ^ (state &>> 32)) &* 0xD6E8_FEB8_6659_FD93
    return Int(truncatingIfNeeded: ((mixed &>> 32) &* UInt64(bound)) &>> 32)
  }
}

/// How a case draws its sizes and how many spans it keeps.
struct SpanJob {
  var name: String
  var live: Int
  var smallestPages: Int
  var largestPages: Int
  /// Every other one of this many pageblocks is in use besides, so that no two free ones are neighbours.
  var alternatingBlocks = 0
}

let spanJobs = [
  SpanJob(name: "1 page, 4096 live", live: 4096, smallestPages: 1, largestPages: 1),
  SpanJob(name: "1-16 pages, 4096 live", live: 4096, smallestPages: 1, largestPages: 16),
  SpanJob(name: "1-16 pages, 65536 live", live: 65_536, smallestPages: 1, largestPages: 16),
  SpanJob(name: "2 MiB", live: 64, smallestPages: 512, largestPages: 512),
  SpanJob(name: "512 KiB-1 MiB, 1024 live", live: 1024, smallestPages: 128, largestPages: 256),
  SpanJob(
    name: "4 MiB, 100 GiB in alternate blocks", live: 64, smallestPages: 1024, largestPages: 1024,
    alternatingBlocks: 51_200),
]

/// A heap with its live spans. A class, so that the case's closure can own it.
private final class HeapRun {
  let heap: PageHeapCore<LinuxKernel>
  let spans: UnsafeMutablePointer<PageSpan>
  let job: SpanJob
  var random = QuickRandom(state: 42)

  init(_ job: SpanJob) throws {
    self.job = job
    heap = try PageHeapCore(kernel: LinuxKernel(), options: HeapOptions())
    spans = .allocate(capacity: job.live)
    let blocks = try (0..<job.alternatingBlocks).map { _ in try heap.allocate(SpanRequest(pageCount: 512)).span }
    for index in stride(from: 0, to: blocks.count, by: 2) { heap.free(blocks[index]) }
    for index in 0..<job.live {
      (spans + index).initialize(to: try heap.allocate(SpanRequest(pageCount: drawSize())).span)
    }
  }

  deinit { spans.deallocate() }

  @inline(__always)
  func drawSize() -> Int {
    job.smallestPages == job.largestPages
      ? job.smallestPages : job.smallestPages + random.next(below: job.largestPages - job.smallestPages + 1)
  }

  func run(_ count: Int) {
    for _ in 0..<count {
      let index = random.next(below: job.live)
      heap.free(spans[index])
      do {
        spans[index] = try heap.allocate(SpanRequest(pageCount: drawSize())).span
      } catch { preconditionFailure("the benchmark's heap is out of memory: \(error)") }
    }
  }
}

/// The heap's case of a job.
func heapCase(_ job: SpanJob) -> BenchmarkCase {
  BenchmarkCase(name: job.name, peer: "hugespan") {
    guard let run = try? HeapRun(job) else { return nil }
    return { run.run($0) }
  }
}
