// The manual's table of settings against what the library knows.

import CHugeSpan
import Foundation
import HugeSpanABI
import Testing

@Suite("The manual") struct SettingsDocumentTests {
  @Test("has every key of HUGESPAN_CONF, and no other") func keys() throws {
    var options = hs_options()
    hs_options_init(&options, MemoryLayout<hs_options>.size)
    var process = hs_process_options()
    hs_process_options_init(&process, MemoryLayout<hs_process_options>.size)
    var error = hs_options_error()
    #expect(hs_options_parse("?:", &options, &process, &error) == HS_INVALID)
    let message = withUnsafeBytes(of: error.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    let list = try #require(message.range(of: "(known: "))
    let known = message[list.upperBound...].dropLast().split(separator: ",").map {
      $0.trimmingCharacters(in: .whitespaces)
    }
    #expect(known.count > 10)

    let root = (0..<3).reduce(#filePath) { path, _ in (path as NSString).deletingLastPathComponent }
    let manual = try String(contentsOfFile: root + "/Docs/Running.md", encoding: .utf8)
    let table = try #require(manual.components(separatedBy: "| key | value |").dropFirst().first)
    let rows = table.split(separator: "\n", omittingEmptySubsequences: false).prefix {
      $0.hasPrefix("|") || $0.hasPrefix(" default")
    }
    let documented = rows.filter { $0.hasPrefix("| `") }.flatMap { row in
      // The first cell, in which keys stand in backquotes.
      row.dropFirst().prefix { $0 != "|" }.split(separator: "`").filter { $0.first?.isLetter == true }.map(String.init)
    }
    #expect(documented == known)
  }
}
