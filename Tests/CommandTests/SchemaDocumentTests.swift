// What commands write as JSON, against what Docs/ say of it: every field is in its document.

import Foundation
import Glibc
import HugeSpanCore
import TestSupport
import Testing

@testable import HugeSpanLab

/// The names of all fields in a document of JSON, those of objects that are tables by name excepted.
private func fields(of value: Any, tables: Set<String>) -> Set<String> {
  var result: Set<String> = []
  if let object = value as? [String: Any] {
    for (name, part) in object {
      result.insert(name)
      // The names in a table are values: sizes of folios, files, reasons.
      if let entries = part as? [String: Any], tables.contains(name) {
        for entry in entries.values { result.formUnion(fields(of: entry, tables: tables)) }
      } else {
        result.formUnion(fields(of: part, tables: tables))
      }
    }
  } else if let list = value as? [Any] {
    for part in list.prefix(200) { result.formUnion(fields(of: part, tables: tables)) }
  }
  return result
}

private func expect(_ text: String, isDescribedIn documents: [String], tables: Set<String> = []) throws {
  // An object a line, or one document.
  let values =
    try (try? [JSONSerialization.jsonObject(with: Data(text.utf8))])
    ?? text.split(separator: "\n").map { try JSONSerialization.jsonObject(with: Data($0.utf8)) }
  let schema = ((values.first as? [String: Any]) ?? (values.first as? [[String: Any]])?.first)?["schema"] as? String
  let described = try documents.map { name in
    try #require(contents(ofFile: "Docs/\(name).md"), "the tests run from the root of the project")
  }.joined()
  #expect(described.contains("`\(try #require(schema))`"))
  // In back quotes or an example, alone or as a part of a longer thing.
  let code =
    described.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }
    .map(\.element) + described.split(separator: "\n").filter { $0.hasPrefix("    ") }
  for name in values.reduce(into: Set<String>(), { $0.formUnion(fields(of: $1, tables: tables)) }).sorted() {
    let isThere = code.contains { part in
      part.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "_" }).contains { $0 == name }
    }
    // The schema is there by its value.
    #expect(isThere || name == "schema", "\(name) is in no table of \(documents)")
  }
}

@Suite("JSON of the commands, and their documents")
struct SchemaDocumentTests {
  @Test("explain, watch and coverage describe every field")
  func looking() throws {
    var options = HeapOptions()
    options.firstArenaBytes = 64 << 21
    let heap = try LinuxHeap.create(options)
    defer { LinuxHeap.destroy(heap) }
    try #require(heap.pointee.openPage() == nil)
    let kept = try heap.pointee.core.allocate(SpanRequest(pageCount: 1500)).span
    let freed = try heap.pointee.core.allocate(SpanRequest(pageCount: 1024)).span
    memset(kept.pointer, 1, kept.pageCount << 12)
    memset(freed.pointer, 1, freed.pageCount << 12)
    heap.pointee.core.free(freed)
    // Seen empty, so that something waits.
    _ = heap.pointee.core.tick(at: 1_000_000_000, processCPU: 0)
    heap.pointee.publishAtOnce()
    let number = "\(getpid())"
    try expect(
      try hugespan("explain", "--json", "-", number).output, isDescribedIn: ["Explain"], tables: ["reasons"])
    try expect(
      try hugespan("watch", "--count", "2", "--interval", "50ms", "--json", "-", number).output,
      isDescribedIn: ["Watch"])
    try expect(
      try hugespan("coverage", "--map", "--json", "-", number).output, isDescribedIn: ["Coverage"],
      tables: ["folioBytes"])
    try expect(
      try hugespan("coverage", "--interval", "20ms", "--count", "3", "--json", "-", number).output,
      isDescribedIn: ["Coverage"])
    heap.pointee.core.free(kept)
  }

  @Test("doctor describes every field")
  func doctor() throws {
    try expect(
      try hugespan("doctor", "--json", "-").output, isDescribedIn: ["Doctor"],
      tables: ["sizes", "khugepaged", "counts", "unreadable"])
  }

  @Test("run and the heap's report at exit describe every field")
  func running() throws {
    let folder = try TemporaryFolder()
    let outcome = try hugespan("run", "--quiet", "--json", folder.path + "/run.json", "--", "/bin/sleep", "0")
    // Without jemalloc nothing runs on it.
    if outcome.status == 69 { return }
    #expect(outcome.status == 0, "\(outcome.errors)")
    let text = try #require(contents(ofFile: folder.path + "/run.json"))
    #expect(text.contains("reinflatedBlocks"))
    try expect(text, isDescribedIn: ["Running"])
  }

  @Test("compare and report describe every field")
  func comparing() throws {
    let folder = try TemporaryFolder()
    let trace = try generatedTrace(folder)
    let result = folder.path + "/result.json"
    let outcome = try hugespan(
      "compare", trace, "--policy", "never", "--policy", "seed", "--strategy", "dontneed", "--series", "--both",
      "--json", result)
    #expect(outcome.status == 0, "\(outcome.errors)")
    try expect(
      try #require(contents(ofFile: result)), isDescribedIn: ["Compare", "Report", "Bound"],
      tables: ["khugepaged", "costModel", "prices"])
    try expect(try hugespan("report", result, "--json", "-").output, isDescribedIn: ["Report"])
  }
}
