/* The C library from C and from C++: every group of functions once, and a policy and a strategy of one's own. */
#include <hugespan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

struct counts {
  int plans, books, releases;
  size_t ranges;
};

static void plan(void *context, const hs_scavenge_input *input, hs_scavenge_plan *answer) {
  ((struct counts *)context)->plans++;
  answer->pages = input->releasable_pages;
  answer->prefer_broken = true;
  answer->longest_first = true;
  answer->next_tick = 5000000;
}

static void booked(void *context, uint64_t wanted, uint64_t released) {
  ((struct counts *)context)->books++;
  CHECK(released >= wanted);
}

static uint32_t release_ranges(void *context, hs_release_range *ranges, size_t count) {
  struct counts *counts = (struct counts *)context;
  counts->releases++;
  counts->ranges += count;
  for (size_t i = 0; i < count; i++) {
    CHECK(ranges[i].effect == HS_EFFECT_POSTPONED);
    ranges[i].effect = madvise(ranges[i].address, ranges[i].bytes, MADV_DONTNEED) == 0 ? HS_EFFECT_GONE : HS_EFFECT_REFUSED;
  }
  return (uint32_t)count;
}

static void own_policy_and_strategy(void) {
  struct counts counts = {0, 0, 0, 0};
  hs_policy policy = {&counts, plan, booked};
  hs_strategy strategy = {&counts, release_ranges};
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.policy_kind = HS_POLICY_CUSTOM;
  options.strategy_kind = HS_STRATEGY_CUSTOM;
  hs_heap *none = NULL;
  CHECK(hs_heap_create(&options, &none) == HS_INVALID && none == NULL);
  options.policy = &policy;
  options.strategy = &strategy;
  hs_heap *heap;
  CHECK(hs_heap_create(&options, &heap) == HS_OK);
  hs_span span;
  CHECK(hs_allocate(heap, 1024, &span) == HS_OK);
  memset(span.address, 7, span.pages * 4096);
  hs_free(heap, (char *)span.address + 4096, 1000);
  CHECK(hs_tick(heap, 1000000000, 0) == 5000000);
  CHECK(counts.plans == 1 && counts.books == 1 && counts.releases >= 1 && counts.ranges >= 2);
  CHECK(((char *)span.address)[0] == 7 && ((char *)span.address)[4096] == 0);
  CHECK(((char *)span.address)[1001 * 4096] == 7);
  hs_statistics statistics;
  statistics.size = sizeof statistics;
  CHECK(hs_heap_statistics(heap, &statistics) == HS_OK);
  /* As snprintf: the length of all of it, however much there is room for. */
  static char metrics[16384];
  size_t needed = hs_heap_prometheus(heap, "c", NULL, 0);
  CHECK(needed > 2000 && hs_heap_prometheus(heap, "c", metrics, sizeof metrics) == needed);
  CHECK(strlen(metrics) == needed && strstr(metrics, "hugespan_used_bytes{heap=\"c\"} ") != NULL);
  CHECK(hs_heap_prometheus(heap, "c", metrics, 8) == needed && strcmp(metrics, "# HELP ") == 0);
  CHECK(statistics.released_pages == 1000 && statistics.used_pages == 24 && statistics.ticks == 1);
  hs_heap_destroy(heap);
}

/* Every function works in a child, and what it does there is not seen in the parent. */
static void use_in_child(hs_heap *heap, hs_span kept) {
  hs_statistics statistics;
  statistics.size = sizeof statistics;
  hs_span span;
  CHECK(hs_allocate(heap, 700, &span) == HS_OK);
  memset(span.address, 3, span.pages * 4096);
  memset(kept.address, 4, kept.pages * 4096);
  hs_free(heap, kept.address, kept.pages);
  hs_free(heap, span.address, span.pages);
  CHECK(hs_tick(heap, 2000000000, 0) > 0);
  hs_release_now(heap, 1u << 20);
  CHECK(hs_heap_statistics(heap, &statistics) == HS_OK && statistics.used_pages == 512);
  CHECK(hs_scavenger_start(heap));
  hs_heap_destroy(heap);
}

