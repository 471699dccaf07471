// Which span each page belongs to, by the addresses of the recording.
//
// A front end gives back any range: a part of a span, or neighbours in one go. So spans are looked up by any page of
// theirs, and in the order of addresses. The map has an entry per pageblock, with the spans that begin in it, sorted, and
// the one that began before it and reaches into it: an entry is short, and no operation looks at more than the
// pageblocks of its range, however many spans live.

/// Spans by address.
struct SpanMap {
  /// A span, or a part of one.
  struct Piece: Equatable {
    var start: UInt64
    var end: UInt64
    var span: Int
  }

  private struct Block {
    var starts: [Piece] = []
    /// The start of the span that began before this block and reaches into it.
    var reachedBy: UInt64?
  }

  private static let blockBytes: UInt64 = 2 << 20
  private var blocks: [UInt64: Block] = [:]

  /// The span that covers `address`.
  func piece(at address: UInt64) -> Piece? {
    guard let block = blocks[address / Self.blockBytes] else { return nil }
    if let piece = block.starts.last(where: { $0.start <= address }) { return piece.end > address ? piece : nil }
    guard let start = block.reachedBy, let piece = blocks[start / Self.blockBytes]?.starts.last,
      piece.start == start, piece.end > address
    else { return nil }
    return piece
  }

  /// The span that ends at `address`.
  func piece(endingAt address: UInt64) -> Piece? {
    guard address > 0, let piece = piece(at: address - 1), piece.end == address else { return nil }
    return piece
  }

  /// Enters a span where there is none.
  mutating func insert(_ piece: Piece) {
    let first = piece.start / Self.blockBytes
    var block = blocks[first] ?? Block()
    let index = block.starts.firstIndex { $0.start > piece.start } ?? block.starts.count
    block.starts.insert(piece, at: index)
    blocks[first] = block
    let last = (piece.end - 1) / Self.blockBytes
    if last > first { for number in first + 1...last { blocks[number, default: Block()].reachedBy = piece.start } }
  }

  /// Takes out a span that `piece(at:)` has found.
  mutating func remove(_ piece: Piece) {
    let first = piece.start / Self.blockBytes
    if var block = blocks[first] {
      block.starts.removeAll { $0.start == piece.start }
      blocks[first] = block.starts.isEmpty && block.reachedBy == nil ? nil : block
    }
    let last = (piece.end - 1) / Self.blockBytes
    if last == first { return }
    for number in first + 1...last {
      if var block = blocks[number], block.reachedBy == piece.start {
        block.reachedBy = nil
        blocks[number] = block.starts.isEmpty ? nil : block
      }
    }
  }

  /// The spans that lie in a range, wholly or in part, in the order of addresses.
  func pieces(from start: UInt64, to end: UInt64) -> [Piece] {
    var result: [Piece] = []
    if start >= end { return result }
    if let piece = piece(at: start) { result.append(piece) }
    for number in start / Self.blockBytes...(end - 1) / Self.blockBytes {
      for piece in blocks[number]?.starts ?? [] where piece.start > start && piece.start < end { result.append(piece) }
    }
    return result
  }

  /// All spans, in the order of their numbers.
  var all: [Piece] { blocks.values.flatMap(\.starts).sorted { $0.span < $1.span } }
}
