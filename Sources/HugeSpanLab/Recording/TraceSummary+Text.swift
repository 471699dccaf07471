// A trace's figures for people.

import TraceFormat

extension TraceSummary {
  /// The report of `hugespan trace info`.
  package func text(path: String) -> String {
    var lines: [String] = []
    lines.append("trace      \(path): \(bytesText(fileBytes)), \(chunks) chunks, version \(header.version)")
    lines.append("program    \(([header.program] + header.arguments).joined(separator: " ").prefix(160))")
    let system = header.system.isEmpty ? "" : " on \(header.system)"
    lines.append("recorded   \(dateText(header.startNanoseconds))\(system), page \(header.pageBytes) bytes")
    if header.level == .span {
      lines.append("level      spans: what an allocator asked of the page heap under it")
    }
    lines.append("ending     \(ending)")
    lines.append(
      "time       \(secondsText(nanoseconds)) s, \(threads) threads, busy \(decimal(busyShare, 2)) CPUs on average")
    lines.append("events     \(events), \(decimal(bytesPerEvent, 2)) bytes each")
    let kinds = AllocationKind.allCases.compactMap { kind in births[kind].map { "\($0) \(kind)" } }
    lines.append(
      "           births \(kinds.joined(separator: ", ")); resizes \(resizes)\(spanCounts)frees \(frees); samples \(samples)"
    )
    lines.append(
      "live       peak \(bytesText(peak.liveBytes)) at \(secondsText(peak.time)) s; at the end \(bytesText(liveAtEnd)) in \(liveObjectsAtEnd) objects"
    )
    if let share = recordedShare {
      lines.append(
        "program    peak anonymous RSS \(bytesText(peakAnonymousBytes)) at \(secondsText(anonymousPeakTime)) s; recorded live then \(bytesText(liveAtAnonymousPeak)), \(decimal(share * 100, 1)) %"
      )
      lines.append(
        "           peak on hugepages \(bytesText(peakHugeBytes)); faults \(lastSample!.minorFaults) minor, \(lastSample!.majorFaults) major; longest time between samples \(longestSampleGap / 1_000_000) ms"
      )
    } else {
      lines.append("program    no samples: what the kernel saw of the program is not known")
    }
    lines.append("")
    lines.append(contentsOf: chart())
    lines.append("")
    lines.append(contentsOf: dropLines())
    lines.append("")
    lines.append("size           births    bytes born")
    for (exponent, sizeClass) in sizeClasses.enumerated() where sizeClass.births > 0 {
      lines.append(
        "\(padded(bytesText(1 << exponent) + "+", 10))\(padded("\(sizeClass.births)", 11))\(padded(bytesText(sizeClass.bytes), 14))"
      )
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private var spanCounts: String {
    header.level == .malloc
      ? "; " : " (\(growths) to more); freed in part \(partialFrees); refused \(refusals); "
  }

  /// The highest live bytes within each of `count` equal parts of the time.
  func columns(_ count: Int) -> [Int] {
    var result = [Int](repeating: 0, count: count)
    guard nanoseconds > 0 else { return result }
    for point in curve {
      let column = min(count - 1, Int(Double(point.time) / Double(nanoseconds) * Double(count)))
      result[column] = max(result[column], point.liveBytes)
    }
    return result
  }

  private func chart() -> [String] {
    let width = 72
    let columns = columns(width)
    let steps = Array(" ▁▂▃▄▅▆▇█")
    let rows = 4
    var lines: [String] = []
    for row in (0..<rows).reversed() {
      let line = columns.map { value -> Character in
        let height = Double(value) / Double(max(peak.liveBytes, 1)) * Double(rows * 8)
        return steps[max(0, min(8, Int(height.rounded(.up)) - row * 8))]
      }
      let label = row == rows - 1 ? bytesText(peak.liveBytes) : ""
      lines.append("\(padded(label, 10)) |\(String(line))|")
    }
    let end = "\(secondsText(nanoseconds)) s"
    lines.append("live bytes  0 s" + String(repeating: " ", count: max(1, width - 3 - end.count)) + end)
    return lines
  }

  private func dropLines() -> [String] {
    if drops.isEmpty { return ["drops      none to half or less"] }
    return drops.map { drop in
      let share = Double(drop.from.liveBytes - drop.to.liveBytes) / Double(drop.from.liveBytes) * 100
      var line =
        "drop       at \(secondsText(drop.from.time)) s from \(bytesText(drop.from.liveBytes)) to \(bytesText(drop.to.liveBytes)) (-\(decimal(share, 0)) %), under half for \(secondsText(drop.lowNanoseconds)) s"
      if let rise = drop.riseTo { line += ", then up to \(bytesText(rise.liveBytes)) at \(secondsText(rise.time)) s" }
      return line
    }
  }

  private func dateText(_ nanoseconds: UInt64) -> String { utcText(seconds: Int(nanoseconds / 1_000_000_000)) }
}

/// A time as `1970-01-01 00:00:00 UTC`.
func utcText(seconds: Int) -> String {
  // Days to a date by the calendar's 400-year cycle, counted from a March.
  let days = seconds / 86400 + 719468
  let era = days / 146097
  let dayOfEra = days - era * 146097
  let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let monthFromMarch = (5 * dayOfYear + 2) / 153
  let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
  let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
  let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
  let time = seconds % 86400
  return "\(year)-\(two(month))-\(two(day)) \(two(time / 3600)):\(two(time / 60 % 60)):\(two(time % 60)) UTC"
}

/// Bytes in the largest binary unit that leaves at least one of it.
func bytesText(_ bytes: Int) -> String {
  var value = Double(bytes)
  for unit in ["B", "KiB", "MiB", "GiB"] {
    if abs(value) < 1024 { return unit == "B" ? "\(bytes) B" : "\(decimal(value, value < 10 ? 1 : 0)) \(unit)" }
    value /= 1024
  }
  return "\(decimal(value, 1)) TiB"
}

/// `value` with a fixed number of decimals.
func decimal(_ value: Double, _ digits: Int) -> String {
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let scaled = Int((abs(value) * scale).rounded())
  let sign = value < 0 && scaled > 0 ? "-" : ""
  if digits == 0 { return "\(sign)\(scaled)" }
  let whole = scaled / Int(scale)
  let fraction = String(scaled % Int(scale))
  return "\(sign)\(whole)." + String(repeating: "0", count: digits - fraction.count) + fraction
}

/// Nanoseconds as seconds with two decimals.
func secondsText(_ nanoseconds: UInt64) -> String { decimal(Double(nanoseconds) / 1e9, 2) }

private func padded(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}
