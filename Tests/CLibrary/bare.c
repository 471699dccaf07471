/*
 * A scavenger of which the C library knows nothing: the program stays one of a single thread, its errno is its own, the thread has
 * no capabilities, and it can be stopped, started again, forked beside and waited for as any other.
 */
#include <errno.h>
#include <hugespan.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

/* Elsewhere it is an ordinary thread. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(SANITIZED)
#define BARE
extern char __libc_single_threaded;

/* A line of the status of the process' other thread. */
static void other_status(const char *key, char *value) {
  char command[200];
  snprintf(command, sizeof command, "grep -h %s /proc/%d/task/*/status | tail -1 | cut -f2", key, (int)getpid());
  FILE *answer = popen(command, "r");
  CHECK(answer != NULL && fgets(value, 64, answer) != NULL);
  pclose(answer);
}

static int threads(void) {
  char text[64];
  other_status("^Threads:", text);
  return atoi(text);
}
#endif

static uint64_t ticks(hs_heap *heap) {
  hs_statistics now;
  now.size = sizeof now;
  CHECK(hs_heap_statistics(heap, &now) == HS_OK);
  return now.ticks;
}

static void await_ticks(hs_heap *heap, uint64_t more) {
  uint64_t before = ticks(heap);
  for (int i = 0; i < 2000 && ticks(heap) < before + more; i++) {
    struct timespec pause = {0, 10000000};
    nanosleep(&pause, NULL);
  }
  CHECK(ticks(heap) >= before + more);
}

static void plan(void *context, const hs_scavenge_input *input, hs_scavenge_plan *plan) {
  (void)input, (void)plan;
  *(pthread_t *)context = pthread_self();
}

/* What is the program's own may ask the library anything, so it runs in a thread that the library knows. */
static void a_policy_of_ones_own_gets_the_other_kind(void) {
  pthread_t seen = 0;
  hs_policy policy = {&seen, plan, NULL};
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.policy_kind = HS_POLICY_CUSTOM;
  options.policy = &policy;
  hs_heap *heap;
  CHECK(hs_heap_create(&options, &heap) == HS_OK && hs_scavenger_start_bare(heap));
  await_ticks(heap, 1);
  hs_heap_destroy(heap);
  CHECK(seen != 0 && !pthread_equal(seen, pthread_self()));
}

int main(void) {
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.policy_kind = HS_POLICY_IMMEDIATE;
  hs_heap *heap;
  CHECK(hs_heap_create(&options, &heap) == HS_OK);
  CHECK(hs_scavenger_start_bare(heap) && hs_scavenger_start_bare(heap));
#ifdef BARE
  char capabilities[64];
  other_status("^CapEff:", capabilities);
  CHECK(strtoull(capabilities, NULL, 16) == 0);
  CHECK(threads() == 2 && __libc_single_threaded);
#endif
  errno = 0;
  for (int round = 0; round < 20; round++) {
    hs_span span;
    CHECK(hs_allocate(heap, 5 * 512, &span) == HS_OK);
    memset(span.address, round, span.pages * 4096);
    hs_free(heap, span.address, span.pages);
    await_ticks(heap, 1);
  }
  CHECK(errno == 0);
  hs_statistics now;
  now.size = sizeof now;
  CHECK(hs_heap_statistics(heap, &now) == HS_OK && now.pages_released > 0);

  hs_span kept;
  CHECK(hs_allocate(heap, 700, &kept) == HS_OK);
  memset(kept.address, 7, 700 * 4096);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    /* It did not come along; another can be had. */
    CHECK(hs_scavenger_start_bare(heap));
    await_ticks(heap, 2);
    CHECK(((char *)kept.address)[700 * 4096 - 1] == 7);
    hs_scavenger_stop(heap);
    hs_heap_destroy(heap);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  await_ticks(heap, 1);
  for (int i = 0; i < 200; i++) {
    hs_scavenger_stop(heap);
    CHECK(hs_scavenger_start_bare(heap));
  }
  hs_scavenger_stop(heap);
#ifdef BARE
  CHECK(threads() == 1 && __libc_single_threaded);
#endif
  CHECK(hs_scavenger_start_bare(heap));
  hs_heap_destroy(heap);
  a_policy_of_ones_own_gets_the_other_kind();
  puts("a bare scavenger leaves the program alone");
  return 0;
}
