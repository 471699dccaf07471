// What the C half (constructors, symbols, system calls) and the Swift half (hooks, reports) of the front end under stock
// jemalloc share. Nothing of it is visible outside the library.

#ifndef ADAPTER_H
#define ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#pragma clang assume_nonnull begin
// Swift leaves the rules for shared state to us: atomic counters, and what is written before main only.
#define HS_SHARED __attribute__((swift_attr("nonisolated(unsafe)")))
#else
#define HS_SHARED
#endif

// jemalloc's table of extent hooks, as its manual documents it (extent_hooks_t). Where a function returns bool, false is
// success. Our own declaration: jemalloc's header need not be installed, its library is found when the program starts.
typedef struct hs_extent_hooks hs_extent_hooks;
struct hs_extent_hooks {
  void *_Nullable (*_Nonnull alloc)(hs_extent_hooks *hooks, void *_Nullable new_address, size_t size, size_t alignment,
                                    bool *zero, bool *commit, unsigned arena);
  bool (*_Nullable dalloc)(hs_extent_hooks *hooks, void *address, size_t size, bool committed, unsigned arena);
  void (*_Nullable destroy)(hs_extent_hooks *hooks, void *address, size_t size, bool committed, unsigned arena);
  bool (*_Nullable commit)(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length,
                           unsigned arena);
  bool (*_Nullable decommit)(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length,
                             unsigned arena);
  bool (*_Nullable purge_lazy)(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length,
                               unsigned arena);
  bool (*_Nullable purge_forced)(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length,
                                 unsigned arena);
  bool (*_Nullable split)(hs_extent_hooks *hooks, void *address, size_t size, size_t size_a, size_t size_b,
                          bool committed, unsigned arena);
  bool (*_Nullable merge)(hs_extent_hooks *hooks, void *address_a, size_t size_a, void *address_b, size_t size_b,
                          bool committed, unsigned arena);
};

// ---- Implemented in Swift: the hooks ----

void *_Nullable hs_hook_alloc(hs_extent_hooks *hooks, void *_Nullable new_address, size_t size, size_t alignment,
                              bool *zero, bool *commit, unsigned arena);
bool hs_hook_dalloc(hs_extent_hooks *hooks, void *address, size_t size, bool committed, unsigned arena);
void hs_hook_destroy(hs_extent_hooks *hooks, void *address, size_t size, bool committed, unsigned arena);
bool hs_hook_commit(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length, unsigned arena);
bool hs_hook_decommit(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length, unsigned arena);
bool hs_hook_purge_lazy(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length,
                        unsigned arena);
bool hs_hook_purge_forced(hs_extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length,
                          unsigned arena);
bool hs_hook_split(hs_extent_hooks *hooks, void *address, size_t size, size_t size_a, size_t size_b, bool committed,
                   unsigned arena);
bool hs_hook_merge(hs_extent_hooks *hooks, void *address_a, size_t size_a, void *address_b, size_t size_b,
                   bool committed, unsigned arena);

// ---- Implemented in Swift: life ----

/// Makes the heap by the text of HUGESPAN_CONF (NULL is none). False if there can be none; why has been said.
bool hs_adapter_create(const char *_Nullable configuration);
/// Starts the scavenger's thread, if the configuration wants one and none runs in this process.
void hs_adapter_start_scavenger(void);
/// Registers the heap's fork handlers. False if the C library has no room for them.
bool hs_adapter_register_fork_handlers(void);
/// Writes statistics to the file that the configuration names, if it names one.
void hs_adapter_report(void);

// ---- Shared state ----

/// What the hooks were asked and did, besides what the heap counts itself. Changed by any thread, each field on its own.
typedef struct {
  uint64_t used_pages, peak_used_pages;
  uint64_t zeroed_allocations, refused_allocations;
  uint64_t growths, refused_growths;
  uint64_t splits, merges, refused_merges, refused_purges;
  uint64_t foreign_calls;
} hs_adapter_counters;
extern hs_adapter_counters hs_counters HS_SHARED;

/// What is known of jemalloc and the process; written before main, and by the child of a fork.
typedef struct {
  /// The hooks that were installed before ours; the memory of earlier extents is theirs.
  hs_extent_hooks *_Nullable previous;
  /// Our hooks are being put into an arena that does not exist yet: what it asks for now is for its own tables.
  bool is_making_arena;
  uint32_t arenas;
  /// jemalloc keeps address space, or freed memory, for itself, so that the heap does not see it freed.
  bool retains;
  int64_t dirty_decay_milliseconds, muzzy_decay_milliseconds;
  const char *_Nullable version;
  /// The process whose heap it is, and the nanoseconds of CLOCK_MONOTONIC at its start.
  uint32_t process;
  uint64_t start;
  /// This process was forked from one with the adapter in it, and has not run another program since.
  bool is_forked;
  /// The heap is made and jemalloc's arenas are on it.
  bool is_installed;
} hs_adapter_state;
extern hs_adapter_state hs_adapter HS_SHARED;

// ---- Implemented in C: what Swift cannot do ----

/// Set while this process writes what jemalloc asks of the heap to a log; NULL if it does not, and 0 behind it in a forked
/// child, which writes none.
extern const uint32_t *_Nullable hs_adapter_recording HS_SHARED;

static inline bool hs_adapter_is_recording(void) {
  const uint32_t *recording = hs_adapter_recording;
  return __builtin_expect(recording != NULL, 0) && *recording;
}
/// Appends a record of this kind (recording_log.h), with the present time, and the logarithm of an alignment.
void hs_adapter_record(uint32_t kind, uint32_t alignment_logarithm, uintptr_t address, uint64_t bytes);

/// Adds to a counter.
static inline void hs_count(uint64_t *counter, uint64_t amount) { __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED); }
static inline uint64_t hs_counter(const uint64_t *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }

/// Enters `pages` more in use.
static inline void hs_count_used(hs_adapter_counters *counters, uint64_t pages) {
  uint64_t used = __atomic_add_fetch(&counters->used_pages, pages, __ATOMIC_RELAXED);
  uint64_t peak = __atomic_load_n(&counters->peak_used_pages, __ATOMIC_RELAXED);
  while (used > peak && !__atomic_compare_exchange_n(&counters->peak_used_pages, &peak, used, true, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
  }
}
static inline void hs_count_unused(hs_adapter_counters *counters, uint64_t pages) {
  __atomic_fetch_sub(&counters->used_pages, pages, __ATOMIC_RELAXED);
}

/// Keeps hugepages out of a range of jemalloc's own tables, of which little is touched.
void hs_adapter_refuse_hugepages(void *address, size_t bytes);
/// Creates or empties the file at `path` and writes `bytes` to it. 0, or an errno value.
int hs_adapter_write_file(const char *path, const void *text, size_t bytes);
/// Writes to standard error.
void hs_adapter_say(const void *text, size_t bytes);

/// Room for a report or message, for a path, and for the pattern that the path is made of; used by one thread, at the
/// start and at the end.
#define HS_REPORT_BYTES 8192
#define HS_PATH_BYTES 4096
uint8_t *hs_report_text(void);
uint8_t *hs_report_path(void);
uint8_t *hs_report_path_pattern(void);

#if defined(__clang__)
#pragma clang assume_nonnull end
#endif
#endif
