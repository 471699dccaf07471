// What is written to a page, and whether a page has it: every word follows from a seed, so that nothing has to be remembered.
//
// One page in five is zeros all over, and one in five begins with a zero word: those are the pages whose mark has to be
// planted, and a page that was dropped looks like the first of them.

struct Payload {
  var seed: UInt64

  private static let wordsPerPage = 512

  private func state(_ page: Int) -> UInt64 {
    var state = seed &+ UInt64(page) &* 0x9e37_79b9_7f4a_7c15
    state = (state ^ state >> 30) &* 0xbf58_476d_1ce4_e5b9
    return state ^ state >> 27 | 1
  }

  /// Calls `body` with index and value of each word of a page until it answers false.
  @inline(__always)
  private func forEachWord(_ page: Int, _ body: (Int, UInt64) -> Bool) -> Bool {
    var state = state(page)
    let kind = state >> 8 % 5
    for index in 0..<Self.wordsPerPage {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      if !body(index, kind == 0 || kind == 1 && index == 0 ? 0 : state) { return false }
    }
    return true
  }

  func write(_ page: Int, at address: UInt) {
    let words = UnsafeMutablePointer<UInt64>(bitPattern: address)!
    _ = forEachWord(page) { index, value in
      words[index] = value
      return true
    }
  }

  func isWritten(_ page: Int, at address: UInt) -> Bool {
    let words = UnsafePointer<UInt64>(bitPattern: address)!
    return forEachWord(page) { words[$0] == $1 }
  }

  static func isZero(at address: UInt) -> Bool {
    let words = UnsafePointer<UInt64>(bitPattern: address)!
    var any: UInt64 = 0
    for index in 0..<wordsPerPage { any |= words[index] }
    return any == 0
  }
}
