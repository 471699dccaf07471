// Leaving nothing behind when the user presses Ctrl-C.
//
// A run that made a memory group for itself leaves and removes it from the signal handler: only system calls, on paths that were
// prepared before. A comparison does not end at the first signal: it notes it, ends its children and reports what is
// done; a second signal ends it at once.

import Glibc
import Synchronization

/// What SIGINT, SIGTERM and SIGHUP do.
package enum Interrupts {
  private static let signals = [SIGINT, SIGTERM, SIGHUP]
  /// The signal that arrived, 0 if none did.
  private static let pending = Atomic<Int32>(0)
  // Set before the handler is installed, read by it alone.
  nonisolated(unsafe) private static var directory: UnsafeMutablePointer<CChar>?
  nonisolated(unsafe) private static var parentProcesses: UnsafeMutablePointer<CChar>?

  /// Removes `group`, which this process is in, before a signal ends it. With nil signals do what they did.
  package static func removeOnInterrupt(_ group: MemoryCgroup?) {
    guard let group else {
      for number in signals { signal(number, SIG_DFL) }
      return
    }
    directory = strdup(group.directory)
    parentProcesses = strdup(group.parent + "/cgroup.procs")
    unblock()
    for number in signals {
      signal(number) { number in
        let file = open(Interrupts.parentProcesses!, O_WRONLY | O_CLOEXEC)
        if file >= 0 {
          // Version 1 and 2 both take 0 as the writer itself.
          _ = write(file, "0", 1)
          close(file)
        }
        rmdir(Interrupts.directory!)
        signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  /// From now on signals are only noted.
  package static func note() {
    unblock()
    for number in signals {
      signal(number) { number in
        if Interrupts.pending.exchange(number, ordering: .relaxed) != 0 {
          signal(number, SIG_DFL)
          raise(number)
        }
      }
    }
  }

  /// A program that is started from a worker thread of another begins with these signals blocked; the runs that are
  /// started from here inherit what is set here.
  private static func unblock() {
    var set = sigset_t()
    sigemptyset(&set)
    for number in signals { sigaddset(&set, number) }
    pthread_sigmask(SIG_UNBLOCK, &set, nil)
  }

  /// The signal that was noted, or nil.
  package static var noted: Int32? {
    let number = pending.load(ordering: .relaxed)
    return number == 0 ? nil : number
  }
}
