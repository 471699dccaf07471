// How long a program that works will go on: as long as it did last time.
//
// A rebuild pays when the program stays busy, and what is lost by waiting for proof is the coverage of each morning's
// first seconds. Programs with days and nights have days that resemble each other. So the length of the last busy time
// is the forecast for the one that goes on, in seconds and in tax for each used page; it is used as in the ski-rental problem with
// a prediction (Kumar, Purohit, Svitkina, Improving Online Algorithms via ML Predictions, 2018): where it promises enough, a share
// lambda of the price suffices. If it is right that costs at most 1 + lambda of the optimum; if it is wrong, at most 1 + 1 / lambda
// for that once, and the next forecast is the short one.

/// Follows busy times by ticks.
struct BusyTime {
  /// Seconds of idleness after which a program rests, which ends a busy time.
  static let rest: Double = 0.75
  /// A program is idle below this share of what it kept busy so far or last time, and below this many CPUs: a night has its
  /// chores too.
  static let idleShare: Double = 0.1
  static let idleCPUs: Double = 0.02

  private var seconds: Double = 0
  private var cpuSeconds: Double = 0
  /// Microseconds for each used page.
  private var tax: Double = 0
  /// Since the program was last busy.
  private var idleSeconds: Double = 0
  private var lastSeconds: Double = 0
  private var lastTax: Double = 0
  private var lastMean: Double = 0

  /// A tick of `length` seconds, in which the program kept `busyCPUs` busy, is over; `tax` is what it would have lost on base
  /// pages, in microseconds for each used page.
  mutating func note(busyCPUs: Double, tax lost: Double, seconds length: Double) {
    let mean = seconds > 0 ? cpuSeconds / seconds : lastMean
    if busyCPUs >= max(BusyTime.idleCPUs, mean * BusyTime.idleShare) {
      seconds += length
      cpuSeconds += busyCPUs * length
      tax += lost
      idleSeconds = 0
      return
    }
    idleSeconds += length
    if idleSeconds < BusyTime.rest || seconds == 0 { return }
    lastSeconds = seconds
    lastTax = tax
    lastMean = mean
    seconds = 0
    cpuSeconds = 0
    tax = 0
  }

  /// The program does next to nothing, and not only for a moment: what is free is not wanted again soon.
  var isOver: Bool { lastSeconds > 0 && idleSeconds >= BusyTime.rest }

  /// What a busy time costs on base pages, for each used page: the most of the last and of the one that goes on; nil if there was none.
  var taxOfBusyTime: Double? { seconds > 0 || lastSeconds > 0 ? max(lastTax, tax) : nil }

  /// What is still to come of the busy time that goes on, by the last one: tax in microseconds for each used page, and seconds.
  /// Nothing while the program idles, and when this one has outlasted the last.
  var promisedTax: Double { seconds > 0 ? max(0, lastTax - tax) : 0 }
  var promisedSeconds: Double { seconds > 0 ? max(0, lastSeconds - seconds) : 0 }
}
