// The program's own anonymous mappings as objects.
//
// munmap knows no objects: it takes any range of pages, a part of a mapping or several at once. So a mapping is an
// object made of pieces. Its bytes are the sum of them; cutting off a part, also in the middle, resizes the object, and
// it dies with its last piece.

/// Which object each mapped range belongs to.
struct MappedRanges {
  /// What a change did to an object: its bytes afterwards, 0 when it died.
  struct Change: Equatable {
    var object: Int
    var bytes: UInt64
  }

  private struct Piece {
    var start: UInt64
    var end: UInt64
    var object: Int
  }

  /// Sorted by address, disjoint.
  private var pieces: [Piece] = []
  private var bytes: [Int: UInt64] = [:]

  /// The index of the first piece that ends after `address`.
  private func firstIndex(endingAfter address: UInt64) -> Int {
    var low = 0
    var high = pieces.count
    while low < high {
      let middle = (low + high) / 2
      if pieces[middle].end > address { high = middle } else { low = middle + 1 }
    }
    return low
  }

  /// The object that owns `address`, if any.
  func object(at address: UInt64) -> Int? {
    let index = firstIndex(endingAfter: address)
    return index < pieces.count && pieces[index].start <= address ? pieces[index].object : nil
  }

  /// Adds a range to `object`. The range must be free.
  ///
  /// - Returns: the object's bytes.
  mutating func insert(_ start: UInt64, bytes count: UInt64, object: Int) -> UInt64 {
    pieces.insert(Piece(start: start, end: start + count, object: object), at: firstIndex(endingAfter: start))
    bytes[object, default: 0] += count
    return bytes[object]!
  }

  /// Frees a range, whatever lies in it.
  ///
  /// - Returns: what this did to each object that lay in it, in the order of addresses.
  mutating func remove(_ start: UInt64, bytes count: UInt64) -> [Change] {
    let (sum, overflow) = start.addingReportingOverflow(count)
    let end = overflow ? UInt64.max : sum
    let first = firstIndex(endingAfter: start)
    var last = first
    var left: [Piece] = []
    var changed: [Int] = []
    while last < pieces.count && pieces[last].start < end {
      let piece = pieces[last]
      if piece.start < start { left.append(Piece(start: piece.start, end: start, object: piece.object)) }
      if piece.end > end { left.append(Piece(start: end, end: piece.end, object: piece.object)) }
      bytes[piece.object]! -= min(piece.end, end) - max(piece.start, start)
      if !changed.contains(piece.object) { changed.append(piece.object) }
      last += 1
    }
    pieces.replaceSubrange(first..<last, with: left)
    return changed.map { object in
      let rest = bytes[object]!
      if rest == 0 { bytes[object] = nil }
      return Change(object: object, bytes: rest)
    }
  }
}
