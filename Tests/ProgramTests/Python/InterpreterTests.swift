// Under the front end a program runs as under the interpreter alone: what it sees, what it prints, how it ends.

import Foundation
import Testing

@testable import HugeSpanLab

@Suite("Python under the front end", .enabled(if: canRunPython, cannotRunPython)) struct InterpreterTests {
  /// Prints what a program can see of how it was started, then ends in the way that its first argument names.
  private static let look = """
    import sys, pickle, os
    main = sys.modules["__main__"]
    assert main.__dict__ is globals()
    class Thing: pass
    assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
    for name in ("__name__", "__file__", "__package__", "__doc__", "__cached__"):
      print(name, getattr(main, name, "missing"))
    print(getattr(__loader__, "name", None), __spec__ and (__spec__.name, __spec__.origin))
    print(sys.argv, [place for place in sys.path if not place.endswith("/HugeSpanPython")], os.getcwd())
    def fail(): raise ValueError("inner")
    how = sys.argv[1] if len(sys.argv) > 1 else ""
    if how == "raise":
      try: fail()
      except ValueError as error: raise KeyError("outer") from error
    if how == "exit": sys.exit(300)
    if how == "message": sys.exit("bye")
    if how == "interrupt": raise KeyboardInterrupt
    if how == "hook":
      sys.excepthook = lambda kind, value, trace: print("hook", kind, trace.tb_frame.f_code.co_filename)
      fail()
    if how == "late":
      import atexit, threading, time
      atexit.register(print, "at exit")
      threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    """

  /// As the interpreter alone, as a directory, and as a module.
  private func expectSame(_ arguments: [String], in workshop: Workshop, input: String? = nil) throws {
    let python = try #require(pythonInterpreter)
    let plain = try workshop.outcome(of: [python] + arguments, input: input)
    let package = try PreloadedLibrary.pythonPackage()
    let parent = (package as NSString).deletingLastPathComponent
    let module = ["PYTHONPATH=\(parent)", python, "-m", "hugespan"]
    for prefix in [[python, package], module] {
      let found = try workshop.outcome(
        of: prefix + arguments, environment: ["HUGESPAN_LIBRARY=\(try PreloadedLibrary.heap.locate(say: { _ in }))"],
        input: input)
      #expect(found.status == plain.status, "\(arguments)")
      #expect(found.output == plain.output, "\(arguments)")
      #expect(found.errors == plain.errors, "\(arguments)")
    }
  }

  @Test(
    "a script ends as it would, whatever it does",
    arguments: [
      [], ["raise"], ["exit"], ["message"], ["interrupt"], ["hook"], ["late", "--report", "-h"],
    ])
  func scripts(arguments: [String]) throws {
    let workshop = try Workshop()
    try expectSame([try workshop.script(Self.look)] + arguments, in: workshop)
  }

  @Test("modules, code, directories, archives, compiled files and standard input run as well") func otherPrograms()
    throws
  {
    let workshop = try Workshop()
    let python = try #require(pythonInterpreter)
    _ = try workshop.script(Self.look, name: "look.py")
    try FileManager.default.createDirectory(atPath: workshop.path + "/folder", withIntermediateDirectories: true)
    _ = try workshop.script(Self.look, name: "folder/__main__.py")
    #expect(
      try workshop.outcome(of: [python, "-m", "zipfile", "-c", "archive.zip", "look.py"]).status == 0)
    let make = """
      import py_compile, zipfile
      py_compile.compile("look.py", cfile="look.pyc")
      with zipfile.ZipFile("archive.zip", "w") as file: file.write("look.py", "__main__.py")
      """
    #expect(try workshop.outcome(of: [python, "-c", make]).status == 0)
    for command in [
      ["./look.py", "x"], ["look.py"], ["folder", "raise"], ["archive.zip", "y"], ["look.pyc", "raise"],
      ["-m", "look", "raise"], ["-m", "folder"], ["-m", "json.tool", "/no/such/file"],
      ["-c", "import sys; print(sys.argv, sys.path[0], __name__); sys.exit(3)", "-m", "z"], ["-c", "x = 1 +* 2"],
    ] {
      try expectSame(command, in: workshop)
    }
    try expectSame(["-", "raise"], in: workshop, input: Self.look)
  }

  @Test("what cannot be run is refused in the interpreter's words") func mistakes() throws {
    let workshop = try Workshop()
    let broken = try workshop.script("x = 1 +* 2\n")
    for command in [["no-such-file.py"], ["-m", "no_such_module"], [broken], [workshop.path]] {
      try expectSame(command, in: workshop)
    }
  }

  @Test("isolated, it is still found") func isolated() throws {
    let workshop = try Workshop()
    let python = try #require(pythonInterpreter)
    let script = try workshop.script("import sys; print(sys.path[0], sys.flags.isolated)")
    let plain = try workshop.outcome(of: [python, "-I", script])
    let found = try workshop.outcome(
      of: [python, "-I", try PreloadedLibrary.pythonPackage(), script],
      environment: ["HUGESPAN_LIBRARY=\(try PreloadedLibrary.heap.locate(say: { _ in }))"])
    #expect(found.output == plain.output && found.status == 0 && found.errors.isEmpty, "\(found.errors)")
  }
}
