// A service with a day and a night: threads that look things up and replace them, while the amount that is kept rises,
// falls, and rises again. Prints its phases and, at the end, the operations it did.
//
//     diurnal THREADS MEBIBYTES SECONDS NIGHT
//
// SECONDS is the length of a busy phase, NIGHT of the idle one. Work is counted and not paced while it is busy, so
// that operations per CPU-second tell what lookups in this memory cost.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct Object {
  uint64_t size;
  uint64_t sum;
} Object;

typedef struct Worker {
  pthread_t thread;
  Object **objects;
  size_t count, capacity, bytes;
  uint64_t random, operations;
} Worker;

static atomic_size_t target;   // bytes each thread should keep
static atomic_int is_busy;     // look things up, or only keep them
static atomic_int is_over;
static atomic_int at_target;   // threads that hold what they should

static uint64_t draw(Worker *worker) {
  uint64_t x = worker->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return worker->random = x;
}

// Small objects are the most, large ones the most bytes: 32 bytes to 64 KiB, each power of two as often as it is small.
static size_t draw_size(Worker *worker) {
  unsigned shift = 5;
  while (shift < 16 && draw(worker) % 5 < 3) shift++;
  return ((size_t)1 << shift) + draw(worker) % ((size_t)1 << shift);
}

static Object *make(Worker *worker) {
  size_t size = draw_size(worker);
  Object *object = malloc(size);
  if (!object) {
    fprintf(stderr, "diurnal: no memory\n");
    exit(1);
  }
  memset(object, (int)size, size);
  object->size = size;
  object->sum = size * 3;
  return object;
}

static void take(Worker *worker, size_t index) {
  Object *object = worker->objects[index];
  if (object->sum != object->size * 3) {
    fprintf(stderr, "diurnal: object %p is damaged\n", (void *)object);
    exit(1);
  }
  worker->bytes -= object->size;
  free(object);
  worker->objects[index] = worker->objects[--worker->count];
}

static void put(Worker *worker) {
  if (worker->count == worker->capacity) {
    worker->capacity = worker->capacity ? worker->capacity * 2 : 1024;
    worker->objects = realloc(worker->objects, worker->capacity * sizeof(Object *));
  }
  Object *object = make(worker);
  worker->objects[worker->count++] = object;
  worker->bytes += object->size;
}

static void *work(void *pointer) {
  Worker *worker = pointer;
  int held = 0;
  uint64_t sum = 0;
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
    size_t wanted = atomic_load_explicit(&target, memory_order_relaxed);
    int steps = 0;
    while (worker->bytes < wanted && steps++ < 64) put(worker);
    while (worker->bytes > wanted + wanted / 64 && worker->count > 0 && steps++ < 64) {
      take(worker, draw(worker) % worker->count);
    }
    if (steps == 0) {
      if (held != (int)(wanted >> 20)) {
        held = (int)(wanted >> 20);
        atomic_fetch_add(&at_target, 1);
      }
      if (!atomic_load_explicit(&is_busy, memory_order_relaxed) || worker->count == 0) {
        usleep(2000);
        continue;
      }
    }
    if (!atomic_load_explicit(&is_busy, memory_order_relaxed) || worker->count == 0) continue;
    for (int lookup = 0; lookup < 256; lookup++) {
      Object *object = worker->objects[draw(worker) % worker->count];
      sum += object->sum + ((unsigned char *)object)[object->size - 1];
    }
    take(worker, draw(worker) % worker->count);
    worker->operations += 257;
  }
  return (void *)(uintptr_t)sum;
}

static void phase(const char *name) {
  printf("phase %s\n", name);
  fflush(stdout);
}

static void reach(int threads, size_t bytes) {
  atomic_store(&at_target, 0);
  atomic_store(&target, bytes / threads);
  while (atomic_load(&at_target) < threads) usleep(1000);
}

int main(int count, char **arguments) {
  if (count != 5) {
    fprintf(stderr, "usage: diurnal THREADS MEBIBYTES SECONDS NIGHT\n");
    return 64;
  }
  int threads = atoi(arguments[1]);
  size_t bytes = (size_t)atoi(arguments[2]) << 20;
  double seconds = atof(arguments[3]), night = atof(arguments[4]);
  Worker *workers = calloc(threads, sizeof(Worker));
  for (int index = 0; index < threads; index++) {
    workers[index].random = 0x9E3779B97F4A7C15u * (index + 1);
    pthread_create(&workers[index].thread, NULL, work, &workers[index]);
  }
  for (int day = 0; day < 2; day++) {
    phase("load");
    reach(threads, bytes);
    atomic_store(&is_busy, 1);
    phase("busy");
    usleep((useconds_t)(seconds * 1e6));
    atomic_store(&is_busy, 0);
    if (day == 1) break;
    phase("drop");
    reach(threads, bytes / 4);
    phase("idle");
    usleep((useconds_t)(night * 1e6));
  }
  atomic_store(&is_over, 1);
  uint64_t operations = 0;
  for (int index = 0; index < threads; index++) {
    pthread_join(workers[index].thread, NULL);
    operations += workers[index].operations;
  }
  printf("operations %llu\n", (unsigned long long)operations);
  phase("end");
  return 0;
}
