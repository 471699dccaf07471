// The fuzz target: no bytes crash the reader of statistics pages, and what it accepts can be summed.

/// Called by the fuzzer with each input, which stands behind a header that is right but for what the input changes.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let input = UnsafeRawBufferPointer(start: start, count: count)
  check(input)
  // An input is too short for a whole page: its first part goes into the header, the rest behind it.
  var bytes = [UInt8](repeating: 0, count: PublishedHeap.recordsOffset)
  var heap = PublishedHeap()
  let rest = max(count - 16, 0)
  heap.recordsEnd = UInt64(rest / MemoryLayout<PublishedBlock>.stride)
  withUnsafeBytes(of: heap) { bytes.replaceSubrange(0..<$0.count, with: $0) }
  if count >= 16 {
    // Eight pairs of a place in the header and a byte for it.
    for pair in 0..<8 where input[2 * pair] != 0 { bytes[(Int(input[2 * pair]) * 3) % 400] = input[2 * pair + 1] }
    bytes.append(contentsOf: input.dropFirst(16))
  }
  bytes.withUnsafeBytes { check($0) }
  return 0
}

private func check(_ bytes: UnsafeRawBufferPointer) {
  guard let snapshot = try? PublishedSnapshot(bytes) else { return }
  var pages = 0
  for block in snapshot.blocks {
    precondition(block.address & 0x1f_ffff == 0 && block.used + block.idle <= 512)
    pages += Int(block.used) + Int(block.idle) + Int(block.phantom)
  }
  precondition(pages <= snapshot.blocks.count * 1024)
}
