// The one border to the C library: system calls, errno, processor hints.
//
// Embedded Swift cannot import Glibc, macros with casts or variadic functions, so everything of that kind is a static
// inline function here. Each system call returns its value, or minus errno, so that no Swift code reads errno.

#ifndef HUGESPAN_SHIMS_H
#define HUGESPAN_SHIMS_H

// No _GNU_SOURCE: with it the C library lays out fd_set under other names than in Swift's own Glibc module, and a file that
// imports both is refused.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static inline long hs_shim_page_size(void) { return sysconf(_SC_PAGESIZE); }

// Reserves address space without memory behind it. Minus errno on failure.
static inline long hs_shim_reserve(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? -(long)errno : (long)p;
}

// Maps zeroed read-write memory. Minus errno on failure.
static inline long hs_shim_map(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? -(long)errno : (long)p;
}

static inline long hs_shim_commit(uintptr_t start, size_t bytes) {
  return mprotect((void *)start, bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : -(long)errno;
}

// Puts a reservation in the place of committed memory. A change of protection alone would not return what strict
// overcommit has promised.
static inline long hs_shim_decommit(uintptr_t start, size_t bytes) {
  void *p = mmap((void *)start, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return p == MAP_FAILED ? -(long)errno : 0;
}

// Moves the page tables of a range of private memory to `destination` and leaves the range mapped and empty. MREMAP_FIXED
// unmaps the destination first; should the rest fail, it is mapped again, unless nothing was unmapped yet. The move would unlock
// all of a locked mapping, so that is refused: MADV_COLD takes no locked memory.
static inline long hs_shim_move(uintptr_t start, size_t bytes, uintptr_t destination, _Bool advise_huge) {
  enum { may_move = 1, fixed = 2, dont_unmap = 4, cold = 20, huge = 14, fixed_no_replace = 0x100000 };
  if (madvise((void *)start, bytes, cold) != 0) return -(long)errno;
  if (syscall(SYS_mremap, start, bytes, bytes, may_move | fixed | dont_unmap, destination) == (long)destination) return 0;
  long failure = -(long)errno;
  void *p = mmap((void *)destination, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed_no_replace, -1, 0);
  if (p != MAP_FAILED && p != (void *)destination) munmap(p, bytes);
  if (p == (void *)destination && advise_huge) (void)madvise(p, bytes, huge);
  return failure;
}

static inline long hs_shim_unmap(uintptr_t start, size_t bytes) {
  return munmap((void *)start, bytes) == 0 ? 0 : -(long)errno;
}

static inline long hs_shim_madvise(uintptr_t start, size_t bytes, int advice) {
  return madvise((void *)start, bytes, advice) == 0 ? 0 : -(long)errno;
}

// process_madvise on `pidfd`; the number of bytes advised, or minus errno.
static inline long hs_shim_process_madvise(int pidfd, const struct iovec *ranges, size_t count, int advice) {
  long n = syscall(SYS_process_madvise, pidfd, ranges, count, advice, 0);
  return n < 0 ? -(long)errno : n;
}

// The calling thread in place of a pidfd (Linux 6.14; process_madvise takes it from 6.15): valid in every thread, and
// still right after a fork.
enum { HS_SHIM_PIDFD_SELF = -10000 };

static inline int hs_shim_pidfd_open_self(void) {
  long fd = syscall(SYS_pidfd_open, getpid(), 0);
  return fd < 0 ? -errno : (int)fd;
}

static inline int hs_shim_process_id(void) { return (int)getpid(); }

// Values of madvise by name, since the headers of the system may be older than its kernel.
enum {
  HS_SHIM_MADV_DONTNEED = 4,
  HS_SHIM_MADV_FREE = 8,
  HS_SHIM_MADV_HUGEPAGE = 14,
  HS_SHIM_MADV_NOHUGEPAGE = 15,
  HS_SHIM_MADV_COLD = 20,
  HS_SHIM_MADV_PAGEOUT = 21,
  HS_SHIM_MADV_POPULATE_WRITE = 23,
  HS_SHIM_MADV_COLLAPSE = 25,
};

static inline int hs_shim_open_read(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

static inline long hs_shim_read(int fd, void *buffer, size_t bytes) {
  long n = read(fd, buffer, bytes);
  return n < 0 ? -(long)errno : n;
}

static inline long hs_shim_read_at(int fd, void *buffer, size_t bytes, uint64_t offset) {
  long n = pread(fd, buffer, bytes, (off_t)offset);
  return n < 0 ? -(long)errno : n;
}

// Writes all of a text to an existing file; false if that fails.
static inline _Bool hs_shim_write_file(const char *path, const void *text, size_t bytes) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  _Bool done = write(fd, text, bytes) == (ssize_t)bytes;
  close(fd);
  return done;
}

// A counter that can be waited for with other files; minus errno on failure.
static inline int hs_shim_event_open(void) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? -errno : fd;
}

static inline void hs_shim_event_signal(int fd) {
  uint64_t one = 1;
  (void)!write(fd, &one, sizeof one);
}

// Waits until the event is signalled, at most `nanoseconds`, and takes the signal away. Whether there was one.
static inline _Bool hs_shim_event_wait(int fd, uint64_t nanoseconds) {
  struct pollfd file = {fd, POLLIN, 0};
  struct timespec t = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
  if (syscall(SYS_ppoll, &file, 1, &t, NULL, 0) <= 0) return 0;
  uint64_t count;
  (void)!read(fd, &count, sizeof count);
  return 1;
}

static inline void hs_shim_close(int fd) { (void)close(fd); }

// What tells a file from another of the same number.
static inline uint64_t hs_shim_file_identity(const struct stat *about) {
  return (uint64_t)about->st_ino ^ (uint64_t)about->st_dev << 40;
}

// A file of `bytes` without a name, in memory, which nobody but the mapping that is made here can ever write or resize. Returns the
// mapping, which a forked child does not get, or minus errno; *fd is the file for others to read, *identity what tells it from
// a later file of the same number. `name` is what others see of it (/proc/PID/fd).
static inline long hs_shim_page_open(const char *name, size_t bytes, int *fd, uint64_t *identity) {
  // MFD_CLOEXEC | MFD_ALLOW_SEALING; F_ADD_SEALS with SEAL, SHRINK, GROW and FUTURE_WRITE. By number: see above.
  long file = syscall(SYS_memfd_create, name, 3);
  if (file < 0) return -(long)errno;
  struct stat about;
  void *page = MAP_FAILED;
  if (ftruncate((int)file, (off_t)bytes) == 0 && fstat((int)file, &about) == 0)
    page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, (int)file, 0);
  // Where shared memory gets hugepages, the first of these would be 2 MiB for a few kilobytes.
  if (page != MAP_FAILED) (void)madvise(page, bytes, HS_SHIM_MADV_NOHUGEPAGE);
  if (page == MAP_FAILED || madvise(page, bytes, MADV_DONTFORK) != 0 || fcntl((int)file, 1033, 1 | 2 | 4 | 16) != 0) {
    int error = errno;
    if (page != MAP_FAILED) (void)munmap(page, bytes);
    close((int)file);
    return -(long)error;
  }
  *fd = (int)file;
  *identity = hs_shim_file_identity(&about);
  return (long)page;
}

