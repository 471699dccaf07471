// The text that Prometheus scrapes: its form, its figures, and its own checker where that is present.

import Foundation
import HugeSpan
import Testing

/// Whether a line is a sample of the format.
private func isSample(_ line: Substring) throws -> Bool {
  let name = #"hugespan_([a-z_]+)\{heap="((?:[^"\\]|\\.)*)"(?:,[a-z]+="[a-z_]+")?\}"#
  return try Regex("^" + name + #" [0-9]+(\.[0-9]{9})?$"#).wholeMatch(in: String(line)) != nil
}

@Suite struct StatisticsForPrometheus {
  private func usedHeap() throws -> PageHeap {
    let heap = try PageHeap()
    let spans = try (0..<5).map { _ in try heap.allocate(pages: 300) }
    for span in spans.dropLast(2) { heap.free(span) }
    return heap
  }

  @Test func haveEveryFamilyOnceWithHelpAndTypeBeforeItsSeries() throws {
    let text = try usedHeap().prometheusText(name: "cache")
    #expect(text.hasSuffix("\n"))
    var kinds: [String: String] = [:]
    var helped: Set<String> = []
    var current = ""
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ").map(String.init)
      if line.hasPrefix("# HELP ") {
        current = words[2]
        #expect(helped.insert(current).inserted && words.count > 4 && line.hasSuffix("."))
      } else if line.hasPrefix("# TYPE ") {
        #expect(words[2] == current && kinds[current] == nil && ["gauge", "counter"].contains(words[3]))
        kinds[current] = words[3]
        #expect((words[3] == "counter") == current.hasSuffix("_total"), "\(line)")
      } else {
        #expect(try isSample(line), "\(line)")
        #expect(line.hasPrefix(current + "{heap=\"cache\""))
      }
    }
    #expect(kinds.count == helped.count && kinds.count >= 20)
  }

  @Test func sayWhatTheHeapSays() throws {
    let heap = try usedHeap()
    let text = heap.prometheusText()
    let statistics = heap.statistics
    func value(_ series: String) -> Int? {
      text.split(separator: "\n").first { $0.hasPrefix(series + " ") }.flatMap { Int($0.split(separator: " ").last!) }
    }
    #expect(value("hugespan_used_bytes{heap=\"default\"}") == 600 * 4096)
    #expect(value("hugespan_allocations_total{heap=\"default\"}") == 5)
    #expect(value("hugespan_frees_total{heap=\"default\"}") == 3)
    let states = ["full", "partial_intact", "partial_broken", "free_resident", "absent"]
    let blocks = states.compactMap { value("hugespan_pageblocks{heap=\"default\",state=\"\($0)\"}") }
    #expect(blocks.count == 5 && blocks.reduce(0, +) == statistics.blocks)
  }

  @Test(arguments: ["", "a\"b", "line\nfeed", "back\\slash", "Überhaupt"])
  func escapeTheNameOfTheHeap(name: String) throws {
    let text = try usedHeap().prometheusText(name: name)
    let escaped = name.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\"", with: "\\\"")
      .replacingOccurrences(of: "\n", with: "\\n")
    #expect(text.contains("hugespan_used_bytes{heap=\"\(escaped)\"} "))
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      #expect(try isSample(line), "\(line)")
    }
  }

  private static let promtool = ["/usr/bin/promtool", "/usr/local/bin/promtool"].first {
    FileManager.default.isExecutableFile(atPath: $0)
  }

  @Test(.enabled(if: promtool != nil, "promtool is not installed"))
  func passPrometheusOwnCheck() throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: Self.promtool!)
    process.arguments = ["check", "metrics"]
    let (input, output) = (Pipe(), Pipe())
    process.standardInput = input
    process.standardOutput = output
    process.standardError = output
    try process.run()
    input.fileHandleForWriting.write(Data(try usedHeap().prometheusText().utf8))
    try input.fileHandleForWriting.close()
    let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0 && said.isEmpty, "\(said)")
  }
}
