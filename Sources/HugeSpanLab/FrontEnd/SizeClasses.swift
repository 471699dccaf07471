// Size classes: which sizes small objects are rounded up to, and how long the spans are that they are carved from.
//
// The rules are those of tcmalloc's family. Sizes are spaced so that rounding up wastes at most an eighth (beyond the
// smallest sizes, where alignment decides); a class's span is the shortest one of at least 8 KiB that leaves at most an
// eighth of itself unused at its end. Neighbouring classes with equally many objects in equally long spans differ in
// nothing but internal waste, so the smaller of them is dropped. The tables are constants of the program.

/// Size classes for objects up to 256 KiB, in spans of 4 KiB pages.
package struct SizeClasses: Sendable {
  /// Larger objects get spans of their own.
  package static let largestBytes = 256 << 10
  package static let pageBytes = 4096
  /// No span holds more objects: 8 KiB of 8 bytes.
  package static let mostObjects = 1024

  /// One class.
  package struct SizeClass: Equatable, Sendable {
    package var bytes: Int
    package var spanPages: Int
    package var objectsPerSpan: Int
  }

  /// All classes, by size.
  package let classes: [SizeClass]
  /// Class by size, in steps of 8 bytes up to 1 KiB, then of 128.
  private let smallIndex: [UInt8]
  private let mediumIndex: [UInt8]

  /// The only set there is.
  package static let standard = SizeClasses()

  private init() {
    var classes: [SizeClass] = []
    var bytes = 8
    while bytes <= Self.largestBytes {
      let pages = Self.spanPages(bytes)
      let new = SizeClass(bytes: bytes, spanPages: pages, objectsPerSpan: pages * Self.pageBytes / bytes)
      if let last = classes.last, last.spanPages == pages, last.objectsPerSpan == new.objectsPerSpan {
        classes.removeLast()
      }
      classes.append(new)
      bytes += Self.spacing(bytes)
    }
    self.classes = classes
    func index(_ limit: Int, _ step: Int) -> [UInt8] {
      stride(from: 0, through: limit, by: step).map { size in UInt8(classes.firstIndex { $0.bytes >= size }!) }
    }
    smallIndex = index(1024, 8)
    mediumIndex = index(Self.largestBytes, 128)
  }

  /// Distance from the class of `bytes` to the next.
  private static func spacing(_ bytes: Int) -> Int {
    if bytes < 16 { return 8 }
    if bytes < 128 { return 16 }
    return (1 << (Int.bitWidth - 1 - bytes.leadingZeroBitCount)) / 8
  }

  private static func spanPages(_ bytes: Int) -> Int {
    var pages = max(2, (bytes + pageBytes - 1) / pageBytes)
    while (pages * pageBytes) % bytes > pages * pageBytes / 8 { pages += 1 }
    return pages
  }

  /// The class for an object of `bytes` bytes, which must be at most `largestBytes`.
  @inline(__always)
  package func index(for bytes: Int) -> Int {
    bytes <= 1024 ? Int(smallIndex[(bytes + 7) >> 3]) : Int(mediumIndex[(bytes + 127) >> 7])
  }

  /// The class whose objects are all aligned to `alignment`, a power of two; nil if only a span of its own is.
  package func index(for bytes: Int, alignment: Int) -> Int? {
    if alignment > Self.pageBytes { return nil }
    var index = index(for: max(bytes, alignment))
    while index < classes.count {
      if classes[index].bytes % alignment == 0 { return index }
      index += 1
    }
    return nil
  }
}