// Brings a part of a page into memory, so that writing to it neither faults nor fails. 0 or minus errno.
static inline long hs_shim_page_fill(int fd, uintptr_t page, size_t offset, size_t bytes) {
  if (madvise((void *)(page + offset), bytes, HS_SHIM_MADV_POPULATE_WRITE) == 0) return 0;
  // Before Linux 5.14; writing to it faults then, and cannot fail any more.
  if (errno != EINVAL) return -(long)errno;
  return syscall(SYS_fallocate, fd, 0, (off_t)offset, (off_t)bytes) == 0 ? 0 : -(long)errno;
}

// Closes a page's file, unless the program has closed it and uses the number for something else.
static inline void hs_shim_page_close(int fd, uint64_t identity) {
  struct stat about;
  if (fstat(fd, &about) == 0 && hs_shim_file_identity(&about) == identity) close(fd);
}

static inline uint64_t hs_shim_monotonic_nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t hs_shim_thread_cpu_nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t hs_shim_process_cpu_nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// PAGEMAP_SCAN (Linux 6.7). The structures are our own copies: the headers of the system may be older than its kernel.
struct hs_shim_page_region {
  uint64_t start, end, categories;
};
struct hs_shim_pm_scan {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
enum {
  HS_SHIM_PAGE_IS_PRESENT = 1 << 3,
  HS_SHIM_PAGE_IS_SWAPPED = 1 << 4,
  HS_SHIM_PAGE_IS_PFNZERO = 1 << 5,
  HS_SHIM_PAGE_IS_HUGE = 1 << 6,
};

// Scans [start, end) of the address space behind `fd` (/proc/PID/pagemap). Writes the regions in which any of
// present, swapped, huge is set, without the shared page of zeros, which is nobody's memory. Returns the number of
// regions or minus errno; *walked is where the walk ended.
static inline long hs_shim_pagemap_scan(int fd, uint64_t start, uint64_t end, struct hs_shim_page_region *regions,
                                        size_t capacity, uint64_t *walked) {
  struct hs_shim_pm_scan scan = {
      .size = sizeof(scan), .start = start, .end = end, .vec = (uint64_t)(uintptr_t)regions, .vec_len = capacity,
      .category_inverted = HS_SHIM_PAGE_IS_PFNZERO, .category_mask = HS_SHIM_PAGE_IS_PFNZERO,
      .category_anyof_mask = HS_SHIM_PAGE_IS_PRESENT | HS_SHIM_PAGE_IS_SWAPPED | HS_SHIM_PAGE_IS_HUGE,
      .return_mask = HS_SHIM_PAGE_IS_PRESENT | HS_SHIM_PAGE_IS_SWAPPED | HS_SHIM_PAGE_IS_HUGE};
  long n = ioctl(fd, _IOWR('f', 16, struct hs_shim_pm_scan), &scan);
  if (n < 0) return -(long)errno;
  *walked = scan.walk_end;
  return n;
}

// The same for pages that PMD entries map, and nothing else.
static inline long hs_shim_pagemap_scan_huge(int fd, uint64_t start, uint64_t end, struct hs_shim_page_region *regions,
                                             size_t capacity, uint64_t *walked) {
  struct hs_shim_pm_scan scan = {
      .size = sizeof(scan), .start = start, .end = end, .vec = (uint64_t)(uintptr_t)regions, .vec_len = capacity,
      .category_inverted = HS_SHIM_PAGE_IS_PFNZERO,
      .category_mask = HS_SHIM_PAGE_IS_PRESENT | HS_SHIM_PAGE_IS_HUGE | HS_SHIM_PAGE_IS_PFNZERO,
      .return_mask = HS_SHIM_PAGE_IS_HUGE};
  long n = ioctl(fd, _IOWR('f', 16, struct hs_shim_pm_scan), &scan);
  if (n < 0) return -(long)errno;
  *walked = scan.walk_end;
  return n;
}

static inline void hs_shim_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Asks for SIGKILL when the thread that started this process ends: a measuring child never outlives its parent.
static inline void hs_shim_die_with_parent(void) { (void)prctl(PR_SET_PDEATHSIG, SIGKILL); }

// From now on descendants whose parents end become children of this process.
static inline void hs_shim_adopt_orphans(void) { (void)prctl(PR_SET_CHILD_SUBREAPER, 1); }

// What prctl(PR_GET_THP_DISABLE) says of this process: 0, 1, from Linux 6.18 on also 3 (except advised memory); minus errno.
static inline int hs_shim_hugepages_disabled(void) {
  int value = prctl(42, 0, 0, 0, 0);
  return value < 0 ? -errno : value;
}

// Columns of the terminal behind `fd`, 0 if it is none.
static inline int hs_shim_terminal_columns(int fd) {
  struct winsize size = {0, 0, 0, 0};
  return isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// Nothing is moved across it, by the compiler or the processor.
static inline void hs_shim_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static inline void hs_shim_yield(void) { sched_yield(); }

static inline void hs_shim_sleep_nanoseconds(uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  nanosleep(&t, NULL);
}

// Writes a message to standard error and ends the program: the heap's own report of a broken invariant.
__attribute__((noreturn)) static inline void hs_shim_die(const char *text, size_t length) {
  (void)!write(2, text, length);
  __builtin_trap();
}

// Starts a thread with all signals blocked: they belong to the program's own threads. 0, or an errno value.
static inline int hs_shim_thread_start(void *(*body)(void *), void *argument, uint64_t *thread) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t made;
  int status = pthread_create(&made, NULL, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (status == 0) *thread = (uint64_t)made;
  return status;
}

// A thread that the C library does not know of.
//
// A C library spares its locks the atomic operations as long as a program has one thread, and pthread_create ends that for good: a
// program of one thread that takes a lock for each allocation pays 3 to 4 % of its time for a scavenger. A thread that is cloned
// without the library's knowledge costs nothing of the kind. What it may do is little: system calls through the library's
// wrappers, which touch nothing of a thread but errno; nothing that allocates, locks or asks who is running. It has a block of zeros for its
// thread-local variables, so errno is its own. What changes all threads through the library (setuid and its kin) passes it by, so it
// gives up every capability before it does anything else; it keeps the user.
#if defined(__x86_64__) && defined(__GLIBC__)
extern int clone(int (*body)(void *), void *stack, int flags, void *argument, ...);
// Sanitizers and other instruments intercept the wrappers and look their threads up.
extern void __sanitizer_print_stack_trace(void) __attribute__((weak));

struct hs_shim_bare_thread {
  void *(*body)(void *);
  void *argument;
  size_t bytes;
  // The thread's number; the kernel sets it to 0 and wakes whoever waits when the thread has ended.
  int alive;
};

static inline int hs_shim_bare_body(void *record) {
  struct hs_shim_bare_thread *thread = (struct hs_shim_bare_thread *)record;
  struct { uint32_t version; int pid; } header = {0x20080522, 0};
  struct { uint32_t effective, permitted, inheritable; } none[2] = {{0, 0, 0}, {0, 0, 0}};
  syscall(SYS_capset, &header, none);
  thread->body(thread->argument);
  return 0;
}

// 0, or an errno value: ENOTSUP where such a thread cannot be had.
static inline int hs_shim_bare_thread_start(void *(*body)(void *), void *argument, uint64_t *thread) {
  enum {
    page = 4096, stack = 256 << 10, control = 8 << 10, most = 64 << 20,
    // CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID: those of any thread.
    flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x80000 | 0x100000 | 0x200000,
  };
  if (__sanitizer_print_stack_trace) return ENOTSUP;
  // The thread's control block lies behind its variables; its first words are known to compilers.
  uintptr_t own;
  __asm__("movq %%fs:0, %0" : "=r"(own));
  size_t distance = own - (uintptr_t)&errno;
  if (distance > most) return ENOTSUP;
  size_t variables = (distance + 2 * page) & ~(size_t)(page - 1);
  size_t bytes = page + stack + variables + control;
  long memory = hs_shim_map(bytes);
  if (memory < 0 && memory > -4096) return (int)-memory;
  // Nobody's stack may grow into what is before it.
  if (mprotect((void *)memory, page, PROT_NONE) != 0) {
    int error = errno;
    munmap((void *)memory, bytes);
    return error;
  }
  uint64_t *block = (uint64_t *)(memory + page + stack + variables);
  block[0] = block[2] = (uint64_t)block;                     // the block's own address, twice
  memcpy(block + 5, (const uint64_t *)own + 5, 16);          // what guards stacks and pointers
  struct hs_shim_bare_thread *record = (struct hs_shim_bare_thread *)((char *)block + control - sizeof *record - 8);
  record->body = body;
  record->argument = argument;
  record->bytes = bytes;
  record->alive = 1;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int number = clone(hs_shim_bare_body, (void *)(memory + page + stack), flags, record, &record->alive, block, &record->alive);
  int error = number < 0 ? errno : 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error != 0) {
    munmap((void *)memory, bytes);
    return error;
  }
  *thread = (uint64_t)(uintptr_t)record | 1;
  return 0;
}

static inline void hs_shim_bare_thread_join(uint64_t thread) {
  struct hs_shim_bare_thread *record = (struct hs_shim_bare_thread *)(uintptr_t)(thread & ~(uint64_t)1);
  int alive;
  // The kernel's wake is not a private one.
  while ((alive = __atomic_load_n(&record->alive, __ATOMIC_ACQUIRE)) != 0) {
    syscall(SYS_futex, &record->alive, FUTEX_WAIT, alive, NULL, NULL, 0);
  }
  uintptr_t end = ((uintptr_t)record + 4095) & ~(uintptr_t)4095;
  munmap((void *)(end - record->bytes), record->bytes);
}
#else
static inline int hs_shim_bare_thread_start(void *(*body)(void *), void *argument, uint64_t *thread) {
  (void)body, (void)argument, (void)thread;
  return ENOTSUP;
}
static inline void hs_shim_bare_thread_join(uint64_t thread) { (void)thread; }
#endif

// Has the three functions called around each fork of the process. 0, or an errno value.
static inline int hs_shim_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
  return pthread_atfork(prepare, parent, child);
}

