// The text form of events of spans, both ways:
//
//     0.000012 0 span 0 2
//     0.000013 0 span 1 16 aligned 512 zeroed short many
//     0.000014 1 resize-span 1 20 zeroed
//     0.000015 1 free-pages 1 3 2 tail 2 joined
//     0.000016 0 refused-span 4096 aligned 512
//     0.000017 0 refused-growth 1 30 zeroed
//     0.000031 0 free 0
//
// Lengths and pages are numbers of pages; `free-pages` has the span, its first page that goes, and how many go.

extension TraceText {
  /// An event that only spans have.
  static func spanText(of body: TraceEventBody) -> String {
    switch body {
    case .allocateSpan(let span, let pages, let traits): "span \(span) \(pages)\(text(of: traits))"
    case .resizeSpan(let span, let pages, let isZeroed): "resize-span \(span) \(pages)\(isZeroed ? " zeroed" : "")"
    case .freePages(let span, let first, let pages, let tail, let isJoined):
      "free-pages \(span) \(first) \(pages)\(tail.map { " tail \($0)" } ?? "")\(isJoined ? " joined" : "")"
    case .refuseSpan(let pages, let traits): "refused-span \(pages)\(text(of: traits))"
    case .refuseGrowth(let span, let pages, let isZeroed):
      "refused-growth \(span) \(pages)\(isZeroed ? " zeroed" : "")"
    case .allocate, .resize, .free, .sample: preconditionFailure("written elsewhere")
    }
  }

  private static func text(of traits: SpanTraits) -> String {
    var result = traits.alignmentPages == 1 ? "" : " aligned \(traits.alignmentPages)"
    if traits.isZeroed { result += " zeroed" }
    if traits.lifetime != .unknown { result += " \(traits.lifetime)" }
    if traits.objects != .unknown { result += " \(traits.objects)" }
    return result
  }
}

extension TraceTextParser {
  /// The rest of the line of an event that only spans have; nil if `kind` is none.
  func spanEvent(_ kind: Substring, _ words: inout ArraySlice<Substring>) throws(TraceError) -> TraceEventBody? {
    switch kind {
    case "span":
      return .allocateSpan(
        span: try number(&words, "a span"), pages: try number(&words, "a number of pages"), traits: try traits(&words))
    case "refused-span":
      return .refuseSpan(pages: try number(&words, "a number of pages"), traits: try traits(&words))
    case "resize-span":
      return .resizeSpan(
        span: try number(&words, "a span"), pages: try number(&words, "a number of pages"),
        isZeroed: take("zeroed", &words))
    case "refused-growth":
      return .refuseGrowth(
        span: try number(&words, "a span"), pages: try number(&words, "a number of pages"),
        isZeroed: take("zeroed", &words))
    case "free-pages":
      let span = try number(&words, "a span")
      let first = try number(&words, "a page")
      let pages = try number(&words, "a number of pages")
      let tail = take("tail", &words) ? try number(&words, "a span") : nil
      return .freePages(span: span, first: first, pages: pages, tail: tail, isJoined: take("joined", &words))
    default: return nil
    }
  }

  private func take(_ word: Substring, _ words: inout ArraySlice<Substring>) -> Bool {
    if words.first != word { return false }
    words.removeFirst()
    return true
  }

  private func traits(_ words: inout ArraySlice<Substring>) throws(TraceError) -> SpanTraits {
    var traits = SpanTraits()
    while let word = words.popFirst() {
      switch word {
      case "aligned": traits.alignmentPages = try number(&words, "an alignment")
      case "zeroed": traits.isZeroed = true
      case "short": traits.lifetime = .short
      case "long": traits.lifetime = .long
      case "few": traits.objects = .few
      case "many": traits.objects = .many
      default:
        throw bad("no trait of a span is called '\(word)' (known: aligned N, zeroed, short, long, few, many)")
      }
    }
    return traits
  }
}
