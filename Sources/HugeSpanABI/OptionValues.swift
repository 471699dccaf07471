// The values of options as people write them: switches, numbers, sizes, times. Units as on the command line.

/// A part of the text.
typealias Word = UnsafeBufferPointer<UInt8>

/// Whether the word is exactly this text.
func spells(_ word: Word, _ text: StaticString) -> Bool {
  word.count == text.utf8CodeUnitCount && startsWith(word, text)
}

/// Whether the word begins with this text.
func startsWith(_ word: Word, _ text: StaticString) -> Bool {
  if word.count < text.utf8CodeUnitCount { return false }
  let bytes = text.utf8Start
  for index in 0..<text.utf8CodeUnitCount where word[index] != bytes[index] { return false }
  return true
}

/// Whether the word ends with this text.
func endsWith(_ word: Word, _ text: StaticString) -> Bool {
  let rest = word.count - text.utf8CodeUnitCount
  return rest >= 0 && spells(Word(rebasing: word[rest...]), text)
}

/// `on` or `off`.
func switchValue(_ word: Word) -> Bool? {
  if spells(word, "on") { return true }
  if spells(word, "off") { return false }
  return nil
}

/// A decimal number, and what follows it. Nil if the word does not begin with one.
private func leadingNumber(_ word: Word) -> (value: Double, rest: Word)? {
  var value = 0.0
  var scale = 1.0
  var digits = 0
  var hasPoint = false
  var index = 0
  while index < word.count {
    let byte = word[index]
    if byte == UInt8(ascii: ".") && !hasPoint {
      hasPoint = true
    } else if byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") {
      digits += 1
      value = value * 10 + Double(byte - UInt8(ascii: "0"))
      if hasPoint { scale *= 10 }
    } else {
      break
    }
    index += 1
  }
  // More digits than any setting has; enough of them would be infinite.
  if digits == 0 || digits > 20 { return nil }
  return (value / scale, Word(rebasing: word[index...]))
}

/// A number without a unit.
func numberValue(_ word: Word) -> Double? {
  guard let number = leadingNumber(word), number.rest.isEmpty else { return nil }
  return number.value
}

/// A size in bytes: `4096`, `64KiB`, `1.5G`, `2GB`. A fraction of a byte is none.
func sizeValue(_ word: Word) -> UInt64? {
  guard let (value, unit) = leadingNumber(word) else { return nil }
  let scale: Double
  if unit.isEmpty || spells(unit, "B") {
    scale = 1
  } else if spells(unit, "K") || spells(unit, "KiB") {
    scale = 1024
  } else if spells(unit, "kB") || spells(unit, "KB") {
    scale = 1e3
  } else if spells(unit, "M") || spells(unit, "MiB") {
    scale = 1_048_576
  } else if spells(unit, "MB") {
    scale = 1e6
  } else if spells(unit, "G") || spells(unit, "GiB") {
    scale = 1_073_741_824
  } else if spells(unit, "GB") {
    scale = 1e9
  } else if spells(unit, "T") || spells(unit, "TiB") {
    scale = 1_099_511_627_776
  } else if spells(unit, "TB") {
    scale = 1e12
  } else {
    return nil
  }
  let bytes = value * scale
  // Not `rounded()`, which would ask for libm.
  guard bytes < 9e18, Double(UInt64(bytes)) == bytes else { return nil }
  return UInt64(bytes)
}

/// A time in nanoseconds: `250us`, `10s`, `2m`. Only 0 needs no unit.
func timeValue(_ word: Word) -> UInt64? {
  guard let (value, unit) = leadingNumber(word) else { return nil }
  let scale: Double
  if unit.isEmpty {
    return value == 0 ? 0 : nil
  } else if spells(unit, "ns") {
    scale = 1
  } else if spells(unit, "us") {
    scale = 1e3
  } else if spells(unit, "ms") {
    scale = 1e6
  } else if spells(unit, "s") {
    scale = 1e9
  } else if spells(unit, "m") {
    scale = 60e9
  } else if spells(unit, "h") {
    scale = 3600e9
  } else {
    return nil
  }
  let nanoseconds = value * scale
  return nanoseconds < 9e18 ? UInt64(nanoseconds) : nil
}
