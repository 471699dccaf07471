// Finding and reading what the pressure watcher looks at: paths and numbers, in fixed memory.

import CHugeSpanShims

extension PressureWatcher {
  /// The process' memory group, and those above it.
  mutating func openGroups(_ path: inout PathText) {
    path.reset()
    path.append("/proc/self/cgroup")
    let file = path.open()
    if file < 0 { return }
    defer { hs_shim_close(file) }
    var buffer = InlineArray<4096, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &buffer) { bytes in
      let length = hs_shim_read_at(file, bytes.baseAddress, bytes.count, 0)
      if length <= 0 { return }
      let text = FileText(UnsafeRawBufferPointer(rebasing: bytes[..<length]))
      // Where both versions are mounted the memory controller is in one of them.
      if let group = text.group(controller: "memory"), openGroups(&path, "/sys/fs/cgroup/memory", group, .groupOne) {
        return
      }
      if let group = text.group(controller: "") { _ = openGroups(&path, "/sys/fs/cgroup", group, .groupTwo) }
    }
  }

  /// False if the group has no files there.
  private mutating func openGroups(
    _ path: inout PathText, _ mount: StaticString, _ group: UnsafeRawBufferPointer, _ kind: PressureSource.Kind
  ) -> Bool {
    path.reset()
    path.append(mount)
    let top = path.length
    path.append(group)
    while path.length > top && path.isAtSlash { path.removeLast() }
    let before = sourceCount
    // In a container the path may be one of the host's; then the mounted root is the group itself.
    if path.length > top && !hasGroup(&path, kind) { path.cut(to: top) }
    while sourceCount - before < Self.mostGroups {
      addGroup(&path, kind)
      if path.length <= top { break }
      path.removeLastComponent(downTo: top)
    }
    return sourceCount > before
  }

  private func hasGroup(_ path: inout PathText, _ kind: PressureSource.Kind) -> Bool {
    let file = path.open(kind == .groupOne ? "/memory.usage_in_bytes" : "/cgroup.procs")
    if file >= 0 { hs_shim_close(file) }
    return file >= 0
  }

  private mutating func addGroup(_ path: inout PathText, _ kind: PressureSource.Kind) {
    var source = PressureSource(kind: kind)
    if kind == .groupOne {
      source.usage = path.open("/memory.usage_in_bytes")
      source.limit = path.open("/memory.limit_in_bytes")
      if source.usage >= 0 { listen(&path) }
    } else {
      source.usage = path.open("/memory.current")
      source.limit = path.open("/memory.max")
      source.high = path.open("/memory.high")
    }
    source.statistics = path.open("/memory.stat")
    add(source)
  }

  /// Asks for the group's pressure events. A kernel without them, or without the right, is no loss: they only end waits.
  private func listen(_ path: inout PathText) {
    if event < 0 { return }
    let level = path.open("/memory.pressure_level")
    if level < 0 { return }
    defer { hs_shim_close(level) }
    var line = PathText(root: nil)
    line.append(decimal: event)
    line.append(" ")
    line.append(decimal: level)
    line.append(" low")
    path.write(line, to: "/cgroup.event_control")
  }

  /// The stalls of the process' own group; false if it does not tell.
  mutating func openStalls(ofGroup path: inout PathText) -> Bool {
    // The first source is the own group; its directory has to be found once more.
    path.reset()
    path.append("/proc/self/cgroup")
    let file = path.open()
    if file < 0 { return false }
    defer { hs_shim_close(file) }
    var buffer = InlineArray<4096, UInt8>(repeating: 0)
    var stalls: Int32 = -1
    withUnsafeMutableBytes(of: &buffer) { bytes in
      let length = hs_shim_read_at(file, bytes.baseAddress, bytes.count, 0)
      if length <= 0 { return }
      let text = FileText(UnsafeRawBufferPointer(rebasing: bytes[..<length]))
      guard let group = text.group(controller: "") else { return }
      path.reset()
      path.append("/sys/fs/cgroup")
      path.append(group)
      while path.isAtSlash { path.removeLast() }
      stalls = path.open("/memory.pressure")
    }
    if stalls < 0 { return false }
    add(PressureSource(kind: .stalls, usage: stalls))
    return true
  }
}

/// A path, or a line, that is put together in fixed memory.
struct PathText {
  private var bytes = InlineArray<1024, UInt8>(repeating: 0)
  private(set) var length = 0
  private var rootLength = 0
  private var isCut = false

  /// What `reset` leaves is `root`.
  init(root: UnsafePointer<CChar>?) {
    if let root {
      var index = 0
      while root[index] != 0 {
        append(byte: UInt8(bitPattern: root[index]))
        index += 1
      }
    }
    rootLength = length
  }

  mutating func reset() { cut(to: rootLength) }

  mutating func cut(to count: Int) {
    length = count
    bytes[length] = 0
  }

  private mutating func append(byte: UInt8) {
    // The last byte stays zero. A path that does not fit opens nothing.
    if length < 1023 {
      bytes[length] = byte
      length += 1
      bytes[length] = 0
    } else {
      isCut = true
    }
  }

