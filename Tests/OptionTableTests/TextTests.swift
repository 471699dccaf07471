import Testing

@testable import OptionTable

private let sample = Command(
  "tool", abstract: "A tool", discussion: "First paragraph.\n\nSecond one.",
  options: [
    Option("mode", short: "m", .choice([Choice("fast", "In a hurry"), Choice("careful", "Look twice")]), help: "How"),
    Option("count", .count(), help: "How often", defaultText: "3"),
    Option("secret", help: "Hidden", isHidden: true),
  ],
  operands: [Operand("FILE", help: "What")], examples: [Example("tool -m fast f", "Hurry")])

@Suite("Texts made from the tables")
struct TextTests {
  @Test("help shows usage, options with values and defaults, and examples")
  func help() {
    let text = helpText(of: sample, commandPath: "tool")
    for part in [
      "Usage: tool [OPTIONS] FILE", "-m, --mode fast|careful", "In a hurry", "(default: 3)", "tool -m fast f",
      "Second one.", "--version",
    ] { #expect(text.contains(part), "\(part)") }
    #expect(!text.contains("secret"))
    #expect(text.split(separator: "\n").allSatisfy { $0.count <= 100 })
  }

  @Test("the Markdown page has a row per option, and bars are escaped")
  func markdown() {
    let text = markdownReference(of: sample)
    #expect(text.contains("| `-m, --mode fast\\|careful` | How<br>`fast`: In a hurry<br>`careful`: Look twice |  |"))
    #expect(text.contains("| `--count N` | How often | 3 |"))
    #expect(!text.contains("secret"))
  }

  @Test("every visible option is in the completions of every shell", arguments: Shell.allCases)
  func completions(_ shell: Shell) {
    let script = completionScript(for: sample, shell: shell)
    #expect(script.contains("mode") && script.contains("count") && script.contains("fast careful"))
    #expect(!script.contains("secret"))
  }

  @Test("long text is broken at spaces")
  func wrapping() {
    #expect(wrapped("aa bb cc", width: 5) == ["aa bb", "cc"])
    #expect(wrapped("", width: 5) == [""])
    #expect(wrapped("aaaaaaaa b", width: 3) == ["aaaaaaaa", "b"])
  }
}
