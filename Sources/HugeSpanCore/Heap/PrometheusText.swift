// A heap's statistics in Prometheus' text format, for whoever is scraped: no allocation, into memory of the caller's.
//
// Names follow Prometheus' conventions: a prefix, base units (bytes, seconds), `_total` for what only grows; what adds up to one
// quantity is one family with a label, so that sums make sense. Free pages at the tails of large spans are among the resident ones and are not
// shown beside them. Source: prometheus.io, "Exposition formats" and "Metric and label naming".

/// Writes what fits and counts what would have.
private struct CountingText {
  private let buffer: UnsafeMutableBufferPointer<UInt8>
  private(set) var count = 0

  init(_ buffer: UnsafeMutableBufferPointer<UInt8>) { self.buffer = buffer }

  mutating func append(_ byte: UInt8) {
    if count < buffer.count { buffer[count] = byte }
    count += 1
  }

  mutating func append(_ text: StaticString) {
    let bytes = text.utf8Start
    for index in 0..<text.utf8CodeUnitCount { append(bytes[index]) }
  }

  /// A label's value: backslash, quote and line feed are escaped.
  mutating func append(escaping bytes: UnsafeBufferPointer<UInt8>) {
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        append("\\n")
        continue
      }
      if byte == UInt8(ascii: "\\") || byte == UInt8(ascii: "\"") { append(UInt8(ascii: "\\")) }
      append(byte)
    }
  }

  mutating func append(_ value: UInt64) {
    var divisor: UInt64 = 1
    while value / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }

  /// Nanoseconds as seconds, to the last digit.
  mutating func append(seconds nanoseconds: UInt64) {
    append(nanoseconds / 1_000_000_000)
    append(UInt8(ascii: "."))
    var divisor: UInt64 = 100_000_000
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: nanoseconds / divisor % 10))
      divisor /= 10
    }
  }
}

private struct PrometheusWriter {
  private enum Kind { case gauge, counter }
  var text: CountingText
  let heap: UnsafeBufferPointer<UInt8>
  private var family: StaticString = ""

  init(_ buffer: UnsafeMutableBufferPointer<UInt8>, heap: UnsafeBufferPointer<UInt8>) {
    text = CountingText(buffer)
    self.heap = heap
  }

  private mutating func begin(_ name: StaticString, _ kind: Kind, _ help: StaticString) {
    family = name
    text.append("# HELP hugespan_")
    text.append(name)
    text.append(" ")
    text.append(help)
    text.append("\n# TYPE hugespan_")
    text.append(name)
    text.append(kind == .gauge ? " gauge\n" : " counter\n")
  }

  private mutating func series(_ label: StaticString, _ value: StaticString) {
    text.append("hugespan_")
    text.append(family)
    text.append("{heap=\"")
    text.append(escaping: heap)
    text.append("\"")
    if label.utf8CodeUnitCount > 0 {
      text.append(",")
      text.append(label)
      text.append("=\"")
      text.append(value)
      text.append("\"")
    }
    text.append("} ")
  }

  mutating func gauge(_ name: StaticString, _ help: StaticString) { begin(name, .gauge, help) }

  mutating func value(_ number: Int, _ label: StaticString, _ value: StaticString) {
    series(label, value)
    text.append(UInt64(number))
    text.append("\n")
  }

  mutating func pages(_ number: Int, _ label: StaticString, _ value: StaticString) {
    self.value(number << pageShift, label, value)
  }

  mutating func gauge(_ name: StaticString, bytes: Int, _ help: StaticString) {
    begin(name, .gauge, help)
    value(bytes, "", "")
  }

  mutating func counter(_ name: StaticString, _ number: Int, _ help: StaticString) {
    begin(name, .counter, help)
    value(number, "", "")
  }

  mutating func seconds(_ name: StaticString, isCounter: Bool, _ nanoseconds: UInt64, _ help: StaticString) {
    begin(name, isCounter ? .counter : .gauge, help)
    series("", "")
    text.append(seconds: nanoseconds)
    text.append("\n")
  }
}

