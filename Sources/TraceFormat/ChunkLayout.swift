// How events become bytes: the chunk's frame, the first byte of an event, and the state that both sides keep alike.
//
// A trace is bulk: a million events that are births of ordinary sizes and deaths of objects, microseconds apart. So
// one byte carries what most events need, and escapes to varints carry the rest:
//
//      7   6   5 | 4   3   2 | 1   0
//      detail    | steps of  | 0 birth by malloc   detail: which recent size, 7 = a varint follows
//                | the clock | 1 death             detail: which object, see `FreeDetail`
//                | 7 = a     | 2 resize            detail: as a birth's; the object follows as for deaths, as a varint
//                | varint    | 3 anything else     detail: `OtherDetail`
//                | follows   |
//
// Order after the first byte: the clock's varint (if any), then the detail's bytes.
//
// Deaths are the dear ones. Programs free what they made last (a small distance from the newest), tear structures down
// in the order they built them (a step from the last freed), or pick at random: then the number itself costs its
// logarithm and nothing helps. The writer takes the shortest of the three.
//
// At the level of spans sizes are pages, births carry no kind, and `OtherDetail.span` has the rest, see `SpanDetail`.
//
// All state but the numbering begins anew with each chunk, so that a chunk can be read knowing its own header only.

/// The frame before each chunk's events.
struct ChunkHeader: Equatable {
  /// "HSCK", as a little-endian number.
  static let magic: UInt32 = 0x4B43_5348
  static let byteCount = 48
  /// The writer closes a chunk when its events reach this many bytes: small enough that a crash loses little, large
  /// enough that frame and cold state do not count (0.1 %).
  static let targetPayloadBytes = 128 << 10
  /// A payload beyond this is damage.
  static let maximumPayloadBytes = 16 << 20

  /// Bytes of events after this header.
  var payloadBytes: UInt32
  /// Events in the chunk.
  var eventCount: UInt32
  /// Births among them.
  var birthCount: UInt32
  /// The thread of the first event (until the chunk says otherwise).
  var thread: UInt32
  /// The number of the first object born in the chunk: all births before it.
  var firstObject: UInt64
  /// The clock before the first event and at the last one, in the trace's unit.
  var startTime: UInt64
  var endTime: UInt64

  /// The header's bytes but the checksum that closes them.
  var encoded: [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(Self.byteCount)
    result.appendField(Self.magic)
    result.appendField(payloadBytes)
    result.appendField(eventCount)
    result.appendField(birthCount)
    result.appendField(thread)
    result.appendField(firstObject)
    result.appendField(startTime)
    result.appendField(endTime)
    return result
  }

  /// The header at the cursor (after its magic); nil when fewer bytes are left.
  static func decode(_ cursor: inout ByteCursor) -> (header: ChunkHeader, checksum: UInt32)? {
    guard let payloadBytes = cursor.field(UInt32.self), let eventCount = cursor.field(UInt32.self),
      let birthCount = cursor.field(UInt32.self), let thread = cursor.field(UInt32.self),
      let firstObject = cursor.field(UInt64.self), let startTime = cursor.field(UInt64.self),
      let endTime = cursor.field(UInt64.self), let checksum = cursor.field(UInt32.self)
    else { return nil }
    return (
      ChunkHeader(
        payloadBytes: payloadBytes, eventCount: eventCount, birthCount: birthCount, thread: thread,
        firstObject: firstObject, startTime: startTime, endTime: endTime), checksum
    )
  }
}

/// The record after the last chunk; a trace without it is cut.
struct EndRecord: Equatable {
  /// "HSEN", as a little-endian number.
  static let magic: UInt32 = 0x4E45_5348
  static let byteCount = 32

  var eventCount: UInt64
  var objectCount: UInt64
  /// 0 exited, 1 signalled, 2 stopped.
  var kind: UInt32
  /// The status or the signal.
  var code: UInt32

  /// The record's bytes but the checksum that closes them.
  var encoded: [UInt8] {
    var result: [UInt8] = []
    result.appendField(Self.magic)
    result.appendField(eventCount)
    result.appendField(objectCount)
    result.appendField(kind)
    result.appendField(code)
    return result
  }
}

/// The lowest two bits of an event's first byte.
enum EventClass {
  static let birth: UInt8 = 0
  static let death: UInt8 = 1
  static let resize: UInt8 = 2
  static let other: UInt8 = 3
}

/// The highest three bits of a death's first byte.
enum FreeDetail {
  /// 0...3: that many objects were born after the one that dies.
  static let lastNear: UInt8 = 3
  /// The one born after the last freed.
  static let successor: UInt8 = 4
  /// The one born before the last freed.
  static let predecessor: UInt8 = 5
  /// A varint follows: the folded step from the last freed.
  static let step: UInt8 = 6
  /// A varint follows: how many objects were born after it.
  static let distance: UInt8 = 7
}

