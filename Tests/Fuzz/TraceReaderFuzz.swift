// The fuzz target: no bytes crash the reader of traces, neither the binary nor the text one.
//
// Input is read as it is, strictly and up to the last whole chunk; with its checksums made right; and as the events of a
// chunk whose frame is always right. The last lets every mutation through to the decoder of events. What a reader accepts is written again and must be accepted there and give the
// same events: a difference is a trap, which the fuzzer reports.

/// Called by the fuzzer with each input.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if bytes.starts(with: Array("hstrace".utf8)) {
    readText(bytes)
    return 0
  }
  readTrace(bytes, .strict)
  readTrace(bytes, .upToLastWholeChunk)
  var repaired = bytes
  repairChecksums(&repaired)
  readTrace(repaired, .strict)
  readTrace(repaired, .upToLastWholeChunk)
  for level in TraceLevel.allCases { readTrace(framed(bytes, level), .upToLastWholeChunk) }
  return 0
}

/// A trace with one chunk that claims as many events and births as its bytes allow, and no end record.
private func framed(_ payload: [UInt8], _ level: TraceLevel) -> [UInt8] {
  let chunk = ChunkHeader(
    payloadBytes: UInt32(payload.count), eventCount: UInt32(payload.count), birthCount: UInt32(payload.count),
    thread: 0,
    firstObject: 0, startTime: 0, endTime: 1 << 40)
  var trace = TraceHeader(program: "", level: level).encodedBytes + chunk.encoded + [0, 0, 0, 0] + payload
  repairChecksums(&trace)
  return trace
}

private func readTrace(_ bytes: [UInt8], _ tolerance: TraceReader.Tolerance) {
  guard let events = try? allEvents(bytes, tolerance), let header = try? TraceHeader(decoding: TraceFile(bytes)) else {
    return
  }
  var written: [UInt8] = []
  do {
    try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in written.append(contentsOf: part) }) { sink in
      var writer = try TraceWriter(header: header, output: .function(sink))
      for event in events { try writer.append(event) }
      try writer.finish(.stopped)
    }
    let again = try allEvents(written, .strict)
    precondition(again == events, "written again, the trace differs")
  } catch {
    fatalError("the writer refuses what the reader accepted: \(error)")
  }
}

private func allEvents(_ bytes: [UInt8], _ tolerance: TraceReader.Tolerance) throws(TraceError) -> [TraceEvent] {
  var reader = try TraceReader(TraceFile(bytes), tolerance: tolerance)
  var events: [TraceEvent] = []
  while let event = try reader.next() { events.append(event) }
  return events
}

private func readText(_ bytes: [UInt8]) {
  var packed: [UInt8] = []
  do {
    try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in packed.append(contentsOf: part) }) { sink in
      _ = try TraceText.pack(TraceFile(bytes), to: .function(sink))
    }
  } catch { return }
  do { _ = try allEvents(packed, .strict) } catch { fatalError("text was packed to a trace that is refused: \(error)") }
}
