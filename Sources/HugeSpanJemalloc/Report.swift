// What the heap saw, as JSON, at the end of the program. Written into a static buffer: malloc may be gone already.

import CHugeSpan
import CHugeSpanJemalloc
import CHugeSpanShims

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// An object of numbers, switches and texts, in the order in which they are given.
private struct JSONText {
  var text: FixedText
  private var needsComma = false

  init() { text = FixedText(hs_report_text(), capacity: Int(HS_REPORT_BYTES)) }

  private mutating func key(_ name: StaticString) {
    if needsComma { text.append(",") }
    needsComma = true
    text.append("\"")
    text.append(name)
    text.append("\":")
  }

  mutating func begin(_ name: StaticString) {
    key(name)
    begin()
  }

  mutating func begin() {
    text.append("{")
    needsComma = false
  }

  mutating func end() {
    text.append("}")
    needsComma = true
  }

  mutating func field(_ name: StaticString, _ value: UInt64) {
    key(name)
    text.append(decimal: value)
  }

  mutating func field(_ name: StaticString, _ value: Int) {
    key(name)
    if value < 0 { text.append("-") }
    text.append(decimal: UInt64(value.magnitude))
  }

  mutating func field(_ name: StaticString, _ value: Bool) {
    key(name)
    text.append(value ? "true" : "false")
  }

  /// A time in seconds, to the microsecond.
  mutating func seconds(_ name: StaticString, nanoseconds: UInt64) {
    key(name)
    text.append(decimal: nanoseconds / 1_000_000_000)
    text.append(".")
    let rest = nanoseconds / 1000 % 1_000_000
    var digit: UInt64 = 100_000
    while digit > rest && digit > 1 {
      text.append("0")
      digit /= 10
    }
    text.append(decimal: rest)
  }

  mutating func field(_ name: StaticString, cString value: UnsafePointer<CChar>?) {
    key(name)
    guard let value else {
      text.append("null")
      return
    }
    text.append("\"")
    var index = 0
    while value[index] != 0 {
      let byte = UInt8(bitPattern: value[index])
      if byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\") && byte >= 0x20 { text.append(byte) }
      index += 1
    }
    text.append("\"")
  }

  /// A text of ours, which needs no escapes.
  mutating func field(_ name: StaticString, text value: StaticString) {
    key(name)
    text.append("\"")
    text.append(value)
    text.append("\"")
  }

  mutating func null(_ name: StaticString) {
    key(name)
    text.append("null")
  }
}

/// As adapter.h says.
@c @implementation
public func hs_adapter_report() {
  guard statisticsPathLength > 0, let path = statisticsPath() else { return }
  var json = JSONText()
  json.begin()
  json.field("schema", text: "hugespan.heap/1")
  json.field("process", UInt64(hs_shim_process_id()))
  json.seconds("seconds", nanoseconds: hs_shim_monotonic_nanoseconds() &- hs_adapter.start)
  json.seconds("cpuSeconds", nanoseconds: hs_shim_process_cpu_nanoseconds())
  frontEnd(&json)
  statistics(&json)
  residency(&json)
  json.end()
  json.text.append("\n")
  let error = hs_adapter_write_file(path, hs_report_text(), json.text.count)
  if error != 0 {
    var message = FixedText(hs_report_text(), capacity: Int(HS_REPORT_BYTES))
    message.append("hugespan: the statistics cannot be written to ")
    message.append(quoting: UnsafeBufferPointer(start: hs_report_path(), count: length(path)), atMost: 4096)
    message.append(" (error ")
    message.append(decimal: UInt64(error))
    message.append(")\n")
    hs_adapter_say(hs_report_text(), message.count)
  }
}

private func frontEnd(_ json: inout JSONText) {
  json.begin("jemalloc")
  json.field("version", cString: hs_adapter.version)
  json.field("arenas", UInt64(hs_adapter.arenas))
  json.field("retain", hs_adapter.retains)
  json.field("dirtyDecayMilliseconds", Int(hs_adapter.dirty_decay_milliseconds))
  json.field("muzzyDecayMilliseconds", Int(hs_adapter.muzzy_decay_milliseconds))
  json.end()
  json.begin("hooks")
  json.field("zeroedAllocations", hs_counter(&hs_counters.zeroed_allocations))
  json.field("refusedAllocations", hs_counter(&hs_counters.refused_allocations))
  json.field("growths", hs_counter(&hs_counters.growths))
  json.field("refusedGrowths", hs_counter(&hs_counters.refused_growths))
  json.field("splits", hs_counter(&hs_counters.splits))
  json.field("merges", hs_counter(&hs_counters.merges))
  json.field("refusedMerges", hs_counter(&hs_counters.refused_merges))
  json.field("refusedPurges", hs_counter(&hs_counters.refused_purges))
  json.field("foreignCalls", hs_counter(&hs_counters.foreign_calls))
  json.end()
}

