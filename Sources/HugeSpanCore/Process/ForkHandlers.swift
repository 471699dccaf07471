// The library's fork handlers, and the list of live heaps that they go through.
//
// Registered once in a process, when its first heap is made or when the embedder says so: the order matters under an allocator
// that locks itself around a fork. Handlers that were registered earlier are run later before the fork, and earlier after it. The
// allocator calls the heap with its locks held, so it must have taken them all before the heap's is taken: the
// heap's handlers belong before the allocator's own. Whoever cannot order them so handles forks by hand.
//
// The list is linked through the heaps' own mappings, since nothing here may allocate; its lock is held across the fork, so
// that no heap is made or destroyed meanwhile.

import CHugeSpanShims
import Synchronization

private let registration = Atomic<UInt32>(0)
private let isByHand = Atomic<UInt32>(0)
private let listLock = SpinLock()
nonisolated(unsafe) private var firstHeap: UnsafeMutablePointer<LinuxHeap>? = nil

/// What runs around a fork of the process.
package enum ForkHandlers {
  private static var unregistered: UInt32 { 0 }
  private static var registering: UInt32 { 1 }
  private static var registered: UInt32 { 2 }

  /// Registers the handlers unless they are. An error if the C library has no room for them.
  package static func register() -> KernelError? {
    while true {
      let (exchanged, seen) = registration.compareExchange(
        expected: unregistered, desired: registering, ordering: .acquiringAndReleasing)
      if exchanged { break }
      if seen == registered { return nil }
      hs_shim_yield()
    }
    let status = hs_shim_at_fork(
      { if isByHand.load(ordering: .relaxed) == 0 { ForkHandlers.prepare() } },
      { if isByHand.load(ordering: .relaxed) == 0 { ForkHandlers.resumeInParent() } },
      { if isByHand.load(ordering: .relaxed) == 0 { ForkHandlers.resumeInChild() } })
    registration.store(status == 0 ? registered : unregistered, ordering: .releasing)
    return status == 0 ? nil : KernelError(code: status)
  }

  /// The registered handlers do nothing from now on: the embedder calls the three functions itself.
  package static func handleByHand() { isByHand.store(1, ordering: .relaxed) }

  /// Before a fork: takes every heap's lock.
  package static func prepare() {
    listLock.lock()
    forEachHeap {
      $0.pointee.holdPage()
      $0.pointee.core.prepareForFork()
    }
  }

  /// After a fork, in the parent; also when it failed.
  package static func resumeInParent() {
    forEachHeap {
      $0.pointee.core.resumeInParent()
      $0.pointee.releasePage()
    }
    listLock.unlock()
  }

  /// After a fork, in the child.
  package static func resumeInChild() {
    forEachHeap { $0.pointee.resumeInChild() }
    listLock.unlock()
  }

  // MARK: The list

  @inline(__always)
  private static func forEachHeap(_ body: (UnsafeMutablePointer<LinuxHeap>) -> Void) {
    var heap = firstHeap
    while let each = heap {
      body(each)
      heap = each.pointee.control.next.pointee
    }
  }

  static func add(_ heap: UnsafeMutablePointer<LinuxHeap>) {
    listLock.lock()
    heap.pointee.control.next.pointee = firstHeap
    firstHeap?.pointee.control.previous.pointee = heap
    firstHeap = heap
    listLock.unlock()
  }

  static func remove(_ heap: UnsafeMutablePointer<LinuxHeap>) {
    listLock.lock()
    let next = heap.pointee.control.next.pointee
    let previous = heap.pointee.control.previous.pointee
    if let previous { previous.pointee.control.next.pointee = next } else { firstHeap = next }
    next?.pointee.control.previous.pointee = previous
    listLock.unlock()
  }
}
