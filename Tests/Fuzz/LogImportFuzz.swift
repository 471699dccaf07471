// The fuzz target: no bytes crash the importers of logs.
//
// Input is read as either kind of log, and as the lines of an mtrace log whose first ones take what there is to be had. What is
// accepted must be a trace that the reader accepts; written as a log for memory_replay and imported again, it must give the
// same events: a difference is a trap, which the fuzzer reports.

/// Called by the fuzzer with each input.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  _ = ImportFormat.detect(TraceFile(bytes))
  check(bytes, .memoryReplay)
  check(bytes, .mtrace)
  check(Array("+ 0x10 0x1\n+ 0x20 0x2\n< 0x10\n".utf8) + bytes, .mtrace)
  check(Array("1: malloc 0x10 1\n2: malloc 0x20 2\n".utf8) + bytes, .memoryReplay)
  check(Array("1: malloc 0x10 1 1 2\n2: malloc 0x20 2 5 6\n".utf8) + bytes, .memoryReplay)
  return 0
}

private func check(_ log: [UInt8], _ format: ImportFormat) {
  guard let (trace, report) = try? imported(log, format) else { return }
  do {
    let events = try allEvents(trace)
    precondition(report.events == events.count, "the report counts other events than there are")
    let (again, second) = try imported(Array(written(events).utf8), .memoryReplay)
    let copies = try allEvents(again)
    precondition(copies.map(\.body) == events.map(\.body), "written and imported again, events differ")
    let start = events.first?.time ?? 0
    precondition(copies.map(\.time) == events.map { $0.time - start }, "times differ")
    precondition(second.unknownReleases == 0 && second.unseenReleases == 0 && second.failedCalls == 0)
  } catch { fatalError("an accepted log gave a trace that is refused: \(error)") }
}

private func imported(_ log: [UInt8], _ format: ImportFormat) throws -> (trace: [UInt8], report: LogImport) {
  var bytes: [UInt8] = []
  var report = LogImport()
  try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
    report = try LogImport.run(
      TraceFile(log), format: format, program: "log", eventsPerSecond: 3000, to: .function(sink))
  }
  return (bytes, report)
}

private func allEvents(_ trace: [UInt8]) throws -> [TraceEvent] {
  var reader = try TraceReader(TraceFile(trace))
  var events: [TraceEvent] = []
  while let event = try reader.next() { events.append(event) }
  return events
}

/// A log for memory_replay, each object at an address of its own.
private func written(_ events: [TraceEvent]) -> String {
  var text = ""
  for event in events {
    let call =
      switch event.body {
      case .allocate(let object, let bytes, _, .plain): "malloc \(address(object)) \(bytes)"
      case .allocate(let object, let bytes, _, .zeroed): "calloc \(address(object)) \(bytes) 1"
      case .allocate(let object, let bytes, let alignment, _): "memalign \(address(object)) \(alignment) \(bytes)"
      case .resize(let object, let bytes): "realloc \(address(object)) \(address(object)) \(bytes)"
      case .free(let object): "free \(address(object))"
      default: fatalError("a log gave an event that is none of malloc's")
      }
    text += "\(event.thread): \(call) \(event.time) \(event.time)\n"
  }
  return text
}

private func address(_ object: Int) -> String { "0x" + String(object + 1, radix: 16) }
