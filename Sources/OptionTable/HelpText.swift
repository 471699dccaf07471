// Help texts: they are read by people who do not know the words yet, so each shows the shape of the command line, what
// the command is for, every option with its values and default, and lines to copy.

/// Columns of a help text; a terminal's classic width.
private let helpWidth = 100
private let helpIndent = 26

/// The help text of `command`, whose full name is `commandPath`.
package func helpText(of command: Command, commandPath: String) -> String {
  var text = "\(command.abstract).\n\nUsage: \(usageLine(of: command, commandPath: commandPath))\n"
  if !command.discussion.isEmpty { text += "\n" + filled(command.discussion) + "\n" }
  let visible = command.subcommands.filter { !$0.isHidden }
  if !visible.isEmpty {
    text += "\nCommands:\n"
    for subcommand in visible { text += entry(subcommand.name, subcommand.abstract) }
  }
  if !command.operands.isEmpty {
    text += "\nOperands:\n"
    for operand in command.operands { text += entry(operand.valueName, operand.help) }
  }
  text += "\nOptions:\n"
  for option in command.options.filter({ !$0.isHidden }) + [CommonOption.help, CommonOption.version] {
    text += entry(spelling(of: option), description(of: option))
    if case .choice = option.value { text += choices(option.value.knownValues.filter { !$0.help.isEmpty }) }
    if case .text = option.value { text += choices(option.value.knownValues) }
  }
  if !command.examples.isEmpty {
    text += "\nExamples:\n"
    for example in command.examples { text += "  \(example.line)\n      \(example.explanation)\n" }
  }
  if !visible.isEmpty { text += "\n'\(commandPath) COMMAND --help' tells more about a command.\n" }
  return text
}

/// `hugespan replay [OPTIONS] TRACE`.
func usageLine(of command: Command, commandPath: String) -> String {
  if !command.subcommands.isEmpty { return "\(commandPath) COMMAND [OPTIONS]" }
  var words = [commandPath, "[OPTIONS]"]
  if command.endsOptionsAtFirstOperand { words.append("--") }
  for operand in command.operands {
    switch operand.arity {
    case .one: words.append(operand.valueName)
    case .optional: words.append("[\(operand.valueName)]")
    case .any: words.append("[\(operand.valueName)...]")
    case .oneOrMore: words.append("\(operand.valueName)...")
    }
  }
  return words.joined(separator: " ")
}

/// `-n, --count N`.
func spelling(of option: Option) -> String {
  let long = "--" + option.name + (option.value.valueName.map { " " + $0 } ?? "")
  return option.short.map { "-\($0), " + long } ?? long
}

func description(of option: Option) -> String {
  var text = option.help
  if option.isRepeatable { text += " (may be repeated)" }
  if let defaultText = option.defaultText { text += " (default: \(defaultText))" }
  return text
}

private func choices(_ known: [Choice]) -> String {
  let widest = known.map(\.name.count).max() ?? 0
  var text = ""
  for choice in known {
    let name = choice.name + String(repeating: " ", count: widest - choice.name.count)
    let indent = helpIndent + 2 + widest + 2
    text +=
      String(repeating: " ", count: helpIndent + 2) + name + "  "
      + wrapped(choice.help, width: max(30, helpWidth - indent)).joined(
        separator: "\n" + String(repeating: " ", count: indent)) + "\n"
  }
  return text
}

private func entry(_ name: String, _ help: String) -> String {
  let lines = wrapped(help, width: helpWidth - helpIndent)
  let margin = String(repeating: " ", count: helpIndent)
  var text = "  " + name
  if text.count + 2 > helpIndent {
    text += "\n" + margin
  } else {
    text += String(repeating: " ", count: helpIndent - text.count)
  }
  return text + lines.joined(separator: "\n" + margin) + "\n"
}

/// Paragraphs of running text; lines that begin with a space are kept as they are.
private func filled(_ text: String) -> String {
  var blocks: [String] = []
  for paragraph in paragraphs(of: text) {
    blocks.append(
      paragraph.hasPrefix(" ") ? paragraph : wrapped(paragraph, width: helpWidth).joined(separator: "\n"))
  }
  return blocks.joined(separator: "\n\n")
}

func paragraphs(of text: String) -> [String] {
  text.split(separator: "\n", omittingEmptySubsequences: false)
    .split { $0.isEmpty }.map { $0.joined(separator: "\n") }
}

/// Breaks `text` into lines of at most `width` characters, at spaces.
func wrapped(_ text: String, width: Int) -> [String] {
  var lines: [String] = []
  var line = ""
  for word in text.split(whereSeparator: { $0 == " " || $0 == "\n" }) {
    if !line.isEmpty, line.count + 1 + word.count > width {
      lines.append(line)
      line = ""
    }
    line += (line.isEmpty ? "" : " ") + word
  }
  if !line.isEmpty || lines.isEmpty { lines.append(line) }
  return lines
}
