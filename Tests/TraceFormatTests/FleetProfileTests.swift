// Profiles of fleets: what is read, what is refused and where.

import Testing

@testable import TraceFormat

private func profile(_ text: String) throws -> FleetProfile { try FleetProfile(parsing: TraceFile(Array(text.utf8))) }

@Suite struct FleetProfileTests {
  @Test func readsSizesRatesAndLiveCounts() throws {
    let read = try profile("# bytes, births, alive\n16, 100.5, 1005\n\n4096,2e1,  5\r\n")
    #expect(
      read.sizes == [
        .init(bytes: 16, birthsPerSecond: 100.5, live: 1005), .init(bytes: 4096, birthsPerSecond: 20, live: 5),
      ])
    #expect(read.sizes[0].lifetime == 10 && read.liveBytes == 16 * 1005 + 4096 * 5)
  }

  @Test func leavesOutWhatIsNeverBorn() throws {
    #expect(try profile("8, 0, 5\n16, 1, 0\n32, 1, 1").sizes.map(\.bytes) == [32])
  }

  @Test(arguments: [
    ("16, 1", TraceError.Location.line(1)), ("16, 1, 2, 3", .line(1)), ("16,1,1\n16, x, 2", .cell(line: 2, column: 2)),
    ("16, 1, -2", .cell(line: 1, column: 3)), ("16, nan, 2", .cell(line: 1, column: 2)),
    ("0, 1, 2", .cell(line: 1, column: 1)), ("1.5, 1, 2", .cell(line: 1, column: 1)),
    ("1e40, 1, 2", .cell(line: 1, column: 1)), ("", .line(1)), ("\n\n# nothing\n", .line(3)),
  ])
  func refusesWithThePlace(text: String, place: TraceError.Location) {
    let error = #expect(throws: TraceError.self) { try profile(text) }
    #expect(error?.location == place)
  }
}
