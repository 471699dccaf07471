// From the process' arguments to its exit status: the one place that prints usage errors, help and failures.

import Glibc

/// Writes `text` and a newline to standard error.
package func printError(_ text: String) {
  writeAll(text + "\n", to: STDERR_FILENO)
}

/// Writes `text` to standard output at once, without a newline; false if the reader is gone.
@discardableResult
package func printOutput(_ text: String) -> Bool {
  writeAll(text, to: STDOUT_FILENO)
}

@discardableResult
private func writeAll(_ text: String, to descriptor: Int32) -> Bool {
  var bytes = Array(text.utf8)[...]
  while !bytes.isEmpty {
    let written = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress!, $0.count) }
    if written < 0 {
      if errno == EINTR { continue }
      return false
    }
    bytes = bytes.dropFirst(written)
  }
  return true
}

/// Runs the command that `arguments` (without the program's name) asks for and returns the exit status.
///
/// Help and version go to standard output. Everything that goes wrong is one line on standard error that begins with
/// the program's name; a wrong command line is followed by a pointer to the right help text.
package func runProgram(_ root: Command, version: String, arguments: [String]) -> ExitCode {
  do {
    switch try parse(arguments, as: root) {
    case .help(let command, let commandPath):
      printOutput(helpText(of: command, commandPath: commandPath))
      return .success
    case .version:
      printOutput("\(root.name) \(version)\n")
      return .success
    case .invocation(let invocation):
      guard let run = invocation.command.run else {
        printOutput(helpText(of: invocation.command, commandPath: invocation.commandPath))
        return .success
      }
      return try run(invocation)
    }
  } catch let error as UsageError {
    printError("\(root.name): \(error.message)\nTry '\(error.commandPath) --help'.")
    return .usage
  } catch let failure as CommandFailure {
    printError("\(root.name): \(failure.message)")
    return failure.status
  } catch {
    printError("\(root.name): internal error: \(error)")
    return .internalError
  }
}
