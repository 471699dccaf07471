// What a trace says of its program before the first event, and how the program came to its end after the last.

/// What the events of a trace are about.
public enum TraceLevel: UInt8, Sendable, CaseIterable {
  /// Objects, which a program asks of malloc.
  case malloc
  /// Spans, which an allocator asks of the page heap.
  case span
}

/// Where a trace comes from.
public struct TraceHeader: Equatable, Sendable {
  /// The newest version of the format that this library reads. Version 1 knows the level of malloc only; a trace is
  /// written in the oldest version that can say it.
  public static let currentVersion = 2

  /// The program as it was named to the recorder (its path, or the name that was looked up).
  public var program: String
  /// The arguments, without the program's name.
  public var arguments: [String]
  /// The kernel and machine that the program ran on, one line, such as `Linux 6.18.0 x86_64`.
  public var system: String
  /// Bytes of a base page of that kernel.
  public var pageBytes: Int
  /// Nanoseconds of one step of the trace's clock: event times are multiples of it. At least 1.
  public var timeUnitNanoseconds: UInt64
  /// When the trace began, in nanoseconds since 1970 UTC.
  public var startNanoseconds: UInt64
  /// What its events are about.
  public var level: TraceLevel

  /// Creates a header from its parts.
  public init(
    program: String, arguments: [String] = [], system: String = "", pageBytes: Int = 4096,
    timeUnitNanoseconds: UInt64 = 1000, startNanoseconds: UInt64 = 0, level: TraceLevel = .malloc
  ) {
    self.program = program
    self.arguments = arguments
    self.system = system
    self.pageBytes = pageBytes
    self.timeUnitNanoseconds = timeUnitNanoseconds
    self.startNanoseconds = startNanoseconds
    self.level = level
  }

  /// The version that a trace with this header is written in.
  public var version: Int { level == .malloc ? 1 : 2 }
}

/// How a recording ended.
public enum TraceEnding: Equatable, Sendable {
  /// The program ended by itself with this status.
  case exited(status: Int)
  /// A signal ended the program.
  case signalled(signal: Int)
  /// The program went on without being recorded, for example after it replaced itself by exec.
  case stopped
  /// The trace has no end record: writing it was interrupted. It is whole up to `byte`.
  case cut(byte: Int)
}

extension TraceEnding: CustomStringConvertible {
  /// One phrase.
  public var description: String {
    switch self {
    case .exited(let status): "exited with status \(status)"
    case .signalled(let signal): "ended by signal \(signal)"
    case .stopped: "recording stopped before the program did"
    case .cut(let byte): "cut off, whole up to byte \(byte)"
    }
  }
}

extension TraceHeader {
  /// The first bytes of every trace. The first is no ASCII and the last two catch newline translation.
  static let magic: [UInt8] = [0x89, 0x48, 0x53, 0x54, 0x52, 0x43, 0x0D, 0x0A]
  /// No header is longer; a length beyond this is damage.
  static let maximumBytes = 1 << 20

  /// The header as it stands at the start of a file.
  package var encodedBytes: [UInt8] { encoded }

  /// Magic, version, body length, checksum of the body; then the body.
  var encoded: [UInt8] {
    var body: [UInt8] = []
    body.appendVarint(UInt64(pageBytes))
    body.appendVarint(timeUnitNanoseconds)
    body.appendVarint(startNanoseconds)
    body.appendText(program)
    body.appendVarint(UInt64(arguments.count))
    for argument in arguments { body.appendText(argument) }
    body.appendText(system)
    if version >= 2 { body.appendVarint(UInt64(level.rawValue)) }
    var result = Self.magic
    result.appendField(UInt32(version))
    result.appendField(UInt32(body.count))
    result.appendField(body.withUnsafeBytes { Checksum.of($0) })
    return result + body
  }

