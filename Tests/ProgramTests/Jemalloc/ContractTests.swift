// The hooks called as jemalloc calls them, one by one: what they must do, what they must refuse, and what they hold against
// jemalloc's manual in a debug build.

import Foundation
import Testing

@testable import HugeSpanLab

/// jemalloc's table of hooks, and how a program gets at the one that is installed.
private let hooks = """
  #include <dlfcn.h>
  #include <stdbool.h>
  #include <sys/mman.h>
  typedef struct hooks hooks;
  struct hooks {
    void *(*alloc)(hooks *, void *, size_t, size_t, bool *, bool *, unsigned);
    bool (*dalloc)(hooks *, void *, size_t, bool, unsigned);
    void (*destroy)(hooks *, void *, size_t, bool, unsigned);
    bool (*commit)(hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*decommit)(hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*purge_lazy)(hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*purge_forced)(hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*split)(hooks *, void *, size_t, size_t, size_t, bool, unsigned);
    bool (*merge)(hooks *, void *, size_t, void *, size_t, bool, unsigned);
  };
  static hooks *h;
  static void find(void) {
    int (*mallctl)(const char *, void *, size_t *, void *, size_t) =
        (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
    size_t size = sizeof h;
    if (mallctl("arena.0.extent_hooks", &h, &size, NULL, 0)) exit(2);
  }
  static bool is_zero, is_committed;
  static char *get(void *at, size_t size, size_t alignment, bool zero) {
    is_zero = zero;
    is_committed = false;
    return h->alloc(h, at, size, alignment, &is_zero, &is_committed, 0);
  }
  static bool reads_zero(char *p, size_t size) {
    for (size_t i = 0; i < size; i++) if (p[i]) return false;
    return true;
  }
  #define P 4096ul
  #define CHECK(what) if (!(what)) { printf("line %d: %s\\n", __LINE__, #what); fflush(stdout); _exit(1); }

  """

