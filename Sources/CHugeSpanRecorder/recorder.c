// The interposed half of the recorder: the symbols that stand before the allocator's, and the way to it.
//
// In C because Embedded Swift has neither thread-locals, nor variadic calls, nor a way to define a symbol such as
// `malloc` without its runtime getting in between. What is done with a segment of the log is in Recorder.swift.
//
// Three rules make it safe under any program:
//  - nothing here allocates: state is static, or mapped by system calls;
//  - a call made while another of ours is under way on the same thread (an allocator that maps its chunks, dlsym that
//    wants a buffer) is passed on and not recorded;
//  - whatever fails ends the recording, never the program.

#define _GNU_SOURCE
#include "log_writer.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

static __thread hs_cursor cursor __attribute__((tls_model("initial-exec")));

/// NULL until this process records. The page behind it is wiped in a forked child.
static hs_state *state;

// ---- The next allocator ----

static struct {
  void *(*malloc)(size_t);
  void *(*calloc)(size_t, size_t);
  void *(*realloc)(void *, size_t);
  void (*free)(void *);
  int (*posix_memalign)(void **, size_t, size_t);
  void *(*aligned_alloc)(size_t, size_t);
  void *(*memalign)(size_t, size_t);
  /// The object that holds the allocator: maps that it makes are its own business.
  uintptr_t start, end;
} next;

/// Served while the next allocator is being looked up: dlsym itself wants a few bytes (40 to 200, seen). Never given back.
static char bootstrap[16384] __attribute__((aligned(16)));
static size_t bootstrap_used;

static bool from_bootstrap(const void *p) {
  return (uintptr_t)p - (uintptr_t)bootstrap < sizeof bootstrap;
}

static void *bootstrap_allocate(size_t bytes, size_t alignment) {
  uintptr_t base = (uintptr_t)bootstrap;
  size_t offset = ((base + bootstrap_used + alignment - 1) & ~(alignment - 1)) - base;
  if (offset > sizeof bootstrap || bytes > sizeof bootstrap - offset) return NULL;
  bootstrap_used = offset + bytes;
  return bootstrap + offset;
}

static int find_allocator(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size, (void)context;
  uintptr_t target = (uintptr_t)next.malloc, low = UINTPTR_MAX, high = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    if (start < low) low = start;
    if (start + info->dlpi_phdr[i].p_memsz > high) high = start + info->dlpi_phdr[i].p_memsz;
  }
  if (target < low || target >= high) return 0;
  next.start = low;
  next.end = high;
  return 1;
}

/// Looks the next allocator up. The first call of any interposed function comes here, when only one thread exists.
static __attribute__((noinline)) void resolve(void) {
  static bool resolving;
  if (resolving) return;
  resolving = true;
  cursor.depth++;
  next.calloc = dlsym(RTLD_NEXT, "calloc");
  next.realloc = dlsym(RTLD_NEXT, "realloc");
  next.free = dlsym(RTLD_NEXT, "free");
  next.posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  next.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
  next.memalign = dlsym(RTLD_NEXT, "memalign");
  next.malloc = dlsym(RTLD_NEXT, "malloc");
  dl_iterate_phdr(find_allocator, NULL);
  // The allocator sets itself up now, under the depth above, so that the maps it begins with are not taken for the
  // program's.
  next.free(next.malloc(1));
  cursor.depth--;
}

// ---- Starting ----

static pthread_key_t exit_key;
static bool exit_key_made;

static void thread_exits(void *value) {
  (void)value;
  hs_state *s = state;
  if (s && s->active) hs_recorder_retire(s, &cursor);
}

/// Attaches to the log as soon as there is an environment to name it: libstdc++ allocates before our constructor runs.
static __attribute__((noinline)) void start(char **environment) {
  static uint32_t started;
  if (!environment || !hs_exchange(&started, 0, 1)) return;
  size_t length = strlen(HS_LOG_VARIABLE);
  for (char **entry = environment; *entry; entry++) {
    if (strncmp(*entry, HS_LOG_VARIABLE, length) != 0 || (*entry)[length] != '=') continue;
    int error = errno;
    cursor.depth++;
    if (!next.malloc) resolve();
    exit_key_made = pthread_key_create(&exit_key, thread_exits) == 0;
    hs_state *attached = hs_recorder_attach(*entry + length + 1, HS_LOG_LEVEL_MALLOC);
    __atomic_store_n(&state, attached, __ATOMIC_RELEASE);
    cursor.depth--;
    errno = error;
    return;
  }
}

