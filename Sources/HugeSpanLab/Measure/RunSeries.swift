// A run over time, small enough to draw: at most 200 points, and at most 60 pictures of the heap's pageblocks.
//
// The length of the trace is known before it is replayed, so that it is divided beforehand: the first sample in each
// division is kept and the others are not. All memory is there, and written to, before the run is first measured: what is
// recorded of a run is not to be charged to it.

import HugeSpanCore

/// Quantities over trace time, as JSON has them: as many values each as there are `seconds`, null where one is unknown.
package struct RunSeries: Codable, Equatable, Sendable {
  package static let maximumPoints = 200

  package var seconds: [Double] = []
  package var usedBytes: [Double?] = []
  package var residentBytes: [Double?] = []
  package var chargedBytes: [Double?] = []
  package var coverage: [Double?] = []

  package init() {}

  /// All quantities have a value, or null, for each point.
  package var isEven: Bool {
    [usedBytes, residentBytes, chargedBytes, coverage].allSatisfy { $0.count == seconds.count }
  }
}

/// The heap's pageblocks over trace time: a frame is a text with a character for each block that is shown.
package struct BlockFilm: Codable, Equatable, Sendable {
  package static let maximumFrames = 60
  package static let maximumCells = 512
  /// The characters of the conditions, by their raw values.
  package static let alphabet: [Character] = [".", "l", "r", "b", "o", "s", "d", "F"]

  /// One block in so many is shown.
  package var every = 1
  package var seconds: [Double] = []
  /// Blocks of the heap, those that are not shown too.
  package var blocks: [Int] = []
  package var frames: [String] = []

  package init() {}

  /// Why this cannot be a film, if it cannot.
  package var defect: String? {
    if every < 1 { return "'every' is \(every), not a positive number" }
    if seconds.count != frames.count || blocks.count != frames.count {
      return "\(frames.count) frames have \(seconds.count) times and \(blocks.count) numbers of blocks"
    }
    for frame in frames {
      if let stranger = frame.first(where: { !Self.alphabet.contains($0) }) {
        return "'\(stranger)' in a frame is none of '\(String(Self.alphabet))'"
      }
    }
    return nil
  }
}

/// What one sample found.
struct SeriesSample {
  var usedBytes: Double
  var residentBytes: Double?
  var chargedBytes: Double?
  var coverage: Double?
}

/// Keeps some of the samples of a run.
final class SeriesRecorder {
  private struct Frame {
    var time: UInt64
    var blocks: Int
    var cells: Int
  }

  private let pointPeriod: UInt64
  private let framePeriod: UInt64
  private var nextPoint: UInt64 = 0
  private var nextFrame: UInt64 = 0
  private var times: [UInt64] = []
  private var samples: [SeriesSample] = []
  private var frames: [Frame] = []
  private var stride = 1
  private let cells: UnsafeMutableBufferPointer<BlockCondition>

  /// - Parameter duration: Nanoseconds that the samples will be spread over.
  init(duration: UInt64) {
    // One division less than there is room for: the last sample, at the end itself, has one of its own.
    pointPeriod = max(duration / UInt64(RunSeries.maximumPoints - 1), 1)
    framePeriod = max(duration / UInt64(BlockFilm.maximumFrames - 1), 1)
    let empty = SeriesSample(usedBytes: 0)
    times = Array(repeating: 0, count: RunSeries.maximumPoints)
    samples = Array(repeating: empty, count: RunSeries.maximumPoints)
    frames = Array(repeating: Frame(time: 0, blocks: 0, cells: 0), count: BlockFilm.maximumFrames)
    times.removeAll(keepingCapacity: true)
    samples.removeAll(keepingCapacity: true)
    frames.removeAll(keepingCapacity: true)
    cells = .allocate(capacity: BlockFilm.maximumFrames * BlockFilm.maximumCells)
    cells.initialize(repeating: .absent)
  }

  deinit { cells.deallocate() }

  /// Keeps `sample` if it is the first in its division.
  func add(_ sample: @autoclosure () -> SeriesSample, at time: UInt64) {
    guard time >= nextPoint, samples.count < RunSeries.maximumPoints else { return }
    nextPoint = (time / pointPeriod + 1) * pointPeriod
    times.append(time)
    samples.append(sample())
  }

  /// Keeps a picture of the heap's blocks if it is the first in its division.
  func picture<K: Kernel>(_ heap: borrowing PageHeapCore<K>, at time: UInt64) {
    guard time >= nextFrame, frames.count < BlockFilm.maximumFrames else { return }
    nextFrame = (time / framePeriod + 1) * framePeriod
    var blocks = heap.blockConditions(every: stride, into: cells(ofFrame: frames.count))
    while blocks > stride * BlockFilm.maximumCells {
      widen()
      blocks = heap.blockConditions(every: stride, into: cells(ofFrame: frames.count))
    }
    frames.append(Frame(time: time, blocks: blocks, cells: (blocks + stride - 1) / stride))
  }

  private func cells(ofFrame index: Int) -> UnsafeMutableBufferPointer<BlockCondition> {
    let first = index * BlockFilm.maximumCells
    return UnsafeMutableBufferPointer(rebasing: cells[first..<first + BlockFilm.maximumCells])
  }

  /// Shows half as many blocks from now on, and of the frames that there are every other cell.
  private func widen() {
    stride *= 2
    for index in frames.indices {
      let frame = cells(ofFrame: index)
      let kept = (frames[index].cells + 1) / 2
      for cell in 0..<kept { frame[cell] = frame[2 * cell] }
      frames[index].cells = kept
    }
  }

  private static func seconds(_ time: UInt64) -> Double { (Double(time) / 1e6).rounded() / 1000 }

  /// The points, in JSON's form.
  var series: RunSeries {
    var series = RunSeries()
    series.seconds = times.map(Self.seconds)
    series.usedBytes = samples.map(\.usedBytes)
    series.residentBytes = samples.map(\.residentBytes)
    series.chargedBytes = samples.map(\.chargedBytes)
    series.coverage = samples.map { $0.coverage.map { ($0 * 10_000).rounded() / 10_000 } }
    return series
  }

  /// The pictures, in JSON's form.
  var film: BlockFilm {
    var film = BlockFilm()
    film.every = stride
    for (index, frame) in frames.enumerated() {
      film.seconds.append(Self.seconds(frame.time))
      film.blocks.append(frame.blocks)
      film.frames.append(
        String(cells(ofFrame: index).prefix(frame.cells).map { BlockFilm.alphabet[Int($0.rawValue)] }))
    }
    return film
  }
}
