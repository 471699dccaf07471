// `hugespan completions SHELL`, and the hidden command that writes the reference page of the command line.

import OptionTable

let completionsCommand = Command(
  "completions",
  abstract: "Print a completion script for bash, zsh or fish",
  operands: [Operand("SHELL", help: "bash, zsh or fish", isFile: false)],
  examples: [
    Example("source <(hugespan completions bash)", "Complete in this bash"),
    Example("hugespan completions fish > ~/.config/fish/completions/hugespan.fish", "Complete in every fish"),
  ],
  run: { invocation in
    let name = invocation.operands[0]
    guard let shell = Shell(rawValue: name) else {
      throw invocation.usageError("no completions for '\(name)' (known: bash, zsh, fish)")
    }
    printOutput(completionScript(for: invocation.root, shell: shell))
    return .success
  })

let optionTablesCommand = Command(
  "option-tables",
  abstract: "Print the reference page of the command line in Markdown",
  isHidden: true,
  run: { invocation in
    printOutput(markdownReference(of: invocation.root))
    return .success
  })