static __attribute__((constructor(101))) void constructed(int count, char **arguments, char **environment) {
  (void)count, (void)arguments;
  if (!next.malloc) resolve();
  start(environment);
}

// ---- Records ----

/// Gives the thread a new segment, and sees to it that it is taken back when the thread ends.
static __attribute__((noinline)) bool refill(hs_state *s) {
  int error = errno;
  cursor.depth++;
  bool first = cursor.thread == 0;
  bool refilled = hs_recorder_refill(s, &cursor);
  // Some thread-specific data is allocated by calloc: under our depth, so it is passed on.
  if (refilled && first && exit_key_made) pthread_setspecific(exit_key, s);
  cursor.depth--;
  errno = error;
  return refilled;
}

static inline __attribute__((always_inline)) void append(hs_state *s, unsigned kind, unsigned alignment,
                                                         uint64_t time, const void *address, size_t bytes) {
  if (UNLIKELY(cursor.next == cursor.end) && !refill(s)) return;
  uint64_t head = (time - s->start_monotonic) & ((1ull << HS_LOG_TIME_BITS) - 1);
  hs_store_record(&cursor, head | (uint64_t)kind << 48 | (uint64_t)alignment << 56, (uint64_t)(uintptr_t)address, bytes);
}

/// The state, when a call made now is to be recorded: the process records, and the call is not made from inside another.
static inline __attribute__((always_inline)) hs_state *recording(void) {
  hs_state *s = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
  if (UNLIKELY(!s)) {
    extern char **environ;
    // Whoever maps memory before anybody has allocated is an allocator that sets itself up, with its locks held.
    if (cursor.depth == 0 && next.malloc) start(environ);
    s = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
    if (!s) return NULL;
  }
  return LIKELY(s->active && cursor.depth == 0) ? s : NULL;
}

static inline void *born(hs_state *s, unsigned kind, size_t alignment, void *p, size_t bytes) {
  if (s && LIKELY(p != NULL)) append(s, kind, (unsigned)__builtin_ctzll(alignment), hs_monotonic(), p, bytes);
  return p;
}

// ---- malloc and its family ----

EXPORT void *malloc(size_t bytes) {
  if (UNLIKELY(!next.malloc)) {
    resolve();
    if (!next.malloc) return bootstrap_allocate(bytes, 16);
  }
  hs_state *s = recording();
  cursor.depth++;
  void *p = next.malloc(bytes);
  cursor.depth--;
  return born(s, HS_LOG_MALLOC, 1, p, bytes);
}

EXPORT void *calloc(size_t count, size_t size) {
  if (UNLIKELY(!next.malloc)) {
    resolve();
    size_t bytes;
    // The bootstrap buffer is static and handed out once: it is zero.
    if (!next.malloc) return __builtin_mul_overflow(count, size, &bytes) ? NULL : bootstrap_allocate(bytes, 16);
  }
  hs_state *s = recording();
  cursor.depth++;
  void *p = next.calloc(count, size);
  cursor.depth--;
  return born(s, HS_LOG_CALLOC, 1, p, count * size);
}

EXPORT void free(void *p) {
  if (UNLIKELY(!next.malloc)) resolve();
  if (UNLIKELY(p == NULL || from_bootstrap(p) || !next.free)) return;
  hs_state *s = recording();
  if (LIKELY(s != NULL)) append(s, HS_LOG_FREE, 0, hs_monotonic(), p, 0);
  cursor.depth++;
  next.free(p);
  cursor.depth--;
}

EXPORT void *realloc(void *old, size_t bytes) {
  if (old == NULL) return malloc(bytes);
  if (UNLIKELY(!next.malloc)) resolve();
  if (UNLIKELY(from_bootstrap(old))) {
    void *p = malloc(bytes);
    size_t room = (size_t)(bootstrap + sizeof bootstrap - (char *)old);
    if (p) memcpy(p, old, bytes < room ? bytes : room);
    return p;
  }
  // Size 0 frees in glibc and jemalloc; an allocator that returns an object instead is a birth after that death.
  hs_state *s = recording();
  if (s) append(s, bytes ? HS_LOG_REALLOC_BEGIN : HS_LOG_FREE, 0, hs_monotonic(), old, 0);
  cursor.depth++;
  void *p = next.realloc(old, bytes);
  cursor.depth--;
  if (s && bytes) append(s, HS_LOG_REALLOC_END, 0, hs_monotonic(), p, bytes);
  return bytes ? p : born(s, HS_LOG_MALLOC, 1, p, 0);
}

