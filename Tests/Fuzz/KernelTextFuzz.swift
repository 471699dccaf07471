// The fuzz target: no bytes crash the readers of the kernel's settings, and what they accept makes sense.

/// Called by the fuzzer with each input.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let text = String(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
  if let mode = ModeChoice(text) { precondition(mode.offered.contains(mode.selected) && !mode.selected.isEmpty) }
  _ = kernelNumber(text)
  for head in ["", "Filename Type Size Used Priority\n"] {
    for area in parseSwaps(head + text) ?? [] { precondition(area.sizeBytes >= 0 && area.usedBytes >= 0) }
  }
  for head in ["", "Node 0, zone Normal "] {
    let all = parseFreeBlocks(head + text, order: 0, pageBytes: 4096)
    let huge = parseFreeBlocks(head + text, order: 9, pageBytes: 4096)
    if let huge { precondition((0...all!).contains(huge)) }
  }
  for index in [0, 5, 63, count] { _ = featureBit(index, of: text) }
  _ = (parseHypervisorFlag(text), parseHypervisorFlag("flags : " + text), kernelFlag(text))
  if let bytes = memoryField("MemTotal", of: "MemTotal: " + text) { precondition(bytes >= 0) }
  return 0
}