/// The highest three bits of the first byte of an event of class `other`.
enum OtherDetail {
  /// The program's sample: five varints, folded differences to the chunk's last sample.
  static let sample: UInt8 = 0
  /// A birth by calloc: the size's varint.
  static let zeroed: UInt8 = 1
  /// A birth by an aligned call: the size's varint, a byte with the alignment's logarithm.
  static let aligned: UInt8 = 2
  /// A birth by mmap: as `aligned`.
  static let mapped: UInt8 = 3
  /// No event: the following are by the thread in the varint that follows. The clock's bits are 0.
  static let thread: UInt8 = 4
  /// What only spans know: a byte of `SpanDetail` follows.
  static let span: UInt8 = 5
}

/// The byte after the clock of an event `OtherDetail.span`.
enum SpanDetail {
  /// A birth with traits: the size's varint, a byte with the alignment's logarithm, a byte of `SpanTraits.coded`.
  static let birth: UInt8 = 0
  /// A part is freed: three varints: births after the span, its first page, its pages.
  static let freePages: UInt8 = 1
  /// The same, and the next event is of the same request.
  static let freePagesJoined: UInt8 = 2
  /// As a resize, with zeros in what is added.
  static let growZeroed: UInt8 = 3
  /// As `birth`, but nothing is born.
  static let refusedBirth: UInt8 = 4
  /// As a resize, but nothing changes.
  static let refusedGrowth: UInt8 = 5
  /// As `growZeroed`, but nothing changes.
  static let refusedGrowthZeroed: UInt8 = 6
}

extension SpanTraits {
  /// Everything but the alignment, in a byte.
  package var coded: UInt8 { (isZeroed ? 1 : 0) | lifetime.rawValue << 1 | objects.rawValue << 3 }

  /// The inverse of `coded`; nil for a byte that means nothing.
  package init?(coded: UInt8, alignmentLogarithm: UInt8) {
    guard coded < 32, let lifetime = Lifetime(rawValue: (coded >> 1) & 3), let objects = Objects(rawValue: coded >> 3)
    else { return nil }
    self.init(
      alignmentPages: 1 << Int(alignmentLogarithm), isZeroed: coded & 1 != 0, lifetime: lifetime, objects: objects)
  }
}

/// What no program can exceed; a trace that does is damaged.
package enum TraceLimits {
  /// Bytes of an object: the x86-64 user address space.
  package static let objectBytes = 1 << 47
  package static let threads = 1 << 20
  /// A trace lasts no longer (146 years), so that no sum of times overflows.
  package static let nanoseconds: UInt64 = 1 << 62
  package static let alignmentLogarithm = 40
}

/// The seven sizes used last, the most recent first; both sides keep one.
///
/// Seven because three bits name one; a program's next size is among its last seven in well over half of all births.
struct RecentSizes {
  static let escape: UInt8 = 7
  private var sizes: InlineArray<7, UInt64> = .init(repeating: 0)

  /// The index of `size`, which moves to the front; nil when it is not among the recent ones, which it joins.
  mutating func index(of size: UInt64) -> UInt8? {
    for index in 0..<7 where sizes[index] == size {
      promote(size, from: index)
      return UInt8(index)
    }
    promote(size, from: 6)
    return nil
  }

  /// The size at `index` (at most 6), which moves to the front; 0 when fewer were seen.
  @inline(__always)
  mutating func size(at index: UInt8) -> UInt64 {
    let size = sizes[Int(index)]
    promote(size, from: Int(index))
    return size
  }

  /// Takes in a size that was spelt out.
  @inline(__always)
  mutating func insert(_ size: UInt64) { promote(size, from: 6) }

  @inline(__always)
  private mutating func promote(_ size: UInt64, from last: Int) {
    var index = last
    while index > 0 {
      sizes[index] = sizes[index &- 1]
      index &-= 1
    }
    sizes[0] = size
  }
}

/// How long each span is, 0 for a dead one; both sides refuse what a span of that length cannot do.
struct SpanLengths {
  private var pages: [Int] = []

  mutating func append(_ count: Int) { pages.append(count) }

  /// The pages of a span that lives.
  subscript(span: Int) -> Int {
    get { pages[span] }
    set { pages[span] = newValue }
  }
}

/// Which objects live, a bit each; both sides refuse what a dead object cannot do.
struct LiveObjects {
  private var words: [UInt64] = []

  /// Makes room for `count` objects in all. Done once a chunk, so that the walk over events does not grow anything.
  mutating func reserve(_ count: Int) {
    let needed = (count + 63) / 64
    if needed > words.count {
      words.append(contentsOf: repeatElement(0, count: max(needed, words.count * 2) - words.count))
    }
  }

  @inline(__always)
  mutating func insert(_ object: Int) { words[object &>> 6] |= 1 &<< UInt64(object & 63) }

  @inline(__always)
  func contains(_ object: Int) -> Bool { words[object &>> 6] & (1 &<< UInt64(object & 63)) != 0 }

  /// Marks `object` dead; false when it was dead already.
  @inline(__always)
  mutating func remove(_ object: Int) -> Bool {
    let bit: UInt64 = 1 &<< UInt64(object & 63)
    let word = words[object &>> 6]
    words[object &>> 6] = word & ~bit
    return word & bit != 0
  }
}
