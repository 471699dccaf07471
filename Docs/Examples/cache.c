/*
 * A page cache that needs no size: every entry that was ever made is kept, and discarded while nobody reads it. What memory
 * there is for it is the kernel's affair, from moment to moment.
 *
 *     cache DATA_MIB WORK_MIB [LRU_MIB]
 *
 * Reads entries of 64 KiB at random, some much more often than others, and makes those anew that are not there. Half of the time
 * the program needs WORK_MIB of other memory. With LRU_MIB it is a cache of the usual kind instead: the entries that
 * were read last, as many as fit; a size that has to be right when memory is shortest.
 *
 * What it shows of the page heap: hs_discard, hs_undo_discard and its verdict, with no table of what is there.
 */
#define _GNU_SOURCE
#include <hugespan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) \
  do { if (!(condition)) { fprintf(stderr, "cache.c:%d: not so: %s\n", __LINE__, #condition); _exit(1); } } while (0)

enum { entry_pages = 16, entry_words = entry_pages * 512, steps = 8 };
typedef struct entry { uint64_t *words; size_t newer, older; } entry; /* the neighbours are the LRU's */
static hs_heap *heap;
static entry *entries; /* one more than there are: the ring's head */
static size_t count, rebuilt;

static uint64_t next_random(void) {
  static uint64_t state = 0x9E3779B97F4A7C15;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

/* The number of an entry. Half of all reads go to an eighth of the entries, and those lie everywhere. */
static size_t next_entry(void) {
  double u = (double)(next_random() >> 11) / 9007199254740992.0;
  return (size_t)((double)count * u * u * u) * 7919 % count;
}

/* What stands for a query to a database, or a picture to be scaled. Some entries are nothing but zeros. */
static void rebuild(size_t number) {
  for (size_t i = 0; i < entry_words; i++) entries[number].words[i] = number % 16 == 0 ? 0 : number * i;
  rebuilt++;
}

static uint64_t use(size_t number) {
  const uint64_t *words = entries[number].words;
  size_t at = next_random() % entry_words;
  CHECK(words[at] == (number % 16 == 0 ? 0 : number * at));
  return words[at];
}

/* The cache: take it back, or make it anew; use it; give it up again. */
static void read_discardable(size_t number) {
  entry *it = &entries[number];
  hs_verdict verdict = HS_LOST;
  if (it->words == NULL) {
    hs_span span;
    CHECK(hs_allocate(heap, entry_pages, &span) == HS_OK);
    it->words = span.address;
  } else {
    CHECK(hs_undo_discard(heap, it->words, entry_pages, NULL, &verdict) == HS_OK);
  }
  if (verdict != HS_INTACT) rebuild(number);
  use(number);
  CHECK(hs_discard(heap, it->words, entry_pages) == HS_OK);
}

/* The usual one. */
static void unlink_entry(size_t number) {
  entries[entries[number].newer].older = entries[number].older;
  entries[entries[number].older].newer = entries[number].newer;
}

static void read_lru(size_t number, size_t *room) {
  entry *it = &entries[number], *head = &entries[count];
  if (it->words != NULL) {
    unlink_entry(number);
  } else {
    hs_span span;
    if (*room > 0) {
      CHECK(hs_allocate(heap, entry_pages, &span) == HS_OK);
      it->words = span.address;
      --*room;
    } else {
      size_t oldest = head->newer;
      unlink_entry(oldest);
      it->words = entries[oldest].words;
      entries[oldest].words = NULL;
    }
    rebuild(number);
  }
  it->newer = count, it->older = head->older;
  entries[head->older].newer = number, head->older = number;
  use(number);
}

int main(int argc, char **argv) {
  CHECK(argc == 3 || argc == 4);
  count = (size_t)atol(argv[1]) << 4;
  size_t work_bytes = (size_t)atol(argv[2]) << 20, room = argc == 4 ? (size_t)atol(argv[3]) << 4 : 0;
  CHECK(count > 0 && (argc == 3 || room > 0));
  CHECK(HS_VERSION_CHECK() && hs_heap_create(NULL, &heap) == HS_OK);
  entries = calloc(count + 1, sizeof *entries);
  CHECK(entries != NULL);
  entries[count].newer = entries[count].older = count;

  size_t reads = 0, missed = 0;
  struct timespec start, end;
  for (int step = 0; step < steps; step++) {
    char *work = NULL;
    if (step % 2 == 1 && work_bytes > 0) {
      work = mmap(NULL, work_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CHECK(work != MAP_FAILED);
      memset(work, 1, work_bytes);
    }
    if (step == 2) { /* the first two fill the cache */
      rebuilt = 0;
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    }
    for (size_t i = 0; i < 2 * count; i++) {
      if (argc == 4) read_lru(next_entry(), &room); else read_discardable(next_entry());
    }
    if (step >= 2) reads += 2 * count;
    if (work != NULL) munmap(work, work_bytes);
  }
  missed = rebuilt;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  double microseconds = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
  printf("%s, %zu MiB of entries: %.1f %% of %zu reads found theirs, %.1f us of CPU time each\n",
         argc == 4 ? "the usual cache" : "discardable", count >> 4,
         100.0 * (1.0 - (double)missed / (double)reads), reads, microseconds / (double)reads);
  hs_heap_destroy(heap);
  return 0;
}
