// What an event costs a program: run with and without the recorder by the script beside this file.
//
// Events are timed in batches of 200, since the clock itself costs as much as one, and the batch's mean is a sample.
// Prints one line per case: name, events, then nanoseconds an event: median, mean, 99th percentile of the batches.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { batch = 200, batches = 20000, live = 4096 };

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const char *name, double *samples) {
  double sum = 0;
  for (int i = 0; i < batches; i++) sum += samples[i];
  qsort(samples, batches, sizeof *samples, ascending);
  printf("%s %d %.2f %.2f %.2f\n", name, batch * batches, samples[batches / 2], sum / batches,
         samples[batches * 99 / 100]);
}

static void *volatile slots[batch];

static void stack(double *samples) {
  for (int i = 0; i < batches; i++) {
    uint64_t start = now();
    for (int k = 0; k < batch / 2; k++) slots[k] = malloc(64);
    for (int k = batch / 2; k-- > 0;) free(slots[k]);
    samples[i] = (double)(now() - start) / batch;
  }
}

static void random_sizes(double *samples) {
  static void *objects[live];
  uint64_t state = 88172645463325252u;
  for (int i = 0; i < live; i++) objects[i] = malloc(64);
  for (int i = 0; i < batches; i++) {
    uint64_t start = now();
    for (int k = 0; k < batch / 2; k++) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      void **slot = &objects[state % live];
      free(*slot);
      *slot = malloc(16 + (state >> 32) % 1000);
    }
    samples[i] = (double)(now() - start) / batch;
  }
  for (int i = 0; i < live; i++) free(objects[i]);
}

static void grow(double *samples) {
  for (int i = 0; i < batches; i++) {
    uint64_t start = now();
    void *p = malloc(16);
    for (int k = 0; k < batch - 2; k++) p = realloc(p, 16 + k % 7 * 8);
    free(p);
    samples[i] = (double)(now() - start) / batch;
  }
}

static pthread_barrier_t barrier;

static void *other(void *samples) {
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < batches; i++) {
    void *objects[batch / 2];
    uint64_t start = now();
    for (int k = 0; k < batch / 2; k++) objects[k] = malloc(64);
    for (int k = 0; k < batch / 2; k++) free(objects[k]);
    ((double *)samples)[i] = (double)(now() - start) / batch;
  }
  return NULL;
}

int main(void) {
  double *samples = calloc(batches, sizeof *samples), *second = calloc(batches, sizeof *second);
  stack(samples);
  report("stack", samples);
  random_sizes(samples);
  report("random", samples);
  grow(samples);
  report("realloc", samples);
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_create(&thread, NULL, other, second);
  other(samples);
  pthread_join(thread, NULL);
  report("two-threads", samples);
  return 0;
}
