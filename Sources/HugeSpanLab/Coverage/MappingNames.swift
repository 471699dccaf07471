// What a mapping without a name is, as far as that can be told from outside.
//
// The kernel names the heap, the main stack, files, and what the program named itself (kernels with CONFIG_ANON_VMA_NAME). Of others some give
// themselves away: a thread's stack holds the stack pointer of the thread (/proc/PID/task/TID/syscall, of a thread that waits); glibc's arenas begin at a
// multiple of 64 MiB and the rest up to the next is reserved behind them; a heap of HugeSpan's says on its statistics page where its blocks are. These are
// inferences, and are called so.

import HugeSpanCore

extension CoverageReader {
  /// Fills in `guess` of the mappings that have no name.
  package func guessNames(of process: Int, _ mappings: inout [MappingReport]) {
    let stacks = stackPointers(of: process)
    let heaps = heapBlocks(of: process)
    for index in mappings.indices where mappings[index].name.isEmpty && mappings[index].permissions.hasPrefix("rw") {
      let mapping = mappings[index]
      func holds(_ address: UInt) -> Bool { address >= mapping.start && address < mapping.end }
      if let heap = heaps.first(where: { $0.addresses.contains(where: holds) }) {
        mappings[index].guess = "HugeSpan heap \(heap.number)"
      } else if let stack = stacks.first(where: { holds($0.pointer) }) {
        // The kernel joins neighbours of a kind into one mapping.
        let isAlone = mapping.end - mapping.start <= 8 << 20
        mappings[index].guess = "\(isAlone ? "" : "with ")stack of thread \(stack.thread)"
      } else if index + 1 < mappings.count, CoverageReader.isArena(mapping, mappings[index + 1]) {
        mappings[index].guess = "glibc arena"
      }
    }
  }

  /// A part of 64 MiB that begins at a multiple of that, the rest of which is reserved.
  static func isArena(_ mapping: MappingReport, _ next: MappingReport) -> Bool {
    let size: UInt = 64 << 20
    return mapping.start % size == 0 && next.start == mapping.end && next.permissions.hasPrefix("---")
      && next.end == mapping.start + size
  }

  private func stackPointers(of process: Int) -> [(thread: Int, pointer: UInt)] {
    var reader = self
    reader.proc = "\(proc)/\(process)/task"
    return reader.processes().compactMap { thread in
      // "running" of a thread that does not wait; else a number, arguments, the stack pointer, and where it is.
      let fields = contents(ofFile: "\(proc)/\(process)/task/\(thread)/syscall")?.split(whereSeparator: \.isWhitespace)
      guard let fields, fields.count >= 3, thread != process else { return nil }
      return UInt(fields[fields.count - 2].dropFirst(2), radix: 16).map { (thread, $0) }
    }
  }

  private func heapBlocks(of process: Int) -> [(number: Int, addresses: [UInt])] {
    guard let reader = try? PageReader(process: process, proc: proc), let heaps = try? reader.read() else { return [] }
    return heaps.map { (Int($0.heap.heapNumber), $0.blocks.map { UInt($0.address) }) }
  }
}
