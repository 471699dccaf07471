import Foundation
import Glibc
import TestSupport
import Testing

@testable import HugeSpanLab

/// A browser that can be run without a window, if there is one.
private let browser: String? = {
  let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
  for name in ["chromium", "chromium-browser", "google-chrome"] {
    for folder in folders where access("\(folder)/\(name)", X_OK) == 0 { return "\(folder)/\(name)" }
  }
  return nil
}()

/// What a browser made of a page.
private struct BrowserOutcome {
  /// The document after its script ran.
  var document: String
  /// What the page wrote to the console, errors too.
  var console: [Substring]
}

/// Opens `page` in the browser, of this width, and takes a picture if it is told where.
private func open(_ page: String, width: Int, isDark: Bool = false, picture: String? = nil) throws -> BrowserOutcome {
  let folder = try TemporaryFolder()
  for name in ["out", "err"] { try Data().write(to: URL(fileURLWithPath: folder.path + "/" + name)) }
  let process = Process()
  process.executableURL = URL(fileURLWithPath: browser!)
  process.arguments =
    [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
      "--force-device-scale-factor=1", "--enable-logging=stderr", "--user-data-dir=\(folder.path)/profile",
      "--window-size=\(width),1600",
    ] + (isDark ? ["--blink-settings=preferredColorScheme=0"] : [])
    + [picture.map { "--screenshot=\($0)" } ?? "--dump-dom", "file://\(page)"]
  process.standardInput = FileHandle.nullDevice
  process.standardOutput = FileHandle(forWritingAtPath: folder.path + "/out")
  process.standardError = FileHandle(forWritingAtPath: folder.path + "/err")
  try process.run()
  if !wait(seconds: 90, until: { !process.isRunning }) { process.terminate() }
  process.waitUntilExit()
  #expect(process.terminationStatus == 0)
  let errors = contents(ofFile: folder.path + "/err") ?? ""
  return BrowserOutcome(
    document: contents(ofFile: folder.path + "/out") ?? "",
    console: errors.split(separator: "\n").filter { $0.contains("CONSOLE") })
}

/// A comparison of two policies, with a series, as JSON and as a page.
private func results(_ folder: TemporaryFolder) throws -> (json: String, page: String) {
  let trace = try generatedTrace(folder)
  let json = folder.path + "/result.json"
  let page = folder.path + "/page.html"
  let outcome = try hugespan(
    "compare", trace, "--policy", "never", "--policy", "immediate", "--strategy", "split-dontneed", "--json", json,
    "--html", page)
  #expect(outcome.status == 0, "\(outcome.errors)")
  return (json, page)
}

@Suite("hugespan report, as it is typed", .serialized)
struct ReportCommandTests {
  @Test("one file is not written by two options, nor over what is read")
  func sameFiles() throws {
    let folder = try TemporaryFolder()
    let (result, _) = try results(folder)
    let before = try Data(contentsOf: URL(fileURLWithPath: result))
    let over = try hugespan(
      "report", result, "-o", folder.path + "/../" + (folder.path as NSString).lastPathComponent + "/result.json")
    #expect(over.status == 64 && over.errors.contains("is read or written by this command"), "\(over)")
    #expect(try Data(contentsOf: URL(fileURLWithPath: result)) == before)
    let both = try hugespan(
      "compare", folder.path + "/small.hstrace", "--policy", "never", "--strategy", "keep", "--json",
      folder.path + "/both", "--html", folder.path + "/both")
    #expect(both.status == 64, "\(both)")
  }

