// A quantity over time, reduced to what a report needs: its mean by time and its peak.

/// Mean and peak of a quantity in bytes. The names are those of the JSON.
package struct Extent: Codable, Equatable, Sendable {
  package var mean: Double
  package var peak: Double

  package init(mean: Double, peak: Double) {
    self.mean = mean
    self.peak = peak
  }
}

/// Accumulates a quantity that holds its value from one sample to the next.
package struct Series: Sendable {
  private var lastTime: UInt64?
  private var lastValue = 0.0
  private var weighted = 0.0
  private var duration = 0.0
  private var peak = -Double.greatestFiniteMagnitude

  package init() {}

  /// The quantity is `value` from `time` on.
  package mutating func add(_ value: Double, at time: UInt64) {
    close(at: time)
    lastTime = time
    lastValue = value
    peak = max(peak, value)
  }

  private mutating func close(at time: UInt64) {
    guard let lastTime, time > lastTime else { return }
    let length = Double(time - lastTime)
    weighted += lastValue * length
    duration += length
  }

  /// The extent up to `end`, nil if nothing was ever added.
  package func extent(until end: UInt64) -> Extent? {
    var closed = self
    guard closed.lastTime != nil else { return nil }
    closed.close(at: end)
    return Extent(mean: closed.duration > 0 ? closed.weighted / closed.duration : closed.lastValue, peak: peak)
  }
}
