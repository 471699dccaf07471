// A real log of glibc's mtrace: a program writes it, and what the program did is in the trace.

import Foundation
import Testing

@testable import TraceFormat

/// The library that mtrace works with since glibc 2.34; nil where it is not installed.
private let debugLibrary: String? = ["x86_64-linux-gnu", "aarch64-linux-gnu", "..", "../lib64"].lazy
  .map { "/usr/lib/\($0)/libc_malloc_debug.so.0" }.first { FileManager.default.fileExists(atPath: $0) }

@Suite(
  "A log that glibc's mtrace wrote",
  .enabled(if: hasCompiler && debugLibrary != nil, "needs a C compiler and libc_malloc_debug.so.0"))
struct RealMtraceLogTests {
  private func log(_ body: String) throws -> (events: [TraceEvent], report: LogImport, file: TraceFile) {
    let workshop = try Workshop()
    let program = try workshop.compile("#include <mcheck.h>\n#include <malloc.h>\n" + body)
    let path = workshop.path + "/with blanks.log"
    let status = try Child([
      "/usr/bin/env", "MALLOC_TRACE=\(path)", "LD_PRELOAD=\(debugLibrary!)", program,
    ]).wait()
    #expect(status == 0 || status == 128 + SIGKILL)
    let file = try TraceFile(path: path)
    #expect(ImportFormat.detect(file) == .mtrace)
    var bytes: [UInt8] = []
    var report = LogImport()
    try withoutActuallyEscaping({ (part: UnsafeRawBufferPointer) in bytes.append(contentsOf: part) }) { sink in
      report = try LogImport.run(file, format: .mtrace, program: "log", eventsPerSecond: 5000, to: .function(sink))
    }
    var reader = try TraceReader(TraceFile(bytes))
    var events: [TraceEvent] = []
    while let event = try reader.next() { events.append(event) }
    return (events, report, file)
  }

  private func plain(_ object: Int, _ bytes: Int) -> TraceEventBody {
    .allocate(object: object, bytes: bytes, alignment: 1, kind: .plain)
  }

  @Test("has every call of the program, in order")
  func calls() throws {
    let (events, report, _) = try log(
      """
      int main(void) {
        mtrace();
        void *a = malloc(1001);
        void *b = calloc(10, 301);
        a = realloc(a, 50001);
        void *c = realloc(NULL, 71);
        sink = realloc(c, 0);
        void *d = memalign(4096, 4097);
        size_t huge = SIZE_MAX / 2;
        sink = malloc(huge);
        sink = realloc(b, huge);
        free(b);
        free(d);
        free(a);
        sink = malloc(0);
        muntrace();
        return 0;
      }
      """)
    #expect(
      events.map(\.body) == [
        plain(0, 1001), plain(1, 3010), .resize(object: 0, bytes: 50001), plain(2, 71), .free(object: 2),
        plain(3, 4097), .free(object: 1), .free(object: 3), .free(object: 0), plain(4, 1),
      ])
    #expect(report.failedCalls == 2 && !report.isCut && report.unknownReleases == 0 && report.unseenReleases == 0)
  }

  @Test("of many threads and reused addresses is consistent")
  func threads() throws {
    let (events, report, _) = try log(
      """
      static void *work(void *argument) {
        void *kept = NULL;
        for (int i = 0; i < 2000; i++) {
          void *p = malloc(100 + i % 7);
          kept = realloc(kept, 50 + i);
          free(p);
        }
        free(kept);
        return NULL;
      }
      int main(void) {
        mtrace();
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, NULL);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        muntrace();
        return 0;
      }
      """)
    let births = events.count { if case .allocate(_, 100...106, _, _) = $0.body { true } else { false } }
    // The reallocations grow through these sizes too, but only their first is a birth.
    #expect(births == 4 * 2000 && !report.isCut && report.failedCalls == 0)
    let resizes = events.count { if case .resize = $0.body { true } else { false } }
    // A thread can free between its release and the log's line of it, and another get the same address and log that first.
    #expect(abs(resizes - 4 * 1999) <= report.unknownReleases && report.unseenReleases < births / 20)
  }

  @Test("of a program that is killed is cut, and says so")
  func killed() throws {
    let (events, report, file) = try log(
      """
      int main(void) {
        mtrace();
        for (int i = 0; i < 1000; i++) sink = malloc(1000 + i);
        kill(getpid(), 9);
      }
      """.replacingOccurrences(of: "kill(", with: "extern int kill(pid_t, int); kill("))
    #expect(events.count > 500 && events.count < 1000)
    #expect(report.isCut == (file.bytes.last != 0x0A))
    #expect(events.enumerated().allSatisfy { $1.body == plain($0, 1000 + $0) })
  }
}