extension HeapStatistics {
  /// Writes these statistics in Prometheus' text format.
  ///
  /// - Parameters:
  ///   - name: the value of the label `heap`, UTF-8; what has to be escaped is.
  ///   - buffer: where to; what does not fit is left out.
  /// - Returns: the bytes that all of it takes. If that is more than the buffer has, call again with so many.
  /// - Complexity: O(length); about 5 KB.
  package func writePrometheus(
    heap name: UnsafeBufferPointer<UInt8>, into buffer: UnsafeMutableBufferPointer<UInt8>
  ) -> Int {
    var writer = PrometheusWriter(buffer, heap: name)
    writer.gauge("used_bytes", bytes: usedPages << pageShift, "Bytes in spans that are handed out.")
    writer.gauge("free_bytes", "Free bytes by what became of them; all but the released ones are charged.")
    writer.pages(freeResidentPages, "state", "resident")
    writer.pages(lazyPages, "state", "lazy")
    writer.pages(releasedPages, "state", "released")
    writer.gauge(
      "phantom_bytes", bytes: phantomPages << pageShift, "Bytes that are charged, though in no page table.")
    writer.gauge("used_backing_bytes", "Used bytes by what the kernel has under them, as last asked.")
    writer.pages(usedOnHugePages, "backing", "huge")
    writer.pages(usedOnSplitPages, "backing", "split")
    writer.pages(usedOnUnknownPages, "backing", "unknown")
    writer.gauge("pageblocks", "Pageblocks of 2 MiB by state.")
    writer.value(fullBlocks, "state", "full")
    writer.value(partialIntactBlocks, "state", "partial_intact")
    writer.value(partialBrokenBlocks, "state", "partial_broken")
    writer.value(freeResidentBlocks, "state", "free_resident")
    writer.value(absentBlocks, "state", "absent")
    writer.gauge("discarded_bytes", bytes: discardedPages << pageShift, "Used bytes that the kernel may take.")
    writer.gauge("metadata_bytes", bytes: metadataBytes, "Address space of the heap's own tables.")
    writer.counter("allocations_total", allocations, "Spans handed out.")
    writer.counter("frees_total", frees, "Calls that gave pages back.")
    writer.counter("released_bytes_total", pagesReleased << pageShift, "Bytes given to the kernel.")
    writer.counter(
      "refaulted_bytes_total", pagesRefaulted << pageShift, "Bytes used again after they had been released.")
    writer.counter("lazy_taken_bytes_total", lazyPagesTaken << pageShift, "Lazily freed bytes that the kernel took.")
    writer.counter("drained_bytes_total", pagesDrained << pageShift, "Bytes given back because others needed memory.")
    writer.counter("splits_total", splits, "Hugepages broken by a release.")
    writer.counter("collapses_total", collapses, "Pageblocks made huge again on purpose.")
    writer.counter("moved_pageblocks_total", blocksMoved, "Free hugepages moved to where a span needed them.")
    writer.counter("cures_total", cures, "Pageblocks whose phantom was given back.")
    writer.counter("reinflated_pageblocks_total", reinflatedBlocks, "Broken pageblocks that were found huge again.")
    writer.counter("lost_pageblocks_total", lostBlocks, "Huge pageblocks that were found broken.")
    writer.counter("release_calls_total", releaseCalls, "System calls that released.")
    writer.counter("release_failures_total", releaseFailures, "Ranges whose release the kernel refused.")
    writer.seconds("release_seconds_total", isCounter: true, releaseNanoseconds, "Time in calls that released.")
    writer.seconds(
      "longest_release_seconds", isCounter: false, longestReleaseNanoseconds, "The longest call that released.")
    writer.counter("ticks_total", ticks, "Ticks of the scavenger.")
    writer.counter("residency_passes_total", residencyPasses, "Walks over what the kernel has under the heap.")
    return writer.text.count
  }
}
