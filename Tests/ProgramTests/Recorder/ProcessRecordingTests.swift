// Threads, children, other images, crashes: what a process can do to its recording.

import Foundation
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("A recorded process", .enabled(if: canRecord, cannotRecord)) struct ProcessRecordingTests {
  @Test("has all its threads recorded, and what one frees for another in the right order")
  func threads() throws {
    let workshop = try Workshop()
    // Each thread hands its blocks to the next through a slot: addresses are born and freed by different threads and
    // reused at once.
    let program = try workshop.compile(
      """
      enum { count = 4, rounds = 20000 };
      static void *slots[count];
      static void *work(void *argument) {
        int me = (int)(intptr_t)argument;
        for (int i = 0; i < rounds; i++) {
          void *p = malloc(10007);
          free(__atomic_exchange_n(&slots[(me + i) % count], p, __ATOMIC_ACQ_REL));
        }
        return NULL;
      }
      int main(void) {
        for (int turn = 0; turn < 3; turn++) {
          pthread_t threads[count];
          for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);
          for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
        }
        return 0;
      }
      """)
    let trace = try workshop.record([program])
    let births = trace.births(of: 10007)
    #expect(births.count == 3 * 4 * 20000)
    #expect(Set(births.map(\.event.thread)).count == 12)
    #expect(trace.report?.unseenReleases == 0)
    #expect(trace.report?.unknownReleases ?? .max < 10)
    let live = births.count - trace.events.reduce(0) { $0 + (isFree($1) ? 1 : 0) }
    #expect(live <= 4 + 200)
  }

  private func isFree(_ event: TraceEvent) -> Bool {
    if case .free = event.body { return true }
    return false
  }

  @Test("goes on being recorded after a fork, and its child is not, however it was made")
  func fork() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <sys/syscall.h>
      #include <signal.h>
      static void child(size_t bytes) {
        for (int i = 0; i < 30000; i++) { sink = malloc(bytes); free(sink); }
        _exit(0);
      }
      int main(void) {
        sink = malloc(10007);
        if (fork() == 0) child(10037);
        wait(NULL);
        if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0) child(10039);
        wait(NULL);
        if (vfork() == 0) execl("/bin/true", "true", NULL);
        wait(NULL);
        sink = malloc(10061);
        for (int i = 0; i < 30000; i++) free(malloc(10067));
        return 0;
      }
      """)
    let trace = try workshop.record([program])
    #expect(trace.births(of: 10007).count == 1)
    #expect(trace.births(of: 10037).isEmpty)
    #expect(trace.births(of: 10039).isEmpty)
    #expect(trace.births(of: 10061).count == 1)
    #expect(trace.births(of: 10067).count == 30000)
    #expect(trace.report?.replacedImages == 0)
  }

  @Test("that replaces itself loses its objects and goes on being recorded")
  func exec() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(int count, char **arguments) {
        if (count == 1) {
          sink = malloc(10007);
          sink = mmap(NULL, 103 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          execl(arguments[0], arguments[0], "again", NULL);
        }
        sink = malloc(10009);
        return 5;
      }
      """)
    let trace = try workshop.record([program])
    #expect(trace.programEnding == .exited(status: 5))
    #expect(trace.report?.replacedImages == 1)
    #expect(try trace.story(ofBirth: 10007).last == .free(object: 0))
    #expect(try trace.story(ofBirth: 103 * 4096).last == .free(object: 0))
    #expect(try trace.story(ofBirth: 10009).count == 1)
  }

  @Test(
    "that crashes leaves everything it did, and the signal",
    arguments: [(6, "abort();"), (9, "raise(9);"), (11, "*(volatile int *)0 = 1;")])
  func crash(signal: Int, how: String) throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <signal.h>
      #include <sys/resource.h>
      int main(void) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        for (int i = 0; i < 25000; i++) sink = malloc(10007);
        \(how)
        return 0;
      }
      """)
    let trace = try workshop.record([program])
    #expect(trace.programEnding == .signalled(signal: Int32(signal)))
    #expect(trace.ending == .signalled(signal: signal))
    #expect(trace.births(of: 10007).count == 25000)
  }

  @Test("is sampled at least every 100 ms, give or take a busy machine")
  func samples() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(void) {
        char *p = malloc(8 << 20);
        memset(p, 1, 8 << 20);
        usleep(700000);
        return 0;
      }
      """)
    let trace = try workshop.record([program])
    let samples = trace.events.compactMap { event -> ProgramSample? in
      if case .sample(let sample) = event.body { return sample }
      return nil
    }
    #expect(samples.count >= 4)
    #expect((samples.map(\.anonymousBytes).max() ?? 0) >= 8 << 20)
    #expect(zip(samples, samples.dropFirst()).allSatisfy { $0.cpuNanoseconds <= $1.cpuNanoseconds })
    #expect((samples.last?.minorFaults ?? 0) > 0)
  }
}