// Waits for a thread of either kind to end. (A bare one's name is odd, and the address of nothing.)
static inline void hs_shim_thread_join(uint64_t thread) {
  if (thread & 1) hs_shim_bare_thread_join(thread);
  else pthread_join((pthread_t)thread, NULL);
}

// Words of memory that the kernel may be taking meanwhile; see Pinning.swift. Never cached, joined or left out.
static inline uint64_t hs_shim_memory_load(uintptr_t address) { return *(const volatile uint64_t *)address; }

static inline void hs_shim_memory_store(uintptr_t address, uint64_t value) { *(volatile uint64_t *)address = value; }

// Adds zero in one locked step and returns what was there. In assembly: a compiler makes a fence and a load of
// __atomic_fetch_or(p, 0, ...), which leaves the page clean.
static inline uint64_t hs_shim_memory_pin(uintptr_t address) {
  uint64_t *word = (uint64_t *)address;
  uint64_t value = 0;
#if defined(__x86_64__)
  __asm__ __volatile__("lock xaddq %0, %1" : "+r"(value), "+m"(*word) : : "memory", "cc");
#elif defined(__aarch64__)
  uint32_t failed;
  __asm__ __volatile__("1: ldaxr %0, %2\n stlxr %w1, %0, %2\n cbnz %w1, 1b"
                       : "=&r"(value), "=&r"(failed), "+Q"(*word) : : "memory");
#else
#error "no read-modify-write that a compiler leaves alone is known for this processor"
#endif
  return value;
}

static inline uint32_t hs_shim_word_load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

static inline void hs_shim_word_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

// Adds 1 to *word and returns what it was.
static inline uint32_t hs_shim_word_increment(uint32_t *word) { return __atomic_fetch_add(word, 1, __ATOMIC_RELAXED); }

// Changes *word from `from` to `to`; false if it was something else.
static inline _Bool hs_shim_word_exchange(uint32_t *word, uint32_t from, uint32_t to) {
  return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

// Sleeps while *word is `value`, at most `nanoseconds`.
static inline void hs_shim_word_wait(const uint32_t *word, uint32_t value, uint64_t nanoseconds) {
  struct timespec t = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &t, NULL, 0);
}

static inline void hs_shim_word_wake(const uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#endif
