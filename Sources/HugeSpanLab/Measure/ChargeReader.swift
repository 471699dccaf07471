// What a memory cgroup is charged for: usage less kernel memory less file cache.
//
// Usage is the controller's own counter. It is exact but for what each CPU has taken in advance (64 pages); the
// alternatives in memory.stat are not better: they are brought up to date lazily, and the anonymous one counts mapped
// pages, so it misses exactly the phantom that the charge is read for. Files stay open and are read into one buffer:
// reading a charge does not change it.

import Glibc

/// Reads the charge of one group.
package struct ChargeReader: ~Copyable {
  private let version: CgroupVersion
  private let usage: Int32
  private let kernel: Int32
  private let statistics: Int32
  private let buffer: UnsafeMutableRawBufferPointer

  /// Opens the group's files.
  package init(version: CgroupVersion, directory: String) throws(CgroupUnavailable) {
    func open(_ name: String) -> Int32 { Glibc.open(directory + "/" + name, O_RDONLY | O_CLOEXEC) }
    self.version = version
    usage = open(version == .one ? "memory.usage_in_bytes" : "memory.current")
    kernel = version == .one ? open("memory.kmem.usage_in_bytes") : -1
    statistics = open("memory.stat")
    buffer = .allocate(byteCount: 16 << 10, alignment: 16)
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    if usage < 0 || statistics < 0 {
      throw CgroupUnavailable(reason: "\(directory) has no charge to read")
    }
  }

  deinit {
    for file in [usage, kernel, statistics] where file >= 0 { close(file) }
    buffer.deallocate()
  }

  /// The charge in bytes, or nil if the kernel did not answer.
  package func read() -> Int? {
    guard let total = number(usage) else { return nil }
    let length = fill(statistics)
    if length <= 0 { return nil }
    let text = UnsafeRawBufferPointer(rebasing: buffer[0..<length])
    switch version {
    case .one:
      let cache = Self.value(of: "cache", in: text) ?? 0
      return total - cache - (kernel < 0 ? 0 : number(kernel) ?? 0)
    case .two:
      // Kernels before 5.18 have no sum of kernel memory.
      var kernelBytes = Self.value(of: "kernel", in: text)
      if kernelBytes == nil {
        kernelBytes = 0
        for part in ["kernel_stack", "pagetables", "percpu", "sock", "slab"] as [StaticString] {
          kernelBytes! += Self.value(of: part, in: text) ?? 0
        }
      }
      return total - (Self.value(of: "file", in: text) ?? 0) - kernelBytes!
    }
  }

  private func fill(_ file: Int32) -> Int { pread(file, buffer.baseAddress!, buffer.count, 0) }

  private func number(_ file: Int32) -> Int? {
    let length = fill(file)
    if length <= 0 { return nil }
    return Self.digits(in: UnsafeRawBufferPointer(rebasing: buffer[0..<length]), from: 0)
  }

  /// The number after `key` and a space at the beginning of a line of `text`.
  static func value(of key: StaticString, in text: UnsafeRawBufferPointer) -> Int? {
    let length = key.utf8CodeUnitCount
    var start = 0
    while start + length < text.count {
      if text[start + length] == 0x20, memcmp(text.baseAddress! + start, key.utf8Start, length) == 0 {
        return digits(in: text, from: start + length + 1)
      }
      while start < text.count, text[start] != 0x0A { start += 1 }
      start += 1
    }
    return nil
  }

  static func digits(in text: UnsafeRawBufferPointer, from start: Int) -> Int? {
    var index = start
    var value = 0
    while index < text.count, text[index] >= 0x30, text[index] <= 0x39 {
      value = value * 10 + Int(text[index] - 0x30)
      index += 1
    }
    return index == start ? nil : value
  }
}
