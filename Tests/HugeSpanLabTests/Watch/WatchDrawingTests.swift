// The screen as a whole, drawn into memory, and what a terminal is sent.

import Testing

@testable import HugeSpanLab

@Suite("The screen of the live view")
struct WatchDrawingTests {
  private func display(blocks: Int = 3000, heap: Bool = false, name: String = "a program") -> WatchDisplay {
    var display = WatchDisplay(pace: WatchPace(wanted: 500_000_000), remark: "A remark.")
    for look in 0..<100 {
      var sample = WatchSample(process: 4711, name: name)
      sample.seconds = Double(look) / 2
      sample.residentBytes = (look + 1) << 20
      sample.anonymousBytes = 100 << 20
      sample.hugeBytes = 75 << 20
      sample.chargedBytes = 200 << 20
      sample.usedBytes = heap ? 50 << 20 : nil
      sample.lazyFreeBytes = 0
      sample.blocks = (0..<blocks).map { WatchBlock(address: UInt($0) << 21, state: WatchBlockState.allCases[$0 % 7]) }
      sample.mappings = (0..<40).map {
        var figures = MemoryFigures()
        figures.anonymousBytes = 1 << 20
        let start = UInt($0) << 30
        return MappingReport(start: start, end: start + 1, permissions: "rw-p", name: "/a/path", figures: figures)
      }
      display.ring.append(sample)
    }
    return display
  }

  private func lines(_ canvas: WatchCanvas) -> [String] { (0..<canvas.height).map { canvas.line($0) } }

  @Test(
    "every view fits every size, and says which process and which keys",
    arguments: [(1, 1), (5, 2), (20, 4), (20, 8), (39, 10), (60, 12), (80, 24), (200, 60), (400, 100)])
  func sizes(width: Int, height: Int) {
    for view in WatchView.allCases {
      for isHelp in [false, true] {
        var display = display()
        display.view = view
        display.isHelp = isHelp
        let canvas = WatchDrawing.canvas(display, width: width, height: height, WatchGlyphs())
        #expect(canvas.width == width && canvas.height == height && canvas.cells.count == width * height)
        guard width >= 20 && height >= 4 else { continue }
        #expect(canvas.line(0).contains("a progr") && canvas.line(height - 1).contains("q quit"), "\(view)")
        #expect(lines(canvas)[1..<height - 1].contains { $0.contains { $0 != " " } }, "\(view)")
      }
    }
  }

  @Test("curves have the present value, the least and the most, and the length of the window")
  func figures() {
    let canvas = WatchDrawing.canvas(display(), width: 80, height: 24, WatchGlyphs())
    let text = lines(canvas)
    // 46 columns of curve are 46 looks, half a second apart.
    #expect(text[0].contains("last 22s") || text[0].contains("last 23s"), "\(text[0])")
    #expect(text[1].hasPrefix("RSS") && text[1].contains("100.0 MiB") && text[1].contains("55M-100M"), "\(text[1])")
    #expect(text.contains { $0.hasPrefix("coverage") && $0.contains("75.0%") })
    #expect(!text.contains { $0.hasPrefix("used") })
    let heap = lines(WatchDrawing.canvas(display(heap: true), width: 80, height: 24, WatchGlyphs()))
    #expect(heap[1].hasPrefix("used") && heap[1].contains("50.0 MiB"))
  }

  @Test("a narrow screen has curve and present value, and the numbers have the rest")
  func narrow() {
    var display = display()
    let curves = lines(WatchDrawing.canvas(display, width: 20, height: 8, WatchGlyphs()))
    #expect(curves[1].hasPrefix("RSS ") && curves[1].hasSuffix("100M") && curves[1].contains("█"), "\(curves)")
    display.view = .numbers
    let numbers = lines(WatchDrawing.canvas(display, width: 20, height: 8, WatchGlyphs()))
    #expect(numbers[1].contains("now") && numbers[1].contains("least") && numbers[1].contains("most"))
    #expect(numbers[2].split(separator: " ") == ["RSS", "100M", "1.0M", "100M"])
  }

  @Test("a slow look and a pause are said in the line of state")
  func state() {
    var display = display()
    display.pace.note(cost: 100_000_000)
    var last = WatchDrawing.canvas(display, width: 80, height: 24, WatchGlyphs()).line(23)
    #expect(last.contains("1s, not 500ms: a look takes 100ms"), "\(last)")
    _ = display.handle(.pause)
    last = WatchDrawing.canvas(display, width: 20, height: 8, WatchGlyphs()).line(7)
    #expect(last.hasPrefix("PAUSED"), "\(last)")
  }

  @Test("without UTF-8 everything is ASCII, without colours no colour is sent, and names control nothing")
  func plainTerminal() {
    let display = display(name: "\u{1B}[2Jé\u{7}")
    let canvas = WatchDrawing.canvas(display, width: 80, height: 24, WatchGlyphs(isUnicode: false, hasColour: false))
    let sent = canvas.sequences(after: nil, hasColour: false)
    #expect(sent.unicodeScalars.allSatisfy { $0.isASCII } && !sent.contains(";38;") && !sent.contains(";48;"))
    #expect(canvas.line(0).contains("?[2J??") && !sent.contains("\u{7}"))
    #expect(canvas.sequences(after: nil, hasColour: true).contains(";48;5;"))
  }

  @Test("only rows that differ are sent again, and all after a change of size")
  func difference() {
    var first = WatchCanvas(width: 10, height: 3)
    first.put("one", row: 0, column: 0)
    var second = first
    #expect(second.sequences(after: first, hasColour: true).isEmpty)
    second.put("two", row: 1, column: 8)
    let sent = second.sequences(after: first, hasColour: true)
    #expect(sent.contains("\u{1B}[2;1H") && !sent.contains("\u{1B}[1;1H"))
    #expect(sent.contains("tw") && !sent.contains("two"))
    let other = WatchCanvas(width: 11, height: 3)
    #expect(other.sequences(after: first, hasColour: true).contains("\u{1B}[2J"))
  }
}