static void fork_and_use(bool by_hand) {
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.policy_kind = HS_POLICY_IMMEDIATE;
  options.strategy_kind = HS_STRATEGY_FREE;
  hs_heap *heap;
  CHECK(hs_heap_create(&options, &heap) == HS_OK);
  CHECK(hs_scavenger_start(heap));
  hs_span kept, freed;
  CHECK(hs_allocate(heap, 512, &kept) == HS_OK && hs_allocate(heap, 512, &freed) == HS_OK);
  memset(kept.address, 1, kept.pages * 4096);
  memset(freed.address, 1, freed.pages * 4096);
  if (by_hand) hs_fork_prepare();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(60);
    if (by_hand) hs_fork_child();
    use_in_child(heap, kept);
    _exit(0);
  }
  if (by_hand) hs_fork_parent();
  hs_free(heap, freed.address, freed.pages);
  CHECK(hs_allocate(heap, 512, &freed) == HS_OK);
  memset(freed.address, 2, freed.pages * 4096);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  for (size_t i = 0; i < kept.pages * 4096; i++) CHECK(((char *)kept.address)[i] == 1);
  hs_heap_destroy(heap);
}

/* What is behind a part that was freed has the word that was set for its address, and that is none. */
static void user_data_belongs_to_the_address(hs_heap *heap) {
  hs_span span, rest;
  CHECK(hs_allocate(heap, 10, &span) == HS_OK);
  char *address = (char *)span.address;
  CHECK(hs_user_data(heap, address) == 0);
  hs_set_user_data(heap, address, 5);
  hs_free(heap, address + 3 * 4096, 2);
  CHECK(hs_span_containing(heap, address + 7 * 4096, &rest) && rest.address == address + 5 * 4096 && rest.pages == 5);
  CHECK(hs_user_data(heap, address) == 5 && hs_user_data(heap, rest.address) == 0);
  hs_free(heap, address, 3);
  CHECK(hs_user_data(heap, address) == 5);
  hs_set_user_data(heap, address, 0);
  hs_free(heap, rest.address, 5);
}

static void limits_count_pageblocks(void) {
  for (unsigned megabytes = 1; megabytes <= 5; megabytes++) {
    hs_options options;
    hs_options_init(&options, sizeof options);
    options.hard_limit_bytes = (uint64_t)megabytes << 20;
    hs_heap *heap;
    CHECK(hs_heap_create(&options, &heap) == HS_OK);
    hs_span span;
    unsigned pages = 0;
    hs_status status;
    while ((status = hs_allocate(heap, 1, &span)) == HS_OK) pages++;
    CHECK(status == HS_LIMIT && pages == megabytes / 2 * 512);
    if (pages > 0) CHECK(hs_grow(heap, span.address, 1, 600) == HS_NOT_FREE);
    hs_heap_destroy(heap);
  }
}

static void statistics_add_up(void) {
  hs_heap *heap;
  CHECK(hs_heap_create(NULL, &heap) == HS_OK);
  CHECK(hs_user_data(heap, heap) == 0);
  hs_span spans[20];
  for (size_t i = 0; i < 20; i++) {
    CHECK(hs_allocate(heap, 100 + 50 * i, &spans[i]) == HS_OK);
    memset(spans[i].address, 1, spans[i].pages * 4096);
  }
  for (size_t i = 0; i < 20; i += 2) hs_free(heap, spans[i].address, spans[i].pages);
  for (int round = 0; round < 3; round++) {
    hs_statistics now;
    now.size = sizeof now;
    CHECK(hs_heap_statistics(heap, &now) == HS_OK);
    CHECK(512 * now.blocks == now.used_pages + now.free_resident_pages + now.lazy_pages + now.released_pages +
                                  512 * now.absent_blocks);
    CHECK(now.blocks == now.full_blocks + now.partial_intact_blocks + now.partial_broken_blocks +
                            now.free_resident_blocks + now.absent_blocks);
    CHECK(round == 0 ? now.released_pages == 0 : now.pages_released > 0);
    if (round == 0) CHECK(hs_release_now(heap, 3u << 20) >= 3u << 20);
    if (round == 1) CHECK(hs_release_now(heap, UINT64_MAX) > 0);
    if (round == 2) CHECK(now.free_resident_pages == 0);
  }
  hs_heap_destroy(heap);
}

