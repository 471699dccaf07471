import Testing

@testable import OptionTable

private let sample = Command(
  "tool", abstract: "A tool",
  subcommands: [
    Command(
      "copy", abstract: "Copy things",
      options: [
        Option("verbose", short: "v", help: "Say more"),
        Option("all", short: "a", help: "Everything"),
        Option("count", short: "n", .count(in: 1...10), help: "How often", defaultText: "3"),
        Option("limit", .size(), help: "Stop there"),
        Option("every", .durationOrOff(), help: "Period"),
        Option("mode", .choice([Choice("fast"), Choice("careful")]), help: "How"),
        Option("tag", .text("TAG"), help: "Mark", isRepeatable: true),
      ],
      operands: [Operand("SOURCE", help: "What"), Operand("MORE", help: "More", arity: .any)],
      run: { _ in .success }),
    Command(
      "run", abstract: "Run a program", options: [Option("output", short: "o", .file(), help: "Where")],
      operands: [Operand("PROGRAM", help: "What", arity: .oneOrMore)], endsOptionsAtFirstOperand: true,
      run: { _ in .success }),
    Command("deep", abstract: "Nested", subcommands: [Command("down", abstract: "Under", run: { _ in .success })]),
  ])

private func invocation(_ line: String) throws -> Invocation {
  guard case .invocation(let invocation) = try parse(line.split(separator: " ").map(String.init), as: sample) else {
    throw UsageError(commandPath: "", message: "not an invocation")
  }
  return invocation
}

private func complaint(_ line: String) -> String? {
  do {
    _ = try parse(line.split(separator: " ", omittingEmptySubsequences: true).map(String.init), as: sample)
    return nil
  } catch { return error.message }
}

@Suite("Reading a command line")
struct ParserTests {
  @Test("values are taken attached, separated and by short name", arguments: ["--count=4", "--count 4", "-n 4", "-n4"])
  func spellings(_ spelling: String) throws {
    #expect(try invocation("copy x \(spelling)").count("count") == 4)
  }

  @Test("short flags may be bundled, with a value at the end")
  func bundles() throws {
    let parsed = try invocation("copy -van7 x")
    #expect(parsed.has("verbose") && parsed.has("all"))
    #expect(parsed.count("count") == 7)
    #expect(parsed.operands == ["x"])
  }

  @Test("operands and options mix, and two dashes end the options")
  func terminator() throws {
    let parsed = try invocation("copy a -v b -- --count -x")
    #expect(parsed.operands == ["a", "b", "--count", "-x"])
    #expect(parsed.operandsAfterTerminator == ["--count", "-x"])
    #expect(!parsed.has("count"))
  }

  @Test("a foreign program keeps its own options, with and without two dashes")
  func foreignProgram() throws {
    #expect(try invocation("run -o f -- prog -o g --help").operands == ["prog", "-o", "g", "--help"])
    #expect(try invocation("run -o f prog -o g").operands == ["prog", "-o", "g"])
    #expect(try invocation("run -o f prog -- g").operands == ["prog", "g"])
    #expect(try invocation("run -o f prog").text("output") == "f")
  }

  @Test("a repeatable option collects, any other may be given once")
  func repetition() throws {
    #expect(try invocation("copy x --tag a --tag b").texts("tag") == ["a", "b"])
    #expect(complaint("copy x -n 1 -n 2") == "-n was given twice, as '1' and as '2'")
  }

  @Test("sizes and times have units")
  func units() throws {
    #expect(try invocation("copy x --limit 64MiB").bytes("limit") == 64 << 20)
    #expect(ByteCount(argument: "1.5GiB")?.bytes == 3 << 29)
    #expect(ByteCount(argument: "2MB")?.bytes == 2_000_000)
    #expect(ByteCount(argument: "4096")?.bytes == 4096)
    for bad in ["", "MiB", "1.3", "-1", "5Q", "1e3", "nan", "99999999999T"] {
      #expect(ByteCount(argument: bad) == nil, "\(bad)")
    }
    #expect(try invocation("copy x --every 250ms").nanoseconds("every") == 250_000_000)
    #expect(try invocation("copy x --every off").nanoseconds("every") == 0)
    #expect(Nanoseconds(argument: "2m")?.count == 120_000_000_000)
    for bad in ["", "5", "-5s", "s", "5 s"] { #expect(Nanoseconds(argument: bad) == nil, "\(bad)") }
  }

  @Test("a mistake is answered with what would have been right")
  func mistakes() {
    #expect(complaint("copy x --verbos") == "unknown option '--verbos'; did you mean '--verbose'?")
    #expect(complaint("copy x -q") == "unknown option '-q'")
    #expect(complaint("cpoy x") == "unknown command 'cpoy'; did you mean 'copy'? (known: copy, run, deep)")
    #expect(complaint("copy") == "missing SOURCE: What")
    #expect(complaint("run") == "missing PROGRAM: What")
    #expect(complaint("copy x --count") == "--count needs a value: --count N")
    #expect(complaint("copy x --count --all") == "--count needs a value: --count N")
    #expect(complaint("copy x --count 11") == "--count: 11 is not in 1...10")
    #expect(complaint("copy x --count many") == "--count: 'many' is not a whole number")
    #expect(
      complaint("copy x --limit 5parsecs") == "--limit: '5parsecs' is not a size such as 4096, 64KiB, 2MiB or 1GiB")
    #expect(
      complaint("copy x --mode fats") == "--mode: unknown value 'fats'; did you mean 'fast'? (known: fast, careful)")
    #expect(complaint("copy x --all=yes") == "--all takes no value")
    #expect(complaint("deep down x") == "unexpected 'x'")
  }

  @Test("help is found at every level")
  func help() throws {
    for (line, path) in [
      ("", "tool"), ("--help", "tool"), ("copy --help", "tool copy"), ("copy -h", "tool copy"),
      ("copy -vh", "tool copy"), ("help copy", "tool copy"), ("deep", "tool deep"), ("deep down -h", "tool deep down"),
    ] {
      guard case .help(_, let commandPath) = try parse(line.split(separator: " ").map(String.init), as: sample) else {
        Issue.record("no help for '\(line)'")
        continue
      }
      #expect(commandPath == path)
    }
    guard case .version = try parse(["copy", "--version"], as: sample) else {
      Issue.record("no version")
      return
    }
  }

  @Test("the exit status tells what went wrong")
  func exitStatus() {
    func status(_ failure: any Error) -> ExitCode {
      let command = Command("x", abstract: "x", run: { _ in throw failure })
      return runProgram(command, version: "0", arguments: [])
    }
    struct Surprise: Error {}
    #expect(status(CommandFailure("gone", status: .missingInput)).value == 66)
    #expect(status(Surprise()).value == 70)
    #expect(runProgram(sample, version: "0", arguments: ["nope"]).value == 64)
  }
}
