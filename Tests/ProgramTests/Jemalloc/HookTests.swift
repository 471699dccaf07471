// What jemalloc does with its extents, on the heap: every size, threads, zeroed memory, growth in place, arenas made later.

import Foundation
import Testing

@testable import HugeSpanLab

/// Allocates, checks and frees in some threads, by a generator of its own; prints a sum over all it has read.
private let churn = """
  static unsigned long rounds;
  static unsigned long sums[8];
  static void *work(void *argument) {
    unsigned long index = (unsigned long)argument, state = index * 7919 + 1, sum = 0;
    static __thread struct { unsigned char *p; size_t n; unsigned char c; } slots[512];
    for (unsigned long i = 0; i < rounds; i++) {
      state = state * 6364136223846793005ul + 1442695040888963407ul;
      unsigned long r = state >> 33, s = r % 512;
      size_t n = r % 64 == 0 ? r % 5000000 : r % 4 == 0 ? r % 300000 : r % 9000;
      if (slots[s].p && r % 3 == 0) {
        size_t old = slots[s].n;
        slots[s].p = realloc(slots[s].p, n + 1);
        size_t kept = old < n ? old : n;
        for (size_t k = 0; k < kept; k += 1021) if (slots[s].p[k] != slots[s].c) abort();
      } else {
        if (slots[s].p) {
          for (size_t k = 0; k < slots[s].n; k += 1021) {
            if (slots[s].p[k] != slots[s].c) abort();
            sum += slots[s].p[k];
          }
          free(slots[s].p);
        }
        if (r % 5 == 0) {
          slots[s].p = calloc(1, n + 1);
          for (size_t k = 0; k < n; k += 64) if (slots[s].p[k]) abort();
        } else if (r % 7 == 0) {
          size_t alignment = 64ul << r % 17;
          void *p;
          if (posix_memalign(&p, alignment, n + 1) || (uintptr_t)p % alignment) abort();
          slots[s].p = p;
        } else {
          slots[s].p = malloc(n + 1);
        }
      }
      slots[s].n = n;
      slots[s].c = (unsigned char)(r * 31 + 1);
      memset(slots[s].p, slots[s].c, n);
    }
    for (int s = 0; s < 512; s++) free(slots[s].p);
    sums[index] = sum;
    return NULL;
  }
  static unsigned long run(unsigned long threads, unsigned long count) {
    pthread_t made[8];
    rounds = count;
    for (unsigned long i = 0; i < threads; i++) pthread_create(&made[i], NULL, work, (void *)i);
    unsigned long sum = 0;
    for (unsigned long i = 0; i < threads; i++) {
      pthread_join(made[i], NULL);
      sum = sum * 31 + sums[i];
    }
    return sum;
  }

  """

/// The head of a program that asks jemalloc by its name for settings.
private let speaksToJemalloc = """
  #include <dlfcn.h>
  typedef int control(const char *, void *, size_t *, void *, size_t);
  typedef int control_by_mib(const size_t *, size_t, void *, size_t *, void *, size_t);
  typedef int to_mib(const char *, size_t *, size_t *);
  """

