// Everything that is sampled during a run: charge, residency, coverage, lazily freed and phantom bytes.
//
// The charge is what the run's group has gained since the start, when trace and tables were in memory. What the process
// holds besides the arenas (the heap's tables, above all) grows a little during a run; it belongs to the charge, but is
// no phantom: phantom is the charge that is in no page table of this process at all.

import HugeSpanCore

/// Takes samples and keeps their extents.
struct Observer: ~Copyable {
  private let charge: ChargeReader?
  private let memory = ProcessMemory()
  private let isLazy: Bool
  private let unknownReason: String?
  private var startCharge: Int?
  private var startAnonymous: Int?

  private var used = Series()
  private var resident = Series()
  private var charged = Series()
  private var lazy = Series()
  private var phantom = Series()
  private var swapped = Series()
  // Coverage is weighted by used bytes and time: the mean of one series over the mean of the other.
  private var usedOnHuge = Series()
  private var usedByKernel = Series()
  /// CPUs that the program kept busy, times the share of its memory that is on base pages.
  private var taxed = Series()
  private var sampleCount = 0

  /// smaps takes ten times as long as all the rest together, so it is read at most this often.
  private let lazyPeriod: UInt64
  private var nextLazy: UInt64 = 0

  /// Nothing is touched, so there is nothing to see but the used bytes.
  private let isUntouched: Bool
  /// Whose word counts if the kernel is simulated, and the bytes of the heap's tables at the start.
  private let simulated: SimulatedKernel?
  private var startTables = 0

  /// The run over time, where that was asked for.
  private let recorder: SeriesRecorder?

  init(
    group: MemoryCgroup?, isLazy: Bool, isUntouched: Bool, keepsSeries: Bool, duration: UInt64,
    simulated: SimulatedKernel? = nil
  ) {
    self.simulated = simulated
    self.isLazy = isLazy
    self.isUntouched = isUntouched
    lazyPeriod = max(duration / 500, 1)
    recorder = keepsSeries ? SeriesRecorder(duration: duration) : nil
    guard let group else {
      charge = nil
      unknownReason = nil
      return
    }
    do throws(CgroupUnavailable) {
      charge = try ChargeReader(version: group.version, directory: group.directory)
      unknownReason = nil
    } catch {
      charge = nil
      unknownReason = error.reason
    }
  }

  /// Remembers what was charged and resident before the first event.
  mutating func begin() {
    if let simulated {
      startTables = simulated.heapTableBytes
      return
    }
    startCharge = readCharge()
    startAnonymous = memory.anonymousBytes()
  }

  private func readCharge() -> Int? {
    switch charge {
    case .some(let reader): reader.read()
    case .none: nil
    }
  }

  /// Takes one sample.
  mutating func observe<K: Kernel>(
    _ heap: borrowing PageHeapCore<K>, usedBytes: Int, busyCPUs: Double, at time: UInt64
  ) {
    sampleCount += 1
    used.add(Double(usedBytes), at: time)
    recorder?.picture(heap, at: time)
    if isUntouched {
      recorder?.add(SeriesSample(usedBytes: Double(usedBytes)), at: time)
      return
    }
    let chargedBytes =
      if let simulated {
        observe(simulated.totals, tableBytes: simulated.heapTableBytes, at: time)
      } else {
        observeProcess(at: time)
      }
    let report = try? heap.observe()
    if let report {
      resident.add(Double(report.residentBytes), at: time)
      usedOnHuge.add(Double(report.usedPagesOnHuge), at: time)
      usedByKernel.add(Double(report.usedPages), at: time)
      let onBasePages = report.usedPages - report.usedPagesOnHuge
      taxed.add(report.usedPages == 0 ? 0 : busyCPUs * Double(onBasePages) / Double(report.usedPages), at: time)
    }
    recorder?.add(
      SeriesSample(
        usedBytes: Double(usedBytes), residentBytes: report.map { Double($0.residentBytes) },
        chargedBytes: chargedBytes, coverage: report.flatMap(Self.coverage)), at: time)
    if simulated != nil { return }
    if !isLazy || heap.totals().lazyPages == 0 {
      lazy.add(0, at: time)
    } else if time >= nextLazy {
      observeLazilyFreed(heap, at: time)
      // At the border of the next period, not a period from now: each of them has a reading then.
      nextLazy = (time / lazyPeriod + 1) * lazyPeriod
    }
  }

