import HugeSpanCore
import TestKernels
import Testing

@testable import HugeSpanLab

@Suite("A run over time")
struct RunSeriesTests {
  @Test("of many samples the first of each division is kept, the last of all too", arguments: [1000, 100_003, 7])
  func points(_ count: Int) {
    let duration: UInt64 = 60_000_000_000
    let recorder = SeriesRecorder(duration: duration)
    var asked = 0
    for index in 0...count {
      func sample() -> SeriesSample {
        asked += 1
        return SeriesSample(usedBytes: Double(index), coverage: index == 0 ? nil : 0.123456)
      }
      recorder.add(
        sample(), at: duration / UInt64(count) * UInt64(index) + (index == count ? duration % UInt64(count) : 0))
    }
    let series = recorder.series
    #expect(series.isEven && series.seconds.count == asked)
    #expect(series.seconds.count <= 200 && series.seconds.count > min(count, 150))
    #expect(series.seconds.first == 0 && series.seconds.last == 60)
    #expect(series.usedBytes.last == Double(count))
    #expect(series.coverage[0] == nil && series.coverage[1] == 0.1235)
    #expect(series.chargedBytes.allSatisfy { $0 == nil })
    #expect(zip(series.seconds, series.seconds.dropFirst()).allSatisfy(<))
  }

  @Test("a film shows every block, and when there are too many one in two, in the frames before too")
  func film() throws {
    var options = HeapOptions()
    options.policy = .never
    let heap = try PageHeapCore(kernel: ModelKernel(), options: options)
    let recorder = SeriesRecorder(duration: 1_000_000)
    recorder.picture(heap, at: 0)
    // Full and nearly full by turns: one of two is all of a kind.
    for _ in 0..<250 {
      _ = try heap.allocate(SpanRequest(pageCount: 512))
      _ = try heap.allocate(SpanRequest(pageCount: 511))
    }
    recorder.picture(heap, at: 500_000)
    #expect(recorder.film.every == 1 && recorder.film.frames[1].hasPrefix("FdFdFd"))
    recorder.picture(heap, at: 500_001)
    #expect(recorder.film.frames.count == 2, "the same division")
    for _ in 0..<300 { _ = try heap.allocate(SpanRequest(pageCount: 512)) }
    recorder.picture(heap, at: 1_000_000)
    let film = recorder.film
    #expect(film.every == 2 && film.defect == nil)
    #expect(film.frames[0] == "")
    #expect(film.frames[1].hasPrefix(String(repeating: "F", count: 250)) && !film.frames[1].contains("d"))
    #expect(film.frames[2].count == (film.blocks[2] + 1) / 2 && film.frames[2].count <= 512)
    #expect(film.blocks[1] >= 500 && film.blocks[2] >= 800)
  }

  @Test("every condition has a character, and no two the same")
  func alphabet() {
    let conditions = (UInt8.min...UInt8.max).filter { BlockCondition(rawValue: $0) != nil }
    #expect(conditions.elementsEqual(0..<UInt8(BlockFilm.alphabet.count)))
    #expect(Set(BlockFilm.alphabet).count == BlockFilm.alphabet.count)
    // The page's script has a colour for each.
    for character in BlockFilm.alphabet { #expect(ReportFilm.script.contains("[\"\(character)\", \"var(--")) }
  }
}
