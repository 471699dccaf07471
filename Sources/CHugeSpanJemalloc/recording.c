// The front end as a recorder: what jemalloc asks of the heap, written to the raw log (recording_log.h).
//
// The same log, segments and rules as the recorder before malloc has (recorder.c). Simpler, since hooks are never
// nested: nothing in here allocates, and jemalloc calls no hook from inside another. A forked child finds `active` wiped
// to 0 and writes nothing.

#define _GNU_SOURCE
#include "recording.h"

#include <errno.h>
#include <pthread.h>

#include "adapter.h"

/// The first keys have their place in the thread's own record; for later ones the C library may call calloc, and that is
/// not to be done inside a hook.
enum { keys_without_allocation = 32 };

static __thread hs_cursor cursor __attribute__((tls_model("initial-exec")));
static hs_state *state;
static pthread_key_t exit_key;
static bool has_exit_key;
const uint32_t *hs_adapter_recording;

static void thread_exits(void *value) {
  (void)value;
  if (hs_adapter_is_recording()) hs_recorder_retire(state, &cursor);
}

void hs_adapter_start_recording(const char *path) {
  if (!path || *path == 0) return;
  int error = errno;
  hs_state *attached = hs_recorder_attach(path, HS_LOG_LEVEL_SPAN);
  if (attached) {
    has_exit_key = pthread_key_create(&exit_key, thread_exits) == 0 && exit_key < keys_without_allocation;
    state = attached;
    hs_adapter_recording = &attached->active;
  }
  errno = error;
}

/// Gives the thread a new segment, and sees to it that what is left of it is taken back when the thread ends. A thread
/// that is ending may get one more: its caches are emptied after our destructor has run, which then runs again.
static __attribute__((noinline)) bool refill(void) {
  int error = errno;
  bool refilled = hs_recorder_refill(state, &cursor);
  if (refilled && has_exit_key) pthread_setspecific(exit_key, state);
  errno = error;
  return refilled;
}

void hs_adapter_record(uint32_t kind, uint32_t alignment_logarithm, uintptr_t address, uint64_t bytes) {
  if (__builtin_expect(cursor.next == cursor.end, 0) && !refill()) return;
  uint64_t time = (hs_monotonic() - state->start_monotonic) & ((1ull << HS_LOG_TIME_BITS) - 1);
  hs_store_record(&cursor, time | (uint64_t)kind << 48 | (uint64_t)alignment_logarithm << 56, address, bytes);
}
