// Completion scripts for the common shells, from the tables.
//
// bash and zsh get one function each that walks the words typed so far through a `case` over the full command name; fish
// gets one `complete` line per option. Values with known names and file names are completed, everything else is not.

/// Shells for which a completion script can be written.
package enum Shell: String, CaseIterable, Sendable {
  case bash, zsh, fish
}

/// A script for `shell` that completes the command line of `root`.
package func completionScript(for root: Command, shell: Shell) -> String {
  switch shell {
  case .bash: return bashScript(root)
  case .zsh: return "#compdef \(root.name)\nautoload -U +X bashcompinit && bashcompinit\n" + bashScript(root)
  case .fish: return fishScript(root)
  }
}

/// Every command with its full name, parents first.
private func allCommands(_ command: Command, path: String) -> [(path: String, command: Command)] {
  [(path, command)]
    + command.subcommands.filter { !$0.isHidden }.flatMap { allCommands($0, path: path + " " + $0.name) }
}

private func visibleOptions(_ command: Command) -> [Option] {
  command.options.filter { !$0.isHidden } + [CommonOption.help, CommonOption.version]
}

private func bashScript(_ root: Command) -> String {
  let commands = allCommands(root, path: root.name)
  var words = ""
  var values = ""
  for (path, command) in commands {
    let names =
      command.subcommands.filter { !$0.isHidden }.map(\.name) + visibleOptions(command).map { "--" + $0.name }
    let files = command.operands.contains { $0.isFile } ? " files=1" : ""
    words += "    '\(path)') words='\(names.joined(separator: " "))'\(files) ;;\n"
    for option in command.options where !option.isHidden && option.value.valueName != nil {
      var patterns = "'\(path) --\(option.name)'"
      if let short = option.short { patterns += "|'\(path) -\(short)'" }
      let known = option.value.knownValues.map(\.name)
      if !known.isEmpty {
        values +=
          "    \(patterns)) COMPREPLY=($(compgen -W '\(known.joined(separator: " "))' -- \"$word\")); return ;;\n"
      } else if case .file = option.value {
        values += "    \(patterns)) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
      } else {
        values += "    \(patterns)) return ;;\n"
      }
    }
  }
  let paths = commands.dropFirst().map { "'\($0.path)'" }.joined(separator: "|")
  return """
    _\(root.name)_complete() {
      local word="${COMP_WORDS[COMP_CWORD]}" path=\(root.name) words= files= i
      COMPREPLY=()
      for ((i = 1; i < COMP_CWORD; i++)); do
        case "$path ${COMP_WORDS[i]}" in
        \(paths.isEmpty ? "''" : paths)) path="$path ${COMP_WORDS[i]}" ;;
        esac
      done
      case "$path ${COMP_WORDS[COMP_CWORD - 1]}" in
    \(values)  esac
      case "$path" in
    \(words)  esac
      COMPREPLY=($(compgen -W "$words" -- "$word"))
      if [[ -n $files && $word != -* ]]; then COMPREPLY+=($(compgen -f -- "$word")); fi
    }
    complete -o filenames -F _\(root.name)_complete \(root.name)

    """
}

private func fishScript(_ root: Command) -> String {
  var text = "complete -c \(root.name) -f\n"
  for (path, command) in allCommands(root, path: root.name) {
    let parents = path.split(separator: " ").dropFirst()
    let names = command.subcommands.filter { !$0.isHidden }.map(\.name).joined(separator: " ")
    var condition = parents.map { "__fish_seen_subcommand_from \($0)" }.joined(separator: "; and ")
    if !names.isEmpty {
      if !condition.isEmpty { condition += "; and " }
      condition += "not __fish_seen_subcommand_from \(names)"
    }
    let test = condition.isEmpty ? "" : " -n '\(condition)'"
    for subcommand in command.subcommands where !subcommand.isHidden {
      text += "complete -c \(root.name)\(test) -a \(subcommand.name) -d '\(quoted(subcommand.abstract))'\n"
    }
    if command.operands.contains(where: { $0.isFile }) { text += "complete -c \(root.name)\(test) -F\n" }
    for option in visibleOptions(command) {
      var line = "complete -c \(root.name)\(test) -l \(option.name)"
      if let short = option.short { line += " -s \(short)" }
      if option.value.valueName != nil { line += " -r" }
      let known = option.value.knownValues.map(\.name)
      if !known.isEmpty { line += " -a '\(known.joined(separator: " "))'" }
      if case .file = option.value { line += " -F" }
      text += line + " -d '\(quoted(option.help))'\n"
    }
  }
  return text
}

private func quoted(_ text: String) -> String {
  var result = ""
  for character in text where character != "\n" { result += character == "'" ? "\\'" : String(character) }
  return result
}
