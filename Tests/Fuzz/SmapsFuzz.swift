// The fuzz target: no bytes crash the reader of smaps, and what it accepts has figures that can be summed.

/// Called by the fuzzer with each input.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let text = String(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
  for head in ["", "1000-401000 rw-p 00000000 00:00 0 [heap]\n"] {
    guard let mappings = try? parseSmaps(head + text) else { continue }
    for mapping in mappings {
      precondition(mapping.start <= mapping.end && mapping.figures.residentBytes >= 0)
      if let coverage = mapping.figures.coverage { precondition(coverage >= 0 && !coverage.isNaN) }
    }
  }
  return 0
}
