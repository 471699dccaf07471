// What a command line is made of, as plain tables: commands, options, operands, examples.
//
// One table per command is the only place where an option is written down. The parser, the help text, the shell
// completions and the option tables of the documentation are all read from it, so they cannot drift apart. The tables
// are values: a command is a constant, and tests look into it without running anything.

/// A command or subcommand: what it is for, what it takes, what it does.
package struct Command: Sendable {
  /// The word on the command line.
  package var name: String
  /// One line that says what it is for, without a full stop.
  package var abstract: String
  /// Paragraphs for the help text, after the usage line.
  package var discussion: String
  /// Named options, in the order of the help text.
  package var options: [Option]
  /// What follows the options.
  package var operands: [Operand]
  /// Commands under this one. A command with subcommands has no operands.
  package var subcommands: [Command]
  /// Command lines that work, for the help text.
  package var examples: [Example]
  /// Left out of help, completions and documentation.
  package var isHidden: Bool
  /// Options end at the first operand: what follows belongs to another program.
  package var endsOptionsAtFirstOperand: Bool
  /// Does the work. Throws `CommandFailure` for what the user should read.
  package var run: (@Sendable (Invocation) throws -> ExitCode)?

  /// Creates a command; everything but the name and the abstract has a default.
  package init(
    _ name: String, abstract: String, discussion: String = "", options: [Option] = [], operands: [Operand] = [],
    subcommands: [Command] = [], examples: [Example] = [], isHidden: Bool = false,
    endsOptionsAtFirstOperand: Bool = false, run: (@Sendable (Invocation) throws -> ExitCode)? = nil
  ) {
    self.name = name
    self.abstract = abstract
    self.discussion = discussion
    self.options = options
    self.operands = operands
    self.subcommands = subcommands
    self.examples = examples
    self.isHidden = isHidden
    self.endsOptionsAtFirstOperand = endsOptionsAtFirstOperand
    self.run = run
  }
}

/// A named option: `--json FILE`, `-n 5`, `--verbose`.
package struct Option: Sendable {
  /// The long name, without dashes.
  package var name: String
  /// The one-letter name, if there is one.
  package var short: Character?
  /// What it takes.
  package var value: ValueType
  /// What it does, in a sentence or a few; no full stop after a single one.
  package var help: String
  /// What holds when it is not given, for the help text only.
  package var defaultText: String?
  /// May be given several times.
  package var isRepeatable: Bool
  /// Works, but is not shown.
  package var isHidden: Bool

  /// Creates an option; by default a flag.
  package init(
    _ name: String, short: Character? = nil, _ value: ValueType = .flag, help: String, defaultText: String? = nil,
    isRepeatable: Bool = false, isHidden: Bool = false
  ) {
    self.name = name
    self.short = short
    self.value = value
    self.help = help
    self.defaultText = defaultText
    self.isRepeatable = isRepeatable
    self.isHidden = isHidden
  }
}

/// A positional argument.
package struct Operand: Sendable {
  /// How often it occurs.
  package enum Arity: Sendable {
    case one, optional, any, oneOrMore
  }

  /// The word in the usage line, in capitals.
  package var valueName: String
  package var help: String
  package var arity: Arity
  /// Completed as a file name by the shell.
  package var isFile: Bool

  /// Creates an operand; by default exactly one file.
  package init(_ valueName: String, help: String, arity: Arity = .one, isFile: Bool = true) {
    self.valueName = valueName
    self.help = help
    self.arity = arity
    self.isFile = isFile
  }
}

/// A command line, and what it does.
package struct Example: Sendable {
  package var line: String
  package var explanation: String

  /// Creates an example.
  package init(_ line: String, _ explanation: String) {
    self.line = line
    self.explanation = explanation
  }
}

/// Options that every command understands.
enum CommonOption {
  static let help = Option("help", short: "h", help: "Show this help and exit")
  static let version = Option("version", help: "Print the version and exit")
}
