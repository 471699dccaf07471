// The command line's grammar: GNU style, exact names.
//
// Options and operands may be mixed. `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abc` for flags; `--`
// ends the options. Names are never abbreviated: a script that works today must not break when an option is added.
// A name that is not known is answered with the one that was probably meant.

/// What the command line asks for.
package enum ParsedCommandLine: Sendable {
  case invocation(Invocation)
  case help(Command, commandPath: String)
  case version
}

/// Reads `arguments` (without the program's name) by the table `root`.
package func parse(_ arguments: [String], as root: Command) throws(UsageError) -> ParsedCommandLine {
  var command = root
  var path = root.name
  var rest = arguments[...]

  // Descend as long as words name subcommands.
  while !command.subcommands.isEmpty {
    guard let word = rest.first else { return .help(command, commandPath: path) }
    if let next = command.subcommands.first(where: { $0.name == word }) {
      command = next
      path += " " + next.name
      rest = rest.dropFirst()
    } else if word == "--help" || word == "-h" {
      return .help(command, commandPath: path)
    } else if word == "--version" {
      return .version
    } else if word == "help" {
      let named = command.subcommands.first { $0.name == rest.dropFirst().first }
      return named.map { .help($0, commandPath: "\(path) \($0.name)") } ?? .help(command, commandPath: path)
    } else if word.hasPrefix("-") {
      throw unknownOption(word, command, path)
    } else {
      let names = command.subcommands.filter { !$0.isHidden }.map(\.name)
      let hint = nearMiss(of: word, in: names).map { "; did you mean '\($0)'?" } ?? ""
      throw UsageError(
        commandPath: path, message: "unknown command '\(word)'\(hint) (known: \(names.joined(separator: ", ")))")
    }
  }

  var invocation = Invocation(command: command, commandPath: path, root: root)
  while let word = rest.popFirst() {
    if word == "--" {
      invocation.operandsAfterTerminator = Array(rest)
      invocation.operands += rest
      break
    } else if word == "--help" {
      return .help(command, commandPath: path)
    } else if word == "--version" {
      return .version
    } else if word.hasPrefix("--") {
      try parseLong(word, &rest, &invocation)
    } else if word.hasPrefix("-"), word != "-" {
      if try parseShort(word, &rest, &invocation) { return .help(command, commandPath: path) }
    } else {
      invocation.operands.append(word)
      if command.endsOptionsAtFirstOperand {
        if rest.first == "--" { rest = rest.dropFirst() }
        invocation.operands += rest
        break
      }
    }
  }
  try checkOperands(of: invocation)
  return .invocation(invocation)
}

private func parseLong(
  _ word: String, _ rest: inout ArraySlice<String>, _ invocation: inout Invocation
) throws(UsageError) {
  let parts = word.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
  let name = String(parts[0])
  guard let option = invocation.command.options.first(where: { $0.name == name }) else {
    throw unknownOption("--" + name, invocation.command, invocation.commandPath)
  }
  let attached = parts.count == 2 ? String(parts[1]) : nil
  if case .flag = option.value {
    if attached != nil { throw invocation.usageError("--\(name) takes no value") }
    try store("", for: option, written: "--" + name, &invocation)
  } else {
    let value: String
    if let attached { value = attached } else { value = try next(&rest, for: option, written: "--" + name, invocation) }
    try store(value, for: option, written: "--" + name, &invocation)
  }
}

/// Returns whether `-h` was among the letters.
private func parseShort(
  _ word: String, _ rest: inout ArraySlice<String>, _ invocation: inout Invocation
) throws(UsageError) -> Bool {
  var letters = word.dropFirst()
  while let letter = letters.popFirst() {
    let written = "-\(letter)"
    guard let option = invocation.command.options.first(where: { $0.short == letter }) else {
      if letter == "h" { return true }
      throw unknownOption(written, invocation.command, invocation.commandPath)
    }
    if case .flag = option.value {
      try store("", for: option, written: written, &invocation)
    } else {
      let value = letters.isEmpty ? try next(&rest, for: option, written: written, invocation) : String(letters)
      try store(value, for: option, written: written, &invocation)
      break
    }
  }
  return false
}

/// The following word as a value. A word that looks like an option is not taken: the value was forgotten.
private func next(
  _ rest: inout ArraySlice<String>, for option: Option, written: String, _ invocation: Invocation
) throws(UsageError) -> String {
  guard let value = rest.first, !(value.hasPrefix("--") || (value.hasPrefix("-") && value != "-")) || isNegative(value)
  else { throw invocation.usageError("\(written) needs a value: \(written) \(option.value.valueName ?? "")") }
  rest = rest.dropFirst()
  return value
}

private func isNegative(_ word: String) -> Bool { word.hasPrefix("-") && Double(word) != nil }

private func store(
  _ value: String, for option: Option, written: String, _ invocation: inout Invocation
) throws(UsageError) {
  if option.value.valueName != nil, let complaint = option.value.complaint(about: value) {
    throw invocation.usageError("\(written): \(complaint)")
  }
  if !option.isRepeatable, let earlier = invocation.values[option.name], earlier != [value] {
    throw invocation.usageError("\(written) was given twice, as '\(earlier[0])' and as '\(value)'")
  }
  if option.isRepeatable {
    invocation.values[option.name, default: []].append(value)
  } else {
    invocation.values[option.name] = [value]
  }
}

private func checkOperands(of invocation: Invocation) throws(UsageError) {
  let least = invocation.command.operands.count { $0.arity == .one || $0.arity == .oneOrMore }
  let isOpen = invocation.command.operands.contains { $0.arity == .any || $0.arity == .oneOrMore }
  if invocation.operands.count < least {
    let missing = invocation.command.operands.filter { $0.arity == .one || $0.arity == .oneOrMore }
    throw invocation.usageError(
      "missing \(missing[invocation.operands.count].valueName): \(missing[invocation.operands.count].help)")
  }
  if !isOpen, invocation.operands.count > invocation.command.operands.count {
    throw invocation.usageError("unexpected '\(invocation.operands[invocation.command.operands.count])'")
  }
}

private func unknownOption(_ word: String, _ command: Command, _ path: String) -> UsageError {
  let names = command.options.filter { !$0.isHidden }.map { "--" + $0.name } + ["--help", "--version"]
  let hint = nearMiss(of: word, in: names).map { "; did you mean '\($0)'?" } ?? ""
  return UsageError(commandPath: path, message: "unknown option '\(word)'\(hint)")
}
