// Mappings as objects, against a model that knows the owner of each page.

import Testing

@testable import HugeSpanLab

@Suite("Mapped ranges") struct MappedRangesTests {
  @Test("agree with a model that keeps each page's owner", arguments: 1...10)
  func model(seed: UInt64) {
    var random = seed &* 0x9E37_79B9_7F4A_7C15
    func draw(_ bound: Int) -> Int {
      random ^= random << 13
      random ^= random >> 7
      random ^= random << 17
      return Int(random % UInt64(bound))
    }
    let pages = 64
    var owners = [Int?](repeating: nil, count: pages)
    var ranges = MappedRanges()
    var nextObject = 0
    for step in 0..<2000 {
      let start = draw(pages)
      let count = 1 + draw(min(20, pages - start))
      let before = owners
      for page in start..<start + count { owners[page] = nil }
      let touched = Set(before[start..<start + count].compactMap { $0 })
      let changes = ranges.remove(UInt64(start) * 4096, bytes: UInt64(count) * 4096)
      #expect(Set(changes.map(\.object)) == touched, "seed \(seed), step \(step)")
      for change in changes {
        let left = owners.filter { $0 == change.object }.count
        #expect(change.bytes == UInt64(left) * 4096, "seed \(seed), step \(step)")
      }
      if draw(2) == 0 {
        for page in start..<start + count { owners[page] = nextObject }
        let bytes = ranges.insert(UInt64(start) * 4096, bytes: UInt64(count) * 4096, object: nextObject)
        #expect(bytes == UInt64(count) * 4096)
        nextObject += 1
      }
      let probe = draw(pages)
      #expect(ranges.object(at: UInt64(probe) * 4096 + 17) == owners[probe], "seed \(seed), step \(step)")
    }
  }

  @Test("give up everything at once when the image is replaced")
  func removeAll() {
    var ranges = MappedRanges()
    _ = ranges.insert(4096, bytes: 8192, object: 1)
    _ = ranges.insert(1 << 46, bytes: 4096, object: 2)
    #expect(ranges.remove(0, bytes: .max).map(\.object) == [1, 2])
    #expect(ranges.object(at: 4096) == nil)
  }
}
