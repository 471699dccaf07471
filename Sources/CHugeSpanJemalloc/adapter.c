// The symbols and the order of things: how the adapter gets under jemalloc before anything else runs.
//
// In C because Embedded Swift has no constructors, cannot define a libc symbol, and does not know variadic functions.
// What a hook does is in Hooks.swift.
//
// The library is linked with `-z initfirst`: its constructor is the very first, before those of libc and of libstdc++
// (which allocates). Three things follow. libc has not set `environ` yet, from which jemalloc reads MALLOC_CONF when we
// wake it; so we set it. Our fork handlers are registered before jemalloc's, so that a fork takes jemalloc's locks first
// and the heap's after them, in the order in which threads take them. And no thread may be started yet: the scavenger
// begins when libc calls main.

#define _GNU_SOURCE
#include "adapter.h"
#include "recording.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

extern char **environ;

hs_adapter_counters hs_counters;
hs_adapter_state hs_adapter;
static uint8_t report_text[HS_REPORT_BYTES], report_path[HS_PATH_BYTES], report_path_pattern[HS_PATH_BYTES];

// jemalloc keeps no freed memory and no address space for itself, else the heap under it would have nothing to decide.
// A program's own settings, /etc/malloc.conf and MALLOC_CONF come after these and win.
EXPORT const char *malloc_conf = "retain:false,dirty_decay_ms:0,muzzy_decay_ms:0";

static hs_extent_hooks our_hooks = {
    .alloc = hs_hook_alloc,
    .dalloc = hs_hook_dalloc,
    .destroy = hs_hook_destroy,
    .commit = hs_hook_commit,
    .decommit = hs_hook_decommit,
    .purge_lazy = hs_hook_purge_lazy,
    .purge_forced = hs_hook_purge_forced,
    .split = hs_hook_split,
    .merge = hs_hook_merge,
};

typedef int mallctl_function(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes);
typedef int mallctl_by_mib_function(const size_t *mib, size_t mib_length, void *old, size_t *old_bytes, void *new,
                                    size_t new_bytes);
typedef int mallctl_name_to_mib_function(const char *name, size_t *mib, size_t *mib_length);

static mallctl_function *next_mallctl;
static mallctl_by_mib_function *next_mallctl_by_mib;
static size_t create_mib[2], background_thread_mib[1];

static __attribute__((noreturn)) void give_up(const char *why) {
  hs_adapter_say(why, strlen(why));
  _exit(69);
}

// ---- jemalloc's arenas ----

static bool read_setting(const char *name, void *value, size_t bytes) {
  size_t room = bytes;
  return next_mallctl(name, value, &room, NULL, 0) == 0 && room == bytes;
}

/// Puts our hooks into an arena, which is made if it does not exist. Others than jemalloc's own are left in place.
static bool install(unsigned arena) {
  char name[40];
  snprintf(name, sizeof name, "arena.%u.extent_hooks", arena);
  hs_extent_hooks *present = NULL;
  if (!read_setting(name, &present, sizeof present)) return false;
  if (hs_adapter.previous && present != hs_adapter.previous) return present == &our_hooks;
  hs_adapter.previous = present;
  hs_extent_hooks *ours = &our_hooks;
  if (next_mallctl(name, NULL, NULL, &ours, sizeof ours) != 0) return false;
  __atomic_fetch_add(&hs_adapter.arenas, 1, __ATOMIC_RELAXED);
  return true;
}

/// The arena for huge allocations is made by the first of them.
static void make_arena_for_huge(void) {
  size_t threshold = 0;
  if (!read_setting("opt.oversize_threshold", &threshold, sizeof threshold) || threshold == 0) return;
  // Absurd ones would fail; then there is no such arena, or none that this machine could fill.
  if (threshold > (size_t)1 << 40) return;
  // The compiler knows malloc, and would leave out an allocation that nobody looks at.
  void *volatile huge = malloc(threshold);
  free(huge);
}

