// What a busy program loses to TLB misses when its memory is on base pages instead of hugepages.
//
// The program is a store: it hashes a key, reads a bucket, and reads the first and the last line of the object that the bucket names.
// That is what programs do with large heaps; a chase of pointers alone would show three times as much, a loop over an
// array nothing. The same store is laid out in hugepages and in base pages, and looked up in by turns.

import CHugeSpanShims
import HugeSpanCore

/// A store of objects in one piece of memory.
private struct Store {
  static let objectBytes = 512
  let base: UnsafeMutableRawPointer
  let buckets: Int

  /// Half a bucket array, half objects, would be unlike anything: a bucket is 4 bytes, an object 512.
  init(_ range: AddressRange) {
    base = UnsafeMutableRawPointer(bitPattern: range.start)!
    // A multiple of 16, so that the objects behind the buckets lie on cache lines.
    buckets = range.byteCount / (Self.objectBytes + 4) & ~15
    let objects = UnsafeMutableRawPointer(base + buckets * 4)
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    for index in 0..<buckets {
      base.storeBytes(of: UInt32(index), toByteOffset: index * 4, as: UInt32.self)
      objects.storeBytes(of: UInt64(index), toByteOffset: index * Self.objectBytes, as: UInt64.self)
      objects.storeBytes(of: 1, toByteOffset: index * Self.objectBytes + Self.objectBytes - 8, as: UInt64.self)
    }
    // Neighbours in the table are no neighbours in memory.
    for index in stride(from: buckets - 1, to: 0, by: -1) {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let other = Int(state >> 33) % (index + 1)
      let value = base.load(fromByteOffset: index * 4, as: UInt32.self)
      base.storeBytes(
        of: base.load(fromByteOffset: other * 4, as: UInt32.self), toByteOffset: index * 4, as: UInt32.self)
      base.storeBytes(of: value, toByteOffset: other * 4, as: UInt32.self)
    }
  }

  /// Looks `count` keys up; the same keys for the same seed.
  @inline(never)
  func lookUp(_ count: Int, seed: UInt64) -> UInt64 {
    var key = seed
    var found: UInt64 = 0
    for _ in 0..<count {
      key = key &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      // FNV-1a over the sixteen characters that such a key would have.
      var hash: UInt64 = 0xcbf2_9ce4_8422_2325
      for shift in 0..<16 { hash = (hash ^ ((key >> UInt64(shift * 4)) & 0xf)) &* 0x100_0000_01b3 }
      let bucket = Int((hash >> 8) % UInt64(buckets))
      let object = Int(base.load(fromByteOffset: bucket * 4, as: UInt32.self))
      let address = base + buckets * 4 + object * Self.objectBytes
      if address.load(as: UInt64.self) == UInt64(object) {
        found &+= address.load(fromByteOffset: Self.objectBytes - 8, as: UInt64.self)
      }
    }
    return found
  }
}

enum TaxMeasurement {
  private static let lookUps = 200_000

  /// Shares of time that look-ups lose, one for each round: 256 MiB or a quarter of what is free.
  static func run(_ kernel: LinuxKernel, rounds: Int) throws(CalibrationError) -> [Double] {
    let blocks = min(128, max(8, ((availableBytes() ?? (1 << 30)) / 8) >> 21))
    let huge = try ScratchBlocks.make(blocks, kernel)
    defer { kernel.unreserve(huge) }
    let base = try ScratchBlocks.make(blocks, kernel)
    defer { kernel.unreserve(base) }
    _ = hs_shim_madvise(base.start, base.byteCount, Int32(HS_SHIM_MADV_NOHUGEPAGE))
    let stores = (huge: Store(huge), base: Store(base))
    guard ScratchBlocks.areHuge(huge, kernel) else {
      throw CalibrationError("\(blocks << 1) MiB did not get hugepages, so that the tax cannot be measured")
    }
    var shares: [Double] = []
    var check: UInt64 = 0
    for round in 0...rounds {
      let start = threadMicroseconds()
      check &+= stores.huge.lookUp(lookUps, seed: UInt64(round))
      let middle = threadMicroseconds()
      check &-= stores.base.lookUp(lookUps, seed: UInt64(round))
      let end = threadMicroseconds()
      // The first round warms.
      if round > 0 { shares.append(max(0, 1 - (middle - start) / max(end - middle, 1))) }
    }
    precondition(check == 0, "the two stores do not hold the same")
    return shares
  }

  private static func availableBytes() -> Int? {
    for line in (contents(ofFile: "/proc/meminfo") ?? "").split(separator: "\n") where line.hasPrefix("MemAvailable:") {
      return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }
    return nil
  }
}
