// `hugespan explain`, as it is typed.

import Foundation
import Glibc
import HugeSpanCore
import TestSupport
import Testing

@testable import HugeSpanLab

@Suite("hugespan explain, as it is typed")
struct ExplainCommandTests {
  @Test("a process with a page is explained, for people and for programs")
  func explains() throws {
    var options = HeapOptions()
    options.firstArenaBytes = 64 << 21
    let heap = try LinuxHeap.create(options)
    defer { LinuxHeap.destroy(heap) }
    try #require(heap.pointee.openPage() == nil)
    let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 800)).span
    memset(span.pointer, 1, span.pageCount << 12)
    heap.pointee.publishAtOnce()
    let text = try hugespan("explain", "\(getpid())")
    #expect(text.status == 0 && text.errors.isEmpty && text.output.contains("all pageblocks"), "\(text)")
    #expect(text.output.contains("policy rent-or-buy, strategy split-dontneed"))
    let json = try hugespan("explain", "--json", "-", "--blocks", "1", "\(getpid())")
    let found = try JSONDecoder().decode([Explanation].self, from: Data(json.output.utf8))
    let ours = try #require(found.first { $0.total.usedBytes == 800 << 12 })
    #expect(json.status == 0 && ours.schema == "hugespan.explain/1" && ours.costly.count <= 1)
    #expect(ours.process == Int(getpid()) && (ours.kernelAnonymousBytes ?? 0) >= 800 << 12)
  }

  @Test("who publishes nothing, is not there, or is many gets one line and a status")
  func refuses() throws {
    let process = try Sleeper()
    defer { process.end() }
    let number = process.number
    let none = try hugespan("explain", "\(number)")
    #expect(none.status == 66 && none.output.isEmpty && none.errors.contains("publishes no statistics page"))
    #expect(none.errors.filter { $0 == "\n" }.count == 1)
    process.end()
    let gone = try hugespan("explain", "\(number)")
    #expect(gone.status == 66 && gone.errors.contains("there is no such process"))
    #expect(try hugespan("explain", "no-such-name").status == 66)
    #expect(try hugespan("explain").status == 64)
  }
}
