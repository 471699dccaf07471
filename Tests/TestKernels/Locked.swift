// A value behind a lock that the thread sanitizer understands: it sees pthread mutexes, and not those of the
// Synchronization module, whose library is built without it.

import Foundation

package final class Locked<Value>: @unchecked Sendable {
  private let lock = NSLock()
  private var value: Value

  package init(_ value: Value) { self.value = value }

  package func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
    lock.lock()
    defer { lock.unlock() }
    return try body(&value)
  }
}
