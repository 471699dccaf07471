// Damage that gets past the checksums: without this, mutated traces would test nothing but the checksum.
//
// The fuzz target compiles this file together with the format's own sources, where there is no module to import.

#if canImport(TraceFormat)
  @testable import TraceFormat
#endif

/// Makes the checksums of a (damaged) trace those of its bytes, as far as its parts can still be found.
func repairChecksums(_ bytes: inout [UInt8]) {
  func field(_ offset: Int) -> Int? {
    guard offset >= 0, offset + 4 <= bytes.count else { return nil }
    return (0..<4).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
  }
  func store(_ value: UInt32, _ offset: Int) {
    for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))) }
  }
  func checksum(_ ranges: Range<Int>...) -> UInt32 {
    var checksum = Checksum()
    for range in ranges { bytes[range].withUnsafeBytes { checksum.update($0) } }
    return checksum.value
  }
  guard let length = field(12), 20 + length <= bytes.count else { return }
  store(checksum(20..<20 + length), 16)
  var offset = 20 + length
  while let magic = field(offset) {
    if magic == Int(ChunkHeader.magic), let length = field(offset + 4), offset + 48 + length <= bytes.count {
      store(checksum(offset..<offset + 44, offset + 48..<offset + 48 + length), offset + 44)
      offset += 48 + length
    } else if magic == Int(EndRecord.magic), offset + 32 <= bytes.count {
      store(checksum(offset..<offset + 28), offset + 28)
      return
    } else {
      return
    }
  }
}