static void install_everywhere(void) {
  unsigned count = 0;
  if (!read_setting("arenas.narenas", &count, sizeof count)) give_up("hugespan: jemalloc does not tell its arenas\n");
  make_arena_for_huge();
  // All that jemalloc may ever choose by itself, now: an arena that it makes later has its own hooks, and nothing calls us
  // when it is made. Its tables come from the hooks before ours: little of their 2 MiB is touched.
  hs_adapter.is_making_arena = true;
  bool any = false;
  for (unsigned arena = 0; arena < count; arena++) any |= install(arena);
  hs_adapter.is_making_arena = false;
  if (!any) give_up("hugespan: jemalloc takes no extent hooks\n");
  bool retains = false;
  read_setting("opt.retain", &retains, sizeof retains);
  hs_adapter.retains = retains;
  ssize_t decay = 0;
  if (read_setting("opt.dirty_decay_ms", &decay, sizeof decay)) hs_adapter.dirty_decay_milliseconds = decay;
  if (read_setting("opt.muzzy_decay_ms", &decay, sizeof decay)) hs_adapter.muzzy_decay_milliseconds = decay;
  read_setting("version", &hs_adapter.version, sizeof hs_adapter.version);
}

// jemalloc's background threads decay what it has kept. Without decay there is nothing for them to do, but each of them sleeps without
// a limit and is woken by each extent that is freed: two futex calls and a switch each time. A Redis server asks for one;
// with it 4 to 8 % of its CPU time went there.

static bool keeps_nothing(void) {
  return hs_adapter.is_installed && hs_adapter.dirty_decay_milliseconds == 0 && hs_adapter.muzzy_decay_milliseconds == 0;
}

/// Whether the program asks for background threads that would have nothing to do.
static bool wants_idle_threads(const void *new, size_t new_bytes) {
  return new && new_bytes == sizeof(bool) && *(const bool *)new && keeps_nothing();
}

/// Ends those that MALLOC_CONF has asked for.
static void end_idle_threads(void) {
  bool is_on = false, off = false;
  if (keeps_nothing() && read_setting("background_thread", &is_on, sizeof is_on) && is_on) {
    next_mallctl("background_thread", NULL, NULL, &off, sizeof off);
  }
}

// A program that speaks to jemalloc may make arenas of its own; those without hooks of their own get ours.

static void resolve(void) {
  if (next_mallctl) return;
  mallctl_name_to_mib_function *name_to_mib = (mallctl_name_to_mib_function *)dlsym(RTLD_NEXT, "mallctlnametomib");
  next_mallctl_by_mib = (mallctl_by_mib_function *)dlsym(RTLD_NEXT, "mallctlbymib");
  next_mallctl = (mallctl_function *)dlsym(RTLD_NEXT, "mallctl");
  size_t length = 2;
  if (name_to_mib) name_to_mib("arenas.create", create_mib, &length);
  length = 1;
  if (name_to_mib) name_to_mib("background_thread", background_thread_mib, &length);
}

static void adopt(int error, void *old, void *new) {
  if (error == 0 && old && !new && hs_adapter.is_installed) install(*(unsigned *)old);
}

EXPORT int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes) {
  resolve();
  if (!next_mallctl) return ENOENT;
  if (wants_idle_threads(new, new_bytes) && strcmp(name, "background_thread") == 0) {
    return old ? next_mallctl(name, old, old_bytes, NULL, 0) : 0;
  }
  int error = next_mallctl(name, old, old_bytes, new, new_bytes);
  if (strcmp(name, "arenas.create") == 0) adopt(error, old, new);
  return error;
}

EXPORT int mallctlbymib(const size_t *mib, size_t mib_length, void *old, size_t *old_bytes, void *new,
                        size_t new_bytes) {
  resolve();
  if (!next_mallctl_by_mib) return ENOENT;
  if (mib_length == 1 && mib[0] == background_thread_mib[0] && wants_idle_threads(new, new_bytes)) {
    return old ? next_mallctl_by_mib(mib, mib_length, old, old_bytes, NULL, 0) : 0;
  }
  int error = next_mallctl_by_mib(mib, mib_length, old, old_bytes, new, new_bytes);
  if (mib_length == 2 && memcmp(mib, create_mib, sizeof create_mib) == 0) adopt(error, old, new);
  return error;
}

