// A trace as JSON, event by event: the same as the text form, for programs that would rather not parse it.

import TraceFormat

/// The parts of `hugespan trace dump --json`, in the order in which they are written.
package enum TraceDump {
  /// Up to the first event.
  package static func opening(_ header: TraceHeader) -> String {
    let fields: [(String, String)] = [
      ("level", JSONText.quoted("\(header.level)")), ("program", JSONText.quoted(header.program)),
      ("arguments", JSONText.array(header.arguments.map(JSONText.quoted))),
      ("system", JSONText.quoted(header.system)), ("pageBytes", "\(header.pageBytes)"),
      ("clockNanoseconds", "\(header.timeUnitNanoseconds)"), ("startNanoseconds", "\(header.startNanoseconds)"),
    ]
    return "{\n  \"schema\": \"hugespan.trace-dump/1\",\n  \"header\": \(JSONText.object(fields)),\n  \"events\": ["
  }

  /// An event; times in nanoseconds, sizes in bytes.
  package static func event(_ event: TraceEvent, isFirst: Bool) -> String {
    var fields: [(String, String)] = [("time", "\(event.time)"), ("thread", "\(event.thread)")]
    switch event.body {
    case .allocate(let object, let bytes, let alignment, let kind):
      fields += [("event", "\"allocate\""), ("object", "\(object)"), ("bytes", "\(bytes)"), ("kind", "\"\(kind)\"")]
      if alignment != 1 { fields.append(("alignment", "\(alignment)")) }
    case .resize(let object, let bytes):
      fields += [("event", "\"resize\""), ("object", "\(object)"), ("bytes", "\(bytes)")]
    case .free(let object):
      fields += [("event", "\"free\""), ("object", "\(object)")]
    case .sample(let sample):
      fields += [
        ("event", "\"sample\""), ("cpuNanoseconds", "\(sample.cpuNanoseconds)"),
        ("anonymousBytes", "\(sample.anonymousBytes)"), ("hugeBytes", "\(sample.hugeBytes)"),
        ("minorFaults", "\(sample.minorFaults)"), ("majorFaults", "\(sample.majorFaults)"),
      ]
    case .allocateSpan(let span, let pages, let traits):
      fields += [("event", "\"span\""), ("object", "\(span)"), ("pages", "\(pages)")] + Self.fields(of: traits)
    case .refuseSpan(let pages, let traits):
      fields += [("event", "\"refused-span\""), ("pages", "\(pages)")] + Self.fields(of: traits)
    case .resizeSpan(let span, let pages, let isZeroed):
      fields += [("event", "\"resize-span\""), ("object", "\(span)"), ("pages", "\(pages)")]
      if isZeroed { fields.append(("zeroed", "true")) }
    case .refuseGrowth(let span, let pages, let isZeroed):
      fields += [("event", "\"refused-growth\""), ("object", "\(span)"), ("pages", "\(pages)")]
      if isZeroed { fields.append(("zeroed", "true")) }
    case .freePages(let span, let first, let pages, let tail, let isJoined):
      fields += [
        ("event", "\"free-pages\""), ("object", "\(span)"), ("first", "\(first)"), ("pages", "\(pages)"),
      ]
      if let tail { fields.append(("tail", "\(tail)")) }
      if isJoined { fields.append(("joined", "true")) }
    }
    return (isFirst ? "\n    " : ",\n    ") + JSONText.object(fields)
  }

  private static func fields(of traits: SpanTraits) -> [(String, String)] {
    var fields: [(String, String)] = []
    if traits.alignmentPages != 1 { fields.append(("alignmentPages", "\(traits.alignmentPages)")) }
    if traits.isZeroed { fields.append(("zeroed", "true")) }
    if traits.lifetime != .unknown { fields.append(("lifetime", "\"\(traits.lifetime)\"")) }
    if traits.objects != .unknown { fields.append(("objects", "\"\(traits.objects)\"")) }
    return fields
  }

  /// After the last event; `ending` is nil when the dump stopped before the trace did.
  package static func closing(_ ending: TraceEnding?) -> String {
    "\n  ],\n  \"ending\": \(ending.map { JSONText.quoted("\($0)") } ?? "null")\n}\n"
  }
}

extension ConversionReport {
  /// The object of `hugespan record --json`.
  package func json(output: String, command: [String], ending: ProgramEnding?) -> String {
    let how: String? =
      switch ending {
      case .exited(let status)?: "exited with status \(status)"
      case .signalled(let signal)?: "ended by signal \(signal)"
      case nil: nil
      }
    return JSONText.document([
      ("schema", "\"hugespan.record/1\""), ("trace", JSONText.quoted(output)),
      ("level", JSONText.quoted("\(level)")), ("command", JSONText.array(command.map(JSONText.quoted))),
      ("ending", how.map(JSONText.quoted) ?? "null"),
      ("events", "\(events)"), ("objects", "\(objects)"), ("samples", "\(samples)"),
      ("replacedImages", "\(replacedImages)"), ("unknownReleases", "\(unknownReleases)"),
      ("unseenReleases", "\(unseenReleases)"), ("warnings", JSONText.array(warnings.map(JSONText.quoted))),
    ])
  }
}
