// A command line that was understood: which command, which values, which operands. And how a command ends.

/// The process' exit status, with the meanings of sysexits.h where there is one.
package struct ExitCode: Equatable, Sendable {
  package var value: Int32

  /// Wraps a status.
  package init(_ value: Int32) { self.value = value }

  /// Done.
  package static let success = ExitCode(0)
  /// A check failed, or the thing asked about is not so.
  package static let checkFailed = ExitCode(1)
  /// The command line is wrong.
  package static let usage = ExitCode(64)
  /// An input is malformed; the message says where.
  package static let malformedInput = ExitCode(65)
  /// An input is missing or cannot be read.
  package static let missingInput = ExitCode(66)
  /// The kernel or the system lacks something that is needed.
  package static let unavailable = ExitCode(69)
  /// A bug of ours.
  package static let internalError = ExitCode(70)
}

/// Why a command could not do its work: one line for the user, and the exit status.
package struct CommandFailure: Error, Equatable, Sendable {
  package var message: String
  package var status: ExitCode

  /// Creates a failure. `message` names the input, what is wrong with it, and what would be right.
  package init(_ message: String, status: ExitCode) {
    self.message = message
    self.status = status
  }
}

/// A command line that makes no sense.
package struct UsageError: Error, Equatable, Sendable {
  /// The command's full name, as in `hugespan replay`.
  package var commandPath: String
  package var message: String

  /// Creates an error of the command `commandPath`.
  package init(commandPath: String, message: String) {
    self.commandPath = commandPath
    self.message = message
  }
}

/// A parsed command line. Asking for an option that the command's table does not have is a programmer's mistake.
package struct Invocation: Sendable {
  /// The command that was named, after all its parents.
  package let command: Command
  /// `hugespan trace dump`.
  package let commandPath: String
  /// The outermost command: the source of help and completions.
  package let root: Command
  /// Everything that is not an option, in order; what follows `--` is included.
  package internal(set) var operands: [String] = []
  /// The operands that came after `--`.
  package internal(set) var operandsAfterTerminator: [String] = []
  var values: [String: [String]] = [:]

  init(command: Command, commandPath: String, root: Command) {
    self.command = command
    self.commandPath = commandPath
    self.root = root
  }

  private func given(_ name: String) -> [String] {
    precondition(command.options.contains { $0.name == name }, "option is not in the command's table")
    return values[name] ?? []
  }

  /// Whether the option was given at all.
  package func has(_ name: String) -> Bool { !given(name).isEmpty }

  /// The last value given, as it was written.
  package func text(_ name: String) -> String? { given(name).last }

  /// All values of a repeatable option.
  package func texts(_ name: String) -> [String] { given(name) }

  /// The value of a `count` option.
  package func count(_ name: String) -> Int? { given(name).last.flatMap { Int($0) } }

  /// The value of a `number` option.
  package func number(_ name: String) -> Double? { given(name).last.flatMap { Double($0) } }

  /// The value of a `size` option, in bytes.
  package func bytes(_ name: String) -> Int? { given(name).last.flatMap { ByteCount(argument: $0)?.bytes } }

  /// The value of a `duration` or `durationOrOff` option in nanoseconds; `off` is 0.
  package func nanoseconds(_ name: String) -> UInt64? {
    given(name).last.flatMap { $0 == "off" ? 0 : Nanoseconds(argument: $0)?.count }
  }

  /// An error about this command line.
  package func usageError(_ message: String) -> UsageError {
    UsageError(commandPath: commandPath, message: message)
  }
}
