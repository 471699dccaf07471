// The tables of requests at jemalloc's page allocator, line by line.
//
// jemalloc's tests have a stress program for its page allocator that replays a CSV file (test/stress/pa in its sources), and a
// preprocessor that makes such files of what was captured in production, at the page allocator or at the cache of small
// extents before it. All three are known, told apart by the names in the first line; columns may stand in any order, and
// `_int` at a name's end says nothing:
//
//     replay:   shard_ind,operation,size_or_alloc_index,nsecs,is_frequent
//     capture:  shard_ind_int,addr_int,nsecs_int,probe,size_int
//     cache:    process_id,thread_id,thread_name,nsecs_int,_c4,sec_ptr_int,sec_shard_ptr_int,edata_ptr_int,size_int,
//               is_frequent_reuse_int
//
// In a replay table operation 0 asks for so many bytes, and 1 gives back what the allocation of that number (they are
// counted from 0) has got. Older ones have no times. `is_frequent` is 1 for memory that is going to be cut into small
// objects. A capture has addresses, and the probes hpa_alloc and hpa_dalloc. One of the cache has probes called sec_… in
// column `_c4`, and addresses of caches, which take the place of shards, and of what describes an extent, which stand for
// the extents; releases may end after that.

/// A row of a table, checked for what it says on its own.
struct JemallocRow {
  enum Request {
    /// So many bytes, a multiple of `JemallocTable.pageBytes`; at `address` in a capture.
    case allocate(bytes: Int, address: UInt64?)
    /// What the allocation of this number got.
    case free(allocation: UInt64)
    /// What lies at this address.
    case freeAddress(UInt64)
  }

  var request: Request
  var shard: Int
  /// Nil where the table has no times.
  var nanoseconds: UInt64?
  var isFrequent: Bool
}

/// Reads the rows of a table. What is wrong is refused with line and column.
struct JemallocTable {
  /// jemalloc counts in pages of this size, on every machine that has such pages.
  static let pageBytes = 4096

  enum Column: Int, CaseIterable {
    case shard, operation, sizeOrIndex, nanoseconds, isFrequent, address, probe, size, cache
    case process, thread, threadName, cacheShard

    /// Names without `_int`.
    static let names: [String: Column] = [
      "shard_ind": .shard, "operation": .operation, "operation_index": .operation,
      "size_or_alloc_index": .sizeOrIndex, "nsecs": .nanoseconds, "is_frequent": .isFrequent, "addr": .address,
      "probe": .probe, "size": .size, "_c4": .probe, "sec_ptr": .cache, "edata_ptr": .address,
      "is_frequent_reuse": .isFrequent, "process_id": .process, "thread_id": .thread, "thread_name": .threadName,
      "sec_shard_ptr": .cacheShard,
    ]
    /// The names that a refusal calls missing.
    static let usualNames: [Column: String] = [
      .shard: "shard_ind", .operation: "operation", .sizeOrIndex: "size_or_alloc_index", .address: "addr",
      .nanoseconds: "nsecs", .size: "size",
    ]
  }

  private let file: TraceFile
  private var offset = 0
  /// The line that was read last, counted from 1.
  private(set) var lineNumber = 0
  /// The column of each field.
  private var columns: [Column] = []
  private var positions = [Int](repeating: -1, count: Column.allCases.count)
  private var isCapture = false
  /// The shards that stand for caches.
  private var caches: [UInt64: Int] = [:]

  /// Reads the names of the columns.
  init(_ file: TraceFile) throws(TraceError) {
    self.file = file
    guard let names = line() else { throw TraceError(.badLine("the table is empty"), at: .line(1)) }
    for (index, name) in names.enumerated() {
      var text = Self.shown(file.bytes[name])
      if text.hasSuffix("_int") { text.removeLast(4) }
      guard let column = Column.names[text] else {
        throw cell(
          "no column is called '\(text)' (known: shard_ind, operation, size_or_alloc_index, nsecs, is_frequent; of a "
            + "capture shard_ind, addr, nsecs, probe, size, or those of a capture of the cache)", index)
      }
      if positions[column.rawValue] >= 0 { throw cell("the column '\(text)' comes twice", index) }
      positions[column.rawValue] = index
      columns.append(column)
    }
    isCapture = has(.probe)
    let needed: [Column] =
      isCapture
      ? [has(.cache) ? .cache : .shard, .address, .nanoseconds, .probe, .size] : [.shard, .operation, .sizeOrIndex]
    for column in needed where !has(column) {
      throw cell("the column '\(Column.usualNames[column] ?? "probe")' is missing", columns.count)
    }
  }

  private func has(_ column: Column) -> Bool { positions[column.rawValue] >= 0 }

  /// Whether its rows have times.
  var hasTimes: Bool { has(.nanoseconds) }

  private func cell(_ text: String, _ index: Int) -> TraceError {
    TraceError(.badLine(text), at: .cell(line: lineNumber, column: index + 1))
  }

  /// A refusal of what the row that was read last has in the column of allocations.
  func refusal(_ text: String) -> TraceError { cell(text, max(0, positions[Column.sizeOrIndex.rawValue])) }

