// File descriptors that name the process itself, opened once and right after a fork.
//
// /proc/self/pagemap and a pidfd of one's own go on naming the parent in a forked child: a child that used them would
// look at, or advise, its parent's memory. So each descriptor is kept together with the process id that opened it, in
// one atomic word, and whoever finds another id there opens its own. Heaps come and go and threads race; one
// descriptor of a kind per process serves all of them and is never closed while it is right.

import CHugeSpanShims
import Synchronization

/// A descriptor of the process' own, opened on first use.
struct ProcessDescriptor: ~Copyable, Sendable {
  /// What the descriptor is of.
  enum Kind: Sendable {
    case pagemap, pidfd
  }

  private let kind: Kind
  /// The opener's process id in the upper half, the descriptor plus one in the lower; zero before the first use.
  private let state = Atomic<UInt64>(0)

  init(_ kind: Kind) { self.kind = kind }

  /// The descriptor, or minus errno. `isStale` says that the one given before turned out not to work (a program that
  /// closes all descriptors at start closes ours too).
  func value(isStale: Bool = false) -> Int32 {
    let processID = UInt64(UInt32(bitPattern: hs_shim_process_id()))
    let seen = state.load(ordering: .acquiring)
    if seen >> 32 == processID && !isStale { return Int32(truncatingIfNeeded: seen & 0xffff_ffff) - 1 }

    let opened = open()
    guard opened >= 0 else { return opened }
    let made = processID << 32 | UInt64(UInt32(bitPattern: opened) + 1)
    let (exchanged, original) = state.compareExchange(expected: seen, desired: made, ordering: .acquiringAndReleasing)
    if exchanged {
      // The parent's, inherited. A stale one is not closed: its number may be another file's by now.
      if seen != 0 && seen >> 32 != processID { hs_shim_close(Int32(truncatingIfNeeded: seen & 0xffff_ffff) - 1) }
      return opened
    }
    hs_shim_close(opened)
    return Int32(truncatingIfNeeded: original & 0xffff_ffff) - 1
  }

  private func open() -> Int32 {
    switch kind {
    case .pagemap: openForReading("/proc/self/pagemap")
    case .pidfd: hs_shim_pidfd_open_self()
    }
  }
}

let ownPagemap = ProcessDescriptor(.pagemap)
let ownPidfd = ProcessDescriptor(.pidfd)

/// Opens `path`; minus errno on failure.
func openForReading(_ path: StaticString) -> Int32 {
  hs_shim_open_read(UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self))
}