  mutating func append(_ text: StaticString) {
    for index in 0..<text.utf8CodeUnitCount { append(byte: text.utf8Start[index]) }
  }

  mutating func append(_ text: UnsafeRawBufferPointer) { for byte in text { append(byte: byte) } }

  mutating func append(decimal value: Int32) {
    var scale: Int32 = 1
    while value / scale >= 10 { scale *= 10 }
    while scale > 0 {
      append(byte: 48 + UInt8(value / scale % 10))
      scale /= 10
    }
  }

  var isAtSlash: Bool { length > 0 && bytes[length - 1] == UInt8(ascii: "/") }

  mutating func removeLast() { cut(to: length - 1) }

  mutating func removeLastComponent(downTo least: Int) {
    while length > least && !isAtSlash { removeLast() }
    while length > least && isAtSlash { removeLast() }
  }

  /// Opens the path, with `name` behind it, for reading; negative on failure.
  mutating func open(_ name: StaticString = "") -> Int32 {
    let before = length
    defer { cut(to: before) }
    append(name)
    if isCut { return -1 }
    return withUnsafeMutableBytes(of: &bytes) { hs_shim_open_read($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
  }

  /// Writes `line` to the file `name` in the directory that this path is.
  mutating func write(_ line: PathText, to name: StaticString) {
    let before = length
    defer { cut(to: before) }
    append(name)
    if isCut { return }
    var line = line
    let count = line.length
    withUnsafeMutableBytes(of: &bytes) { path in
      withUnsafeMutableBytes(of: &line.bytes) { text in
        _ = hs_shim_write_file(path.baseAddress!.assumingMemoryBound(to: CChar.self), text.baseAddress, count)
      }
    }
  }
}

/// The text of a small file of the kernel's.
struct FileText {
  private let bytes: UnsafeRawBufferPointer

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  /// The number that the `word`-th word is, nil if it is none (`max`).
  func number(word: Int) -> Int? {
    var index = 0
    for _ in 0..<word {
      while index < bytes.count && bytes[index] != 0x20 { index += 1 }
      index += 1
    }
    return digits(from: index)
  }

  /// The number right behind the first `key` in the text that begins a word.
  func value(_ key: StaticString) -> Int? {
    let length = key.utf8CodeUnitCount
    var index = 0
    while index + length < bytes.count {
      let beginsWord = index == 0 || bytes[index - 1] == 0x0a || bytes[index - 1] == 0x20
      if beginsWord && matches(key, at: index) { return digits(from: index + length) }
      index += 1
    }
    return nil
  }

  /// As `value`, with spaces between and a number of kilobytes.
  func kilobytes(_ key: StaticString) -> Int? {
    let length = key.utf8CodeUnitCount
    var index = 0
    while index + length < bytes.count {
      if (index == 0 || bytes[index - 1] == 0x0a) && matches(key, at: index) {
        index += length
        while index < bytes.count && bytes[index] == 0x20 { index += 1 }
        return digits(from: index).map { $0 << 10 }
      }
      index += 1
    }
    return nil
  }

  /// The path of the group that has `controller`, from lines such as `4:memory:/a/b`; empty is version 2's line.
  func group(controller: StaticString) -> UnsafeRawBufferPointer? {
    var start = 0
    while start < bytes.count {
      var end = start
      while end < bytes.count && bytes[end] != 0x0a { end += 1 }
      var first = start
      while first < end && bytes[first] != UInt8(ascii: ":") { first += 1 }
      var second = first + 1
      while second < end && bytes[second] != UInt8(ascii: ":") { second += 1 }
      if second < end && names(controller, from: first + 1, to: second) {
        return UnsafeRawBufferPointer(rebasing: bytes[(second + 1)..<end])
      }
      start = end + 1
    }
    return nil
  }

  /// Whether the list of names from `start` to `end`, with commas between, has `name`.
  private func names(_ name: StaticString, from start: Int, to end: Int) -> Bool {
    let length = name.utf8CodeUnitCount
    if length == 0 { return start == end }
    var index = start
    while index + length <= end {
      let endsThere = index + length == end || bytes[index + length] == UInt8(ascii: ",")
      if endsThere && matches(name, at: index) { return true }
      while index < end && bytes[index] != UInt8(ascii: ",") { index += 1 }
      index += 1
    }
    return false
  }

  private func matches(_ text: StaticString, at start: Int) -> Bool {
    let length = text.utf8CodeUnitCount
    if start + length > bytes.count { return false }
    for index in 0..<length where bytes[start + index] != text.utf8Start[index] { return false }
    return true
  }

  private func digits(from start: Int) -> Int? {
    var index = start
    var value = 0
    while index < bytes.count, index - start < 19, bytes[index] >= 0x30, bytes[index] <= 0x39 {
      (value, _) = (value &* 10 &+ Int(bytes[index] - 0x30), 0)
      index += 1
    }
    return index == start || value < 0 ? nil : value
  }
}
