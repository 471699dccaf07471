/*
 * A region allocator: objects are carved off the front of a region one behind the other, and go all together.
 *
 * What it shows of the page heap: a region grows in place where the pages behind it are free (hs_grow), else it goes on
 * in another span; hs_shrink gives the unused end back; the word of user data leads from an address to its region;
 * the hard limit is an error value that leaves everything as it was; ticks by a clock of one's own; fork.
 */
#define _GNU_SOURCE
#include <hugespan.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) \
  do { if (!(condition)) { fprintf(stderr, "region.c:%d: not so: %s\n", __LINE__, #condition); _exit(1); } } while (0)

enum { page_bytes = 4096, largest_step = 512 };
/* The header at the front of each span. Behind that of the oldest chunk lies the region itself. */
typedef struct chunk { struct chunk *older; size_t pages, used_bytes; } chunk;
typedef struct region { hs_heap *heap; chunk *newest; } region;

static chunk *chunk_create(hs_heap *heap, size_t pages, chunk *older) {
  /* Short-lived spans keep company with their like, so that whole pageblocks become free. */
  hs_request request = {.pages = pages, .lifetime = HS_LIFETIME_SHORT};
  hs_allocation made;
  if (hs_allocate_request(heap, &request, &made) != HS_OK) return NULL;
  chunk *result = made.span.address;
  *result = (chunk){older, pages, sizeof(chunk)};
  return result;
}

static region *region_create(hs_heap *heap) {
  chunk *first = chunk_create(heap, 4, NULL);
  if (!first) return NULL;
  region *result = (region *)(first + 1);
  first->used_bytes += sizeof(region);
  *result = (region){heap, first};
  hs_set_user_data(heap, first, (uintptr_t)result);
  return result;
}

/* `bytes` of memory aligned to 16, or NULL when the heap is at its limit; the region is as it was then. */
static void *region_allocate(region *in, size_t bytes) {
  chunk *last = in->newest;
  bytes = (bytes + 15) & ~(size_t)15;
  size_t room = last->pages * page_bytes - last->used_bytes;
  if (bytes > room) {
    size_t step = last->pages < largest_step ? last->pages : largest_step;
    size_t missing = (bytes - room + page_bytes - 1) / page_bytes;
    if (step < missing) step = missing;
    if (hs_grow(in->heap, last, last->pages, step) == HS_OK) {
      last->pages += step;
    } else {
      last = chunk_create(in->heap, step + (room + sizeof(chunk)) / page_bytes + 1, last);
      if (!last) return NULL;
      hs_set_user_data(in->heap, last, (uintptr_t)in);
      in->newest = last;
    }
  }
  last->used_bytes += bytes;
  return (char *)last + last->used_bytes - bytes;
}

/* Nothing more will come into the region for a while. */
static void region_trim(region *of) {
  size_t kept = (of->newest->used_bytes + page_bytes - 1) / page_bytes;
  CHECK(hs_shrink(of->heap, of->newest, of->newest->pages, kept) == HS_OK);
  of->newest->pages = kept;
}

/* The region that an address lies in, or NULL. */
static region *region_containing(hs_heap *heap, const void *address) {
  hs_span span;
  return hs_span_containing(heap, address, &span) ? (region *)hs_user_data(heap, span.address) : NULL;
}

/* Gives a region back; answers in how many spans it was. */
static int region_destroy(region *gone) {
  hs_heap *heap = gone->heap; /* read now: the region lies in its oldest chunk */
  int spans = 0;
  for (chunk *each = gone->newest, *older; each; each = older, spans++) {
    older = each->older;
    hs_free(heap, each, each->pages);
  }
  return spans;
}

static hs_statistics statistics(hs_heap *heap) {
  hs_statistics now = {.size = sizeof now};
  CHECK(hs_heap_statistics(heap, &now) == HS_OK);
  return now;
}

/* Two clients of a server at once: strings of many lengths, read again later and found by address. */
static int serve(hs_heap *heap, unsigned seed) {
  region *memory[2] = {region_create(heap), region_create(heap)};
  char *texts[4000];
  CHECK(memory[0] && memory[1]);
  for (unsigned i = 0; i < 4000; i++) {
    texts[i] = region_allocate(memory[i % 2], (seed * 31 + i * 7) % 400 + 1);
    CHECK(texts[i]);
    memset(texts[i], 'a' + i % 26, (seed * 31 + i * 7) % 400 + 1);
  }
  region_trim(memory[0]);
  for (unsigned i = 0; i < 4000; i++) {
    for (unsigned k = 0; k <= (seed * 31 + i * 7) % 400; k++) CHECK(texts[i][k] == (char)('a' + i % 26));
    CHECK(region_containing(heap, texts[i]) == memory[i % 2]);
  }
  return region_destroy(memory[0]) + region_destroy(memory[1]);
}

int main(void) {
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.user_data = true;
  options.hard_limit_bytes = 64u << 20;
  options.policy_kind = HS_POLICY_RENT_OR_BUY;
  hs_heap *heap;
  CHECK(HS_VERSION_CHECK() && hs_heap_create(&options, &heap) == HS_OK);

  int spans = 0;
  for (unsigned seed = 0; seed < 100; seed++) spans += serve(heap, seed);
  printf("200 regions of %d spans, %d pages in use afterwards\n", spans, (int)statistics(heap).used_pages);
  CHECK(statistics(heap).used_pages == 0 && spans > 200);
  /* To the limit: what is there stays good, and room that is given back is room again. */
  region *large = region_create(heap), *small = region_create(heap);
  char *remembered = strcpy(region_allocate(small, 100), "still here"), *last;
  int megabytes = 0;
  while ((last = region_allocate(large, 1 << 20)) != NULL) memset(last, 1 + megabytes++, 1 << 20);
  hs_span refused;
  CHECK(hs_allocate(heap, 4096, &refused) == HS_LIMIT && strcmp(remembered, "still here") == 0);
  printf("%d MiB in a region under a limit of 64 MiB\n", megabytes);
  CHECK(megabytes >= 48 && megabytes < 64 && region_destroy(large) > 0 && serve(heap, 1) > 0);
  /* The library's fork handlers are registered since the heap was made: there is nothing to do. */
  int ended;
  pid_t child = fork();
  if (child == 0) _exit(strcpy(remembered, "the child's") != remembered || serve(heap, 2) == 0);
  CHECK(child > 0 && waitpid(child, &ended, 0) == child && ended == 0 && strcmp(remembered, "still here") == 0);
  CHECK(region_destroy(small) == 1);
  /* Idle by a clock of one's own, which takes no time: some seconds, then memory costs more than getting it anew. */
  const uint64_t second = 1000000000, start = second;
  uint64_t now = start;
  while (statistics(heap).free_resident_pages > 0 && now < start + 60 * second) now += hs_tick(heap, now, 0);
  hs_residency residency = {.size = sizeof residency};
  CHECK(hs_residency_pass(heap, &residency) == HS_OK && residency.resident_bytes == 0 && residency.used_pages == 0);
  printf("idle for %.1f s, and all memory is with the kernel\n", (double)(now - start) / 1e9);
  hs_heap_destroy(heap);
  return 0;
}
