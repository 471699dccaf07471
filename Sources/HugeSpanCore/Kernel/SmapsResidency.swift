// Residency without PAGEMAP_SCAN.
//
// The pagemap file has a word for each page, with one bit for present and one for swapped, but none for huge. smaps says
// of each mapping how many bytes of it are resident (Rss) and how many of those are mapped by PMD entries
// (AnonHugePages). Together:
//  - a page that is absent or swapped is known exactly;
//  - in a mapping without AnonHugePages no page is huge; where AnonHugePages equals Rss every present one is;
//  - in between, a block with a hole is not huge, since a PMD entry maps all of it or nothing; a block that is wholly
//    present may be either: its backing is unknown.
// The shared page of zeros counts as present here. smaps walks every mapping of the process up to the one asked for,
// which makes this source slow: it is there so that old kernels work, not so that they are quick.

import CHugeSpanShims

extension LinuxKernel {
  func smapsResidency(
    of range: AddressRange, into regions: UnsafeMutableBufferPointer<ResidentRegion>
  ) throws(KernelError) -> (count: Int, walkedTo: UInt) {
    let pagemap = ownPagemap.value()
    if pagemap < 0 { throw KernelError(code: -pagemap) }
    var areas = try MemoryAreaReader()
    var writer = RegionWriter(regions: regions)
    while let area = areas.next(), area.start < range.end {
      var position = max(area.start, range.start)
      let end = min(area.end, range.end)
      while position < end {
        let blockEnd = (position | UInt(max(geometry.hugePageBytes, geometry.pageBytes) - 1)) &+ 1
        let chunkEnd = min(min(blockEnd, end), position + UInt(Self.pagesPerRead * geometry.pageBytes))
        let isWholeBlock = chunkEnd - position == UInt(geometry.hugePageBytes)
        let chunk = AddressRange(start: position, byteCount: Int(chunkEnd - position))
        if let full = try describe(chunk, isWholeBlock, area, pagemap, &writer) { return (writer.count, full) }
        position = chunkEnd
      }
    }
    return (writer.count, range.end)
  }

  private static var pagesPerRead: Int { 512 }

  /// Writes the regions of at most `pagesPerRead` pages; returns where it stopped if the writer is full.
  private func describe(
    _ chunk: AddressRange, _ isWholeBlock: Bool, _ area: MemoryArea, _ pagemap: Int32, _ writer: inout RegionWriter
  ) throws(KernelError) -> UInt? {
    var words = InlineArray<512, UInt64>(repeating: 0)
    let pages = chunk.byteCount / geometry.pageBytes
    let offset = UInt64(chunk.start) / UInt64(geometry.pageBytes) * 8
    let read = try Self.valueOrError(
      withUnsafeMutableBytes(of: &words) { hs_shim_read_at(pagemap, $0.baseAddress, pages * 8, offset) })
    guard read == pages * 8 else { throw .invalid }

    var presentPages = 0
    for page in 0..<pages where words[page] >> 63 != 0 { presentPages += 1 }
    var isHuge = false
    var isKnown = true
    if area.hugeBytes != 0 {
      isHuge = area.hugeBytes == area.residentBytes
      isKnown = isHuge || (isWholeBlock && presentPages < pages)
    }
    for page in 0..<pages {
      let isPresent = words[page] >> 63 != 0
      guard isPresent || words[page] >> 62 & 1 != 0 else { continue }
      let address = chunk.start + UInt(page * geometry.pageBytes)
      let region = ResidentRegion(
        range: AddressRange(start: address, byteCount: geometry.pageBytes), isHuge: isHuge && isPresent,
        isPresent: isPresent, isBackingKnown: isKnown || !isPresent)
      if !writer.append(region) { return address }
    }
    return nil
  }
}

/// Fills a buffer of regions, joining neighbours of equal kind.
private struct RegionWriter {
  let regions: UnsafeMutableBufferPointer<ResidentRegion>
  var count = 0

