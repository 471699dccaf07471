/*
 * A program on the heap, and the neighbour that takes its memory: see run.
 *
 *     pressure heap SETTINGS LIVE FREE SECONDS   a heap with LIVE MiB in use and FREE MiB free, as much of that as is in use in
 *                                                halves of pageblocks, at most half of it, the rest in whole ones; prints a line
 *                                                when it is ready and one when it ends (by SIGTERM, or after SECONDS)
 *     pressure take MIB RATE                     touches MIB MiB at RATE MB/s, prints the bytes when it has them, and waits
 */
#include <errno.h>
#include <hugespan.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_for(double s) {
  struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

static int take(size_t mebibytes, double rate) {
  size_t bytes = mebibytes << 20;
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  double start = seconds(CLOCK_MONOTONIC);
  for (size_t done = 0; done < bytes; done += 256 << 10) {
    for (size_t page = 0; page < 256 << 10; page += 4096) memset(memory + done + page, (int)(done >> 18) + 1, 2048);
    double due = start + (double)(done + (256 << 10)) / (rate * 1e6);
    double now = seconds(CLOCK_MONOTONIC);
    if (due > now) pause_for(due - now);
  }
  printf("took %zu in %.3f\n", bytes, seconds(CLOCK_MONOTONIC) - start);
  fflush(stdout);
  pause();
  return 0;
}

static long swapped_kilobytes(void) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  long kilobytes = 0;
  while (file && fgets(line, sizeof line, file)) sscanf(line, "VmSwap: %ld", &kilobytes);
  if (file) fclose(file);
  return kilobytes;
}

static void fill(hs_span span) {
  /* Half of each page, by a generator: memory that zram cannot make go away. */
  static uint64_t state = 88172645463325252u;
  for (size_t page = 0; page < span.pages; page++) {
    uint64_t *words = (uint64_t *)((char *)span.address + page * 4096);
    for (int word = 0; word < 256; word++) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      words[word] = state;
    }
  }
}

static int run_heap(const char *settings, size_t live, size_t spare, double limit) {
  hs_options options;
  hs_options_init(&options, sizeof options);
  hs_options_error error;
  if (hs_options_parse(settings, &options, NULL, &error) != HS_OK) {
    fprintf(stderr, "pressure: %s\n", error.message);
    return 64;
  }
  hs_heap *heap;
  if (hs_heap_create(&options, &heap) != HS_OK || !hs_scavenger_start(heap)) return 69;
  /* Halves of blocks beside halves that stay, then whole blocks, then what else is in use. */
  size_t halves = spare / 2 < live ? spare / 2 : live, whole = (spare - halves) / 2;
  hs_span *freed = calloc(halves + whole, sizeof *freed);
  size_t used = 0, count = 0;
  hs_span span;
  for (size_t i = 0; i < halves; i++) {
    if (hs_allocate(heap, 256, &span) != HS_OK) return 70;
    fill(span);
    used++;
    if (hs_allocate(heap, 256, &freed[count]) != HS_OK) return 70;
    fill(freed[count++]);
  }
  for (size_t i = 0; i < whole; i++) {
    if (hs_allocate(heap, 512, &freed[count]) != HS_OK) return 70;
    fill(freed[count++]);
  }
  for (; used < live; used++) {
    if (hs_allocate(heap, 256, &span) != HS_OK) return 70;
    fill(span);
  }
  for (size_t i = 0; i < count; i++) hs_free(heap, freed[i].address, freed[i].pages);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  hs_pressure before = {.size = sizeof before}, after = {.size = sizeof after};
  hs_heap_pressure(heap, &before);
  double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  printf("ready\n");
  fflush(stdout);
  struct timespec patience = {(time_t)limit, 0};
  sigtimedwait(&set, NULL, &patience);
  hs_statistics statistics = {.size = sizeof statistics};
  hs_heap_statistics(heap, &statistics);
  hs_heap_pressure(heap, &after);
  double elapsed = seconds(CLOCK_MONOTONIC) - start;
  printf(
      "{\"drains\": %llu, \"drainedBytes\": %llu, \"freeBytes\": %llu, \"leastHeadroomBytes\": %lld, \"reactionSeconds\": %.6f, "
      "\"looks\": %llu, \"lookCPUShare\": %.7f, \"cpuShare\": %.7f, \"swappedBytes\": %ld, \"splits\": %llu}\n",
      (unsigned long long)statistics.drains, (unsigned long long)statistics.pages_drained * 4096,
      (unsigned long long)statistics.free_resident_pages * 4096, (long long)after.least_headroom_bytes,
      (double)after.longest_reaction_nanoseconds / 1e9, (unsigned long long)(after.looks - before.looks),
      (double)(after.look_nanoseconds - before.look_nanoseconds) / 1e9 / elapsed,
      (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / elapsed, swapped_kilobytes() * 1024,
      (unsigned long long)statistics.splits);
  return 0;
}

int main(int count, char **words) {
  if (count == 6 && strcmp(words[1], "heap") == 0)
    return run_heap(words[2], (size_t)atol(words[3]), (size_t)atol(words[4]), atof(words[5]));
  if (count == 4 && strcmp(words[1], "take") == 0) return take((size_t)atol(words[2]), atof(words[3]));
  fprintf(stderr, "usage: pressure heap SETTINGS LIVE FREE SECONDS | take MIB RATE\n");
  return 64;
}