@Suite("The hooks under jemalloc", .enabled(if: canRunOnHeap, cannotRunOnHeap)) struct ContractTests {
  /// Without a thread that releases: a range that is on its way to the kernel cannot be had for a moment.
  private static let undisturbed = "policy:immediate,scavenger:off"

  private func expectHeld(_ body: String, configuration: String = "policy:immediate") throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      hooks + "int main(void) {\n  find();\n" + body + "\n  return 0;\n}", flags: ["-ldl"])
    let outcome = try workshop.runOnHeap([program], configuration: configuration)
    #expect(outcome.status == 0 && outcome.output.isEmpty, "\(outcome.output)\(outcome.errors)")
  }

  @Test("give sizes and alignments as asked, committed, and zero where it was asked for") func allocation() throws {
    try expectHeld(
      """
        for (size_t alignment = P; alignment <= 8 << 20; alignment *= 2) {
          for (size_t pages = 1; pages < 3000; pages = pages * 3 + 1) {
            char *p = get(NULL, pages * P, alignment, false);
            CHECK(p && (uintptr_t)p % alignment == 0 && is_committed);
            // Never called zero without being so.
            CHECK(!is_zero || reads_zero(p, pages * P));
            memset(p, 1, pages * P);
            CHECK(!h->dalloc(h, p, pages * P, true, 0));
            // Dirty memory comes back, and must be cleared when that was asked for.
            p = get(NULL, pages * P, alignment, true);
            CHECK(p && is_zero && reads_zero(p, pages * P));
            memset(p, 2, pages * P);
            CHECK(!h->dalloc(h, p, pages * P, true, 0));
          }
        }
      """)
  }

  @Test("answer a wished address exactly, or not at all") func newAddress() throws {
    try expectHeld(
      """
        char *p = get(NULL, 64 * P, P, false);
        memset(p, 1, 64 * P);
        CHECK(get(p, P, P, false) == NULL);
        CHECK(get(p + 63 * P, 2 * P, P, false) == NULL);
        CHECK(!h->dalloc(h, p + 32 * P, 32 * P, true, 0));
        CHECK(get(p + 31 * P, 2 * P, P, false) == NULL);
        char *grown = get(p + 32 * P, 16 * P, P, true);
        CHECK(grown == p + 32 * P && is_zero && reads_zero(grown, 16 * P));
        CHECK(!h->merge(h, p, 32 * P, grown, 16 * P, true, 0));
        CHECK(!h->dalloc(h, p, 48 * P, true, 0));
        // Foreign, and nobody's.
        char *other = mmap(NULL, 4 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(get(other, P, P, false) == NULL);
        munmap(other, 4 * P);
        CHECK(get(other, P, P, false) == NULL);
      """, configuration: Self.undisturbed)
  }

  @Test("take back any part and any union of what was handed out") func ranges() throws {
    try expectHeld(
      """
        char *p = get(NULL, 1500 * P, 2 << 20, false);
        memset(p, 1, 1500 * P);
        CHECK(!h->split(h, p, 1500 * P, 700 * P, 800 * P, true, 0));
        CHECK(!h->split(h, p + 700 * P, 800 * P, 1 * P, 799 * P, true, 0));
        CHECK(!h->dalloc(h, p + 600 * P, 300 * P, true, 0));
        CHECK(!h->dalloc(h, p + 10 * P, P, true, 0));
        h->destroy(h, p, 10 * P, true, 0);
        char *q = get(p + 600 * P, 300 * P, P, false);
        CHECK(q == p + 600 * P);
        // What was two extents, and a third from elsewhere between them, goes as one.
        CHECK(!h->merge(h, p + 11 * P, 589 * P, q, 300 * P, true, 0));
        CHECK(!h->dalloc(h, p + 11 * P, 1489 * P, true, 0));
      """, configuration: Self.undisturbed)
  }

  @Test("leave releasing to the heap: decommitting and purging are refused, and nothing is lost") func purges() throws {
    try expectHeld(
      """
        char *p = get(NULL, 600 * P, P, false);
        memset(p, 7, 600 * P);
        CHECK(h->decommit(h, p, 600 * P, 0, 600 * P, 0));
        CHECK(h->purge_lazy(h, p, 600 * P, 100 * P, 200 * P, 0));
        CHECK(h->purge_forced(h, p, 600 * P, 100 * P, 200 * P, 0));
        CHECK(!h->commit(h, p, 600 * P, 0, 600 * P, 0));
        for (size_t i = 0; i < 600 * P; i++) CHECK(p[i] == 7);
        CHECK(!h->dalloc(h, p, 600 * P, true, 0));
      """)
  }

  @Test("never join memory of the heap with other memory; what is not the heap's goes to the hooks before")
  func foreign()
    throws
  {
    try expectHeld(
      """
        char *p = get(NULL, P, P, false);
        // The ends of the arena: the first boundaries over which nothing is joined.
        char *end = (char *)(((uintptr_t)p + (2 << 20)) & ~((2ul << 20) - 1));
        while (!h->merge(h, end - P, P, end, P, true, 0)) end += 2 << 20;
        char *start = (char *)((uintptr_t)p & ~((2ul << 20) - 1));
        while (!h->merge(h, start - P, P, start, P, true, 0)) start -= 2 << 20;
        CHECK(start <= p && p < end && (size_t)(end - start) % (2 << 20) == 0);
        CHECK(!h->dalloc(h, p, P, true, 0));
        char *other = mmap(NULL, 64 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(other, 1, 64 * P);
        // jemalloc's own answers: it can cut and join mappings, and unmaps them.
        CHECK(!h->split(h, other, 64 * P, 16 * P, 48 * P, true, 0));
        CHECK(!h->merge(h, other, 16 * P, other + 16 * P, 48 * P, true, 0));
        CHECK(!h->purge_forced(h, other, 64 * P, 0, 64 * P, 0) && reads_zero(other, 64 * P));
        CHECK(!h->dalloc(h, other, 64 * P, true, 0));
        unsigned char present[64];
        CHECK(mincore(other, 64 * P, present) != 0);
      """)
  }

  #if DEBUG
    @Test(
      "hold their arguments against the manual in a debug build",
      arguments: [
        "get(NULL, 100, P, false)", "get(NULL, P, 3 * P, false)", "get(NULL, P, 64, false)",
        "h->dalloc(h, p + 8, P, true, 0)", "h->dalloc(h, p, 0, true, 0)", "h->dalloc(h, p, P, false, 0)",
        "h->split(h, p, 4 * P, 3 * P, 2 * P, true, 0)", "h->split(h, p, 4 * P, 0, 4 * P, true, 0)",
        "h->merge(h, p, P, p + 2 * P, P, true, 0)", "h->commit(h, p, 4 * P, 3 * P, 2 * P, 0)",
        "h->purge_lazy(h, p, 4 * P, 100, P, 0)",
      ])
    func assertions(call: String) throws {
      let workshop = try Workshop()
      let program = try workshop.compile(
        hooks + "int main(void) { find(); char *p = get(NULL, 4 * P, P, false); \(call); return 0; }", flags: ["-ldl"])
      let outcome = try workshop.runOnHeap([program])
      #expect(outcome.status >= 128, "\(call) ended with \(outcome.status)")
    }
  #endif
}