EXPORT void *reallocarray(void *old, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return NULL;
  }
  return realloc(old, bytes);
}

EXPORT int posix_memalign(void **result, size_t alignment, size_t bytes) {
  if (UNLIKELY(!next.malloc)) resolve();
  hs_state *s = recording();
  cursor.depth++;
  int error = next.posix_memalign(result, alignment, bytes);
  cursor.depth--;
  if (error == 0) born(s, HS_LOG_ALIGNED, alignment, *result, bytes);
  return error;
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes) {
  if (UNLIKELY(!next.malloc)) resolve();
  hs_state *s = recording();
  cursor.depth++;
  void *p = next.aligned_alloc(alignment, bytes);
  cursor.depth--;
  return born(s, HS_LOG_ALIGNED, alignment, p, bytes);
}

EXPORT void *memalign(size_t alignment, size_t bytes) {
  if (UNLIKELY(!next.malloc)) resolve();
  hs_state *s = recording();
  cursor.depth++;
  // Some allocators have no memalign; aligned_alloc differs from it only in what it refuses.
  void *p = next.memalign ? next.memalign(alignment, bytes) : next.aligned_alloc(alignment, bytes);
  cursor.depth--;
  return born(s, HS_LOG_ALIGNED, alignment, p, bytes);
}

EXPORT void *valloc(size_t bytes) { return memalign((size_t)sysconf(_SC_PAGESIZE), bytes); }

EXPORT void *pvalloc(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return memalign(page, (bytes + page - 1) & ~(page - 1));
}

// ---- The program's own mappings ----

static bool by_allocator(const void *caller) {
  return (uintptr_t)caller >= next.start && (uintptr_t)caller < next.end;
}

static inline void *map(void *address, size_t bytes, int protection, int flags, int file, off_t offset,
                        const void *caller) {
  void *p = (void *)syscall(SYS_mmap, address, bytes, protection, flags, file, offset);
  if (p == MAP_FAILED || by_allocator(caller)) return p;
  hs_state *s = recording();
  if (!s) return p;
  // Address space without access is a reservation, not memory; but like a mapped file it replaces what it is put over.
  bool memory = (flags & MAP_ANONYMOUS) && (flags & MAP_TYPE) == MAP_PRIVATE && protection != PROT_NONE;
  if (memory) {
    append(s, HS_LOG_MAP, 12, hs_monotonic(), p, bytes);
  } else if (flags & MAP_FIXED) {
    append(s, HS_LOG_UNMAP, 0, hs_monotonic(), p, bytes);
  }
  return p;
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
  return map(address, bytes, protection, flags, file, offset, __builtin_return_address(0));
}

EXPORT void *mmap64(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
  return map(address, bytes, protection, flags, file, offset, __builtin_return_address(0));
}

EXPORT int munmap(void *address, size_t bytes) {
  hs_state *s = by_allocator(__builtin_return_address(0)) ? NULL : recording();
  // What the kernel will refuse must not be recorded, and it cannot be recorded after.
  if (s && bytes && ((uintptr_t)address & 4095) == 0) append(s, HS_LOG_UNMAP, 0, hs_monotonic(), address, bytes);
  return (int)syscall(SYS_munmap, address, bytes);
}

EXPORT void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...) {
  void *target = NULL;
  if (flags & MREMAP_FIXED) {
    va_list list;
    va_start(list, flags);
    target = va_arg(list, void *);
    va_end(list);
  }
  hs_state *s = by_allocator(__builtin_return_address(0)) ? NULL : recording();
  // With an old size of 0 a shared mapping is doubled: not our kind.
  if (old_bytes == 0) s = NULL;
  if (s) append(s, HS_LOG_REMAP_BEGIN, 0, hs_monotonic(), old, old_bytes);
  void *p = (void *)syscall(SYS_mremap, old, old_bytes, bytes, flags, target);
  if (s) append(s, HS_LOG_REMAP_END, 0, hs_monotonic(), p == MAP_FAILED ? NULL : p, bytes);
  return p;
}