/* Free memory stays until others need it, and then goes; a strategy that releases by itself keeps out of it. */
static void deferred_memory_goes_under_pressure(hs_strategy_kind strategy) {
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.strategy_kind = strategy;
  options.policy_kind = HS_POLICY_NEVER;
  hs_heap *heap;
  CHECK(hs_heap_create(&options, &heap) == HS_OK);
  hs_span span;
  CHECK(hs_allocate(heap, 2048, &span) == HS_OK);
  memset(span.address, 1, span.pages * 4096);
  hs_free(heap, span.address, span.pages);
  uint64_t expected = strategy == HS_STRATEGY_DEFERRED ? 8u << 20 : 0;
  CHECK(hs_relieve(heap, 100, 50) == 0);
  CHECK(hs_relieve(heap, -1, 1u << 30) == expected);
  hs_statistics statistics;
  statistics.size = sizeof statistics;
  CHECK(hs_heap_statistics(heap, &statistics) == HS_OK);
  CHECK(statistics.pages_drained == expected / 4096 && statistics.drains == (expected > 0));
  uint64_t next = hs_tick(heap, 1000000000, 0);
  CHECK(next >= 1000000 && (expected == 0 || next <= 100000000));
  hs_pressure pressure;
  pressure.size = sizeof pressure;
  CHECK(hs_heap_pressure(heap, &pressure) == HS_OK && pressure.looks == (expected > 0));
  hs_heap_destroy(heap);
}

/* What the kernel takes of discarded memory is lost, the rest is what it was, zeros included. */
static void discarded_memory_comes_back(void) {
  hs_heap *heap;
  CHECK(hs_heap_create(NULL, &heap) == HS_OK);
  for (size_t pages = 16; pages <= 1024; pages *= 8) {
    hs_span span;
    uint64_t lost[16];
    hs_verdict verdict = HS_LOST;
    CHECK(hs_allocate(heap, pages, &span) == HS_OK);
    char *address = (char *)span.address;
    memset(address, 5, pages * 4096);
    memset(address + 4096, 0, 4096);
    CHECK(hs_discard(heap, address, pages) == HS_OK && hs_discard(heap, address, pages) == HS_INVALID);
    CHECK(hs_undo_discard(heap, address, pages, lost, &verdict) == HS_OK && verdict == HS_INTACT && lost[0] == 0);
    for (size_t i = 0; i < pages * 4096; i++) CHECK(address[i] == (i / 4096 == 1 ? 0 : 5));
    CHECK(hs_discard(heap, address, pages) == HS_OK && madvise(address + 3 * 4096, 4096, MADV_DONTNEED) == 0);
    CHECK(hs_undo_discard(heap, address, pages, lost, &verdict) == HS_OK && verdict == HS_PARTLY_LOST && lost[0] == 8);
    CHECK(address[3 * 4096] == 0 && address[4 * 4096] == 5 && address[4096] == 0);
    hs_free(heap, address, pages);
  }
  hs_heap_destroy(heap);
}

static void free_elsewhere(void *context, void *address, size_t bytes) {
  CHECK(bytes == 1u << 20);
  free(address);
  ++*(int *)context;
}

