// A run in a process of its own: start it, read what it prints, learn how it ended.

import Glibc

/// A child whose standard output and error are read.
final class ChildProcess {
  let identifier: pid_t
  private var output: Int32
  private var errors: Int32
  private(set) var outputBytes: [UInt8] = []
  private(set) var errorBytes: [UInt8] = []

  /// Starts `executable`. The child has an empty standard input.
  init(_ executable: String, _ arguments: [String]) throws(ChildStartFailure) {
    var outputEnds: [Int32] = [-1, -1]
    var errorEnds: [Int32] = [-1, -1]
    guard pipe(&outputEnds) == 0 else { throw ChildStartFailure(code: errno) }
    guard pipe(&errorEnds) == 0 else {
      let code = errno
      outputEnds.forEach { close($0) }
      throw ChildStartFailure(code: code)
    }
    // A sibling must not inherit the ends, or this child's output would not end with the child.
    for end in outputEnds + errorEnds { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, outputEnds[1], 1)
    posix_spawn_file_actions_adddup2(&actions, errorEnds[1], 2)
    var words = ([executable] + arguments).map { strdup($0) } + [nil]
    defer { words.forEach { free($0) } }
    var identifier: pid_t = 0
    let code = posix_spawn(&identifier, executable, &actions, nil, &words, environ)
    close(outputEnds[1])
    close(errorEnds[1])
    guard code == 0 else {
      close(outputEnds[0])
      close(errorEnds[0])
      throw ChildStartFailure(code: code)
    }
    self.identifier = identifier
    output = outputEnds[0]
    errors = errorEnds[0]
  }

  /// What to wait for; -1 is nothing any more.
  var descriptors: [Int32] { [output, errors] }

  /// Both streams have ended.
  var hasEnded: Bool { output < 0 && errors < 0 }

  /// Reads what is there on `descriptor`.
  func read(_ descriptor: Int32) {
    var buffer = [UInt8](repeating: 0, count: 16384)
    let count = Glibc.read(descriptor, &buffer, buffer.count)
    if count < 0 && errno == EINTR { return }
    if count <= 0 {
      close(descriptor)
      if descriptor == output { output = -1 } else { errors = -1 }
    } else if descriptor == output {
      outputBytes += buffer[0..<count]
    } else {
      errorBytes += buffer[0..<count]
    }
  }

  /// Waits for the end. The exit status, or minus the signal.
  func wait() -> Int32 {
    var status: Int32 = 0
    while waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7F == 0 ? (status >> 8) & 0xFF : -(status & 0x7F)
  }

  func end(_ signal: Int32) { kill(identifier, signal) }
}

/// A process that could not be started.
struct ChildStartFailure: Error {
  var code: Int32
}
