// What a program needs of its allocator at a time: the live memory that it has written to.
//
// Counted twice. In bytes of its objects: an allocator that wastes nothing needs as many, packed. In pages of the front end's spans: a
// heap under this front end needs those, wherever it puts the spans. Of large objects that are touched in part only the
// pages at their front count, up to the first that was not touched: less than there is is still needed.

/// Live and touched memory.
package struct Demand: Equatable, Sendable {
  /// Bytes of objects.
  package internal(set) var touchedBytes = 0
  /// Pages of spans.
  package internal(set) var touchedPages = 0

  /// Pages that the objects would fill if they were packed without a gap.
  @inline(__always)
  package var packedPages: Int { (touchedBytes &+ SizeClasses.pageBytes &- 1) / SizeClasses.pageBytes }

  /// An object with a span of its own is there.
  mutating func add(_ entry: ObjectEntry) {
    touchedPages &+= Int(entry.touchedPages)
    touchedBytes &+= entry.touchedBytes
  }

  /// It is not there any more.
  mutating func remove(_ entry: ObjectEntry) {
    touchedPages &-= Int(entry.touchedPages)
    touchedBytes &-= entry.touchedBytes
  }
}

extension ObjectEntry {
  /// Of an object with a span of its own, the bytes in touched pages.
  var touchedBytes: Int { min(bytes, Int(touchedPages) * SizeClasses.pageBytes) }

  /// The pages from `first` up to `end` were touched.
  mutating func noteTouched(from first: Int, to end: Int) {
    if first == Int(touchedPages) { touchedPages = UInt32(truncatingIfNeeded: end) }
  }
}