@Suite("Under jemalloc", .enabled(if: canRunOnHeap, cannotRunOnHeap)) struct HookTests {
  @Test("eight threads get memory that is theirs, zero where it must be, aligned as asked") func threads() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(churn + "int main(void) { printf(\"%lu\\n\", run(8, 6000)); return 0; }")
    let plain = try #require(try workshop.output(of: [program]))
    for configuration in ["", "policy:immediate,strategy:dontneed", "policy:immediate,strategy:free-then-dontneed"] {
      let outcome = try workshop.runOnHeap([program], configuration: configuration)
      #expect(outcome.status == 0 && outcome.output == plain, "\(configuration): \(outcome.errors)")
      let report = try #require(outcome.report)
      #expect(report.heap.allocations > 1000 && report.heap.frees > 1000 && report.heap.peakUsedBytes > 100 << 20)
      #expect(try #require(report.hooks).growths > 0, "memory is grown in place")
      #expect(report.heap.usedBytes < report.heap.peakUsedBytes / 4)
      #expect(report.jemalloc?.retain == false && report.jemalloc?.dirtyDecayMilliseconds == 0)
    }
  }

  @Test("jemalloc that keeps address space and dirty memory splits and merges extents") func splitsAndMerges() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(churn + "int main(void) { printf(\"%lu\\n\", run(4, 8000)); return 0; }")
    let plain = try #require(try workshop.output(of: [program]))
    for conf in ["dirty_decay_ms:10000", "retain:true,dirty_decay_ms:50,muzzy_decay_ms:50"] {
      let outcome = try workshop.runOnHeap([program], environment: ["MALLOC_CONF=\(conf)"])
      #expect(outcome.status == 0 && outcome.output == plain, "\(conf): \(outcome.errors)")
      let report = try #require(outcome.report)
      let hooks = try #require(report.hooks)
      #expect(hooks.splits > 100 && hooks.merges > 100, "\(conf)")
    }
  }

  @Test("forks while other threads allocate hang neither process") func forks() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      churn + """
        static volatile int stop;
        static void *forks(void *argument) {
          for (int i = 0; i < 60; i++) {
            pid_t child = fork();
            if (child == 0) {
              for (int k = 0; k < 50; k++) {
                unsigned char *p = calloc(1, 40000 + k * 30000);
                if (p[39999]) _exit(1);
                memset(p, 5, 40000);
                p = realloc(p, 3000000);
                if (p[39999] != 5) _exit(2);
                free(p);
              }
              _exit(0);
            }
            int status;
            if (waitpid(child, &status, 0) != child || status) *(int *)argument = 1 + status;
          }
          return NULL;
        }
        int main(void) {
          int failed = 0;
          pthread_t forking;
          pthread_create(&forking, NULL, forks, &failed);
          unsigned long sum = run(4, 6000);
          pthread_join(forking, NULL);
          printf("%lu %d\\n", sum, failed);
          return failed != 0;
        }
        """)
    let plain = try #require(try workshop.output(of: [program]))
    let outcome = try workshop.runOnHeap([program], configuration: "policy:immediate,strategy:dontneed")
    #expect(outcome.status == 0 && outcome.output == plain, "\(outcome.output)\(outcome.errors)")
  }

  @Test("what C++ allocates before main is freed by whom it belongs to", .enabled(if: hasCXX, "needs a C++ compiler"))
  func staticConstructors() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <map>
      #include <string>
      #include <vector>
      #include <stdexcept>
      static std::map<int, std::string> early;
      static std::vector<char> large(12000000, 'x');
      struct Filler { Filler() { for (int i = 0; i < 50000; i++) early[i] = std::string(i % 300, 'a' + i % 26); } } filler;
      int main() {
        unsigned long sum = 0;
        for (auto &entry : early) sum += entry.second.size();
        early.clear();
        large.resize(30000000, 'y');
        large.shrink_to_fit();
        try { throw std::runtime_error("thrown"); } catch (std::exception &error) { sum += error.what()[0]; }
        printf("%lu %c%c\\n", sum, large[0], large[29999999]);
      }
      """, compiler: "c++")
    let plain = try #require(try workshop.output(of: [program]))
    let outcome = try workshop.runOnHeap([program])
    #expect(outcome.status == 0 && outcome.output == plain, "\(outcome.errors)")
    #expect(try #require(outcome.report).heap.peakUsedBytes > 30_000_000)
  }

  @Test("every arena is on the heap: jemalloc's own, that for huge allocations, those that a program makes")
  func arenas() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      \(speaksToJemalloc)
      static void *hooks(control *mallctl, unsigned arena) {
        char name[64];
        void *found = NULL;
        size_t size = sizeof found;
        snprintf(name, sizeof name, "arena.%u.extent_hooks", arena);
        return mallctl(name, &found, &size, NULL, 0) == 0 ? found : NULL;
      }
      int main(void) {
        control *mallctl = (control *)dlsym(RTLD_DEFAULT, "mallctl");
        control_by_mib *by_mib = (control_by_mib *)dlsym(RTLD_DEFAULT, "mallctlbymib");
        unsigned count, made, other;
        size_t size = sizeof count, mib[2], length = 2;
        if (mallctl("arenas.narenas", &count, &size, NULL, 0)) return 2;
        size = sizeof made;
        if (mallctl("arenas.create", &made, &size, NULL, 0)) return 3;
        ((to_mib *)dlsym(RTLD_DEFAULT, "mallctlnametomib"))("arenas.create", mib, &length);
        size = sizeof other;
        if (by_mib(mib, 2, &other, &size, NULL, 0)) return 4;
        void *first = hooks(mallctl, 0);
        for (unsigned arena = 0; arena < count; arena++) if (hooks(mallctl, arena) != first) return 10 + arena;
        if (made == other || hooks(mallctl, made) != first || hooks(mallctl, other) != first) return 5;
        void *(*mallocx)(size_t, int) = (void *(*)(size_t, int))dlsym(RTLD_DEFAULT, "mallocx");
        void *p = mallocx(3000000, (int)(made + 1) << 20);
        memset(p, 1, 3000000);
        char name[64];
        snprintf(name, sizeof name, "arena.%u.destroy", made);
        if (mallctl(name, NULL, NULL, NULL, 0)) return 6;
        free(malloc(100 << 20));
        return 0;
      }
      """, flags: ["-ldl"])
    let outcome = try workshop.runOnHeap([program])
    #expect(outcome.status == 0, "\(outcome.errors)")
    let report = try #require(outcome.report)
    #expect(report.heap.peakUsedBytes >= 100 << 20 && report.heap.usedBytes < 3_000_000)
  }

  @Test("jemalloc has background threads where it has something to decay, and not where each free would wake them")
  func backgroundThreads() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      \(speaksToJemalloc)
      static control *mallctl;
      static void print(void) {
        char is_on = 7;
        size_t size = 1;
        if (mallctl("background_thread", &is_on, &size, NULL, 0)) exit(2);
        printf("%d", is_on);
      }
      int main(void) {
        mallctl = (control *)dlsym(RTLD_DEFAULT, "mallctl");
        control_by_mib *by_mib = (control_by_mib *)dlsym(RTLD_DEFAULT, "mallctlbymib");
        print();
        char on = 1, off = 0, before = 7;
        size_t size = 1, mib[1], length = 1;
        if (mallctl("background_thread", &before, &size, &on, 1)) return 3;
        print();
        ((to_mib *)dlsym(RTLD_DEFAULT, "mallctlnametomib"))("background_thread", mib, &length);
        if (by_mib(mib, 1, NULL, NULL, &on, 1)) return 4;
        print();
        if (mallctl("background_thread", NULL, NULL, &off, 1)) return 5;
        print();
        return before == 7;
      }
      """, flags: ["-ldl"])
    for (conf, expected) in [
      ("", "0000"), ("background_thread:true", "0000"), ("dirty_decay_ms:1000", "0110"),
      ("dirty_decay_ms:1000,background_thread:true", "1110"), ("muzzy_decay_ms:-1", "0110"),
    ] {
      let outcome = try workshop.runOnHeap([program], environment: ["MALLOC_CONF=\(conf)"])
      #expect(outcome.status == 0 && outcome.output == expected, "\(conf): \(outcome.output) \(outcome.errors)")
    }
  }
}

/// Whether a C++ compiler is there.
let hasCXX = FileManager.default.isExecutableFile(atPath: "/usr/bin/c++")

extension Workshop {
  /// The standard output of a command that succeeds.
  func output(of command: [String]) throws -> String? {
    let file = "\(path)/out\(Int.random(in: 0..<1_000_000))"
    guard try Child(["/bin/sh", "-c", "exec \"$@\" >\(file)", "sh"] + command).wait() == 0 else { return nil }
    return try String(contentsOfFile: file, encoding: .utf8)
  }
}
