// The last looks, for the curves.
//
// Only their numbers are kept: the blocks of a large process are megabytes a look, and the map shows the present ones.

/// The numbers of the last looks, and all of the latest.
package struct WatchRing: Sendable {
  private struct Point: Sendable {
    var seconds: Double
    var values: [Double?]
  }

  /// A curve needs no more than the widest terminal has columns.
  package let capacity: Int
  private var points: [Point] = []
  /// Where the oldest is, once the ring is full.
  private var oldest = 0
  package private(set) var latest: WatchSample?
  /// The latest in which the mappings were read.
  package private(set) var mapped: WatchSample?

  package init(capacity: Int = 1024) {
    self.capacity = max(capacity, 1)
  }

  package var count: Int { points.count }

  package mutating func append(_ sample: WatchSample) {
    let point = Point(seconds: sample.seconds, values: WatchQuantity.allCases.map { $0.value(in: sample) })
    if points.count < capacity {
      points.append(point)
    } else {
      points[oldest] = point
      oldest = (oldest + 1) % capacity
    }
    latest = sample
    if !sample.mappings.isEmpty { mapped = sample }
  }

  /// The last `limit` values, the oldest first; nil where there was none.
  package func values(of quantity: WatchQuantity, last limit: Int) -> [Double?] {
    let shown = min(max(limit, 0), points.count)
    return (points.count - shown..<points.count).map { point($0).values[quantity.rawValue] }
  }

  /// The least and the most of the last `limit` values; nil if there are none.
  package func extent(of quantity: WatchQuantity, last limit: Int) -> (least: Double, most: Double)? {
    let known = values(of: quantity, last: limit).compactMap { $0 }
    guard let least = known.min(), let most = known.max() else { return nil }
    return (least, most)
  }

  /// From the oldest of the last `limit` looks to the latest.
  package func seconds(last limit: Int) -> Double {
    let shown = min(max(limit, 0), points.count)
    return shown < 2 ? 0 : point(points.count - 1).seconds - point(points.count - shown).seconds
  }

  private func point(_ index: Int) -> Point { points[(oldest + index) % points.count] }
}
