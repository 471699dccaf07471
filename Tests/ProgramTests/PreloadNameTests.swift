// LD_PRELOAD separates by blanks and colons, and knows no quotes.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("The name that is preloaded") struct PreloadNameTests {
  @Test("is the library's own where it can be") func plain() throws {
    #expect(try PreloadName(for: "/usr/lib/x.so").path == "/usr/lib/x.so")
  }

  @Test("is a link to it where it has blanks or colons, and goes away", arguments: ["/my packages/x.so", "/a:b/x.so"])
  func link(library: String) throws {
    var name: PreloadName? = try PreloadName(for: library)
    let path = try #require(name?.path)
    #expect(!path.contains(" ") && !path.contains(":"))
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: path) == library)
    name = nil
    #expect(!FileManager.default.fileExists(atPath: (path as NSString).deletingLastPathComponent))
  }
}
