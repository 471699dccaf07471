// What the kernel says of the memory of this process: its anonymous resident size, what of it is swapped out, and the lazily
// freed bytes in given ranges. Read without allocating, from files that stay open.

import Glibc
import HugeSpanCore

/// Readers of `/proc/self`.
package struct ProcessMemory: ~Copyable {
  private let totals: Int32
  private let mappings: Int32
  private let status: Int32
  private let buffer: UnsafeMutableRawBufferPointer
  private let pageBytes: Int

  /// Opens the files; readings of a file that is missing are nil.
  package init() {
    totals = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
    mappings = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC)
    // Where nothing can be swapped out nothing needs to be read.
    let swaps = contents(ofFile: "/proc/swaps")?.split(separator: "\n").count ?? 0
    status = swaps > 1 ? open("/proc/self/status", O_RDONLY | O_CLOEXEC) : -1
    buffer = .allocate(byteCount: 64 << 10, alignment: 16)
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    pageBytes = Int(getpagesize())
  }

  deinit {
    if totals >= 0 { close(totals) }
    if mappings >= 0 { close(mappings) }
    if status >= 0 { close(status) }
    buffer.deallocate()
  }

  /// Resident anonymous bytes of the whole process.
  package func anonymousBytes() -> Int? {
    let length = pread(totals, buffer.baseAddress!, 256, 0)
    if length <= 0 { return nil }
    let text = UnsafeRawBufferPointer(rebasing: buffer[0..<length])
    var fields = (0, 0, 0)  // size, resident, shared
    var start = 0
    for index in 0..<3 {
      guard let value = ChargeReader.digits(in: text, from: start) else { return nil }
      if index == 1 { fields.1 = value } else if index == 2 { fields.2 = value }
      while start < text.count, text[start] != 0x20 { start += 1 }
      start += 1
    }
    return (fields.1 - fields.2) * pageBytes
  }

  /// Bytes of the process that are swapped out; 0 on a system without swap.
  package func swappedBytes() -> Int? {
    if status < 0 { return 0 }
    let length = pread(status, buffer.baseAddress!, buffer.count, 0)
    if length <= 0 { return nil }
    return Self.swappedBytes(inStatus: UnsafeRawBufferPointer(rebasing: buffer[0..<length]))
  }

  /// The value of the line `VmSwap:    12 kB`.
  static func swappedBytes(inStatus text: UnsafeRawBufferPointer) -> Int? {
    let key: StaticString = "\nVmSwap:"
    let length = key.utf8CodeUnitCount
    var start = 0
    while start + length < text.count {
      if memcmp(text.baseAddress! + start, key.utf8Start, length) == 0 {
        var index = start + length
        while index < text.count, text[index] == 0x20 || text[index] == 0x09 { index += 1 }
        return ChargeReader.digits(in: text, from: index).map { $0 << 10 }
      }
      start += 1
    }
    return nil
  }

  /// Lazily freed bytes in mappings that begin within the arenas of a heap; `isArena` tells which addresses are.
  ///
  /// - Complexity: a walk of the kernel's over all memory of the process.
  package func lazyFreeBytes(isArena: (UInt) -> Bool) -> Int? {
    if mappings < 0 || lseek(mappings, 0, SEEK_SET) != 0 { return nil }
    var parser = SmapsParser()
    var kept = 0
    var total = 0
    while true {
      let length = read(mappings, buffer.baseAddress! + kept, buffer.count - kept)
      if length < 0 { return nil }
      if length == 0 { return total }
      let text = UnsafeRawBufferPointer(rebasing: buffer[0..<(kept + length)])
      var start = 0
      var end = 0
      while end < text.count {
        if text[end] == 0x0A {
          let line = UnsafeRawBufferPointer(rebasing: text[start..<end])
          if let bytes = parser.lazyFreeBytes(in: line, isArena: isArena) { total += bytes }
          start = end + 1
        }
        end += 1
      }
      // The last line may be cut; it moves to the front.
      kept = text.count - start
      memmove(buffer.baseAddress!, buffer.baseAddress! + start, kept)
    }
  }
}

/// Understands smaps line by line.
struct SmapsParser {
  private var isInArena = false

  /// The lazily freed bytes that `line` tells of a mapping in an arena.
  mutating func lazyFreeBytes(in line: UnsafeRawBufferPointer, isArena: (UInt) -> Bool) -> Int? {
    if let start = Self.mappingStart(line) {
      isInArena = isArena(start)
      return nil
    }
    let key: StaticString = "LazyFree:"
    let length = key.utf8CodeUnitCount
    guard isInArena, line.count > length, memcmp(line.baseAddress!, key.utf8Start, length) == 0 else { return nil }
    var index = length
    while index < line.count, line[index] == 0x20 { index += 1 }
    return ChargeReader.digits(in: line, from: index).map { $0 << 10 }
  }

  /// The address at the front of a line such as `7f00-7f10 rw-p …`.
  private static func mappingStart(_ line: UnsafeRawBufferPointer) -> UInt? {
    var value: UInt = 0
    for (index, byte) in line.enumerated() {
      switch byte {
      case 0x30...0x39: value = value << 4 | UInt(byte - 0x30)
      case 0x61...0x66: value = value << 4 | UInt(byte - 0x57)
      case 0x2D: return index > 0 ? value : nil
      default: return nil
      }
    }
    return nil
  }
}