  /// Where the fields of the next line are that has any; without blanks around them.
  private mutating func line() -> [Range<Int>]? {
    while offset < file.bytes.count {
      let start = offset
      var end = start
      while end < file.bytes.count && file.bytes[end] != 0x0A { end += 1 }
      offset = end + 1
      lineNumber += 1
      if !file.bytes[start..<end].allSatisfy(Self.isBlank) { return fields(start..<end) }
    }
    return nil
  }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0D }

  private func fields(_ line: Range<Int>) -> [Range<Int>] {
    var result: [Range<Int>] = []
    var start = line.lowerBound
    while true {
      var end = start
      while end < line.upperBound && file.bytes[end] != 0x2C { end += 1 }
      var field = start..<end
      while let first = field.first, Self.isBlank(file.bytes[first]) { field = field.dropFirst() }
      while let last = field.last, Self.isBlank(file.bytes[last]) { field = field.dropLast() }
      result.append(field)
      if end == line.upperBound { return result }
      start = end + 1
    }
  }

  /// The next row; nil at the end.
  mutating func row() throws(TraceError) -> JemallocRow? {
    guard let fields = line() else { return nil }
    let isRelease = isCapture ? try releases(fields) : false
    let needed = isRelease ? columns.firstIndex(of: .size)! : columns.count
    if fields.count > columns.count || fields.count < needed {
      throw cell(
        "the row has \(fields.count) fields, the first line names \(columns.count)", min(fields.count, columns.count))
    }
    var row = JemallocRow(
      request: .freeAddress(0), shard: try shard(fields),
      nanoseconds: hasTimes ? try number(.nanoseconds, fields, below: TraceLimits.nanoseconds) : nil, isFrequent: false)
    if isRelease {
      row.request = .freeAddress(try number(.address, fields, below: .max))
      return row
    }
    if has(.isFrequent) { row.isFrequent = try number(.isFrequent, fields, below: 2) == 1 }
    if isCapture {
      row.request = .allocate(bytes: try size(.size, fields), address: try number(.address, fields, below: .max))
    } else if try number(.operation, fields, below: 2) == 0 {
      row.request = .allocate(bytes: try size(.sizeOrIndex, fields), address: nil)
    } else {
      row.request = .free(allocation: try number(.sizeOrIndex, fields, below: .max))
    }
    return row
  }

  /// Whether a row of a capture gives something back.
  private func releases(_ fields: [Range<Int>]) throws(TraceError) -> Bool {
    let position = positions[Column.probe.rawValue]
    guard position < fields.count else { throw cell("the row ends before its probe", fields.count) }
    switch Self.shown(file.bytes[fields[position]]) {
    case "hpa_alloc", "sec_alloc": return false
    case "hpa_dalloc", "sec_dalloc": return true
    case let probe:
      throw cell("no probe is called '\(probe)' (known: hpa_alloc, hpa_dalloc, sec_alloc, sec_dalloc)", position)
    }
  }

  /// The shard of a row; caches are numbered as they come.
  private mutating func shard(_ fields: [Range<Int>]) throws(TraceError) -> Int {
    if !has(.cache) { return Int(try number(.shard, fields, below: UInt64(TraceLimits.threads))) }
    let cache = try number(.cache, fields, below: .max)
    if let known = caches[cache] { return known }
    if caches.count == TraceLimits.threads { throw cell("too many caches", positions[Column.cache.rawValue]) }
    caches[cache] = caches.count
    return caches.count - 1
  }

  /// A field as it can be shown to the user: not all of another kind of file.
  private static func shown(_ field: Slice<UnsafeRawBufferPointer>) -> String {
    String(decoding: field.prefix(40).map { $0 >= 0x20 && $0 < 0x7F ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
  }

  private func field(_ column: Column, _ fields: [Range<Int>]) -> Range<Int> { fields[positions[column.rawValue]] }

  private func number(_ column: Column, _ fields: [Range<Int>], below limit: UInt64) throws(TraceError) -> UInt64 {
    guard positions[column.rawValue] < fields.count else {
      throw cell("the row ends before this field", fields.count)
    }
    let field = field(column, fields)
    var value: UInt64 = 0
    var isNumber = !field.isEmpty
    for index in field where isNumber {
      let digit = file.bytes[index] &- 0x30
      let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
      let (sum, carry) = tens.addingReportingOverflow(UInt64(digit))
      isNumber = digit < 10 && !overflow && !carry
      value = sum
    }
    if !isNumber || value >= limit {
      let text = Self.shown(file.bytes[field])
      throw cell("'\(text)' is not a number below \(limit)", positions[column.rawValue])
    }
    return value
  }

  private func size(_ column: Column, _ fields: [Range<Int>]) throws(TraceError) -> Int {
    let bytes = try number(column, fields, below: UInt64(TraceLimits.objectBytes) + 1)
    if bytes == 0 || bytes % UInt64(Self.pageBytes) != 0 {
      throw cell("\(bytes) bytes are not a number of pages of \(Self.pageBytes)", positions[column.rawValue])
    }
    return Int(bytes)
  }
}
