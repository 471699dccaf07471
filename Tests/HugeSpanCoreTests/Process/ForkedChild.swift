// Forks for tests: the importer hides fork from Swift, as most of what a child could do is not safe. What these do is: system
// calls, plain memory, and the heap, which is what is tested.

import Foundation

/// fork(), with the fork handlers of the process.
func forkProcess() -> Int32 {
  typealias Fork = @convention(c) () -> Int32
  return unsafeBitCast(dlsym(nil, "fork")!, to: Fork.self)()
}

/// Ends the calling child by a signal if it still runs after `seconds`. The thread that forked may have had the signal blocked, as
/// those of a dispatch queue have.
func endByAlarm(after seconds: UInt32) {
  var alarms = sigset_t()
  sigemptyset(&alarms)
  sigaddset(&alarms, SIGALRM)
  pthread_sigmask(SIG_UNBLOCK, &alarms, nil)
  alarm(seconds)
}

/// A child that lives until it is told to go on, then does its work and exits.
struct ForkedChild {
  let processID: Int32
  private let goOn: Int32
  private let ready: Int32

  /// Forks. In the child `first` runs at once; when it has, this returns in the parent. `last` runs when the parent says
  /// so. A child that hangs ends after a minute; one whose work answers false exits with 1.
  init(_ first: () -> Bool = { true }, last: () -> Bool = { true }) {
    var toChild: [Int32] = [0, 0]
    var toParent: [Int32] = [0, 0]
    precondition(pipe(&toChild) == 0 && pipe(&toParent) == 0)
    let child = forkProcess()
    precondition(child >= 0)
    if child == 0 {
      endByAlarm(after: 60)
      var byte: UInt8 = first() ? 1 : 0
      close(toChild[1])
      _ = write(toParent[1], &byte, 1)
      if byte == 0 { _exit(1) }
      // Ends with the parent, too.
      _ = read(toChild[0], &byte, 1)
      _exit(last() ? 0 : 1)
    }
    close(toChild[0])
    close(toParent[1])
    processID = child
    goOn = toChild[1]
    ready = toParent[0]
    var byte: UInt8 = 0
    _ = read(ready, &byte, 1)
  }

  /// Lets the child go on and waits for its end; its exit status, or minus the signal that ended it.
  func end() -> Int32 {
    close(goOn)
    close(ready)
    var status: Int32 = -1
    precondition(waitpid(processID, &status, 0) == processID)
    return status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
  }
}
