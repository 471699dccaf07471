// Profiles of what a program allocates: how often objects of each size are born, and how many of them live.
//
// The form is that of the profiles that fleetbench publishes: a line for each size with three numbers, the size in bytes, births per
// second, and objects alive at a time; commas between them, no line of names. Lines that begin with # are remarks. By
// Little's law an object of a size lives for as many seconds as there are objects alive for each birth a second, so a profile is all that is
// needed to make up a program that allocates alike (`FleetProgram`).

/// What a program allocates, size by size.
public struct FleetProfile: Equatable, Sendable {
  /// Objects of one size.
  public struct Size: Equatable, Sendable {
    /// Bytes of an object; at least 1.
    public var bytes: Int
    /// Objects born in a second; above 0.
    public var birthsPerSecond: Double
    /// Objects alive at a time, in the mean; above 0.
    public var live: Double

    /// How long one lives in the mean, in seconds: Little's law.
    public var lifetime: Double { live / birthsPerSecond }

    /// Objects of `bytes`.
    public init(bytes: Int, birthsPerSecond: Double, live: Double) {
      self.bytes = bytes
      self.birthsPerSecond = birthsPerSecond
      self.live = live
    }
  }

  /// The sizes that occur, as the profile has them.
  public var sizes: [Size]

  /// A profile of these sizes.
  public init(_ sizes: [Size]) { self.sizes = sizes }

  /// Bytes alive at a time, in the mean.
  public var liveBytes: Double { sizes.reduce(0) { $0 + Double($1.bytes) * $1.live } }

  /// Lines that a profile may have.
  static let largestCount = 1 << 20

  /// Reads a profile. Sizes of which none is ever born or alive are left out.
  ///
  /// - Throws: what is wrong, with line and column (the number in the line, counted from 1).
  public init(parsing file: TraceFile) throws(TraceError) {
    sizes = []
    let bytes = file.bytes
    var start = 0
    var line = 0
    while start < bytes.count {
      var end = start
      while end < bytes.count && bytes[end] != 0x0A { end += 1 }
      line += 1
      let text = String(decoding: bytes[start..<end], as: UTF8.self)
      start = end + 1
      let isEmpty = text.allSatisfy { $0 == " " || $0 == "\t" || $0 == "\r" }
      if isEmpty || text.hasPrefix("#") { continue }
      if line > Self.largestCount {
        throw TraceError(.badLine("a profile has at most \(Self.largestCount) lines"), at: .line(line))
      }
      if let size = try Self.size(text, line) { sizes.append(size) }
    }
    if sizes.isEmpty {
      throw TraceError(.badLine("the profile has no size that is ever allocated"), at: .line(max(line, 1)))
    }
  }

  private static func size(_ text: String, _ line: Int) throws(TraceError) -> Size? {
    let fields = text.split(separator: ",", omittingEmptySubsequences: false)
    guard fields.count == 3 else {
      throw TraceError(
        .badLine("the line has \(fields.count) numbers, not three (size in bytes, births per second, objects alive)"),
        at: .line(line))
    }
    var numbers = InlineArray<3, Double>(repeating: 0)
    for (index, field) in fields.enumerated() {
      let trimmed = field.filter { $0 != " " && $0 != "\t" && $0 != "\r" }
      guard let number = Double(String(trimmed)), number.isFinite, number >= 0 else {
        throw TraceError(
          .badLine("'\(field.prefix(40))' is not a number of 0 or more"), at: .cell(line: line, column: index + 1))
      }
      numbers[index] = number
    }
    guard numbers[0] >= 1, numbers[0] < Double(1 << 46), numbers[0] == numbers[0].rounded() else {
      throw TraceError(
        .badLine("\(fields[0].prefix(40)) is no size: whole bytes, 1 to 64 TiB"), at: .cell(line: line, column: 1))
    }
    guard numbers[1] > 0, numbers[2] > 0 else { return nil }
    return Size(bytes: Int(numbers[0]), birthsPerSecond: numbers[1], live: numbers[2])
  }
}
