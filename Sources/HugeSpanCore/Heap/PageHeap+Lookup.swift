// From an address to its span, and the word of user data that a span carries.

extension PageHeapCore {
  /// Whether `address` lies in an arena of this heap, handed out or not.
  ///
  /// - Complexity: O(arenas), of which there are few since they double.
  package func owns(_ address: UInt) -> Bool {
    lock.lock()
    defer { lock.unlock() }
    return state.pointee.arenaIndex(of: address) >= 0
  }

  /// The span that contains `address`, or nil if no handed-out page does.
  ///
  /// - Complexity: O(blocks of the span).
  package func span(containing address: UInt) -> PageSpan? {
    lock.lock()
    defer { lock.unlock() }
    guard var block = state.pointee.block(at: address), block.pointee.kind == .occupied else { return nil }
    let page = Int((address >> UInt(pageShift)) & UInt(pagesPerBlock - 1))
    let run = PageRun(start: page, count: 1)
    guard block.used[page], block.pointee.inFlight == 0 || !state.pointee.isInFlight(block, run) else { return nil }

    // Back to the start.
    var start = block.marks.lastSet(before: page + 1)
    while start < 0 {
      let index = Int(block.pointee.index)
      if index == 0 { fail("no start of the span at", address: address) }
      block = state.pointee.arenas[Int(block.pointee.arena)].block(index - 1)
      start = block.marks.lastSet(before: pagesPerBlock)
    }
    let begin = state.pointee.address(of: block, page: start)

    // Forward to the next start or free page.
    var position = start + 1
    while true {
      let end = min(block.marks.firstSet(from: position), block.used.firstClear(from: position))
      if end < pagesPerBlock {
        let bytes = state.pointee.address(of: block, page: end) - begin
        return PageSpan(address: begin, pageCount: Int(bytes >> UInt(pageShift)))
      }
      guard let next = state.pointee.following(block), next.pointee.kind == .occupied, next.used[0], !next.marks[0]
      else {
        let bytes = state.pointee.address(of: block) + UInt(bytesPerBlock) - begin
        return PageSpan(address: begin, pageCount: Int(bytes >> UInt(pageShift)))
      }
      block = next
      position = 0
    }
  }

  /// The word of user data of the span that begins at `address`; 0 until set, and whatever an earlier span there left.
  package func userData(of address: UInt) -> UInt {
    lock.lock()
    defer { lock.unlock() }
    guard let word = userDataWord(address) else { return 0 }
    return UInt(word.pointee)
  }

  /// Sets the word of user data of the span that begins at `address`. The heap must have been made with user data.
  package func setUserData(_ value: UInt, of address: UInt) {
    lock.lock()
    defer { lock.unlock() }
    guard let word = userDataWord(address) else { fail("no user data is kept for", address: address) }
    word.pointee = UInt64(value)
  }

  @inline(__always)
  private func userDataWord(_ address: UInt) -> UnsafeMutablePointer<UInt64>? {
    let index = state.pointee.arenaIndex(of: address)
    if index < 0 { return nil }
    let arena = state.pointee.arenas + index
    guard let words = arena.pointee.userData else { return nil }
    return words + Int(bitPattern: (address &- arena.pointee.range.start) &>> UInt(pageShift))
  }
}
