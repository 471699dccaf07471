import Foundation
import HugeSpanCore
import Testing
import TraceFormat

@testable import HugeSpanLab

/// A trace in memory, from events.
func traceFile(
  _ events: [TraceEvent], ending: TraceEnding = .exited(status: 0), header: TraceHeader = TraceHeader(program: "test")
) throws -> TraceFile {
  final class Collected { var bytes: [UInt8] = [] }
  let collected = Collected()
  var writer = try TraceWriter(
    header: header, output: .function { collected.bytes += Array($0) })
  for event in events { try writer.append(event) }
  try writer.finish(ending)
  return TraceFile(collected.bytes)
}

/// Milliseconds as trace time.
func milliseconds(_ count: Int) -> UInt64 { UInt64(count) * 1_000_000 }

func allocation(_ object: Int, _ bytes: Int, at time: UInt64 = 0, alignment: Int = 1, kind: AllocationKind = .plain)
  -> TraceEvent
{
  TraceEvent(
    time: time, thread: 0, body: .allocate(object: object, bytes: bytes, alignment: alignment, kind: kind))
}

func release(_ object: Int, at time: UInt64 = 0) -> TraceEvent {
  TraceEvent(time: time, thread: 0, body: .free(object: object))
}

extension PlacementLog {
  /// What the log leaves in use, by page: taken one time more than given back, or touched one time more.
  borrowing func balance() -> [UInt: Int] {
    var pages: [UInt: Int] = [:]
    var touched: [UInt: Int] = [:]
    for index in 0..<count {
      let record = self[index]
      if record.kind == .busy { continue }
      let sign = record.kind == .take || record.kind == .touch ? 1 : -1
      for page in record.page..<(record.page + UInt(record.count)) {
        if record.kind == .take || record.kind == .give {
          pages[page, default: 0] += sign
        } else {
          touched[page / 512, default: 0] += sign
        }
      }
    }
    for (block, count) in touched { pages[block * 512, default: 0] += count }
    return pages.filter { $0.value != 0 }
  }
}