  @Test("what the page shows is to be had as JSON, without a page")
  func json() throws {
    let folder = try TemporaryFolder()
    let (result, _) = try results(folder)
    let outcome = try hugespan("report", result, "--json", "-")
    #expect(outcome.status == 0, "\(outcome.errors)")
    let document = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any]
    let traces = try #require(document?["traces"] as? [[String: Any]])
    #expect(document?["schema"] as? String == "hugespan.report/1" && traces.count == 1)
    #expect((traces[0]["runs"] as? [[String: Any]])?.map { $0["policy"] as? String } == ["never", "immediate"])
    #expect(try hugespan("report", result, "--json", "-", "--output", "-").status == 64)
  }

  @Test("--html keeps a series and a film of each run; without it and --series there is none")
  func series() throws {
    let folder = try TemporaryFolder()
    let (json, page) = try results(folder)
    let result = try comparison(fromJSON: Data(contentsOf: URL(fileURLWithPath: json)))
    #expect(result.runs.count == 2)
    for run in result.runs {
      let series = try #require(run.series)
      let film = try #require(run.blocks)
      #expect(series.isEven && series.seconds.count > 100 && series.seconds.count <= 200)
      #expect(series.seconds.last == run.seconds || abs(series.seconds.last! - run.seconds) < 0.001)
      #expect(series.usedBytes.compactMap { $0 }.max()! <= run.usedBytes!.peak)
      #expect(series.residentBytes.contains { $0 != nil && $0! > 0 })
      #expect(series.chargedBytes.contains { $0 != nil } == canMakeGroup)
      #expect(film.defect == nil && film.frames.count > 40 && film.frames.count <= 60)
      #expect(film.frames.allSatisfy { $0.count <= 512 } && film.frames.last!.contains { $0 != "." })
    }
    #expect(result.runs[1].blocks!.frames.contains { $0.contains("r") }, "immediate releases parts of blocks")
    #expect(!result.runs[0].blocks!.frames.contains { $0.contains("r") || $0.contains("l") }, "never does not")
    #expect(contents(ofFile: page)!.hasSuffix("</html>\n"))

    let trace = folder.path + "/small.hstrace"
    let plain = try hugespan("compare", trace, "--policy", "never", "--json", "-")
    #expect(plain.status == 0 && !plain.output.contains("\"series\"") && !plain.output.contains("\"blocks\" : {"))
    let single = try hugespan("replay", trace, "--series", "--json", "-")
    #expect(try JSONDecoder().decode(RunResult.self, from: Data(single.output.utf8)).series != nil)
    let both = try hugespan("compare", trace, "--policy", "never", "--html", "-")
    #expect(both.output.hasPrefix("<!DOCTYPE html>"), "the page in place of the tables")
  }

  @Test("what is missing, or no comparison, is one line and the right exit status; nothing is written then")
  func badInput() throws {
    let folder = try TemporaryFolder()
    let page = folder.path + "/page.html"
    func expect(_ arguments: [String], _ status: Int32, _ part: String) throws {
      let outcome = try hugespan(["report", "-o", page] + arguments)
      #expect(outcome.status == status && outcome.errors.contains(part), "\(outcome.errors)")
      #expect(outcome.errors.hasPrefix("hugespan: ") && outcome.output.isEmpty)
      #expect(outcome.errors.split(separator: "\n").filter { !$0.hasPrefix("Try '") }.count == 1)
      #expect(access(page, F_OK) != 0)
    }
    try expect([], 64, "missing RESULT")
    try expect([folder.path + "/none.json"], 66, "none.json: No such file or directory")
    try expect([folder.path], 66, "a file is wanted")
    let file = folder.path + "/other.json"
    try Data(#"{"schema": "hugespan.coverage/1"}"#.utf8).write(to: URL(fileURLWithPath: file))
    try expect([file], 65, "\(file): its schema is 'hugespan.coverage/1'; 'hugespan.compare/1', as 'hugespan compare")
    try Data("not JSON".utf8).write(to: URL(fileURLWithPath: file))
    try expect([file], 65, "\(file): is no JSON")
    let trace = try generatedTrace(folder, seconds: 1)
    let outcome = try hugespan("compare", trace, "--html", "-", "--csv", "-")
    #expect(outcome.status == 64 && outcome.errors.contains("--csv and --html cannot both"))
    #expect(try hugespan("compare", trace, "--series").status == 64)
    #expect(try hugespan("replay", trace, "--series").status == 64)
  }

  @Test(
    "a browser draws every plot without an error, light and dark, narrow and wide",
    .enabled(if: browser != nil, "no chromium, chromium-browser or google-chrome is installed"),
    arguments: [(1200, false), (390, true)])
  func browse(_ width: Int, _ isDark: Bool) throws {
    let folder = try TemporaryFolder()
    let (json, page) = try results(folder)
    let outcome = try open(page, width: width, isDark: isDark)
    #expect(outcome.console == [])
    #expect(outcome.document.contains("data-state=\"drawn\"") && !outcome.document.contains("data-errors"))
    #expect(outcome.document.contains("data-overflow=\"0\""), "the page fits into the window")
    // One trace: charge and coverage, costs, and for two runs memory, coverage, the film and a frame of it.
    #expect(outcome.document.contains(canMakeGroup ? "data-plots=\"10\"" : "data-plots=\""))
    let pictures = outcome.document.components(separatedBy: "<svg").dropFirst().map {
      $0.prefix(while: { $0 != ">" })
    }
    #expect(
      pictures.allSatisfy {
        $0.contains("role=\"img\" aria-label=\"small") || $0.contains("aria-hidden")
          || $0.contains("aria-label=\"never") || $0.contains("aria-label=\"immediate")
      })
    #expect(outcome.document.components(separatedBy: "<summary>Table: ").count == 1 + 6)
    for value in ["NaN", "Infinity", "undefined"] {
      #expect(!outcome.document.components(separatedBy: "<script").first!.contains(value), "\(value)")
    }

    let picture = folder.path + "/page.png"
    _ = try open(page, width: width, isDark: isDark, picture: picture)
    let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: picture)))
    #expect(bytes.prefix(4) == [0x89, 0x50, 0x4e, 0x47] && bytes.count > 20_000)

    // Two results, one of them without a series.
    let plain = folder.path + "/plain.json"
    let trace = folder.path + "/small.hstrace"
    #expect(try hugespan("compare", trace, "--policy", "never", "--json", plain).status == 0)
    #expect(try hugespan("report", json, plain, "-o", page).status == 0)
    let two = try open(page, width: width, isDark: isDark)
    #expect(two.console == [] && two.document.contains("data-state=\"drawn\""))
    #expect(two.document.contains("never / keep (plain)"))
    #expect(try hugespan("report", plain, "-o", page).status == 0)
    let none = try open(page, width: width, isDark: isDark)
    #expect(none.console == [] && none.document.contains("The results of this trace have no series."))
  }

  @Test(
    "tables sort, menus choose a run, the slider moves the film: all of it by elements that a keyboard reaches",
    .enabled(if: browser != nil, "no chromium, chromium-browser or google-chrome is installed"))
  func operate() throws {
    let folder = try TemporaryFolder()
    let (_, page) = try results(folder)
    let script = #"""
      <script>
      const failures = [];
      const check = (words, holds) => { if (!holds) failures.push(words); };
      const one = (selector) => document.querySelector(selector);
      const column = (index) => [...one("table.runs").tBodies[0].rows].map((row) => Number(row.cells[index].dataset.value));
      const heads = [...one("table.runs").tHead.rows[0].cells];
      const released = heads.findIndex((head) => head.textContent === "released");
      heads[released].firstChild.click();
      check("ascending", column(released)[0] < column(released)[1] && heads[released].ariaSort === "ascending");
      heads[released].firstChild.click();
      check("descending", column(released)[0] > column(released)[1] && heads[released].ariaSort === "descending");
      const hidden = () => heads.filter((head) => !head.offsetParent).length;
      check("some columns are hidden", hidden() > 5);
      one("[data-part=wide]").click();
      check("all columns", hidden() === 0);
      one("input[value=excess]").click();
      const costs = one("[data-part=costs]");
      check("above the bound", (costs.firstChild.ariaLabel ?? costs.textContent).includes("bound"));
      const slider = one("input[type=range]"), frame = () => document.querySelectorAll(".panel .readout")[1].textContent;
      slider.value = "0";
      slider.dispatchEvent(new Event("input"));
      const before = frame();
      slider.value = slider.max;
      slider.dispatchEvent(new Event("input"));
      check("the film moves", before.startsWith("0.0 s, 0 blocks") && frame() !== before);
      check("the slider speaks", /^(2.9\d|3.00) s$/.test(slider.ariaValueText) && slider.ariaLabel.includes("small"));
      const menu = one("select"), title = () => one(".panel h4").textContent;
      for (const option of menu.options) {
        menu.value = option.value;
        menu.dispatchEvent(new Event("change"));
        check("the menu chooses", title() === option.textContent);
      }
      const reachable = (element) => element.tabIndex >= 0;
      check("reachable", [...document.querySelectorAll("button, select, input, summary, .scroll")].every(reachable));
      check("names", [...document.querySelectorAll("select, input")].every((element) => element.labels.length || element.ariaLabel));
      document.title = failures.length ? "failed: " + failures.join("; ") : "all is well";
      </script>
      """#
    let text = try #require(contents(ofFile: page)).replacingOccurrences(of: "</body>", with: script + "</body>")
    try Data(text.utf8).write(to: URL(fileURLWithPath: page))
    let outcome = try open(page, width: 800)
    #expect(outcome.console == [])
    let title = outcome.document.components(separatedBy: "<title>").last!.prefix { $0 != "<" }
    #expect(title == "all is well")
  }
}