  /// Both return what is charged.
  private mutating func observe(_ memory: SimulatedTotals, tableBytes: Int, at time: UInt64) -> Double? {
    let gained = Double(memory.charged * 4096 + tableBytes - startTables)
    charged.add(gained, at: time)
    phantom.add(Double(memory.phantom * 4096), at: time)
    lazy.add(Double(memory.lazy * 4096), at: time)
    swapped.add(Double(memory.swapped * 4096), at: time)
    return gained
  }

  private mutating func observeProcess(at time: UInt64) -> Double? {
    var chargedBytes: Double?
    // The charge first, and at once what it is compared with.
    let chargeNow = readCharge()
    let anonymous = memory.anonymousBytes()
    if let chargeNow, let startCharge {
      let gained = chargeNow - startCharge
      charged.add(Double(gained), at: time)
      chargedBytes = Double(gained)
      if let anonymous, let startAnonymous {
        phantom.add(Double(gained - (anonymous - startAnonymous)), at: time)
      }
    }
    if let bytes = memory.swappedBytes() { swapped.add(Double(bytes), at: time) }
    return chargedBytes
  }

  private static func coverage(_ report: ResidencyReport) -> Double? {
    report.usedPages == 0 ? nil : Double(report.usedPagesOnHuge) / Double(report.usedPages)
  }

  private mutating func observeLazilyFreed<K: Kernel>(_ heap: borrowing PageHeapCore<K>, at time: UInt64) {
    var ranges = InlineArray<64, AddressRange>(repeating: AddressRange(start: 0, byteCount: 0))
    let count = min(heap.arenaCount, 64)
    for index in 0..<count { ranges[index] = heap.arena(at: index) }
    let bytes = memory.lazyFreeBytes { address in
      for index in 0..<count where address >= ranges[index].start && address < ranges[index].end { return true }
      return false
    }
    if let bytes { lazy.add(Double(bytes), at: time) }
  }

  /// The program's CPU-seconds until `end`, each counted by the share of memory that was on base pages.
  func taxedCPUSeconds(until end: UInt64) -> Double? {
    taxed.extent(until: end).map { $0.mean * Double(end) / 1e9 }
  }

  /// Mean of what was charged, and of what of it was lazily freed, until `end`.
  func heldBytes(until end: UInt64) -> (charged: Double?, lazy: Double?) {
    (charged.extent(until: end)?.mean, lazy.extent(until: end)?.mean)
  }

  /// What was held until `end`, in byte-seconds.
  func add(to mark: inout SliceMark, until end: UInt64) {
    func sum(_ series: Series) -> Double { (series.extent(until: end)?.mean ?? 0) * Double(end) / 1e9 }
    mark.chargedByteSeconds = charged.extent(until: end).map { $0.mean * Double(end) / 1e9 }
    mark.usedByteSeconds = sum(usedByKernel) * 4096
    mark.coveredByteSeconds = sum(usedOnHuge) * 4096
  }

  /// Writes what was sampled into `result`.
  func report(until end: UInt64, into result: inout RunResult) {
    result.samples = sampleCount
    result.series = recorder?.series
    result.blocks = recorder?.film
    result.usedBytes = used.extent(until: end)
    result.residentBytes = resident.extent(until: end)
    result.chargedBytes = charged.extent(until: end)
    result.lazyFreeBytes = lazy.extent(until: end)
    result.swappedBytes = swapped.extent(until: end)
    // Only a mean may be cut off at 0: the noise of a single reading has two sides.
    result.phantomBytes = phantom.extent(until: end).map { Extent(mean: max($0.mean, 0), peak: max($0.peak, 0)) }
    if let all = usedByKernel.extent(until: end), let huge = usedOnHuge.extent(until: end), all.mean > 0 {
      result.coverage = huge.mean / all.mean
    }
    if result.chargedBytes == nil {
      result.chargeUnknownReason = isUntouched ? "no memory was touched" : unknownReason
    }
  }
}
