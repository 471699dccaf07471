/*
 * The shared library loaded late and unloaded again: more often than the C library has room for fork handlers without
 * allocating, with a heap and its thread each time, and forks in between and afterwards.
 *
 *     loaded PATH-OF-LIBRARY
 */
#include <dlfcn.h>
#include <hugespan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

/* ISO C has no way from an object pointer to a function's; POSIX says that copying it is one. */
#define LOOK_UP(library, function)                  \
  do {                                              \
    void *symbol = dlsym(library, #function);       \
    CHECK(symbol != NULL);                          \
    memcpy(&function, &symbol, sizeof symbol);      \
  } while (0)

static long mappings(void) {
  long lines = 0;
  int c;
  FILE *file = fopen("/proc/self/maps", "r");
  CHECK(file != NULL);
  while ((c = getc(file)) != EOF) lines += c == '\n';
  fclose(file);
  return lines;
}

static void fork_and_wait(void) {
  int status;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    free(malloc(100000));
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void use(const char *path, int round) {
  hs_status (*hs_heap_create)(const hs_options *, hs_heap **);
  hs_status (*hs_allocate)(hs_heap *, size_t, hs_span *);
  void (*hs_free)(hs_heap *, void *, size_t);
  bool (*hs_scavenger_start)(hs_heap *);
  void (*hs_heap_destroy)(hs_heap *);
  bool (*hs_version_matches)(uint32_t, uint32_t);
  void *library = dlopen(path, round % 2 ? RTLD_NOW | RTLD_LOCAL : RTLD_LAZY | RTLD_GLOBAL);
  if (!library) fprintf(stderr, "%s\n", dlerror());
  CHECK(library != NULL);
  LOOK_UP(library, hs_heap_create);
  LOOK_UP(library, hs_allocate);
  LOOK_UP(library, hs_free);
  LOOK_UP(library, hs_scavenger_start);
  LOOK_UP(library, hs_heap_destroy);
  LOOK_UP(library, hs_version_matches);
  CHECK(HS_VERSION_CHECK());
  hs_heap *heap;
  hs_span span;
  CHECK(hs_heap_create(NULL, &heap) == HS_OK);
  CHECK(hs_scavenger_start(heap));
  CHECK(hs_allocate(heap, 600, &span) == HS_OK);
  memset(span.address, 1, span.pages * 4096);
  fork_and_wait();
  hs_free(heap, span.address, span.pages);
  hs_heap_destroy(heap);
  CHECK(dlclose(library) == 0);
  /* Gone, and its fork handlers with it: a fork that called into nowhere would not come back. */
  CHECK(dlopen(path, RTLD_NOW | RTLD_NOLOAD) == NULL);
  fork_and_wait();
}

int main(int count, char **arguments) {
  CHECK(count == 2);
  for (int round = 0; round < 4; round++) use(arguments[1], round);
  long before = mappings();
  for (int round = 0; round < 100; round++) use(arguments[1], round);
  CHECK(mappings() <= before + 2);
  puts("loaded and unloaded a hundred times");
  return 0;
}
