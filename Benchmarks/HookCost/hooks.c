// What a hook call costs jemalloc beyond its system calls: calls the hooks of the arena as jemalloc would, on memory that
// nobody touches, with a policy that releases nothing. After the warm-up no call is made of the kernel.
//
// Run under the front end by the script beside this file. Calls are timed in batches of 256, since the clock itself costs
// as much as one. Prints a line per case: name, then nanoseconds a call: median of the batches, mean, 99th percentile.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct hooks hooks;
struct hooks {
  void *(*alloc)(hooks *, void *, size_t, size_t, bool *, bool *, unsigned);
  bool (*dalloc)(hooks *, void *, size_t, bool, unsigned);
  void *destroy, *commit, *decommit, *purge_lazy, *purge_forced;
  bool (*split)(hooks *, void *, size_t, size_t, size_t, bool, unsigned);
  bool (*merge)(hooks *, void *, size_t, void *, size_t, bool, unsigned);
};

#ifndef BATCHES
#define BATCHES 4000
#endif
enum { page = 4096, batch = 256, batches = BATCHES, live = 4096 };
static hooks *heap;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const char *name, double *samples, int count) {
  double sum = 0;
  for (int i = 0; i < count; i++) sum += samples[i];
  qsort(samples, count, sizeof *samples, ascending);
  printf("%s %.1f %.1f %.1f\n", name, samples[count / 2], sum / count, samples[count * 99 / 100]);
}

static uint64_t next(uint64_t *state) {
  *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
  return *state >> 11;
}

static void *allocate(void *at, size_t pages) {
  bool zero = false, commit = true;
  return heap->alloc(heap, at, pages * page, page, &zero, &commit, 0);
}

static void release(void *address, size_t pages) {
  if (heap->dalloc(heap, address, pages * page, true, 0)) abort();
}

/// Sizes as the recorded programs ask for: redis 1, 2 or 5 pages, CPython up to a megabyte.
static size_t redis_size(uint64_t r) { return r % 3 == 2 ? 5 : r % 3 + 1; }
static size_t python_size(uint64_t r) {
  unsigned k = r % 100;
  return k < 44 ? r / 100 % 2 + 1 : k < 74 ? r / 100 % 14 + 3 : k < 94 ? r / 100 % 16 + 17 : r / 100 % 224 + 33;
}

struct job {
  size_t (*size)(uint64_t);
  uint64_t seed;
  double samples[2 * batches];
};

/// Frees one of the live spans and allocates another in its place: allocations and frees timed apart.
static void *pairs(void *argument) {
  struct job *job = argument;
  static __thread struct { char *address; size_t pages; } spans[live];
  uint64_t state = job->seed;
  for (int i = 0; i < live; i++) {
    spans[i].pages = job->size(next(&state));
    spans[i].address = allocate(NULL, spans[i].pages);
  }
  for (int i = -batches / 4; i < batches; i++) {
    unsigned slots[batch];
    for (int k = 0; k < batch; k++) {
      unsigned slot = next(&state) % live;
      for (int j = 0; j < k; j++) {
        if (slots[j] == slot) { slot = (slot + 1) % live; j = -1; }
      }
      slots[k] = slot;
    }
    uint64_t start = now();
    for (int k = 0; k < batch; k++) release(spans[slots[k]].address, spans[slots[k]].pages);
    uint64_t middle = now();
    for (int k = 0; k < batch; k++) spans[slots[k]].pages = job->size(next(&state));
    uint64_t again = now();
    for (int k = 0; k < batch; k++) spans[slots[k]].address = allocate(NULL, spans[slots[k]].pages);
    uint64_t end = now();
    if (i < 0) continue;
    job->samples[i] = (double)(end - again) / batch;
    job->samples[batches + i] = (double)(middle - start) / batch;
  }
  for (int i = 0; i < live; i++) release(spans[i].address, spans[i].pages);
  return NULL;
}

static void run_pairs(const char *name, size_t (*size)(uint64_t), int threads) {
  static struct job jobs[2];
  pthread_t made[2];
  for (int i = 0; i < threads; i++) {
    jobs[i].size = size;
    jobs[i].seed = 88172645463325252u + (unsigned)i;
    pthread_create(&made[i], NULL, pairs, &jobs[i]);
  }
  for (int i = 0; i < threads; i++) pthread_join(made[i], NULL);
  char full[64];
  snprintf(full, sizeof full, "alloc,%s", name);
  report(full, jobs[0].samples, batches);
  snprintf(full, sizeof full, "dalloc,%s", name);
  report(full, jobs[0].samples + batches, batches);
}

/// Growth in place by 4 pages (half of which succeed), then split, merge and free of the whole.
static void cuts(void) {
  static double growth[batches], split[batches], merge[batches];
  static char *spans[batch];
  static bool grown[batch];
  for (int i = 0; i < batches; i++) {
    for (int k = 0; k < batch; k++) spans[k] = allocate(NULL, 8);
    for (int k = 1; k < batch; k += 2) release(spans[k], 8);
    uint64_t start = now();
    for (int k = 0; k < batch; k += 2) grown[k] = allocate(spans[k] + 8 * page, 4) != NULL;
    uint64_t grew = now();
    for (int k = 0; k < batch; k += 2) if (heap->split(heap, spans[k], 8 * page, 2 * page, 6 * page, true, 0)) abort();
    uint64_t cut = now();
    for (int k = 0; k < batch; k += 2) {
      if (heap->merge(heap, spans[k], 2 * page, spans[k] + 2 * page, 6 * page, true, 0)) abort();
    }
    uint64_t joined = now();
    for (int k = 0; k < batch; k += 2) release(spans[k], grown[k] ? 12 : 8);
    growth[i] = (double)(grew - start) / (batch / 2);
    split[i] = (double)(cut - grew) / (batch / 2);
    merge[i] = (double)(joined - cut) / (batch / 2);
  }
  report("alloc,in-place", growth, batches);
  report("split,8-pages", split, batches);
  report("merge,8-pages", merge, batches);
}

int main(void) {
  int (*control)(const char *, void *, size_t *, void *, size_t) =
      (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
  size_t size = sizeof heap;
  if (!control || control("arena.0.extent_hooks", &heap, &size, NULL, 0) != 0) return 69;
  run_pairs("redis-sizes", redis_size, 1);
  run_pairs("python-sizes", python_size, 1);
  run_pairs("python-sizes,2-threads", python_size, 2);
  cuts();
  return 0;
}
