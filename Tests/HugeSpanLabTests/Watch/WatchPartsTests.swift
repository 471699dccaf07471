// The parts of the live view that need no terminal: ring, curve, map, pace, keys, lines.

import Foundation
import Testing

@testable import HugeSpanLab

private func sample(_ resident: Int, at seconds: Double = 0, charged: Int? = nil) -> WatchSample {
  var sample = WatchSample(process: 1, name: "test")
  sample.seconds = seconds
  sample.residentBytes = resident
  sample.chargedBytes = charged
  return sample
}

private func text(_ rows: [[Unicode.Scalar]]) -> [String] {
  rows.map { row in
    var text = String.UnicodeScalarView()
    text.append(contentsOf: row)
    return String(text)
  }
}

@Suite("The ring of looks")
struct WatchRingTests {
  @Test("it keeps the last looks, in their order, and forgets the others")
  func order() {
    var ring = WatchRing(capacity: 4)
    for number in 1...10 { ring.append(sample(number, at: Double(number) / 2)) }
    #expect(ring.values(of: .resident, last: 100) == [7, 8, 9, 10])
    #expect(ring.values(of: .resident, last: 2) == [9, 10] && ring.values(of: .resident, last: 0) == [])
    #expect(ring.extent(of: .resident, last: 3)! == (8, 10) && ring.seconds(last: 3) == 1)
    #expect(ring.latest?.residentBytes == 10 && ring.count == 4)
  }

  @Test("what is unknown has no extent, and what is known only at times has that of those times")
  func unknown() {
    var ring = WatchRing()
    ring.append(sample(1))
    #expect(ring.extent(of: .charged, last: 9) == nil && ring.extent(of: .used, last: 9) == nil)
    ring.append(sample(1, charged: 5))
    #expect(ring.extent(of: .charged, last: 9)! == (5, 5) && ring.values(of: .charged, last: 9) == [nil, 5])
    #expect(ring.seconds(last: 1) == 0 && WatchRing().seconds(last: 5) == 0)
  }
}

@Suite("Curves in characters")
struct WatchCurveTests {
  @Test("a row has eight levels, from the bottom up")
  func levels() {
    let values: [Double?] = (0...8).map { Double($0) }
    #expect(text(WatchCurve.rows(values, top: 8, width: 9, height: 1, WatchGlyphs())) == [" ▁▂▃▄▅▆▇█"])
    let plain = WatchGlyphs(isUnicode: false, hasColour: false)
    #expect(text(WatchCurve.rows(values, top: 8, width: 9, height: 1, plain)) == [" _.:-=+*#"])
  }

  @Test("several rows stand on each other")
  func rows() {
    let rows = WatchCurve.rows([4, 8, 12, 24], top: 24, width: 4, height: 3, WatchGlyphs())
    #expect(text(rows) == ["   █", "  ▄█", "▄███"])
  }

  @Test("the latest is at the right; nothing known is a blank, and a trace of something is seen")
  func edges() {
    let glyphs = WatchGlyphs()
    #expect(text(WatchCurve.rows([8], top: 8, width: 3, height: 1, glyphs)) == ["  █"])
    #expect(text(WatchCurve.rows([1, 2, 8, 8], top: 8, width: 2, height: 1, glyphs)) == ["██"])
    #expect(text(WatchCurve.rows([nil, 0, 0.001, 9], top: 8, width: 4, height: 1, glyphs)) == ["  ▁█"])
    #expect(text(WatchCurve.rows([0, 0], top: 0, width: 2, height: 1, glyphs)) == ["  "])
    #expect(WatchCurve.rows([1], top: 1, width: 0, height: 1, glyphs).isEmpty)
  }

  @Test(
    "the locale decides over block characters, NO_COLOR over colours",
    arguments: [
      (["LANG": "C.UTF-8"], true, true), (["LANG": "en_GB.utf8", "LC_ALL": "C"], false, true), ([:], false, true),
      (["LC_ALL": "", "LC_CTYPE": "de_DE.UTF-8", "LANG": "C", "NO_COLOR": "1"], true, false),
      (["NO_COLOR": ""], false, true),
    ])
  func environment(_ variables: [String: String], isUnicode: Bool, hasColour: Bool) {
    #expect(WatchGlyphs { variables[$0] } == WatchGlyphs(isUnicode: isUnicode, hasColour: hasColour))
  }
}

@Suite("The map of pageblocks")
struct WatchHeatMapTests {
  private func blocks(_ letters: String) -> [WatchBlock] {
    letters.enumerated().map { index, letter in
      WatchBlock(
        address: UInt(index) << 21, state: WatchBlockState.allCases.first { $0.letter == letter }!)
    }
  }

  private func drawn(_ letters: String, _ width: Int, _ height: Int) -> [String] {
    WatchHeatMap(blocks(letters), width: width, height: height).rows.map { String($0.map(\.letter)) }
  }

  @Test("with room each block has a cell, and rows say where they begin")
  func single() {
    #expect(drawn("##s.rblw", 4, 3) == ["##s.", "rblw"])
    let map = WatchHeatMap(blocks("##s.rb"), width: 4, height: 3)
    #expect(map.blocksPerCell == 1 && map.addresses == [0, 4 << 21])
  }

  @Test("without, a cell shows what most of its blocks are, and of equals what is more worth a look")
  func several() {
    #expect(drawn("##s###bb", 2, 2) == ["#s", "#b"])
    #expect(drawn(".r#.l#bs", 4, 1) == ["r#lb"])
    #expect(drawn("###bb", 1, 1) == ["#"] && drawn("##bb.", 1, 1) == ["b"])
  }

