// Each call of malloc's family becomes the event that it is.

import Foundation
import Testing
import TraceFormat

@testable import HugeSpanLab

@Suite("A recorded program", .enabled(if: canRecord, cannotRecord)) struct AllocationRecordingTests {
  private func birth(_ bytes: Int, _ kind: AllocationKind = .plain, alignment: Int = 1) -> TraceEventBody {
    .allocate(object: 0, bytes: bytes, alignment: alignment, kind: kind)
  }

  @Test("has each of its allocations recorded with kind, size and alignment")
  func kinds() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      int main(void) {
        free(malloc(10007));
        free(calloc(3, 3343));
        void *p = malloc(10037);
        p = realloc(p, 20011);
        p = reallocarray(p, 2, 250009);
        free(p);
        posix_memalign((void **)&sink, 64, 10039); free(sink);
        free(aligned_alloc(256, 10240));
        free(memalign(512, 10061));
        free(valloc(10067));
        free(pvalloc(10069));
        free(realloc(NULL, 10079));
        sink = malloc(10091);
        sink = realloc(sink, 0);
        return 0;
      }
      """, flags: ["-include", "malloc.h"])
    let trace = try workshop.record([program])
    #expect(trace.programEnding == .exited(status: 0))
    #expect(trace.ending == .exited(status: 0))
    let free = TraceEventBody.free(object: 0)
    #expect(try trace.story(ofBirth: 10007) == [birth(10007), free])
    #expect(try trace.story(ofBirth: 10029) == [birth(10029, .zeroed), free])
    #expect(
      try trace.story(ofBirth: 10037)
        == [birth(10037), .resize(object: 0, bytes: 20011), .resize(object: 0, bytes: 500018), free])
    #expect(try trace.story(ofBirth: 10039) == [birth(10039, .aligned, alignment: 64), free])
    #expect(try trace.story(ofBirth: 10240) == [birth(10240, .aligned, alignment: 256), free])
    #expect(try trace.story(ofBirth: 10061) == [birth(10061, .aligned, alignment: 512), free])
    #expect(try trace.story(ofBirth: 10067) == [birth(10067, .aligned, alignment: 4096), free])
    #expect(try trace.story(ofBirth: 12288) == [birth(12288, .aligned, alignment: 4096), free])
    #expect(try trace.story(ofBirth: 10079) == [birth(10079), free])
    #expect(try trace.story(ofBirth: 10091) == [birth(10091), free])
  }

  @Test("has its own anonymous mappings recorded, and what it cuts off them")
  func mappings() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      static char *map(size_t pages) {
        return mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      }
      int main(void) {
        char *a = map(101);
        munmap(a + 100 * 4096, 4096);                       // the tail
        munmap(a + 40 * 4096, 10 * 4096);                   // the middle
        munmap(a, 101 * 4096);                              // the rest
        char *b = map(103);
        b = mremap(b, 103 * 4096, 206 * 4096, MREMAP_MAYMOVE);
        munmap(b, 206 * 4096);
        mmap(NULL, 107 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);   // a reservation is no memory
        mmap(NULL, 109 * 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);    // shared memory is not its own
        char *c = map(113);
        mmap(c, 13 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        return 0;
      }
      """)
    let trace = try workshop.record([program])
    let page = 4096
    let free = TraceEventBody.free(object: 0)
    func mapped(_ pages: Int) -> TraceEventBody { birth(pages * page, .mapped, alignment: page) }
    #expect(
      try trace.story(ofBirth: 101 * page)
        == [mapped(101), .resize(object: 0, bytes: 100 * page), .resize(object: 0, bytes: 90 * page), free])
    #expect(try trace.story(ofBirth: 103 * page) == [mapped(103), .resize(object: 0, bytes: 206 * page), free])
    #expect(trace.births(of: 107 * page).isEmpty)
    #expect(trace.births(of: 109 * page).isEmpty)
    #expect(try trace.story(ofBirth: 113 * page) == [mapped(113), .resize(object: 0, bytes: 100 * page)])
    #expect(try trace.story(ofBirth: 13 * page) == [mapped(13)])
  }

  @Test("written in C++ has its operators recorded once each")
  func operators() throws {
    let workshop = try Workshop()
    let program = try workshop.compile(
      """
      #include <new>
      struct alignas(128) Wide { char c[10240]; };
      int main() {
        delete[] new char[10007];
        delete new Wide;
        delete[] new (std::nothrow) char[10009];
        try { sink = operator new(SIZE_MAX / 2); } catch (const std::bad_alloc &) { return 7; }
        return 0;
      }
      """, flags: ["-std=c++17"], compiler: "c++")
    let trace = try workshop.record([program])
    #expect(trace.programEnding == .exited(status: 7))
    #expect(try trace.story(ofBirth: 10007) == [birth(10007), .free(object: 0)])
    #expect(try trace.story(ofBirth: 10240) == [birth(10240, .aligned, alignment: 128), .free(object: 0)])
    #expect(try trace.story(ofBirth: 10009) == [birth(10009), .free(object: 0)])
  }

  @Test("over jemalloc is recorded before jemalloc, and jemalloc's own mappings are not taken for the program's")
  func jemalloc() throws {
    let server = "/usr/bin/redis-server"
    guard FileManager.default.isExecutableFile(atPath: server) else { return }
    let trace = try Workshop().record([server, "--version"])
    #expect((trace.report?.heapBirths ?? 0) > 50)
    for event in trace.events {
      if case .allocate(_, let bytes, _, .mapped) = event.body { Issue.record("a mapping of \(bytes) bytes") }
    }
  }

  @Test(
    "of any size gives a valid trace with nothing unseen",
    arguments: [["ls", "-l", "/usr"], ["python3", "-c", "print(1)"]])
  func realPrograms(command: [String]) throws {
    guard (try? PreloadableProgram(named: command[0], searchPath: ProcessInfo.processInfo.environment["PATH"])) != nil
    else { return }
    let trace = try Workshop().record(command)
    #expect((trace.report?.heapBirths ?? 0) > 20)
    #expect(trace.report?.unseenReleases == 0)
    #expect(trace.header.arguments == Array(command.dropFirst()))
  }
}