  /// The header at the start of `bytes`, and where the first chunk begins.
  static func decode(_ bytes: UnsafeRawBufferPointer) throws(TraceError) -> (header: TraceHeader, end: Int) {
    var cursor = ByteCursor(bytes, from: 0, to: bytes.count)
    for (offset, expected) in magic.enumerated() {
      guard let byte = cursor.byte() else {
        // A prefix of a trace is a cut trace, but an empty file is just not one.
        if offset == 0 { throw TraceError(.foreign, at: .byte(0)) }
        throw TraceError(.truncated(part: "header", missing: magic.count + 12 - offset), at: .byte(bytes.count))
      }
      if byte != expected { throw TraceError(.foreign, at: .byte(offset)) }
    }
    guard let version = cursor.field(UInt32.self), let length = cursor.field(UInt32.self),
      let stored = cursor.field(UInt32.self)
    else {
      throw TraceError(.truncated(part: "header", missing: magic.count + 12 - bytes.count), at: .byte(bytes.count))
    }
    if version == 0 || version > UInt32(currentVersion) {
      throw TraceError(.unsupportedVersion(Int(version)), at: .byte(magic.count))
    }
    if length > UInt32(maximumBytes) {
      throw TraceError(
        .badField("the header claims \(length) bytes, at most \(maximumBytes) are allowed"), at: .byte(12))
    }
    let start = cursor.position
    let end = start + Int(length)
    if end > bytes.count {
      throw TraceError(.truncated(part: "header", missing: end - bytes.count), at: .byte(bytes.count))
    }
    let computed = Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
    if computed != stored {
      throw TraceError(.checksum(part: "header", stored: stored, computed: computed), at: .byte(start))
    }
    return (try decodeBody(bytes, version: version, from: start, to: end), end)
  }

  private static func decodeBody(
    _ bytes: UnsafeRawBufferPointer, version: UInt32, from start: Int, to end: Int
  ) throws(TraceError) -> TraceHeader {
    var cursor = ByteCursor(bytes, from: start, to: end)
    guard let pageBytes = cursor.varint(), let unit = cursor.varint(), let startTime = cursor.varint(),
      let program = cursor.text(), let count = cursor.varint(), count <= UInt64(end - start)
    else { throw TraceError(.badField("the header's fields do not fit its length"), at: .byte(cursor.position)) }
    var arguments: [String] = []
    for _ in 0..<count {
      guard let argument = cursor.text() else {
        throw TraceError(.badField("an argument in the header is cut off"), at: .byte(cursor.position))
      }
      arguments.append(argument)
    }
    guard let system = cursor.text() else {
      throw TraceError(.badField("the header's fields do not fit its length"), at: .byte(cursor.position))
    }
    if pageBytes < 512 || pageBytes > 1 << 30 || pageBytes & (pageBytes - 1) != 0 {
      throw TraceError(.badField("a page of \(pageBytes) bytes is not a page"), at: .byte(start))
    }
    if unit == 0 || unit > 1_000_000_000 {
      throw TraceError(.badField("a clock step of \(unit) ns is not within 1 ns and 1 s"), at: .byte(start))
    }
    var level = TraceLevel.malloc
    if version >= 2 {
      guard let code = cursor.varint(), let known = UInt8(exactly: code).flatMap(TraceLevel.init(rawValue:)) else {
        throw TraceError(.badField("the header names no level of events"), at: .byte(cursor.position))
      }
      level = known
    }
    if cursor.count != 0 {
      throw TraceError(.badField("\(cursor.count) bytes follow the header's last field"), at: .byte(cursor.position))
    }
    return TraceHeader(
      program: program, arguments: arguments, system: system, pageBytes: Int(pageBytes), timeUnitNanoseconds: unit,
      startNanoseconds: startTime, level: level)
  }
}

extension TraceHeader {
  /// The header that `file` begins with; what follows it is not looked at.
  package init(decoding file: TraceFile) throws(TraceError) { self = try Self.decode(file.bytes).header }
}
