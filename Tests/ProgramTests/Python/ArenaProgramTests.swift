// CPython's arenas on the heap: right answers under threads and forks, and memory that comes from the heap and goes back.

import Foundation
import Testing

@testable import HugeSpanLab

/// Small objects of many sizes, made and dropped; a number that depends on all of them.
private let churn = """
  import random
  def churn(seed, steps=60000):
    generator = random.Random(seed)
    table = {}
    for step in range(steps):
      key = generator.randrange(9000)
      if key in table and generator.random() < 0.5: del table[key]
      else: table[key] = [(step, str(step) * generator.randrange(12)) for _ in range(generator.randrange(9))]
    return hash(tuple((key, len(table[key]), sum(len(text) for _, text in table[key])) for key in sorted(table)))

  """

@Suite("CPython's arenas", .enabled(if: canRunPython, cannotRunPython)) struct ArenaProgramTests {
  /// Runs a program plainly and on the heap; both must print the same and end well.
  private func expectRight(
    _ source: String, configuration: String, in workshop: Workshop
  ) throws -> HeapReport {
    let script = try workshop.script(source)
    let plain = try workshop.outcome(of: [try #require(pythonInterpreter), script])
    try #require(plain.status == 0 && !plain.output.isEmpty, "\(plain.errors)")
    let found = try workshop.runPython([script], configuration: configuration)
    #expect(found.status == 0 && found.output == plain.output, "\(configuration): \(found.errors)")
    return try #require(found.report, "\(found.errors)")
  }

  @Test(
    "hold what threads put there", arguments: ["policy:immediate", "policy:immediate,strategy:free-then-dontneed", ""])
  func threads(configuration: String) throws {
    let workshop = try Workshop()
    let program =
      churn + """
        import threading, sys
        sys.setswitchinterval(0.0005)
        results = {}
        def work(index): results[index] = churn(index)
        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(results.items()))
        """
    let report = try expectRight(program, configuration: configuration, in: workshop)
    let python = try #require(report.python)
    #expect(report.heap.peakUsedBytes > 8 << 20 && python.arenasAllocated >= 8 && report.heap.ticks > 0)
    #expect(report.jemalloc == nil && report.hooks == nil)
  }

  @Test("are inherited by forks, and both processes go on allocating") func forks() throws {
    let workshop = try Workshop()
    let program =
      churn + """
        import os, sys, threading
        kept = [[str(number)] for number in range(300000)]
        stop = threading.Event()
        def noise():
          while not stop.is_set(): churn(1, 500)
        threading.Thread(target=noise).start()
        children = []
        for index in range(6):
          read, write = os.pipe()
          process = os.fork()
          if process == 0:
            del kept
            answer = churn(index)
            os.write(write, str(answer).encode())
            os._exit(0)
          os.close(write)
          churn(100 + index, 5000)
          children.append((process, read))
        answers = [os.read(read, 100).decode() for process, read in children]
        statuses = [os.waitpid(process, 0)[1] for process, read in children]
        stop.set()
        print(answers, statuses, sum(len(text) for (text,) in kept), churn(7))
        """
    let report = try expectRight(program, configuration: "policy:immediate", in: workshop)
    #expect(report.heap.peakUsedBytes > 30 << 20)
  }

  @Test("of multiprocessing's children are on heaps as well", arguments: ["fork", "spawn", "forkserver"])
  func multiprocessing(method: String) throws {
    let workshop = try Workshop()
    let program =
      churn
        + """
        import multiprocessing, sys
        def work(seed):
          answer = churn(seed, 20000)
          module = sys.modules.get("hugespan")
          return answer, module is not None and module.statistics()["arenas"]["allocations"] > 0
        if __name__ == "__main__":
          print(len(sys.argv))
          with multiprocessing.get_context("METHOD").Pool(3) as pool:
            answers = pool.map(work, range(6))
          print([answer for answer, _ in answers])
          assert len(sys.argv) == 1 or all(on_heap for _, on_heap in answers), answers
        """.replacingOccurrences(of: "METHOD", with: method)
    let script = try workshop.script(program)
    let plain = try workshop.outcome(of: [try #require(pythonInterpreter), script])
    let found = try workshop.runPython([script, "on the heap"], configuration: "policy:immediate")
    #expect(found.status == 0 && found.errors.isEmpty, "\(found.errors)")
    #expect(plain.output.split(separator: "\n").last == found.output.split(separator: "\n").last)
  }

  @Test("from before the installation go back where they came from") func foreign() throws {
    let workshop = try Workshop()
    let parent = (try PreloadedLibrary.pythonPackage() as NSString).deletingLastPathComponent
    let script = try workshop.script(
      """
      import gc
      early = [[number] for number in range(400000)]
      import hugespan
      assert not hugespan.is_installed()
      hugespan.install(policy="immediate", soft_limit="1GiB", huge_pages=True)
      hugespan.install()
      late = [[number] for number in range(400000)]
      assert sum(map(sum, early)) == sum(map(sum, late))
      before = hugespan.statistics()
      assert before["used_pages"] > 5000 and before["arenas"]["foreign_frees"] == 0, before
      del early
      after = hugespan.statistics()
      assert after["arenas"]["foreign_frees"] > 10, after
      del late
      gc.collect()
      end = hugespan.statistics()
      assert end["arenas"]["frees"] > 10 and end["used_pages"] * 4096 == end["arenas"]["used_bytes"], end
      assert hugespan.residency()["used_pages"] == end["used_pages"]
      print("done")
      """)
    let outcome = try workshop.outcome(
      of: [try #require(pythonInterpreter), script],
      environment: ["PYTHONPATH=\(parent)", "HUGESPAN_LIBRARY=\(try PreloadedLibrary.heap.locate(say: { _ in }))"])
    #expect(outcome.status == 0 && outcome.output == "done\n", "\(outcome.errors)")
  }

  @Test("that are free go back to the kernel while the program idles, in a forked child too") func returned() throws {
    let workshop = try Workshop()
    let script = try workshop.script(
      """
      import hugespan, os, sys, time
      def resident():
        with open("/proc/self/statm") as file: return int(file.read().split()[1]) * 4096
      def up_and_down():
        base = resident()
        kept = [[number] for number in range(1000000)]
        up = resident()
        assert up - base > 60 << 20, (base, up)
        arenas = hugespan.statistics()["arenas"]["allocations"]
        del kept
        end = time.monotonic() + 30
        while resident() - base > 16 << 20 and time.monotonic() < end: time.sleep(0.05)
        assert resident() - base <= 16 << 20, (base, up, resident())
        now = hugespan.statistics()
        assert now["arenas"]["allocations"] == arenas and now["pages_released"] > 10000, now
      up_and_down()
      process = os.fork()
      if process == 0:
        up_and_down()
        os._exit(7)
      assert os.waitpid(process, 0)[1] == 7 << 8
      up_and_down()
      print("done")
      """)
    let outcome = try workshop.runPython([script], configuration: "policy:immediate")
    #expect(outcome.status == 0 && outcome.output == "done\n", "\(outcome.errors)")
    #expect(try #require(outcome.report).heap.pagesReleased > 20_000)
  }

  @Test("stop at the hard limit, beyond which the interpreter takes its memory from malloc") func limit() throws {
    let workshop = try Workshop()
    let script = try workshop.script(
      """
      kept = [[number] for number in range(700000)]
      assert sum(map(sum, kept)) == 699999 * 350000
      kept = None
      print("done")
      """)
    let outcome = try workshop.runPython([script], configuration: "hard-limit:48MiB")
    #expect(outcome.status == 0 && outcome.output == "done\n", "\(outcome.errors)")
    let report = try #require(outcome.report)
    #expect(report.heap.peakUsedBytes <= 48 << 20 && report.heap.peakUsedBytes > 40 << 20)
    #expect(try #require(report.python).arenasRefused > 0)
  }
}