/* As a runtime uses them: its table of functions is replaced while it has arenas from before. */
static void arenas(void) {
  int freed_elsewhere = 0;
  hs_arena_functions table = {&freed_elsewhere, NULL, free_elsewhere};
  void *before = malloc(1u << 20);
  hs_heap *heap;
  CHECK(hs_heap_create(NULL, &heap) == HS_OK);
  CHECK(hs_arena_source(heap, &table, &table) == HS_OK && table.context == heap);
  char *arena = (char *)table.allocate(table.context, 1u << 20);
  CHECK(arena && (uintptr_t)arena % (1u << 20) == 0);
  memset(arena, 1, 1u << 20);
  table.free(table.context, before, 1u << 20);
  table.free(table.context, arena, 1u << 20);
  hs_arena_statistics counts;
  counts.size = sizeof counts;
  CHECK(hs_arena_counts(heap, &counts) == HS_OK && counts.frees == 1 && counts.foreign_frees == 1);
  CHECK(freed_elsewhere == 1 && counts.used_bytes == 0 && counts.peak_used_bytes == 1u << 20);
  hs_heap_destroy(heap);
}

int main(void) {
  CHECK(HS_VERSION_CHECK() && !hs_version_matches(9, 0));
  CHECK(strcmp(hs_status_name(HS_LIMIT), "HS_LIMIT") == 0);

  hs_options options;
  hs_options_init(&options, sizeof options);
  options.user_data = true;
  options.hard_limit_bytes = 64u << 20;
  hs_heap *heap;
  CHECK(hs_heap_create(&options, &heap) == HS_OK);

  hs_request request;
  memset(&request, 0, sizeof request);
  request.pages = 300;
  request.alignment_pages = 64;
  request.must_be_zero = true;
  hs_allocation allocation;
  CHECK(hs_allocate_request(heap, &request, &allocation) == HS_OK && allocation.is_zero);
  char *address = (char *)allocation.span.address;
  CHECK((uintptr_t)address % (64 * 4096) == 0);
  for (size_t i = 0; i < 300 * 4096; i += 512) CHECK(address[i] == 0);
  CHECK(hs_grow(heap, address, 300, 50) == HS_OK);
  CHECK(hs_shrink(heap, address, 350, 320) == HS_OK);
  hs_span span;
  CHECK(hs_span_containing(heap, address + 319 * 4096, &span) && span.address == address && span.pages == 320);
  CHECK(!hs_span_containing(heap, address + 320 * 4096, &span));
  hs_set_user_data(heap, address, 99);
  CHECK(hs_user_data(heap, address) == 99);
  user_data_belongs_to_the_address(heap);
  CHECK(hs_allocate(heap, 100000, &span) == HS_LIMIT);
  CHECK(hs_allocate(heap, 0, &span) == HS_INVALID);
  hs_set_limits(heap, 0, 0);
  CHECK(hs_allocate(heap, 100000, &span) == HS_OK);
  hs_free(heap, span.address, span.pages);
  CHECK(hs_scavenger_start(heap) && hs_scavenger_start(heap));
  hs_scavenger_stop(heap);
  CHECK(hs_scavenger_start_bare(heap) && hs_scavenger_start(heap));
  memset(address, 1, 320 * 4096);
  hs_free(heap, address, 320);
  CHECK(hs_release_now(heap, 1u << 20) >= 1u << 20);
  hs_residency residency;
  residency.size = sizeof residency;
  CHECK(hs_residency_pass(heap, &residency) == HS_OK && residency.used_pages == 0);
  hs_heap_destroy(heap);

  own_policy_and_strategy();
  limits_count_pageblocks();
  statistics_add_up();
  deferred_memory_goes_under_pressure(HS_STRATEGY_DEFERRED);
  deferred_memory_goes_under_pressure(HS_STRATEGY_SPLIT_DONTNEED);
  discarded_memory_comes_back();
  arenas();

  CHECK(hs_fork_register() && hs_fork_register());
  fork_and_use(false);
  hs_fork_by_hand();
  fork_and_use(true);
  puts("the C library does what its header says");
  return 0;
}
