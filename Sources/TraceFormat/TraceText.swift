// The text form of a trace: one event a line, to be read, searched, and written by hand.
//
//     hstrace 1
//     program redis-server
//     argument --port
//     system Linux 6.18.0 x86_64
//     page-bytes 4096
//     clock-nanoseconds 1000
//     started 1700000000000000000
//     0.000012 0 allocate 0 100
//     0.000013 0 allocate 1 64 zeroed
//     0.000014 1 allocate 2 4096 aligned 64
//     0.000020 1 resize 0 200
//     0.000031 0 free 1
//     0.100000 0 sample cpu 31000000 anonymous 1048576 huge 0 minor 310 major 0
//     end exited 0
//
// At the level of spans (see TraceText+Spans.swift):
//
//     hstrace 2
//     level span
//     0.000012 0 span 0 2
//
// A line of an event is: seconds, thread, what. Text values reach to the end of the line; a backslash and newlines in
// them are written \\ and \n. Lines that are empty or begin with # say nothing. Everything before the first event but
// `hstrace` may be left out, and so may `end` (then the program exited with status 0).

/// Reads and writes the text form of traces.
public enum TraceText {
  /// The lines of a header, each with its newline.
  public static func lines(of header: TraceHeader) -> String {
    var result = "hstrace \(header.version)\n"
    if header.version >= 2 { result += "level \(header.level)\n" }
    result += "program \(escaped(header.program))\n"
    for argument in header.arguments { result += "argument \(escaped(argument))\n" }
    if !header.system.isEmpty { result += "system \(escaped(header.system))\n" }
    result += "page-bytes \(header.pageBytes)\nclock-nanoseconds \(header.timeUnitNanoseconds)\n"
    return result + "started \(header.startNanoseconds)\n"
  }

  /// The line of an event, with its newline.
  public static func line(of event: TraceEvent) -> String {
    let what =
      switch event.body {
      case .allocate(let object, let bytes, _, .plain): "allocate \(object) \(bytes)"
      case .allocate(let object, let bytes, _, .zeroed): "allocate \(object) \(bytes) zeroed"
      case .allocate(let object, let bytes, let alignment, .aligned): "allocate \(object) \(bytes) aligned \(alignment)"
      case .allocate(let object, let bytes, let alignment, .mapped): "allocate \(object) \(bytes) mapped \(alignment)"
      case .resize(let object, let bytes): "resize \(object) \(bytes)"
      case .free(let object): "free \(object)"
      case .sample(let sample):
        "sample cpu \(sample.cpuNanoseconds) anonymous \(sample.anonymousBytes) huge \(sample.hugeBytes) minor \(sample.minorFaults) major \(sample.majorFaults)"
      default: spanText(of: event.body)
      }
    return "\(secondsText(event.time)) \(event.thread) \(what)\n"
  }

  /// The last line; nothing for a trace that is cut.
  public static func line(of ending: TraceEnding) -> String {
    switch ending {
    case .exited(let status): "end exited \(status)\n"
    case .signalled(let signal): "end signalled \(signal)\n"
    case .stopped: "end stopped\n"
    case .cut(let byte): "# cut off at byte \(byte)\n"
    }
  }

  /// Nine decimals without the zeros at their end, at least six.
  private static func secondsText(_ nanoseconds: UInt64) -> String {
    var digits = String(nanoseconds % 1_000_000_000)
    digits = String(repeating: "0", count: 9 - digits.count) + digits
    if digits.hasSuffix("000") { digits.removeLast(3) }
    return "\(nanoseconds / 1_000_000_000).\(digits)"
  }

  private static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// Reads the text form in `file` and writes the trace to `output`.
  ///
  /// - Returns: how many events and objects there are.
  /// - Throws: an error with the line, for what is not understood as well as for events that are impossible.
  @discardableResult
  public static func pack(
    _ file: TraceFile, to output: TraceOutput
  ) throws(TraceError) -> (events: Int, objects: Int) {
    var parser = TraceTextParser(file)
    let header = try parser.header()
    var writer = try TraceWriter(header: header, output: output)
    while let event = try parser.event() {
      do { try writer.append(event) } catch {
        if case .event = error.location { throw TraceError(error.problem, at: .line(parser.lineNumber)) }
        throw error
      }
    }
    let counts = (writer.eventCount, writer.objectCount)
    try writer.finish(parser.ending ?? .exited(status: 0))
    return counts
  }
}