private func statistics(_ json: inout JSONText) {
  let now = adapterHeap.pointee.core.statistics()
  let page: UInt64 = 4096
  json.begin("heap")
  json.field("usedBytes", UInt64(now.usedPages) * page)
  json.field("peakUsedBytes", hs_counter(&hs_counters.peak_used_pages) * page)
  json.field("freeResidentBytes", UInt64(now.freeResidentPages) * page)
  json.field("lazyBytes", UInt64(now.lazyPages) * page)
  json.field("phantomBytes", UInt64(now.phantomPages) * page)
  json.field("reservedBytes", reservedBytes())
  json.field("metadataBytes", UInt64(now.metadataBytes))
  json.field("blocks", UInt64(now.blocks))
  json.field("allocations", UInt64(now.allocations))
  json.field("frees", UInt64(now.frees))
  json.field("pagesReleased", UInt64(now.pagesReleased))
  json.field("pagesRefaulted", UInt64(now.pagesRefaulted))
  json.field("lazyPagesReused", UInt64(now.lazyPagesReused))
  json.field("splits", UInt64(now.splits))
  json.field("cures", UInt64(now.cures))
  json.field("collapses", UInt64(now.collapses))
  json.field("blocksMoved", UInt64(now.blocksMoved))
  json.field("displacedBlocks", UInt64(now.displacedBlocks))
  json.field("rebuiltBlocks", UInt64(now.rebuiltBlocks))
  json.field("lostBlocks", UInt64(now.lostBlocks))
  json.field("reinflatedBlocks", UInt64(now.reinflatedBlocks))
  json.field("releaseCalls", UInt64(now.releaseCalls))
  json.field("releaseRanges", UInt64(now.releaseRanges))
  json.field("releaseFailures", UInt64(now.releaseFailures))
  json.seconds("releaseSeconds", nanoseconds: now.releaseNanoseconds)
  json.seconds("longestReleaseSeconds", nanoseconds: now.longestReleaseNanoseconds)
  json.field("ticks", UInt64(now.ticks))
  json.end()
}

private func reservedBytes() -> UInt64 {
  let core = adapterHeap.pointee.core.state
  var bytes = 0
  for index in 0..<core.pointee.arenaCount { bytes += core.pointee.arenas[index].range.byteCount }
  return UInt64(bytes)
}

private func residency(_ json: inout JSONText) {
  do throws(KernelError) {
    let report = try adapterHeap.pointee.core.residencyPass()
    json.begin("residency")
    json.field("residentBytes", UInt64(report.residentBytes))
    json.field("hugeBytes", UInt64(report.hugeBytes))
    json.field("usedBytes", UInt64(report.usedPages) * 4096)
    json.field("usedOnHugeBytes", UInt64(report.usedPagesOnHuge) * 4096)
    json.field("hugeBlocks", UInt64(report.hugeBlocks))
    json.field("splitBlocks", UInt64(report.splitBlocks))
    json.field("absentBlocks", UInt64(report.absentBlocks))
    json.end()
  } catch { json.null("residency") }
}

/// The path for this process, made of the pattern; nil for a forked child that would write over its parent's.
private func statisticsPath() -> UnsafePointer<CChar>? {
  let pattern = hs_report_path_pattern()
  var path = FixedText(hs_report_path(), capacity: Int(HS_PATH_BYTES))
  var isOwn = !hs_adapter.is_forked
  var index = 0
  while index < statisticsPathLength {
    // The parser has seen to it that something follows.
    if pattern[index] == UInt8(ascii: "%") {
      index += 1
      if pattern[index] == UInt8(ascii: "p") {
        path.append(decimal: UInt64(hs_shim_process_id()))
        isOwn = true
      } else {
        path.append("%")
      }
    } else {
      path.append(pattern[index])
    }
    index += 1
  }
  path.terminate()
  return isOwn && !path.isTruncated ? UnsafeRawPointer(hs_report_path()).assumingMemoryBound(to: CChar.self) : nil
}

private func length(_ text: UnsafePointer<CChar>) -> Int {
  var count = 0
  while text[count] != 0 { count += 1 }
  return count
}
