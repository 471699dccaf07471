// The reference page of a command line, in Markdown, from the same tables as the help texts. A test compares the page
// in the documentation with this text, so an option cannot exist without being documented, nor be described wrongly.

/// Every visible command of `root` with its operands, options and examples.
package func markdownReference(of root: Command) -> String {
  var text = "# Command line of `\(root.name)`\n\n"
  text += "This page is written by `\(root.name) option-tables`; a test fails when it is stale.\n\n"
  text += root.discussion.isEmpty ? "" : root.discussion + "\n\n"
  let visible = root.subcommands.filter { !$0.isHidden }
  if !visible.isEmpty {
    text += "| command | what it is for |\n| --- | --- |\n"
    for command in visible { text += "| [`\(command.name)`](#\(root.name)-\(command.name)) | \(command.abstract) |\n" }
    text += "\nEvery command has `--help` (`-h`) and `--version`.\n"
  }
  for command in visible { text += section(of: command, path: root.name, level: 2) }
  if visible.isEmpty { text += section(of: root, path: "", level: 2) }
  return text
}

private func section(of command: Command, path: String, level: Int) -> String {
  let fullName = path.isEmpty ? command.name : "\(path) \(command.name)"
  var text = "\n\(String(repeating: "#", count: level)) \(fullName)\n\n\(command.abstract).\n"
  if command.subcommands.isEmpty {
    text += "\n    \(usageLine(of: command, commandPath: fullName))\n"
  }
  for paragraph in paragraphs(of: command.discussion) {
    let isVerbatim = paragraph.hasPrefix(" ")
    let lines = paragraph.split(separator: "\n", omittingEmptySubsequences: false)
    text += "\n" + lines.map { isVerbatim ? "    " + $0 : String($0) }.joined(separator: "\n") + "\n"
  }
  if !command.operands.isEmpty {
    text += "\n| operand | meaning |\n| --- | --- |\n"
    for operand in command.operands { text += "| `\(operand.valueName)` | \(cell(operand.help)) |\n" }
  }
  let options = command.options.filter { !$0.isHidden }
  if !options.isEmpty {
    text += "\n| option | meaning | default |\n| --- | --- | --- |\n"
    for option in options {
      var meaning = cell(option.help)
      if option.isRepeatable { meaning += " (may be repeated)" }
      let known = option.value.knownValues.filter { !$0.help.isEmpty }
      for choice in known { meaning += "<br>`\(cell(choice.name))`: \(cell(choice.help))" }
      text += "| `\(cell(spelling(of: option)))` | \(meaning) | \(cell(option.defaultText ?? "")) |\n"
    }
  }
  for example in command.examples { text += "\n\(example.explanation):\n\n    \(example.line)\n" }
  for subcommand in command.subcommands where !subcommand.isHidden {
    text += section(of: subcommand, path: fullName, level: level + 1)
  }
  return text
}

/// A vertical bar would end the table's cell.
private func cell(_ text: String) -> String {
  text.split(separator: "|", omittingEmptySubsequences: false).joined(separator: "\\|")
}
