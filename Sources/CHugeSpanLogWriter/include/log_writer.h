// Writing to the raw log from inside a program: what the C half (thread-locals, system calls) and the Swift half (the
// log's segments) of a recorder share. Two libraries have it: the recorder before malloc, and the front end under
// jemalloc. Nothing of it is visible outside them.

#ifndef LOG_WRITER_H
#define LOG_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "recording_log.h"

/// Where a thread writes its next record. One per thread, in initial-exec thread-local storage.
typedef struct {
  hs_log_record *next;
  hs_log_record *end;
  /// The mapped segment, and its number in the log; NULL before the first.
  hs_log_segment *segment;
  /// The thread's number plus 1; 0 before its first event.
  uint32_t thread;
  /// Calls of interposed functions that this thread is inside of; only the outermost is recorded. The front end under
  /// jemalloc, whose hooks are never nested, leaves it alone.
  uint32_t depth;
} hs_cursor;

/// What is left of a segment whose thread has ended.
typedef struct {
  hs_log_segment *segment;
  hs_log_record *next;
} hs_remainder;

#define HS_REMAINDERS 64
#define HS_LOG_PATH_BYTES 4096

/// The recorder's state. It lies in a page of its own that the kernel wipes in a forked child, however that was made:
/// there `active` reads 0, and a child never writes into its parent's log.
typedef struct {
  uint32_t active;
  uint32_t remainder_lock;
  uint32_t remainder_count;
  uint32_t reserved;
  uint64_t start_monotonic;
  hs_log_header *header;
  /// These two follow the state in its mapping.
  hs_remainder *remainders;
  char *path;
} hs_state;

// Implemented in Swift.

/// Attaches this process to the log at `path`, if it is the one to be recorded, and at this `hs_log_level`. NULL if it is
/// not, or cannot be.
hs_state *hs_recorder_attach(const char *path, uint32_t level);
/// Gives the thread room for a record. False when there is none: then recording is over.
bool hs_recorder_refill(hs_state *state, hs_cursor *cursor);
/// Takes back what is left of the segment of a thread that ends.
void hs_recorder_retire(hs_state *state, hs_cursor *cursor);

// Implemented in C.

// System calls, past every interposed symbol (including our own). Negative results are negated error numbers.

long hs_system_open(const char *path);
long hs_system_close(long file);
long hs_system_allocate(long file, uint64_t offset, uint64_t bytes);
long hs_system_map_file(long file, uint64_t offset, uint64_t bytes);
long hs_system_map_wiped_on_fork(uint64_t bytes);
long hs_system_unmap(const void *address, uint64_t bytes);
uint32_t hs_system_process(void);

/// Nanoseconds of CLOCK_MONOTONIC.
static inline uint64_t hs_monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static inline uint32_t hs_fetch_add(uint32_t *value) { return __atomic_fetch_add(value, 1, __ATOMIC_RELAXED); }
static inline uint32_t hs_load(const uint32_t *value) { return __atomic_load_n(value, __ATOMIC_ACQUIRE); }
static inline void hs_store(uint32_t *value, uint32_t to) { __atomic_store_n(value, to, __ATOMIC_RELEASE); }
static inline bool hs_exchange(uint32_t *value, uint32_t from, uint32_t to) {
  return __atomic_compare_exchange_n(value, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
static inline void hs_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Appends a record; the cursor has room. The head goes last: a process that is killed in between leaves no half record.
static inline void hs_store_record(hs_cursor *cursor, uint64_t head, uint64_t address, uint64_t bytes) {
  hs_log_record *record = cursor->next;
  record->address = address;
  record->bytes = bytes;
  __atomic_store_n(&record->head, head, __ATOMIC_RELEASE);
  cursor->next = record + 1;
}

#endif
