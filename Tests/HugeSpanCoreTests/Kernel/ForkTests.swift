// A forked child has its own memory, and a kernel value that was made before the fork has to look at that.

import Foundation
import HugeSpanCore
import Testing

@Suite struct AKernelMadeBeforeAFork {
  static let batchings: [LinuxKernel.Batching] = [.selfHandle, .pidfd, .none]

  @Test(arguments: batchings)
  func servesTheChild(batching: LinuxKernel.Batching) async {
    let number = Int(batching.rawValue)
    // In a process of its own, since a fork takes only one thread along.
    await #expect(processExitsWith: .success) { [number = number as Int] in
      let kernel = LinuxKernel(batching: LinuxKernel.Batching(rawValue: UInt8(number))!)
      let memory = try ScratchMemory(kernel, byteCount: 64 * 4096)
      memory.touch(memory.pages(0, 8))
      try #require(try kernel.presentBytes(of: memory.range) == 8 * 4096)
      // The importer hides fork from Swift, as most of what a child could do is not safe. What this one does is: system
      // calls and plain memory.
      typealias Fork = @convention(c) () -> Int32
      let fork = unsafeBitCast(try #require(dlsym(nil, "fork")), to: Fork.self)
      let ranges = [memory.pages(0, 4), memory.pages(16, 8)]
      let child = fork()
      if child == 0 {
        memory.touch(memory.pages(16, 16))
        let seen = (try? kernel.presentBytes(of: memory.range)) ?? -1
        let completed = kernel.advise(.dontneed, ranges).completedRanges
        let left = (try? kernel.presentBytes(of: memory.range)) ?? -1
        _exit(seen == 24 * 4096 && completed == 2 && left == 12 * 4096 ? 0 : 1)
      }
      try #require(child > 0)
      var status: Int32 = -1
      try #require(waitpid(child, &status, 0) == child)
      #expect(status == 0, "the child saw, or released, other memory than its own")
      // The parent's is as it was, and it still sees its own.
      #expect(try kernel.presentBytes(of: memory.range) == 8 * 4096)
      #expect(memory.isUnchanged(memory.pages(0, 8)))
    }
  }
}
