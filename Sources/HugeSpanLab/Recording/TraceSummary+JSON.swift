// A trace's figures for programs.

import TraceFormat

extension TraceSummary {
  /// The object of `hugespan trace info --json`, schema `hugespan.trace-info/1`. Times in seconds, sizes in bytes.
  package func json(path: String) -> String {
    var kinds = AllocationKind.allCases.map { ("\($0)", "\(births[$0] ?? 0)") }
    kinds += [("resize", "\(resizes)"), ("free", "\(frees)"), ("sample", "\(samples)")]
    if header.level == .span {
      kinds += [("growth", "\(growths)"), ("partialFree", "\(partialFrees)"), ("refusal", "\(refusals)")]
    }
    let fields: [(String, String)] = [
      ("schema", JSONText.quoted("hugespan.trace-info/1")), ("file", JSONText.quoted(path)),
      ("fileBytes", "\(fileBytes)"),
      ("chunks", "\(chunks)"), ("level", JSONText.quoted("\(header.level)")),
      ("program", JSONText.quoted(header.program)),
      ("arguments", JSONText.array(header.arguments.map(JSONText.quoted))), ("system", JSONText.quoted(header.system)),
      ("pageBytes", "\(header.pageBytes)"),
      ("startedAt", JSONText.quoted(utcText(seconds: Int(header.startNanoseconds / 1_000_000_000)))),
      ("ending", JSONText.quoted("\(ending)")), ("isCut", isCut ? "true" : "false"),
      ("seconds", JSONText.seconds(nanoseconds)),
      ("threads", "\(threads)"), ("busyCPUs", decimal(busyShare, 4)), ("events", "\(events)"),
      ("bytesPerEvent", decimal(bytesPerEvent, 4)), ("eventsByKind", JSONText.object(kinds)),
      ("peakLiveBytes", "\(peak.liveBytes)"),
      ("peakLiveSeconds", JSONText.seconds(peak.time)), ("liveBytesAtEnd", "\(liveAtEnd)"),
      ("liveObjectsAtEnd", "\(liveObjectsAtEnd)"),
      ("peakAnonymousBytes", samples == 0 ? "null" : "\(peakAnonymousBytes)"),
      ("peakAnonymousSeconds", samples == 0 ? "null" : JSONText.seconds(anonymousPeakTime)),
      ("liveBytesAtAnonymousPeak", samples == 0 ? "null" : "\(liveAtAnonymousPeak)"),
      ("recordedShare", recordedShare.map { decimal($0, 4) } ?? "null"), ("peakHugeBytes", "\(peakHugeBytes)"),
      ("longestSampleGapSeconds", JSONText.seconds(longestSampleGap)), ("drops", JSONText.array(drops.map(json))),
      ("sizes", JSONText.array(sizesJSON)),
      ("liveBytesOverTime", JSONText.array(columns(100).map { "\($0)" })),
    ]
    return JSONText.document(fields)
  }

  private var isCut: Bool {
    if case .cut = ending { return true }
    return false
  }

  private var sizesJSON: [String] {
    sizeClasses.enumerated().filter { $0.element.births > 0 }.map { exponent, sizeClass in
      JSONText.object([
        ("from", "\(1 << exponent)"), ("births", "\(sizeClass.births)"), ("bytes", "\(sizeClass.bytes)"),
      ])
    }
  }

  private func json(_ drop: Drop) -> String {
    JSONText.object([
      ("fromSeconds", JSONText.seconds(drop.from.time)), ("fromBytes", "\(drop.from.liveBytes)"),
      ("toSeconds", JSONText.seconds(drop.to.time)), ("toBytes", "\(drop.to.liveBytes)"),
      ("underHalfSeconds", JSONText.seconds(drop.lowNanoseconds)),
      ("riseToSeconds", drop.riseTo.map { JSONText.seconds($0.time) } ?? "null"),
      ("riseToBytes", drop.riseTo.map { "\($0.liveBytes)" } ?? "null"),
    ])
  }
}
