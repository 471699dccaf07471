// A trace's figures for programs.

import TraceFormat

extension TraceSummary {
  /// The object of `hugespan trace info --json`, schema `hugespan.trace-info/1`. Times in seconds, sizes in bytes.
  package func json(path: String) -> String {
    var kinds = AllocationKind.allCases.map { ("\($0)", "\(births[$0] ?? 0)") }
    kinds += [("resize", "\(resizes)"), ("free", "\(frees)"), ("sample", "\(samples)")]
    let fields: [(String, String)] = [
      ("schema", quoted("hugespan.trace-info/1")), ("file", quoted(path)), ("fileBytes", "\(fileBytes)"),
      ("chunks", "\(chunks)"), ("program", quoted(header.program)),
      ("arguments", "[\(header.arguments.map(quoted).joined(separator: ", "))]"), ("system", quoted(header.system)),
      ("pageBytes", "\(header.pageBytes)"),
      ("startedAt", quoted(utcText(seconds: Int(header.startNanoseconds / 1_000_000_000)))),
      ("ending", quoted("\(ending)")), ("isCut", isCut ? "true" : "false"), ("seconds", seconds(nanoseconds)),
      ("threads", "\(threads)"), ("busyCPUs", decimal(busyShare, 4)), ("events", "\(events)"),
      ("bytesPerEvent", decimal(bytesPerEvent, 4)), ("eventsByKind", object(kinds)),
      ("peakLiveBytes", "\(peak.liveBytes)"),
      ("peakLiveSeconds", seconds(peak.time)), ("liveBytesAtEnd", "\(liveAtEnd)"),
      ("liveObjectsAtEnd", "\(liveObjectsAtEnd)"),
      ("peakAnonymousBytes", samples == 0 ? "null" : "\(peakAnonymousBytes)"),
      ("peakAnonymousSeconds", samples == 0 ? "null" : seconds(anonymousPeakTime)),
      ("liveBytesAtAnonymousPeak", samples == 0 ? "null" : "\(liveAtAnonymousPeak)"),
      ("recordedShare", recordedShare.map { decimal($0, 4) } ?? "null"), ("peakHugeBytes", "\(peakHugeBytes)"),
      ("longestSampleGapSeconds", seconds(longestSampleGap)), ("drops", "[\(drops.map(json).joined(separator: ", "))]"),
      ("sizes", "[\(sizesJSON.joined(separator: ", "))]"),
      ("liveBytesOverTime", "[\(columns(100).map { "\($0)" }.joined(separator: ", "))]"),
    ]
    return "{\n" + fields.map { "  \(quoted($0.0)): \($0.1)" }.joined(separator: ",\n") + "\n}\n"
  }

  private var isCut: Bool {
    if case .cut = ending { return true }
    return false
  }

  private var sizesJSON: [String] {
    sizeClasses.enumerated().filter { $0.element.births > 0 }.map { exponent, sizeClass in
      object([("from", "\(1 << exponent)"), ("births", "\(sizeClass.births)"), ("bytes", "\(sizeClass.bytes)")])
    }
  }

  private func json(_ drop: Drop) -> String {
    object([
      ("fromSeconds", seconds(drop.from.time)), ("fromBytes", "\(drop.from.liveBytes)"),
      ("toSeconds", seconds(drop.to.time)), ("toBytes", "\(drop.to.liveBytes)"),
      ("underHalfSeconds", seconds(drop.lowNanoseconds)),
      ("riseToSeconds", drop.riseTo.map { seconds($0.time) } ?? "null"),
      ("riseToBytes", drop.riseTo.map { "\($0.liveBytes)" } ?? "null"),
    ])
  }

  private func seconds(_ nanoseconds: UInt64) -> String { decimal(Double(nanoseconds) / 1e9, 6) }

  private func object(_ fields: [(String, String)]) -> String {
    "{" + fields.map { "\(quoted($0.0)): \($0.1)" }.joined(separator: ", ") + "}"
  }
}

/// `text` as a JSON string.
private func quoted(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\n": result += "\\n"
    case _ where scalar.value < 0x20:
      let digits = String(scalar.value, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}
