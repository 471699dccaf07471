// Which spans there are, kept the simplest way: a sorted list. What the heap says is compared with this.

import HugeSpanCore

/// The spans of a heap as its user knows them.
struct SpanModel {
  struct Entry {
    var span: PageSpan
    var userData: Int?
  }

  /// Ascending by address, apart from one another.
  private(set) var entries: [Entry] = []

  var pageCount: Int { entries.reduce(0) { $0 + $1.span.pageCount } }

  func isFree(_ range: AddressRange) -> Bool {
    !entries.contains { $0.span.range.start < range.end && range.start < $0.span.range.end }
  }

  /// The index that `slot` stands for, or nil if there is no span.
  func index(_ slot: Int) -> Int? { entries.isEmpty ? nil : slot % entries.count }

  mutating func insert(_ span: PageSpan) {
    let index = entries.firstIndex { $0.span.address > span.address } ?? entries.count
    entries.insert(Entry(span: span), at: index)
  }

  mutating func resize(_ index: Int, to pages: Int) { entries[index].span.pageCount = pages }
  mutating func setUserData(_ index: Int, _ value: Int) { entries[index].userData = value }

  /// Takes a range out of all spans it touches; what is left of them stays.
  mutating func remove(_ range: AddressRange) {
    var result: [Entry] = []
    for entry in entries {
      let own = entry.span.range
      if own.end <= range.start || range.end <= own.start {
        result.append(entry)
        continue
      }
      if own.start < range.start {
        var head = entry
        head.span.pageCount = Int(range.start - own.start) / 4096
        result.append(head)
      }
      if range.end < own.end {
        result.append(
          Entry(span: PageSpan(address: range.end, pageCount: Int(own.end - range.end) / 4096)))
      }
    }
    entries = result
  }
}

extension PageSpan {
  var range: AddressRange { AddressRange(start: address, byteCount: pageCount * 4096) }
  var end: UInt { range.end }
}
