/*
 * The library inside malloc: a page for the smallest of objects, and nothing else, so that every call of the program and
 * of the C library goes through the heap, the first of them long before main. Linked into a program it tests itself with
 * threads and forks; as a shared library it is preloaded into others.
 */
#include <errno.h>
#include <hugespan.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static hs_heap *heap;

/* The first call is made by one thread: the C library's, before main. */
static hs_heap *the_heap(void) {
  if (!heap) {
    hs_options options;
    hs_options_init(&options, sizeof options);
    options.policy_kind = HS_POLICY_IMMEDIATE;
    if (hs_heap_create(&options, &heap) != HS_OK) abort();
  }
  return heap;
}

static void *get(size_t bytes, size_t alignment, bool zero) {
  hs_request request;
  hs_allocation made;
  memset(&request, 0, sizeof request);
  request.pages = bytes / 4096 + 1;
  request.alignment_pages = alignment > 4096 ? alignment / 4096 : 0;
  request.must_be_zero = zero;
  if (bytes <= SIZE_MAX / 2 && hs_allocate_request(the_heap(), &request, &made) == HS_OK) return made.span.address;
  errno = ENOMEM;
  return NULL;
}

void *malloc(size_t bytes) { return get(bytes, 1, false); }

void free(void *object) {
  hs_span span;
  int error = errno;
  if (!object) return;
  if (!hs_span_containing(heap, object, &span) || span.address != object) abort();
  hs_free(heap, span.address, span.pages);
  errno = error;
}

void *calloc(size_t count, size_t size) {
  if (size != 0 && count > SIZE_MAX / size) return NULL;
  return get(count * size, 1, true);
}

void *realloc(void *object, size_t bytes) {
  hs_span span;
  if (!object) return malloc(bytes);
  if (!hs_span_containing(heap, object, &span) || span.address != object) abort();
  size_t pages = bytes / 4096 + 1;
  if (pages == span.pages) return object;
  if (pages < span.pages && hs_shrink(heap, object, span.pages, pages) == HS_OK) return object;
  if (pages > span.pages && hs_grow(heap, object, span.pages, pages - span.pages) == HS_OK) return object;
  void *copy = malloc(bytes);
  if (!copy) return NULL;
  memcpy(copy, object, (pages < span.pages ? pages : span.pages) * 4096);
  free(object);
  return copy;
}

void *aligned_alloc(size_t alignment, size_t bytes) { return get(bytes, alignment, false); }
void *memalign(size_t alignment, size_t bytes) { return get(bytes, alignment, false); }
int posix_memalign(void **object, size_t alignment, size_t bytes) {
  *object = get(bytes, alignment, false);
  return *object ? 0 : ENOMEM;
}

#ifndef PRELOADED
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

static char *before_main;

__attribute__((constructor)) static void early(void) {
  before_main = (char *)calloc(1, 3000000);
  before_main[2999999] = 7;
}

static void churn(unsigned long state, int rounds) {
  char *objects[64] = {NULL};
  size_t sizes[64] = {0};
  for (int round = 0; round < rounds; round++) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    unsigned slot = (unsigned)(state >> 33) % 64;
    size_t bytes = 1 + (state >> 40) % (slot == 0 ? 3000000 : 40000);
    if (objects[slot]) CHECK(objects[slot][sizes[slot] - 1] == (char)slot);
    if (round % 3 == 0) {
      char *moved = (char *)realloc(objects[slot], bytes);
      CHECK(moved != NULL);
      objects[slot] = moved;
    } else {
      free(objects[slot]);
      objects[slot] = (char *)(round % 3 == 1 ? malloc(bytes) : calloc(1, bytes));
      CHECK(objects[slot] != NULL && (round % 3 == 1 || objects[slot][bytes - 1] == 0));
    }
    sizes[slot] = bytes;
    objects[slot][bytes - 1] = (char)slot;
  }
  for (unsigned slot = 0; slot < 64; slot++) free(objects[slot]);
}

static void *work(void *seed) {
  churn((unsigned long)seed, 20000);
  return NULL;
}

int main(void) {
  pthread_t threads[4];
  int status;
  CHECK(before_main[2999999] == 7 && before_main[0] == 0);
  free(before_main);
  /* Not inside of malloc, and no lock of the allocator's is held. */
  CHECK(hs_scavenger_start(heap));
  for (unsigned long index = 0; index < 4; index++) CHECK(pthread_create(&threads[index], NULL, work, (void *)(index + 1)) == 0);
  for (int number = 0; number < 40; number++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(60);
      churn(99, 500);
      CHECK(hs_scavenger_start(heap));
      churn(98, 500);
      exit(0);
    }
    churn((unsigned long)number, 100);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
  }
  for (int index = 0; index < 4; index++) CHECK(pthread_join(threads[index], NULL) == 0);
  puts("malloc stands on the heap, before main, in threads and on both sides of forks");
  return 0;
}
#endif
