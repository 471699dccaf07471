// What shows only with time: address space that leaks, memory that does not come back. An hour passes in seconds, by a clock
// that is preloaded before everything else.

import Foundation
import Testing

@testable import HugeSpanLab

/// Clock and waits, six hundred times as fast.
private let fastClock = """
  #include <dlfcn.h>
  #include <errno.h>
  #include <stdarg.h>
  #include <time.h>
  #include <linux/futex.h>
  #include <sys/syscall.h>
  #define SPEED 600
  int clock_gettime(clockid_t clock, struct timespec *time) {
    static struct timespec base[16];
    if (clock < 0 || clock > 15) { errno = EINVAL; return -1; }
    register long result __asm__("rax");
    long number = SYS_clock_gettime;
    __asm__ volatile("syscall" : "=r"(result) : "0"(number), "D"((long)clock), "S"(time) : "rcx", "r11", "memory");
    if (result != 0 || clock != CLOCK_MONOTONIC) return (int)result;
    if (base[clock].tv_sec == 0) base[clock] = *time;
    long long passed = (time->tv_sec - base[clock].tv_sec) * 1000000000ll + (time->tv_nsec - base[clock].tv_nsec);
    long long now = base[clock].tv_sec * 1000000000ll + passed * SPEED;
    time->tv_sec = now / 1000000000;
    time->tv_nsec = now % 1000000000;
    return 0;
  }
  long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    struct timespec wait;
    if (number == SYS_futex && (a[1] & 127) == FUTEX_WAIT && a[3]) {
      struct timespec *asked = (struct timespec *)a[3];
      long long rest = (asked->tv_sec * 1000000000ll + asked->tv_nsec) / SPEED;
      wait.tv_sec = rest / 1000000000;
      wait.tv_nsec = rest % 1000000000;
      a[3] = (long)&wait;
    }
    register long result __asm__("rax") = number;
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall" : "+r"(result) : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (result < 0 && result > -4096) { errno = (int)-result; return -1; }
    return result;
  }
  """

