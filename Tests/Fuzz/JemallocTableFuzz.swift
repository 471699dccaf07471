// The fuzz target: no bytes crash the importer of jemalloc's tables.
//
// Input is read as it is, and as the rows of a table and of a capture whose first lines are right. What is accepted must be a
// trace that the reader accepts; exported and imported again, it must give the same spans: a difference is a trap, which
// the fuzzer reports.

/// Called by the fuzzer with each input.
@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  for names in [
    "", "shard_ind,operation,size_or_alloc_index,nsecs,is_frequent\n", "shard_ind,operation,size_or_alloc_index\n",
    "shard_ind_int,addr_int,nsecs_int,probe,size_int\n",
    "thread_name,nsecs_int,_c4,sec_ptr_int,edata_ptr_int,size_int,is_frequent_reuse_int\n",
  ] {
    check(Array(names.utf8) + bytes)
  }
  return 0
}

private func check(_ table: [UInt8]) {
  guard let trace = try? imported(table) else { return }
  do {
    let events = try allEvents(trace)
    let again = try allEvents(try imported(try exported(trace)))
    // Allocations of threads beyond the shards come back as others', and releases always have the allocation's thread.
    precondition(again.map(\.body) == events.map(\.body), "exported and imported again, the spans differ")
    let start = events.first?.time ?? 0
    precondition(again.map(\.time) == events.map { $0.time - start }, "exported and imported again, the times differ")
  } catch let error as TraceError {
    // A trace may begin so late that a table cannot say it.
    if error != TraceError(.badField("the trace began too late"), at: nil) {
      fatalError("an accepted table gave a trace that is refused: \(error)")
    }
  } catch { fatalError("\(error)") }
}

private func imported(_ table: [UInt8]) throws -> [UInt8] {
  var bytes: [UInt8] = []
  try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
    _ = try JemallocImport.run(TraceFile(table), program: "table", requestsPerSecond: 3000, to: .function(sink))
  }
  return bytes
}

private func exported(_ trace: [UInt8]) throws -> [UInt8] {
  var bytes: [UInt8] = []
  try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
    _ = try JemallocExport.run(TraceReader(TraceFile(trace)), hasTimes: true, to: .function(sink))
  }
  return bytes
}

private func allEvents(_ trace: [UInt8]) throws -> [TraceEvent] {
  var reader = try TraceReader(TraceFile(trace))
  var events: [TraceEvent] = []
  while let event = try reader.next() { events.append(event) }
  return events
}