  @Test("it never has more rows or columns than there are")
  func bounds() {
    for count in [1, 7, 19, 20, 21, 399, 400, 401, 5000] {
      for (width, height) in [(20, 1), (20, 4), (400, 60), (1, 1)] {
        let map = WatchHeatMap(blocks(String(repeating: "#", count: count)), width: width, height: height)
        #expect(map.rows.count <= height && map.rows.allSatisfy { $0.count <= width && !$0.isEmpty })
        #expect(map.rows.joined().count == (count + map.blocksPerCell - 1) / map.blocksPerCell)
      }
    }
    #expect(WatchHeatMap([], width: 9, height: 9).rows.isEmpty && drawn("##", 0, 5).isEmpty)
  }

  @Test("letters, colours and weights tell the states apart")
  func distinct() {
    let all = WatchBlockState.allCases
    #expect(Set(all.map(\.letter)).count == all.count && Set(all.map(\.colour)).count == all.count)
    #expect(Set(all.map(\.weight)) == Set(0..<all.count))
  }
}

@Suite("Pace, keys and lines of the live view")
struct WatchPaceAndKeysTests {
  @Test("a look that takes more than a tenth of the interval lengthens it, until looks are cheap again")
  func pace() {
    var pace = WatchPace(wanted: 100_000_000)
    pace.note(cost: 10_000_000)
    #expect(pace.interval == 100_000_000 && !pace.isLengthened)
    pace = WatchPace(wanted: 100_000_000)
    pace.note(cost: 50_000_000)
    #expect(pace.interval == 500_000_000 && pace.isLengthened)
    for _ in 0..<20 { pace.note(cost: 1_000_000) }
    #expect(pace.interval == 100_000_000 && !pace.isLengthened)
  }

  @Test("the interval goes in steps, and ends at the ends")
  func steps() {
    var pace = WatchPace(wanted: 500_000_000)
    pace.lengthen()
    #expect(pace.wanted == 1_000_000_000)
    for _ in 0..<30 { pace.lengthen() }
    #expect(pace.wanted == 60_000_000_000)
    for _ in 0..<30 { pace.shorten() }
    #expect(pace.wanted == WatchPace.least && WatchPace(wanted: 1).wanted == WatchPace.least)
  }

  @Test("keys are known by their bytes, and sequences of other keys ask for nothing")
  func keys() {
    var reader = WatchKeyReader()
    #expect(reader.keys("qp v\t+-?".utf8) == [.quit, .pause, .pause, .nextView, .nextView, .longer, .shorter, .help])
    // Arrow, F2, Delete; then one that comes in two reads.
    #expect(reader.keys("\u{1B}[A\u{1B}OQ\u{1B}[3~".utf8) == [.other, .other, .other])
    #expect(reader.keys("\u{1B}".utf8) == [] && reader.keys("[1;5p".utf8) == [.other])
    #expect(reader.keys("\u{1B}q".utf8) == [.quit])
  }

  @Test("a pause keeps what is shown while the looks go on; help is closed by the next key")
  func display() {
    var display = WatchDisplay(pace: WatchPace(wanted: 500_000_000))
    display.ring.append(sample(1))
    #expect(display.handle(.pause) && display.isPaused)
    display.ring.append(sample(2))
    #expect(display.shown.latest?.residentBytes == 1)
    #expect(display.handle(.pause) && display.shown.latest?.residentBytes == 2)
    #expect(display.handle(.help) && display.isHelp && display.handle(.other) && !display.isHelp)
    #expect(!display.handle(.other) && !display.handle(.quit))
    for view in [WatchView.map, .mappings, .numbers, .curves] {
      #expect(display.handle(.nextView) && display.view == view)
    }
  }

  @Test("lines stand under their heading, with a column for a heap's figures only where there is one")
  func lines() {
    var look = sample(3 << 20, at: 1.5)
    for hasHeap in [false, true] {
      let heading = WatchPlain.heading(hasHeap: hasHeap)
      let line = WatchPlain.line(look, hasHeap: hasHeap)
      #expect(heading.count == line.count && heading.contains("used") == hasHeap && line.contains("3.0"))
    }
    #expect(WatchPlain.line(look, hasHeap: false).split(separator: " ").count { $0.hasPrefix("-") } >= 8)
    look.blocks = [WatchBlock(address: 0, state: .full)]
    #expect(WatchPlain.line(look, hasHeap: false).split(separator: " ").count { $0.hasPrefix("-") } == 3)
  }

  @Test("a record joins neighbours of one state, and can be read back")
  func record() throws {
    var look = sample(1)
    let states: [(UInt, WatchBlockState)] = [(1, .full), (2, .full), (3, .broken), (9, .broken)]
    look.blocks = states.map { WatchBlock(address: $0.0 << 21, state: $0.1) }
    let record = WatchRecord(look, interval: 500_000_000)
    #expect(record.blocks.map(\.count) == [2, 1, 1])
    #expect(record.blocks.map(\.address) == ["200000", "600000", "1200000"])
    let line = try record.line()
    #expect(line.hasSuffix("}\n") && line.count { $0 == "\n" } == 1)
    #expect(try JSONDecoder().decode(WatchRecord.self, from: Data(line.utf8)) == record)
  }

  @Test("short numbers have four characters at most", arguments: [0, 1, 999, 1 << 20, 10 << 20, 999 << 20, 123 << 30])
  func short(_ bytes: Int) {
    #expect(HumanNumber.short(Double(bytes)).count <= 4)
  }
}
