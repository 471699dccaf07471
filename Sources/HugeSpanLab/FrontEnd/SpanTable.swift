// Descriptors of the spans that small objects are carved from, and the lists from which the next object comes.
//
// A descriptor is a header of four words and a bitmap of the class's objects. Descriptors live in one prefaulted
// mapping, addressed by word index, and are recycled within their class, so carving a span allocates nothing. Each
// class has eight lists of spans with free objects, by the number of objects in use: the fuller a span, the sooner the
// next object comes from it, so that nearly empty spans get a chance to empty (tcmalloc's central free lists do the
// same).

/// Index of a descriptor; 0 is no descriptor.
package typealias SpanIndex = UInt32

/// Bookkeeping of carved spans. Owns no memory of the heap.
package struct SpanTable: ~Copyable {
  static let headerWords = 4
  static let listCount = 8

  private let words: MappedArray<UInt64>
  private var usedWords = SpanTable.headerWords  // index 0 is taken by nobody
  /// Recycled descriptors by class, linked through their `next`.
  private var recycled: MappedArray<SpanIndex>
  /// List heads: class × listCount + list.
  private var heads: MappedArray<SpanIndex>
  /// A bit per list that has spans, by class.
  private var occupied: MappedArray<UInt8>
  private let classes: SizeClasses

  /// Makes room for `wordCount` words of descriptors in memory, and address space for eight times as many.
  package init(wordCount: Int, classes: SizeClasses) {
    self.classes = classes
    words = MappedArray(zeroes: wordCount * 8 + 1 << 20, prefaulted: wordCount)
    recycled = MappedArray(repeating: 0, count: classes.classes.count)
    heads = MappedArray(repeating: 0, count: classes.classes.count * Self.listCount)
    occupied = MappedArray(repeating: 0, count: classes.classes.count)
  }

  /// Words of a descriptor with `objects` objects.
  package static func words(objects: Int) -> Int { headerWords + (objects + 63) / 64 }

  // Header: address | next, previous | objects in use, class, list, word to search first | touched pages.

  package func address(_ span: SpanIndex) -> UInt { UInt(words[Int(span)]) }

  @inline(__always)
  private func next(_ span: SpanIndex) -> SpanIndex { SpanIndex(truncatingIfNeeded: words[Int(span) + 1]) }
  @inline(__always)
  private func previous(_ span: SpanIndex) -> SpanIndex { SpanIndex(truncatingIfNeeded: words[Int(span) + 1] >> 32) }
  @inline(__always)
  private func setNext(_ span: SpanIndex, _ value: SpanIndex) {
    words[Int(span) + 1] = words[Int(span) + 1] & ~0xFFFF_FFFF | UInt64(value)
  }
  @inline(__always)
  private func setPrevious(_ span: SpanIndex, _ value: SpanIndex) {
    words[Int(span) + 1] = words[Int(span) + 1] & 0xFFFF_FFFF | UInt64(value) << 32
  }

  /// Objects in use.
  @inline(__always)
  package func live(_ span: SpanIndex) -> Int { Int(words[Int(span) + 2] & 0xFFFF) }
  @inline(__always)
  package func sizeClass(_ span: SpanIndex) -> Int { Int(words[Int(span) + 2] >> 16 & 0xFF) }
  @inline(__always)
  private func list(_ span: SpanIndex) -> Int { Int(words[Int(span) + 2] >> 24 & 0xFF) }
  @inline(__always)
  private func searchWord(_ span: SpanIndex) -> Int { Int(words[Int(span) + 2] >> 32) }

  @inline(__always)
  private func setState(_ span: SpanIndex, live: Int, sizeClass: Int, list: Int, searchWord: Int) {
    words[Int(span) + 2] =
      UInt64(truncatingIfNeeded: live | sizeClass &<< 16 | list &<< 24 | searchWord &<< 32)
  }

  /// Bit k: page k of the span was touched since it was carved. Spans are at most 64 pages long.
  @inline(__always)
  package func touchedPages(_ span: SpanIndex) -> UInt64 { words[Int(span) + 3] }
  @inline(__always)
  package func setTouchedPages(_ span: SpanIndex, _ value: UInt64) { words[Int(span) + 3] = value }

  // MARK: Lists

  /// 0 for the fullest spans. Each list holds spans with at least twice the objects in use of the next.
  @inline(__always)
  private static func listNumber(live: Int) -> Int {
    let width = Int.bitWidth - live.leadingZeroBitCount  // 0...11
    return max(0, listCount - max(width, 1))
  }

  /// The number of a list for spans without a free object.
  private static let noList = 0xFF

  @inline(__always)
  private func link(_ span: SpanIndex, sizeClass: Int, list: Int) {
    let head = heads[sizeClass * Self.listCount + list]
    words[Int(span) + 1] = UInt64(head)
    if head != 0 { setPrevious(head, span) }
    heads[sizeClass * Self.listCount + list] = span
    // Not `|=`: the compiler does not survive that on a mapping when it builds for the thread sanitizer.
    occupied[sizeClass] = occupied[sizeClass] | 1 << UInt8(list)
  }

  @inline(__always)
  private func unlink(_ span: SpanIndex, sizeClass: Int, list: Int) {
    let after = next(span)
    let before = previous(span)
    if after != 0 { setPrevious(after, before) }
    if before != 0 {
      setNext(before, after)
    } else {
      heads[sizeClass * Self.listCount + list] = after
      if after == 0 { occupied[sizeClass] = occupied[sizeClass] & ~(1 << UInt8(list)) }
    }
  }

  /// Brings the list and the counters of `span` in line with `live` objects in use.
  @inline(__always)
  private func update(_ span: SpanIndex, live: Int, sizeClass: Int, capacity: Int, searchWord: Int) {
    let old = list(span)
    let new = live == capacity ? Self.noList : Self.listNumber(live: live)
    setState(span, live: live, sizeClass: sizeClass, list: new, searchWord: searchWord)
    if old == new { return }
    if old != Self.noList { unlink(span, sizeClass: sizeClass, list: old) }
    if new != Self.noList { link(span, sizeClass: sizeClass, list: new) }
  }

  // MARK: Objects

  /// The fullest span of the class that has a free object, or 0.
  @inline(__always)
  package func fullestSpan(sizeClass: Int) -> SpanIndex {
    let lists = occupied[sizeClass]
    return lists == 0 ? 0 : heads[sizeClass * Self.listCount + lists.trailingZeroBitCount]
  }

  /// Enters a span that was just carved, without objects in use. Traps when the table is full.
  package mutating func insert(address: UInt, sizeClass: Int) -> SpanIndex {
    let capacity = classes.classes[sizeClass].objectsPerSpan
    var span = recycled[sizeClass]
    let length = Self.words(objects: capacity)
    if span != 0 {
      recycled[sizeClass] = next(span)
    } else {
      precondition(usedWords + length <= words.count, "the table of spans is full")
      span = SpanIndex(usedWords)
      usedWords += length
    }
    words[Int(span)] = UInt64(address)
    words[Int(span) + 3] = 0
    for index in Self.headerWords..<length { words[Int(span) + index] = 0 }
    let list = Self.listNumber(live: 0)
    setState(span, live: 0, sizeClass: sizeClass, list: list, searchWord: 0)
    link(span, sizeClass: sizeClass, list: list)
    return span
  }

  /// Takes the lowest free object of `span`, which must have one.
  @inline(__always)
  package func takeObject(_ span: SpanIndex) -> Int {
    let sizeClass = sizeClass(span)
    let capacity = classes.classes[sizeClass].objectsPerSpan
    var word = searchWord(span)
    let bitmap = words.base + Int(span) + Self.headerWords
    // Every word before the search word is full.
    while bitmap[word] == ~0 { word &+= 1 }
    let bit = (~bitmap[word]).trailingZeroBitCount
    bitmap[word] |= 1 &<< UInt64(bit)
    update(span, live: live(span) + 1, sizeClass: sizeClass, capacity: capacity, searchWord: word)
    assert(word * 64 + bit < capacity)
    return word &* 64 &+ bit
  }

  /// Gives object `index` of `span` back. Returns whether the span is empty now; then it is in no list any more and its
  /// descriptor will be reused, so its memory must go back to the heap.
  @inline(__always)
  package mutating func giveObject(_ span: SpanIndex, _ index: Int) -> Bool {
    let sizeClass = sizeClass(span)
    let bitmap = words.base + Int(span) + Self.headerWords
    let mask: UInt64 = 1 &<< UInt64(index & 63)
    precondition(bitmap[index >> 6] & mask != 0, "an object was given back twice")
    bitmap[index >> 6] &= ~mask
    let left = live(span) - 1
    if left == 0 {
      let list = list(span)
      if list != Self.noList { unlink(span, sizeClass: sizeClass, list: list) }
      words[Int(span) + 1] = UInt64(recycled[sizeClass])
      recycled[sizeClass] = span
      return true
    }
    update(
      span, live: left, sizeClass: sizeClass, capacity: classes.classes[sizeClass].objectsPerSpan,
      searchWord: min(searchWord(span), index >> 6))
    return false
  }
}
