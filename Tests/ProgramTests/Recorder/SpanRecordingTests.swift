// Real programs recorded at the page heap's door, and their replay.

import Foundation
import HugeSpanCore
import Testing
import TraceFormat

@testable import HugeSpanLab

/// A trace of spans with what is asked of it most.
private struct RecordedSpans {
  let path: String
  let programEnding: ProgramEnding
  let report: ConversionReport
  let summary: TraceSummary
  let events: [TraceEvent]
}

extension Workshop {
  /// Records what jemalloc asks of the heap for a program, and reads the trace. The heap's own report goes to `heap.json`.
  fileprivate func recordSpans(_ command: [String], environment: [String] = []) throws -> RecordedSpans {
    let output = "\(path)/spans\(Int.random(in: 0..<1_000_000)).hstrace"
    let (ending, report) = try HugeSpanLab.record(
      RecordingRequest(
        output: output,
        command: ["/usr/bin/env", "HUGESPAN_CONF=statistics:\(path)/heap.json"] + environment + command, level: .span)
    ) { _ in }
    var reader = try TraceReader(path: output)
    var events: [TraceEvent] = []
    while let event = try reader.next() { events.append(event) }
    return RecordedSpans(
      path: output, programEnding: ending, report: report, summary: try TraceSummary(of: TraceReader(path: output)),
      events: events)
  }

  /// What the heap reported at the end of the recorded program.
  fileprivate var heapReport: HeapReport? {
    (try? String(contentsOfFile: "\(path)/heap.json", encoding: .utf8)).flatMap(HeapReport.init(json:))
  }
}

/// Allocates and frees in a way that makes jemalloc grow, shrink and give back spans of many lengths.
private let churn = """
  static void churn(unsigned long state, int rounds) {
    static __thread struct { char *p; size_t n; } slots[256];
    for (int i = 0; i < rounds; i++) {
      state = state * 6364136223846793005ul + 1442695040888963407ul;
      unsigned long r = state >> 33, s = r % 256;
      size_t n = r % 16 == 0 ? r % 3000000 : r % 3 == 0 ? r % 200000 : r % 9000;
      if (r % 5 == 0) {
        slots[s].p = realloc(slots[s].p, n + 1);
      } else {
        free(slots[s].p);
        slots[s].p = r % 7 == 0 ? calloc(1, n + 1) : malloc(n + 1);
      }
      memset(slots[s].p, 1, n + 1);
      slots[s].n = n;
    }
    for (int s = 0; s < 256; s += 2) {
      free(slots[s].p);
      slots[s].p = NULL;
    }
  }

  """

