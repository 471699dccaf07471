// The small languages in which the kernel writes its settings, as values.
//
// A setting is one word of several (`always [madvise] never`), a number, a table of swap, a table of free blocks, a string
// of feature bits. Kernels add words and columns, so what is unknown is passed over where the rest still has its meaning;
// what makes no sense at all is nil and never a default: a setting that was not understood must not look like a good one.
// No Foundation here, so that the fuzzer can have this file alone.

/// One word of several, the chosen one in brackets.
package struct ModeChoice: Equatable, Sendable, Codable {
  package var selected: String
  package var offered: [String]

  package init(selected: String, offered: [String] = []) {
    self.selected = selected
    self.offered = offered
  }

  /// From `always [madvise] never`. Nil unless exactly one word is chosen.
  package init?(_ text: String) {
    var chosen: [String] = []
    var words: [String] = []
    for word in text.split(whereSeparator: \.isWhitespace) {
      if word.hasPrefix("[") && word.hasSuffix("]") && word.count > 2 {
        chosen.append(String(word.dropFirst().dropLast()))
        words.append(chosen[chosen.count - 1])
      } else {
        words.append(String(word))
      }
    }
    guard chosen.count == 1 else { return nil }
    self.init(selected: chosen[0], offered: words)
  }
}

/// A file that holds one number, decimal, or hexadecimal behind `0x`; nil if it holds anything else.
package func kernelNumber(_ text: String) -> Int? {
  let words = text.split(whereSeparator: \.isWhitespace)
  guard words.count == 1 else { return nil }
  let word = words[0]
  if word.hasPrefix("0x") { return Int(word.dropFirst(2), radix: 16).flatMap { $0 < 0 ? nil : $0 } }
  return Int(word)
}

/// What swap lies on.
package enum SwapKind: String, Equatable, Sendable, Codable {
  /// Compressed, in memory.
  case zram
  case disk
  case file
}

/// A line of /proc/swaps.
package struct SwapArea: Equatable, Sendable, Codable {
  package var path: String
  package var kind: SwapKind
  package var sizeBytes: Int
  package var usedBytes: Int

  package init(path: String, kind: SwapKind, sizeBytes: Int, usedBytes: Int) {
    self.path = path
    self.kind = kind
    self.sizeBytes = sizeBytes
    self.usedBytes = usedBytes
  }
}

/// The table of /proc/swaps: a heading, then `/dev/zram0  partition  524284  0  100`. Nil if a line is none.
package func parseSwaps(_ text: String) -> [SwapArea]? {
  var areas: [SwapArea] = []
  for line in text.split(separator: "\n").dropFirst() {
    // Counted from the end: the kernel writes a space in a path as \040, but appends words of its own to it.
    let words = line.split(whereSeparator: \.isWhitespace)
    guard words.count >= 5, let size = Int(words[words.count - 3]), let used = Int(words[words.count - 2]),
      (0..<1 << 50).contains(size), (0..<1 << 50).contains(used)
    else { return nil }
    let path = String(words[0])
    let isFile = words[words.count - 4] == "file"
    let name = path.split(separator: "/").last ?? ""
    areas.append(
      SwapArea(
        path: path, kind: isFile ? .file : name.hasPrefix("zram") ? .zram : .disk, sizeBytes: size << 10,
        usedBytes: used << 10))
  }
  return areas
}

/// Bytes that /proc/buddyinfo has free in blocks of at least `order` (0: a page). Nil if a line is none.
package func parseFreeBlocks(_ text: String, order: Int, pageBytes: Int) -> Int? {
  var pages = 0
  var hasZone = false
  for line in text.split(separator: "\n") {
    let words = line.split(whereSeparator: \.isWhitespace)
    // Node 0, zone   Normal   1 2 3 ...
    guard words.count > 4, words[0] == "Node", words[2] == "zone" else { return nil }
    hasZone = true
    for (index, word) in words.dropFirst(4).enumerated() {
      guard let count = Int(word), (0..<1 << 40).contains(count), index < 20 else { return nil }
      if index >= order { pages += count << index }
    }
    if pages >= 1 << 45 { return nil }
  }
  return hasZone ? pages * pageBytes : nil
}

/// Whether bit `index` is set in a string such as `0110010`, whose first character is bit 0. Nil if there is none.
package func featureBit(_ index: Int, of text: String) -> Bool? {
  guard let character = text.dropFirst(index).first, character == "0" || character == "1" else { return nil }
  return character == "1"
}

/// Whether the processor's flags say that a hypervisor is beneath: true or false where there are flags, else nil.
package func parseHypervisorFlag(_ text: String) -> Bool? {
  for line in text.split(separator: "\n") where line.hasPrefix("flags") {
    return line.split(whereSeparator: \.isWhitespace).contains("hypervisor")
  }
  return nil
}

/// A yes or no as module parameters write it.
package func kernelFlag(_ text: String) -> Bool? {
  switch text.split(whereSeparator: \.isWhitespace).first {
  case "Y", "y", "1": true
  case "N", "n", "0": false
  default: nil
  }
}

/// The value of a line such as `MemTotal:  24683040 kB`, in bytes.
package func memoryField(_ key: String, of text: String) -> Int? {
  for line in text.split(separator: "\n") where line.hasPrefix(key + ":") {
    let words = line.dropFirst(key.count + 1).split(whereSeparator: \.isWhitespace)
    return words.first.flatMap { Int($0) }.flatMap { (0..<1 << 50).contains($0) ? $0 << 10 : nil }
  }
  return nil
}
