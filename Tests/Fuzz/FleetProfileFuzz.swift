// The fuzz target: no bytes crash the reader of profiles, and what it accepts can be a program.

/// Called by the fuzzer with each input.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let profile = try? FleetProfile(parsing: TraceFile(bytes)) else { return 0 }
  precondition(!profile.sizes.isEmpty)
  for size in profile.sizes {
    precondition(size.bytes >= 1 && size.birthsPerSecond > 0 && size.live > 0)
    precondition(!size.lifetime.isNaN)
  }
  return 0
}
