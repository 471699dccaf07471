import Testing

@testable import HugeSpanLab

@Suite("Size classes")
struct SizeClassTests {
  let classes = SizeClasses.standard

  @Test("there are as many as an allocator of this kind has, in ascending order, up to 256 KiB")
  func range() {
    #expect((60...90).contains(classes.classes.count))
    #expect(classes.classes.first?.bytes == 8)
    #expect(classes.classes.last?.bytes == SizeClasses.largestBytes)
    for (small, large) in zip(classes.classes, classes.classes.dropFirst()) { #expect(small.bytes < large.bytes) }
  }

  @Test("a span wastes at most an eighth at its end, holds what it says, and is short enough for a page mask")
  func spanWaste() {
    for sizeClass in classes.classes {
      let bytes = sizeClass.spanPages * SizeClasses.pageBytes
      let waste = bytes - sizeClass.objectsPerSpan * sizeClass.bytes
      #expect(waste >= 0 && waste < sizeClass.bytes && waste * 8 <= bytes, "\(sizeClass)")
      #expect(sizeClass.objectsPerSpan <= SizeClasses.mostObjects && sizeClass.spanPages <= 64)
    }
  }

  @Test("every size gets the smallest class that holds it")
  func index() {
    for bytes in 0...SizeClasses.largestBytes where bytes < 4200 || bytes % 61 == 0 || bytes % 4096 < 2 {
      let expected = classes.classes.firstIndex { $0.bytes >= bytes }
      #expect(classes.index(for: bytes) == expected, "\(bytes)")
    }
  }

  @Test("an aligned size gets a class all of whose objects are aligned, or none")
  func alignment() {
    for shift in 0...14 {
      for bytes in [1, 24, 100, 1000, 5000, 40_000, 250_000] {
        guard let index = classes.index(for: bytes, alignment: 1 << shift) else {
          #expect(shift > 12 || bytes > 200_000)
          continue
        }
        #expect(classes.classes[index].bytes % (1 << shift) == 0)
        #expect(classes.classes[index].bytes >= bytes)
      }
    }
  }
}
