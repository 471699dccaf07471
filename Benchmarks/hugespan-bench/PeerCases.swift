// The same jobs by others: the kernel's own mmap and munmap, and the malloc of allocators that are installed.
//
// The libraries are looked up at run time, in a namespace of their own, so that this process keeps its malloc.
// jemalloc wants static thread-local storage; the program restarts itself once with more of it (see Main).

import Glibc
import Harness

/// malloc and free of one library.
private struct ForeignAllocator {
  let allocate: @convention(c) (Int) -> UnsafeMutableRawPointer?
  let free: @convention(c) (UnsafeMutableRawPointer?) -> Void

  init?(library: String, allocate: String, free: String) {
    guard let handle = dlopen(library, RTLD_NOW | RTLD_LOCAL), let allocateSymbol = dlsym(handle, allocate),
      let freeSymbol = dlsym(handle, free)
    else { return nil }
    self.allocate = unsafeBitCast(allocateSymbol, to: (@convention(c) (Int) -> UnsafeMutableRawPointer?).self)
    self.free = unsafeBitCast(freeSymbol, to: (@convention(c) (UnsafeMutableRawPointer?) -> Void).self)
  }
}

private final class ForeignRun {
  let job: SpanJob
  let allocator: ForeignAllocator
  let live: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  var random = QuickRandom(state: 42)

  init(_ job: SpanJob, _ allocator: ForeignAllocator) {
    self.job = job
    self.allocator = allocator
    live = .allocate(capacity: job.live)
    for index in 0..<job.live { (live + index).initialize(to: allocator.allocate(drawBytes())) }
  }

  @inline(__always)
  func drawBytes() -> Int {
    (job.smallestPages + random.next(below: job.largestPages - job.smallestPages + 1)) << 12
  }

  func run(_ count: Int) {
    for _ in 0..<count {
      let index = random.next(below: job.live)
      allocator.free(live[index])
      live[index] = allocator.allocate(drawBytes())
    }
  }
}

private final class MappingRun {
  let job: SpanJob
  var live: [(pointer: UnsafeMutableRawPointer, bytes: Int)] = []
  var random = QuickRandom(state: 42)

  init(_ job: SpanJob) {
    self.job = job
    for _ in 0..<job.live { live.append(map()) }
  }

  func map() -> (pointer: UnsafeMutableRawPointer, bytes: Int) {
    let bytes = (job.smallestPages + random.next(below: job.largestPages - job.smallestPages + 1)) << 12
    let pointer = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    precondition(pointer != MAP_FAILED, "mmap of \(bytes) bytes failed: \(String(cString: strerror(errno)))")
    return (pointer!, bytes)
  }

  func run(_ count: Int) {
    for _ in 0..<count {
      let index = random.next(below: job.live)
      munmap(live[index].pointer, live[index].bytes)
      live[index] = map()
    }
  }
}

/// Everybody else's cases of a job. Only large sizes are a fair job for a malloc: small ones never reach its page heap.
func peerCases(_ job: SpanJob) -> [BenchmarkCase] {
  var cases = [
    BenchmarkCase(name: job.name, peer: "mmap") {
      let run = MappingRun(job)
      return { run.run($0) }
    }
  ]
  if job.smallestPages < 128 || job.alternatingBlocks > 0 { return cases }
  for (peer, library, prefix) in [
    ("gperftools", "libtcmalloc_minimal.so.4", "tc_"), ("jemalloc", "libjemalloc.so.2", ""),
  ] {
    cases.append(
      BenchmarkCase(name: job.name, peer: peer) {
        guard let allocator = ForeignAllocator(library: library, allocate: prefix + "malloc", free: prefix + "free")
        else { return nil }
        let run = ForeignRun(job, allocator)
        return { run.run($0) }
      })
  }
  return cases
}