// ---- Life ----

static const char *value_of(char **environment, const char *name) {
  size_t length = strlen(name);
  for (char **entry = environment; *entry; entry++) {
    if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return *entry + length + 1;
  }
  return NULL;
}

static void forked(void) { hs_adapter.is_forked = true; }

static __attribute__((constructor(101))) void start(int count, char **arguments, char **environment) {
  (void)count, (void)arguments;
  if (!environ) environ = environment;
  if (!hs_adapter_register_fork_handlers() || pthread_atfork(NULL, NULL, forked) != 0) {
    give_up("hugespan: the C library has no room for fork handlers\n");
  }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  hs_adapter.start = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  hs_adapter.process = (uint32_t)getpid();
  resolve();
  if (!next_mallctl) {
    give_up("hugespan: jemalloc is not in this program; preload libjemalloc.so.2 after this library (Debian: libjemalloc2)\n");
  }
  if (!hs_adapter_create(value_of(environment, "HUGESPAN_CONF"))) _exit(64);
  hs_adapter_start_recording(value_of(environment, HS_LOG_VARIABLE));
  install_everywhere();
  hs_adapter.is_installed = true;
}

// The last destructor, as our constructor was the first. A program that ends by _exit or a signal leaves no report.
static __attribute__((destructor(101))) void finish(void) {
  if (hs_adapter.is_installed) hs_adapter_report();
}

typedef int main_function(int, char **, char **);
static main_function *program_main;

static int started(int count, char **arguments, char **environment) {
  if (hs_adapter.is_installed) {
    end_idle_threads();
    hs_adapter_start_scavenger();
  }
  return program_main(count, arguments, environment);
}

/// Between the program's constructors and its main: threads are safe now.
EXPORT int __libc_start_main(main_function *main, int count, char **arguments, void (*init)(void), void (*fini)(void),
                             void (*rtld_fini)(void), void *stack_end) {
  int (*next)(main_function *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
      (int (*)(main_function *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *))dlsym(
          RTLD_NEXT, "__libc_start_main");
  program_main = main;
  return next(started, count, arguments, init, fini, rtld_fini, stack_end);
}

// A forked child has no scavenger, since most are about to run another program; its frees do some of that work. One that
// becomes a daemon will live long and may idle, so it gets a thread. (A thread cannot be started in a fork handler:
// that allocates, and jemalloc is still locked.)

static int with_scavenger(int result) {
  if (result >= 0 && hs_adapter.is_forked && hs_adapter.is_installed) {
    int error = errno;
    hs_adapter_start_scavenger();
    errno = error;
  }
  return result;
}

EXPORT pid_t setsid(void) {
  pid_t (*next)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "setsid");
  return with_scavenger(next());
}

EXPORT int daemon(int keep_directory, int keep_output) {
  int (*next)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "daemon");
  return with_scavenger(next(keep_directory, keep_output));
}

// ---- For the Swift half ----

uint8_t *hs_report_text(void) { return report_text; }
uint8_t *hs_report_path(void) { return report_path; }
uint8_t *hs_report_path_pattern(void) { return report_path_pattern; }

void hs_adapter_refuse_hugepages(void *address, size_t bytes) { (void)madvise(address, bytes, MADV_NOHUGEPAGE); }

int hs_adapter_write_file(const char *path, const void *text, size_t bytes) {
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return errno;
  ssize_t written = write(file, text, bytes);
  int error = written == (ssize_t)bytes ? 0 : written < 0 ? errno : ENOSPC;
  if (close(file) != 0 && error == 0) error = errno;
  return error;
}

void hs_adapter_say(const void *text, size_t bytes) { (void)!write(2, text, bytes); }