@Suite("A recording of spans", .enabled(if: canRunOnHeap, cannotRunOnHeap)) struct SpanRecordingTests {
  @Test("has the pages in use that the heap saw, at its end and at its peak, and so has its replay")
  func usedBytes() throws {
    for conf in ["", "dirty_decay_ms:10000,muzzy_decay_ms:10000"] {
      let workshop = try Workshop()
      let program = try workshop.compile(
        churn + """
          #include <dlfcn.h>
          int main(void) {
            churn(1, 40000);
            // Where jemalloc keeps what is freed, it cuts the next extents from that and gives back the rest later.
            int (*mallctl)(const char *, void *, size_t *, void *, size_t) =
                (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
            for (int i = 0; i < 20; i++) {
              free(malloc(4 << 20));
              void *head = malloc(1 << 20);
              sink = malloc(1 << 20);
              free(head);
              mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
            }
            return 0;
          }
          """, flags: ["-ldl"])
      let recorded = try workshop.recordSpans([program], environment: ["MALLOC_CONF=\(conf)"])
      #expect(recorded.programEnding == .exited(status: 0))
      #expect(recorded.report.unseenReleases == 0 && recorded.report.unknownReleases == 0)
      #expect(recorded.report.replacedImages == 1, "env became the program")
      let heap = try #require(workshop.heapReport).heap
      #expect(heap.usedBytes > 1 << 20)
      #expect(recorded.summary.liveAtEnd == heap.usedBytes, "\(conf)")
      // Header and samples are most of a trace with few events.
      if recorded.summary.events > 2000 {
        #expect(recorded.summary.bytesPerEvent <= 5, "\(recorded.summary.bytesPerEvent) bytes an event")
      }

      let trace = try TraceProgram(path: recorded.path)
      var options = HeapOptions()
      options.policy = .immediate
      var frontEnd = FrontEnd(
        heap: try PageHeapCore(kernel: LinuxKernel(), options: options), program: trace, touch: .none)
      for index in 0..<trace.steps.count {
        try frontEnd.perform(trace.steps[index])
        if index % 500 == 0 {
          _ = frontEnd.heap.tick(at: trace.steps[index].time, processCPU: 0)
          frontEnd.heap.checkInvariants()
        }
      }
      frontEnd.heap.checkInvariants()
      #expect(frontEnd.heap.statistics().usedPages * 4096 == heap.usedBytes, "\(conf)")
      if conf.isEmpty {
        // What `env` used before it became the program is far less.
        #expect(frontEnd.meter.peakUsedPages * 4096 == heap.peakUsedBytes)
      } else {
        #expect(recorded.summary.partialFrees > 0, "spans are cut and joined")
      }
      #expect(recorded.summary.growths > 0 && recorded.summary.births[.zeroed] ?? 0 > 0)
    }
  }

  @Test("has all threads in it, in an order that is possible")
  func threads() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      churn + """
        static void *work(void *argument) {
          churn((unsigned long)argument, 4000);
          return NULL;
        }
        int main(void) {
          for (unsigned long round = 0; round < 20; round++) {
            pthread_t made[4];
            for (unsigned long i = 0; i < 4; i++) pthread_create(&made[i], NULL, work, (void *)(round * 4 + i));
            for (int i = 0; i < 4; i++) pthread_join(made[i], NULL);
          }
          return 0;
        }
        """)
    let recorded = try workshop.recordSpans([program])
    #expect(recorded.programEnding == .exited(status: 0))
    #expect(recorded.report.unseenReleases == 0 && recorded.report.unknownReleases == 0)
    #expect(recorded.summary.threads >= 81 && recorded.summary.events > 1000)
    #expect(recorded.summary.liveAtEnd == workshop.heapReport?.heap.usedBytes)
  }

  @Test("is of the process that was started: its children are not in it")
  func children() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(void) {
        sink = malloc(10 << 20);
        for (int i = 0; i < 8; i++) {
          if (fork() == 0) {
            for (int k = 0; k < 100; k++) free(malloc(40 << 20));
            _exit(0);
          }
        }
        while (wait(NULL) > 0) {}
        sink = malloc(70 << 20);
        return 0;
      }
      """)
    let recorded = try workshop.recordSpans([program])
    #expect(recorded.summary.peak.liveBytes >= 80 << 20 && recorded.summary.peak.liveBytes < 95 << 20)
    let births = recorded.events.count {
      if case .allocateSpan(_, let pages, _) = $0.body { pages >= (40 << 20) >> 12 } else { false }
    }
    #expect(births == 1)
  }

  @Test("ends where the program crashes, and has everything until then")
  func crash() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <sys/resource.h>
      int main(void) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        for (int i = 0; i < 2000; i++) sink = malloc(100 << 10);
        abort();
      }
      """)
    let recorded = try workshop.recordSpans([program])
    #expect(recorded.programEnding == .signalled(signal: 6))
    #expect(recorded.summary.ending == .signalled(signal: 6))
    #expect(recorded.summary.liveAtEnd >= 2000 * 100 << 10)
  }

  @Test("is not made by the recorder of malloc, nor a recording of malloc by the front end")
  func levels() throws {
    let workshop = try Workshop()
    let program = try workshop.compile("int main(void) { sink = malloc(9000000); return 0; }")
    // Both libraries are in the program, and both find the log.
    let recorder = try PreloadedLibrary.recorder.locate { _ in }
    let recorded = try workshop.recordSpans(
      [program], environment: ["LD_PRELOAD=\(try #require(jemallocPreload)) \(recorder)"])
    #expect(recorded.summary.header.level == .span && recorded.summary.events > 1)
    let preload = "LD_PRELOAD=\(recorder) \(try #require(jemallocPreload))"
    let objects = try workshop.record(["/usr/bin/env", preload, program])
    #expect(objects.header.level == .malloc && objects.births(of: 9_000_000).count == 1)
  }

  @Test("by the command: exit status, levels that exclude each other")
  func command() throws {
    let command = try #require(commandPath())
    let workshop = try Workshop()
    let trace = workshop.path + "/t.hstrace"
    func status(_ arguments: [String]) throws -> Int32 { try Child([command] + arguments).wait() }
    #expect(try status(["record", "--level", "span", "-o", trace, "--", "/bin/sh", "-c", "exit 42"]) == 42)
    #expect(try TraceReader(path: trace).header.level == .span)
    let raw = [
      "record", "--level", "span", "--keep-raw", "-o", trace, "--", "/bin/sh", "-c", "echo $(seq 9999) >/dev/null",
    ]
    #expect(try status(raw) == 0)
    let later = workshop.path + "/later.hstrace"
    #expect(try status(["record", "--convert", trace + ".raw", "-o", later]) == 0)
    let events = try Recorded(path: later).events
    #expect(try events == Recorded(path: trace).events && events.count > 1)
    #expect(try status(["trace", "info", trace]) == 0)
    #expect(try status(["replay", trace, "--touch", "none"]) == 0)
    #expect(try status(["trace", "export", trace, "-o", workshop.path + "/t.csv"]) == 0)
    #expect(try status(["trace", "import", workshop.path + "/t.csv", "-o", trace]) == 0)
    #expect(try status(["record", "--frontend", "jemalloc", "-o", trace, "--", "/bin/true"]) == 64)
    #expect(try status(["record", "--level", "page", "-o", trace, "--", "/bin/true"]) == 64)
  }
}