@Suite("Under jemalloc, in the long run", .enabled(if: canRunOnHeap, cannotRunOnHeap)) struct LongRunTests {
  @Test("an hour of churn leaks no address space, no mapping, no memory") func churn() throws {
    let workshop = try Workshop()
    let clock = try workshop.compile(fastClock, flags: ["-shared", "-fPIC"])
    let program = try workshop.compile(
      """
      #include <time.h>
      static long mappings(void) {
        char line[512];
        long count = 0;
        FILE *file = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, file)) count++;
        fclose(file);
        return count;
      }
      static long virtual_kib(void) {
        char line[512];
        long size = 0;
        FILE *file = fopen("/proc/self/status", "r");
        while (fgets(line, sizeof line, file)) sscanf(line, "VmSize: %ld", &size);
        fclose(file);
        return size;
      }
      static long resident_kib(void) {
        char line[512];
        long size = 0;
        FILE *file = fopen("/proc/self/status", "r");
        while (fgets(line, sizeof line, file)) sscanf(line, "RssAnon: %ld", &size);
        fclose(file);
        return size;
      }
      static double seconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + now.tv_nsec / 1e9;
      }
      int main(void) {
        static char *live[3000];
        unsigned long state = 1;
        double start = seconds(), report = 0;
        while (report < 3600) {
          // A tide of ten minutes: most is freed, and allocated again.
          int low = (long)(report / 300) % 2;
          for (int i = 0; i < 3000; i++) {
            state = state * 6364136223846793005ul + 1442695040888963407ul;
            unsigned long r = state >> 33, slot = r % 3000;
            free(live[slot]);
            live[slot] = low && slot > 500 ? NULL : malloc(r % 50 == 0 ? r % 2000000 : r % 60000);
            if (live[slot]) live[slot][0] = 1;
          }
          double now = seconds() - start;
          // After ten minutes and after an hour, at low tide both.
          if (report < 600 && now >= 600) printf("%ld %ld\\n", virtual_kib(), mappings());
          report = now;
        }
        printf("%ld %ld %ld\\n", virtual_kib(), mappings(), resident_kib());
        for (int i = 0; i < 3000; i++) free(live[i]);
        // However slow the machine: until it is gone, or will not go.
        struct timespec pause = {0, 20000000};
        for (int i = 0; i < 1000 && resident_kib() > 16384; i++) nanosleep(&pause, NULL);
        printf("%ld\\n", resident_kib());
        return 0;
      }
      """)
    for (policy, conf) in [("immediate", ""), ("immediate", "dirty_decay_ms:1000"), ("rent-or-buy", "")] {
      let outcome = try workshop.runOnHeap(
        [program], configuration: "policy:\(policy)", environment: ["MALLOC_CONF=\(conf)"], before: [clock])
      #expect(outcome.status == 0, "\(outcome.errors)")
      let figures = outcome.output.split { $0.isWhitespace }.compactMap { Int($0) }
      try #require(figures.count == 6, "\(outcome.output)")
      #expect(figures[2] <= figures[0] + 8192, "address space in KiB grew from \(figures[0]) to \(figures[2])")
      #expect(figures[3] <= figures[1] + 50, "mappings grew from \(figures[1]) to \(figures[3])")
      // What jemalloc keeps for itself nobody can give back; the rest is gone after an hour as after a minute.
      #expect(figures[4] > 4096, "nothing was in use: \(figures)")
      if conf.isEmpty { #expect(figures[5] <= 16384, "\(policy): \(figures[5]) KiB stay of \(figures[4])") }
      let report = try #require(outcome.report)
      #expect(report.seconds > 3600 && report.heap.ticks > 1000, "the heap's hour was \(report.seconds) s")
      #expect(report.heap.reservedBytes == 1 << 30, "the first arena was enough")
    }
  }

  @Test("resident and charged memory comes back after a drop in load without another allocation") func drop() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <fcntl.h>
      #include <time.h>
      // Without the C library's streams, which allocate: the number behind `key` in a file, or its first.
      static long number(const char *path, const char *key) {
        static char text[8192];
        int file = open(path, O_RDONLY);
        ssize_t count = file < 0 ? 0 : read(file, text, sizeof text - 1);
        if (file >= 0) close(file);
        text[count < 0 ? 0 : count] = 0;
        char *line = strstr(text, key);
        return line ? atol(line + strlen(key)) : -1;
      }
      static long resident_kib(void) { return number("/proc/self/status", "RssAnon:"); }
      static long charged_kib(char *path) { return *path ? number(path, "") / 1024 : -1; }
      int main(int count, char **arguments) {
        static char *live[4000];
        for (int i = 0; i < 4000; i++) { live[i] = malloc(60000); memset(live[i], 1, 60000); }
        long before = resident_kib(), charged = charged_kib(arguments[2]);
        for (int i = 0; i < 4000; i++) if (i % 400) free(live[i]);
        long after = 0, left = 0;
        for (int i = 0; i < atoi(arguments[1]); i++) {
          struct timespec pause = {0, 50000000};
          nanosleep(&pause, NULL);
          after = resident_kib();
          left = charged_kib(arguments[2]);
          if (after < before / 5 && left < charged / 4) break;
        }
        printf("%ld %ld %ld %ld\\n", before, after, charged, left);
        return 0;
      }
      """)
    let group = try? MemoryCgroup.make(under: .find(), number: Int.random(in: 1000..<1_000_000))
    defer { group?.remove() }
    let name = group?.version == .one ? "memory.usage_in_bytes" : "memory.current"
    let charge = group.map { "\($0.directory)/\(name)" }.flatMap { contents(ofFile: $0) == nil ? nil : $0 } ?? ""
    func run(_ looks: Int, _ configuration: String) throws -> (figures: [Int], HeapOutcome) {
      // The shell enters the group, and what it executes is the program.
      let enter = charge.isEmpty ? "" : "echo $$ >'\(group!.directory)/cgroup.procs'; "
      let outcome = try workshop.runOnHeap(
        ["/bin/sh", "-c", "\(enter)exec \"$@\"", "sh", program, "\(looks)", charge], configuration: configuration)
      return (outcome.output.split { $0.isWhitespace }.compactMap { Int($0) }, outcome)
    }
    for policy in ["immediate", "rent-or-buy", "rent-or-buy,scavenger:bare"] {
      let (figures, outcome) = try run(400, "policy:\(policy)")
      try #require(outcome.status == 0 && figures.count == 4, "\(outcome.output)\(outcome.errors)")
      #expect(figures[0] > 220_000 && figures[1] < figures[0] / 5, "\(policy): \(figures)")
      if !charge.isEmpty { #expect(figures[2] > 220_000 && figures[3] < figures[2] / 4, "\(policy): \(figures)") }
      // And what the kernel has is what the heap believes: nothing stays charged that is not resident.
      let report = try #require(outcome.report)
      #expect(report.heap.phantomBytes < 4 << 20)
    }
    // Without the thread it stays.
    let (kept, still) = try run(40, "policy:immediate,scavenger:off")
    try #require(kept.count == 4, "\(still.errors)")
    #expect(kept[1] > kept[0] * 9 / 10, "\(kept)")
  }

  @Test("a daemon releases memory while it idles") func daemon() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <time.h>
      #include <dirent.h>
      int main(void) {
        int pipes[2];
        pipe(pipes);
        if (fork() == 0) {
          setsid();
          int threads = 0;
          DIR *tasks = opendir("/proc/self/task");
          while (readdir(tasks)) threads++;
          char answer = (char)(threads - 2);
          write(pipes[1], &answer, 1);
          _exit(0);
        }
        char answer = 0;
        read(pipes[0], &answer, 1);
        wait(NULL);
        printf("%d\\n", answer);
        return 0;
      }
      """)
    #expect(try workshop.runOnHeap([program]).output == "2\n")
    #expect(try workshop.runOnHeap([program], configuration: "scavenger:bare").output == "2\n")
    #expect(try workshop.runOnHeap([program], configuration: "scavenger:off").output == "1\n")
  }
}