  init(regions: UnsafeMutableBufferPointer<ResidentRegion>) { self.regions = regions }

  /// False if the buffer is full.
  mutating func append(_ region: ResidentRegion) -> Bool {
    if count > 0 {
      let last = regions[count - 1]
      if last.range.end == region.range.start, last.isHuge == region.isHuge, last.isPresent == region.isPresent,
        last.isBackingKnown == region.isBackingKnown
      {
        regions[count - 1].range.byteCount += region.range.byteCount
        return true
      }
    }
    guard count < regions.count else { return false }
    regions.initializeElement(at: count, to: region)
    count += 1
    return true
  }
}

/// One mapping of the process, as smaps describes it.
struct MemoryArea {
  var start: UInt = 0
  var end: UInt = 0
  var residentBytes = 0
  var hugeBytes = 0
}

/// Reads smaps mapping by mapping, in a fixed buffer.
struct MemoryAreaReader: ~Copyable {
  private let file: Int32
  private var buffer = InlineArray<2048, UInt8>(repeating: 0)
  private var filled = 0
  private var position = 0
  /// The line being read; longer ones (paths of files) are cut, nothing that matters stands that far right.
  private var line = InlineArray<64, UInt8>(repeating: 0)
  private var length = 0
  /// The mapping whose lines are being read.
  private var current: MemoryArea? = nil

  init() throws(KernelError) {
    file = openForReading("/proc/self/smaps")
    if file < 0 { throw KernelError(code: -file) }
  }

  deinit { hs_shim_close(file) }

  /// The next mapping, in ascending order, or nil after the last.
  mutating func next() -> MemoryArea? {
    while readLine() {
      if let header = parseHeader() {
        let finished = current
        current = header
        if let finished { return finished }
      } else if hasPrefix("Rss:") {
        let bytes = parseKilobytes(after: 4)
        current?.residentBytes = bytes
      } else if hasPrefix("AnonHugePages:") {
        let bytes = parseKilobytes(after: 14)
        current?.hugeBytes = bytes
      }
    }
    defer { current = nil }
    return current
  }

  /// Reads the next line into `line`; false at the end of the file.
  private mutating func readLine() -> Bool {
    length = 0
    while true {
      if position == filled {
        let file = file
        filled = withUnsafeMutableBytes(of: &buffer) { max(0, hs_shim_read(file, $0.baseAddress, $0.count)) }
        position = 0
        if filled == 0 { return length > 0 }
      }
      let byte = buffer[position]
      position += 1
      if byte == 0x0a { return true }
      if length < line.count {
        line[length] = byte
        length += 1
      }
    }
  }

  /// `start-end permissions …`, both in hexadecimal. Names of fields begin with a capital.
  private mutating func parseHeader() -> MemoryArea? {
    var area = MemoryArea()
    var index = 0
    while index < length, let digit = Self.hexadecimal(line[index]) {
      area.start = area.start << 4 | digit
      index += 1
    }
    guard index > 0, index < length, line[index] == 0x2d else { return nil }
    index += 1
    while index < length, let digit = Self.hexadecimal(line[index]) {
      area.end = area.end << 4 | digit
      index += 1
    }
    return area
  }

  private static func hexadecimal(_ byte: UInt8) -> UInt? {
    switch byte {
    case 0x30...0x39: UInt(byte - 0x30)
    case 0x61...0x66: UInt(byte - 0x61 + 10)
    default: nil
    }
  }

  private mutating func hasPrefix(_ prefix: StaticString) -> Bool {
    guard length >= prefix.utf8CodeUnitCount else { return false }
    for index in 0..<prefix.utf8CodeUnitCount where line[index] != prefix.utf8Start[index] { return false }
    return true
  }

  private mutating func parseKilobytes(after offset: Int) -> Int {
    var value = 0
    for index in offset..<length where line[index] >= 0x30 && line[index] <= 0x39 {
      value = value * 10 + Int(line[index] - 0x30)
    }
    return value * 1024
  }
}
