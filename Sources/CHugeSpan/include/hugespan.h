/*
 * hugespan.h - a page heap that keeps memory on transparent hugepages
 *
 * SYNOPSIS
 *     hs_options options;
 *     hs_options_init(&options, sizeof options);
 *     hs_heap *heap;
 *     hs_status status = hs_heap_create(&options, &heap);
 *     hs_span span;
 *     status = hs_allocate(heap, 256, &span);
 *     hs_free(heap, span.address, span.pages);
 *     hs_heap_destroy(heap);
 *
 * DESCRIPTION
 *     A heap owns address space in pageblocks of 2 MiB, hands out spans of pages of 4 KiB, takes any range of them back,
 *     and gives free memory to the kernel as its scavenge policy decides, in the way of its release strategy. It is the
 *     layer under an allocator: no function here calls malloc, so all of them may be called inside one; but for
 *     hs_scavenger_start, since the C library's pthread_create does. Docs/Embedding.md walks through all of it.
 *
 *     Threads: every function may be called from any thread, but a heap may not be used while it is destroyed.
 *     Errors: functions that can fail return an hs_status; when it is not HS_OK nothing has changed and outputs are not
 *     written. The library prints nothing, with one exception: freeing what was not handed out (twice, in part, of another
 *     heap), or setting user data where none is kept, ends the program by a trap (SIGILL) and a line that names the address.
 *     Fork: a heap is usable in both processes after fork(); see FORK below.
 *     Growth: structures that may grow begin with their size; a program built against an older header goes on
 *     working with a newer library, and is refused (HS_INVALID) by an older one that does not know a field it sets.
 */
#ifndef HUGESPAN_H
#define HUGESPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#define HS_NULLABLE _Nullable
#define HS_NONNULL _Nonnull
#else
#define HS_NULLABLE
#define HS_NONNULL
#endif
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wnullability-extension"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this header. The library's own is hs_version(). Equal major versions work together. */
#define HS_VERSION_MAJOR 0
#define HS_VERSION_MINOR 1

/* The library's version: major in the upper 16 bits, minor in the lower. */
uint32_t hs_version(void);

/* Whether the library that is loaded can serve a program built against this header. */
bool hs_version_matches(uint32_t major, uint32_t minor);
#define HS_VERSION_CHECK() hs_version_matches(HS_VERSION_MAJOR, HS_VERSION_MINOR)

/* A heap. */
typedef struct hs_heap hs_heap;

/* What a function says of its success. */
typedef enum hs_status {
  HS_OK = 0,
  HS_INVALID = 1,           /* an argument makes no sense */
  HS_NO_MEMORY = 2,         /* the kernel refused address space, memory or a mapping; see hs_last_kernel_error */
  HS_LIMIT = 3,             /* the heap's hard limit would be exceeded */
  HS_NOT_FREE = 4,          /* the wished address is not free, or not of this heap */
  HS_UNSUPPORTED_PAGES = 5, /* pages are not 4 KiB, or hugepages not 2 MiB */
  HS_UNSUPPORTED_STRATEGY = 6, /* the kernel lacks what the strategy needs (found by trying) */
  HS_KERNEL = 7,            /* another error of the kernel; see hs_last_kernel_error */
  HS_SHARED = 8             /* a forked child shares the pages */
} hs_status;

/* The name of a status, such as "HS_LIMIT"; "unknown status" for other values. Static storage. */
const char *HS_NONNULL hs_status_name(hs_status status);

/* The errno of the last HS_NO_MEMORY or HS_KERNEL that a function returned for this heap; 0 if there was none. */
int32_t hs_last_kernel_error(const hs_heap *HS_NONNULL heap);

/* A run of pages: its address, and its length in pages of 4 KiB. */
typedef struct hs_span {
  void *HS_NULLABLE address;
  size_t pages;
} hs_span;

/* ---- Policies and strategies ------------------------------------------------------------------------------------- */

/* What to release and when. */
typedef enum hs_policy_kind {
  HS_POLICY_NEVER = 0,      /* nothing */
  HS_POLICY_IMMEDIATE = 1,  /* everything free, at each tick */
  HS_POLICY_GPERFTOOLS = 2, /* gperftools' scavenge counter; rate = pages released per 1000 freed, 1 by its default */
  HS_POLICY_SEED = 3,       /* the same counter, with broken blocks first, long spans first, refaults discounted */
  HS_POLICY_CUSTOM = 4,     /* the table in hs_options.policy */
  HS_POLICY_RENT_OR_BUY = 5, /* block by block: the rent of free memory, at memory_price, against the CPU time that
                               releasing it, faulting it back and running without a hugepage costs */
  HS_POLICY_DEMAND_WINDOW = 6, /* TCMalloc's: release_rate bytes a second; no hugepage is broken below recent demand */
  HS_POLICY_DECAY = 7,      /* jemalloc's: unused memory goes along a smooth curve, all of it in decay_nanoseconds */
  HS_POLICY_PACED = 8       /* Go's: memory above a goal, for cpu_budget_percent of a processor's time */
} hs_policy_kind;

/* How to release it. */
typedef enum hs_strategy_kind {
  HS_STRATEGY_KEEP = 0,               /* not at all */
  HS_STRATEGY_DONTNEED = 1,           /* MADV_DONTNEED */
  HS_STRATEGY_FREE = 2,               /* MADV_FREE */
  HS_STRATEGY_FREE_THEN_DONTNEED = 3, /* MADV_FREE, and MADV_DONTNEED after second_stage_nanoseconds */
  HS_STRATEGY_SPLIT_DONTNEED = 4,     /* the hugepage is split first, so that the charge falls with the RSS */
  HS_STRATEGY_CUSTOM = 5,             /* the table in hs_options.strategy */
  HS_STRATEGY_COLD = 6,               /* MADV_COLD: stays, and is swapped out first when memory gets short */
  HS_STRATEGY_PAGEOUT = 7,            /* MADV_PAGEOUT: swapped out at once; without swap nothing goes */
  HS_STRATEGY_DECOMMIT = 8,           /* wholly free pageblocks become a reservation again: what was promised under strict
                                         overcommit goes back too. They are committed when they are reused, which can
                                         fail (HS_NO_MEMORY). Parts of pageblocks stay */
  HS_STRATEGY_DEFERRED = 9            /* free memory stays, on its hugepages, until memory gets short: see PRESSURE. Wholly
                                         free pageblocks go to MADV_FREE (free_whole_blocks) */
} hs_strategy_kind;

/* What a policy is told at a tick. Pages and nanoseconds; counts are since the last tick. Discarded pages are not in use.
 * Later versions append to it. */
typedef struct hs_scavenge_input {
  uint64_t now, elapsed, process_cpu;
  uint64_t freed_pages, refaulted_pages;
  uint64_t releasable_pages, used_pages, phantom_pages;
  uint64_t release_nanoseconds; /* what calls that release memory took, whoever ordered them */
} hs_scavenge_input;

/* What a policy answers. It is handed over zeroed but for next_tick (1 s). */
typedef struct hs_scavenge_plan {
  uint64_t pages;       /* to release; the last span may overshoot */
  uint64_t next_tick;   /* the next tick should come no later than this, in nanoseconds */
  uint32_t cures;       /* blocks whose phantom memory should be given back by splitting their hugepage */
  bool prefer_broken;   /* blocks that lost their hugepage first */
  bool longest_first;   /* the longest span next; else one of each length in turn */
  bool whole_first;     /* wholly free pageblocks before everything else */
} hs_scavenge_plan;

/*
 * A policy of one's own. Both functions run under the heap's lock: they must be short, make no system call, and not
 * call the heap, nor an allocator that stands on it. The table must stay where it is until the heap is destroyed.
 */
typedef struct hs_policy {
  void *HS_NULLABLE context;
  void (*HS_NONNULL plan)(void *HS_NULLABLE context, const hs_scavenge_input *HS_NONNULL input,
                          hs_scavenge_plan *HS_NONNULL plan);
  /* May be NULL: what came of a plan. */
  void (*HS_NULLABLE booked)(void *HS_NULLABLE context, uint64_t wanted_pages, uint64_t released_pages);
} hs_policy;

/* What the kernel has under a pageblock. */
typedef enum hs_backing { HS_BACKING_UNKNOWN = 0, HS_BACKING_HUGE = 1, HS_BACKING_SPLIT = 2, HS_BACKING_ABSENT = 3 } hs_backing;

/* What a strategy did to a range. */
typedef enum hs_effect {
  HS_EFFECT_POSTPONED = 0, /* nothing yet; it will be chosen again */
  HS_EFFECT_REFUSED = 1,   /* nothing, and trying again is of no use while the block is in use */
  HS_EFFECT_GONE = 2,      /* the memory is the kernel's; the pages read as zero when they come back */
  HS_EFFECT_PHANTOM = 3,   /* as gone, but out of a hugepage that is still whole: charged on */
  HS_EFFECT_LAZY = 4,      /* the kernel may take it; contents are unspecified until written */
  HS_EFFECT_COLD = 5,      /* in memory, with its contents, and next to be swapped out */
  HS_EFFECT_SWAPPED = 6    /* swapped out; what hugepage there was is no more */
} hs_effect;

/* One range that a strategy is to release. Nobody else can have these pages meanwhile. */
typedef struct hs_release_range {
  void *HS_NONNULL address;
  size_t bytes;
  bool is_whole;      /* wholly free pageblocks; else a part of one */
  bool is_shared;     /* a forked child maps pages of these blocks too, or the kernel does not say (see FORK) */
  hs_backing backing; /* of the block, as far as the heap was told */
  hs_effect effect;   /* to be set; HS_EFFECT_POSTPONED when handed over */
} hs_release_range;

/*
 * A strategy of one's own. release() runs with the heap's lock open, in one thread at a time, and may make system calls;
 * it must not call the heap. It returns the number of system calls it made. It is believed: pages that it calls gone
 * and that are not will be handed out as zero. The table must stay where it is
 * until the heap is destroyed.
 */
typedef struct hs_strategy {
  void *HS_NULLABLE context;
  uint32_t (*HS_NONNULL release)(void *HS_NULLABLE context, hs_release_range *HS_NONNULL ranges, size_t count);
} hs_strategy;

/*
 * What the kernel's operations cost on this machine: what HS_POLICY_RENT_OR_BUY decides by. Microseconds of CPU time, but
 * for cold_after_seconds and tax_share. `hugespan calibrate` measures them; the defaults are a warm machine's.
 */
typedef struct hs_costs {
  double release_call, release_range; /* a release call, and a range in one (1, 1) */
  double release_page, release_block; /* a base page, and a whole hugepage, that is released (0.12, 9) */
  double split;                       /* splitting a hugepage so that a part of it can be released (170) */
  double page_fault, block_fault;     /* faulting back a page, and a hugepage (1.3, 200) */
  double cold_block_fault;            /* the same for a hugepage that was away for cold_after_seconds (200) */
  double cold_after_seconds;          /* (2) */
  double collapse, cure;              /* making a block huge again (400); giving back phantom (300) */
  double tax_share;                   /* share of busy time that is lost when all memory is on base pages (0.15) */
} hs_costs;

/* ---- Life -------------------------------------------------------------------------------------------------------- */

/* How a heap is made. Always begin with hs_options_init. */
typedef struct hs_options {
  size_t size;                         /* set by hs_options_init */
  bool user_data;                      /* keep a word per span */
  bool advise_huge_pages;              /* ask for hugepages with madvise, once per arena (true) */
  bool whole_blocks_only;              /* release only wholly free pageblocks */
  bool prefer_broken, prefer_long, discount_refaults; /* HS_POLICY_SEED's ideas (all true) */
  uint64_t first_arena_bytes;          /* address space reserved first; the following arenas double (1 GiB) */
  uint64_t soft_limit_bytes;           /* above this free memory is released before the heap grows; 0 is none */
  uint64_t hard_limit_bytes;           /* above this an allocation is HS_LIMIT; 0 is none. Both count what is charged
                                          (used, free and in memory, lazy, phantom), and memory comes in pageblocks:
                                          below 2 MiB nothing can be had */
  hs_policy_kind policy_kind;          /* HS_POLICY_RENT_OR_BUY */
  hs_strategy_kind strategy_kind;      /* HS_STRATEGY_SPLIT_DONTNEED */
  double rate;                         /* pages released per 1000 freed: HS_POLICY_SEED, HS_POLICY_GPERFTOOLS (100) */
  uint64_t second_stage_nanoseconds;   /* HS_STRATEGY_FREE_THEN_DONTNEED (10 s) */
  const hs_policy *HS_NULLABLE policy;
  const hs_strategy *HS_NULLABLE strategy;
  double memory_price;                 /* HS_POLICY_RENT_OR_BUY: CPU-seconds per GiB-hour (400, about what clouds take) */
  bool rebuild;                        /* HS_POLICY_RENT_OR_BUY: make broken blocks huge again when that pays (true) */
  bool steering;                       /* HS_POLICY_RENT_OR_BUY: new spans go to hugepages, sparse blocks drain (true) */
  hs_costs costs;                      /* HS_POLICY_RENT_OR_BUY: what the machine asks */
  uint64_t release_rate;               /* HS_POLICY_DEMAND_WINDOW: bytes a second (32 MiB; TCMalloc's own default is 0) */
  uint64_t short_interval_nanoseconds; /* HS_POLICY_DEMAND_WINDOW: where the fluctuation of demand is looked for (60 s), */
  uint64_t long_interval_nanoseconds;  /* and its trend (300 s); at most 10 minutes; both 0: demand is not looked at */
  uint64_t decay_nanoseconds;          /* HS_POLICY_DECAY (10 s); 0 releases at once */
  double cpu_budget_percent;           /* HS_POLICY_PACED: percent of a processor's time for releases (1) */
  uint64_t goal_period_nanoseconds;         /* HS_POLICY_PACED: the longest until its goal is set anew (120 s) */
  bool free_whole_blocks;              /* HS_STRATEGY_DEFERRED: wholly free pageblocks that the policy gives up go to MADV_FREE,
                                          so that the kernel can take them without asking (true) */
  uint64_t pressure_limit_bytes;       /* HS_STRATEGY_DEFERRED: memory counts as short, too, when the process has about this much
                                          resident; 0 is no such limit */
  bool move_blocks;                    /* move free hugepages under spans of several blocks, instead of faulting others in; costs up to
                                          4,096 mappings (true) */
} hs_options;

/* Sets every option to its default (in parentheses above). `size` is sizeof(hs_options). */
void hs_options_init(hs_options *HS_NONNULL options, size_t size);

/* What a process does with its heap, besides the heap's own options: for programs that run on it unchanged. */
typedef struct hs_process_options {
  size_t size;                             /* set by hs_process_options_init */
  bool scavenger;                          /* run the scavenger's thread (true) */
  const char *HS_NULLABLE statistics_path; /* where statistics go at exit, not terminated; NULL is nowhere */
  size_t statistics_path_length;
  bool page;                               /* publish a statistics page: hs_page_open (false) */
  bool bare;                               /* the scavenger's thread is one that the C library does not know of (false) */
} hs_process_options;

/* Sets every process option to its default. `size` is sizeof(hs_process_options). */
void hs_process_options_init(hs_process_options *HS_NONNULL options, size_t size);

/* What is wrong with a text of options. */
typedef struct hs_options_error {
  size_t offset, length; /* the part of the text that is wrong */
  char message[512];     /* a line without its end: what is wrong, and what would be right */
} hs_options_error;

/*
 * Reads options from `text`, such as that of the environment variable HUGESPAN_CONF, over what `options` and `process`
 * already say: pairs of a key and a value, "policy:seed,strategy:split-dontneed-whole,soft-limit:2GiB". Of a key that
 * comes twice the last value counts; an empty text changes nothing.
 *
 *     policy             never, immediate, gperftools, seed, demand-window, decay, paced, rent-or-buy
 *     rate               0 to 1000000: pages released per 1000 freed (seed: 100; gperftools: its own scale, 1)
 *     prefer-broken, prefer-long, discount-refaults
 *                        on, off: the ideas of policy seed
 *     release-rate       a size: bytes that policy demand-window releases in a second (32MiB)
 *     short-interval, long-interval
 *                        times up to 10m: where policy demand-window looks for fluctuation and trend (60s, 300s)
 *     decay-time         a time: when policy decay has released what became unused (10s)
 *     cpu-budget         above 0, up to 100: percent of a processor's time for policy paced (1)
 *     goal-period        a time: the longest until policy paced sets its goal anew (120s)
 *     memory-price       0 to 1000000000: CPU-seconds per GiB-hour, for policy rent-or-buy (400)
 *     rebuild, steering  on, off: for policy rent-or-buy
 *     costs              NAME=MICROSECONDS/NAME=MICROSECONDS...: what the machine asks, for policy rent-or-buy; the names
 *                        are hs_costs' with capitals for underscores: releaseCall, coldBlockFault, coldAfter, ...
 *     strategy           keep, dontneed, free, free-then-dontneed, split-dontneed, cold, pageout, decommit,
 *                        deferred; all but keep, decommit and deferred also with -whole appended: only wholly free
 *                        pageblocks
 *     second-stage       a time (10s): when free-then-dontneed takes what was freed lazily
 *     free-whole         on, off: strategy deferred hands wholly free pageblocks to MADV_FREE
 *     pressure-limit     a size, or 0 for none: what may be resident before strategy deferred gives memory back
 *     soft-limit, hard-limit
 *                        a size (512MiB), or 0 for none
 *     huge-pages         on, off: ask for hugepages where memory gets none without
 *     first-arena        a size, at least 2MiB: address space reserved first
 *     scavenger          on, bare, off: the thread that releases memory, also while the program is idle; bare: as
 *                        hs_scavenger_start_bare
 *     statistics         a file, to which statistics are written at exit; %p in it stands for the process' number, %% for %
 *     page               on, off: publish a statistics page, for hugespan explain and hugespan watch
 *
 * "@FILE" among the pairs stands for those in a file: a pair a line, or several with commas; what is behind a # is for
 * people. No statistics, no other file, less than 8 KiB.
 *
 * Sizes take K, M, G, T (also KiB..., powers of 1024; kB, MB, GB, TB are powers of 1000), times ns, us, ms, s, m, h. The
 * last three keys are for `process`; if that is NULL they are unknown. HS_INVALID for what cannot be understood: then
 * nothing has changed and `error`, unless NULL, is filled in. The path in `process` points into `text`.
 */
hs_status hs_options_parse(const char *HS_NONNULL text, hs_options *HS_NONNULL options,
                           hs_process_options *HS_NULLABLE process, hs_options_error *HS_NULLABLE error);

/* Makes an empty heap; NULL options are the defaults. HS_INVALID, HS_UNSUPPORTED_..., HS_NO_MEMORY. */
hs_status hs_heap_create(const hs_options *HS_NULLABLE options, hs_heap *HS_NULLABLE *HS_NONNULL heap);

/* Gives everything of the heap back, its spans included. Stops the scavenger, waits for a release in flight. */
void hs_heap_destroy(hs_heap *HS_NONNULL heap);

/* ---- Spans ------------------------------------------------------------------------------------------------------- */

/* How long a span is expected to live, and how many objects it will hold; steer it to blocks of its like. */
typedef enum hs_lifetime { HS_LIFETIME_UNKNOWN = 0, HS_LIFETIME_SHORT = 1, HS_LIFETIME_LONG = 2 } hs_lifetime;
typedef enum hs_objects { HS_OBJECTS_UNKNOWN = 0, HS_OBJECTS_FEW = 1, HS_OBJECTS_MANY = 2 } hs_objects;

/* What to allocate: zero everything but `pages` for a plain request. */
typedef struct hs_request {
  size_t pages;
  size_t alignment_pages;              /* a power of two, or 0 for none; more than a hugepage's is allowed */
  void *HS_NULLABLE wished_address;    /* exactly there, or HS_NOT_FREE; NULL for anywhere */
  bool must_be_zero;
  hs_lifetime lifetime;
  hs_objects objects;
} hs_request;

/* A span, and what is known of it. */
typedef struct hs_allocation {
  hs_span span;
  bool is_zero;          /* every page reads as zero */
  size_t refaulted_pages; /* pages that had been released and come back now */
} hs_allocation;

/* Allocates `pages` pages. Some tens of nanoseconds, and no system call unless the heap grows. */
hs_status hs_allocate(hs_heap *HS_NONNULL heap, size_t pages, hs_span *HS_NONNULL span);

/* Allocates by a request. */
hs_status hs_allocate_request(hs_heap *HS_NONNULL heap, const hs_request *HS_NONNULL request,
                              hs_allocation *HS_NONNULL allocation);

/* Frees any range of pages that are all handed out: a span, a part of one, neighbours together. */
void hs_free(hs_heap *HS_NONNULL heap, void *HS_NONNULL address, size_t pages);

/* Extends a span in place, or HS_NOT_FREE: also where the hard limit is in the way, or its last page is discarded. */
hs_status hs_grow(hs_heap *HS_NONNULL heap, void *HS_NONNULL address, size_t pages, size_t more_pages);

/* Frees all but the first `kept_pages` (at least 1) pages of a span. HS_INVALID if that is more than it has. */
hs_status hs_shrink(hs_heap *HS_NONNULL heap, void *HS_NONNULL address, size_t pages, size_t kept_pages);

/* The span that contains an address; false if none does. */
bool hs_span_containing(hs_heap *HS_NONNULL heap, const void *HS_NONNULL address, hs_span *HS_NONNULL span);

/*
 * The word of user data of the span that begins at `address` (hs_options.user_data). It belongs to the address and not to the
 * span: 0 until it is set, and then what was set last, if need be for an earlier span. So set it for each span that
 * is to have one, also for what remains behind a part that was freed. In a heap that keeps none it reads as 0.
 */
uintptr_t hs_user_data(hs_heap *HS_NONNULL heap, const void *HS_NONNULL address);
void hs_set_user_data(hs_heap *HS_NONNULL heap, const void *HS_NONNULL address, uintptr_t value);

/* ---- Discardable spans -------------------------------------------------------------------------------------------
 *
 * DISCARDING
 *     A cache holds what can be made again: better kept than not, and not worth a page that somebody else needs. Discarded
 *     contents stay as long as memory lasts. The kernel may take them at any time, page by page, before any other memory of
 *     the process, without swap and without asking; until then they cost nothing but their charge. Undoing a discard pins
 *     what is left and says what that is.
 *
 *     Both functions take any range of pages: a span, a part of one, neighbours together. Discarded pages stay the
 *     caller's, who must neither read nor write them. They may be freed, alone or with others, which forgets that they were
 *     discarded; hs_shrink frees the end of a span as ever. Ranges with a discarded page at their end do not grow.
 *
 *     A verdict is never wrong about a page that it calls intact: not while the kernel is reclaiming, nor if hugepages are
 *     split or put together again meanwhile. Every byte is what it was, and pages of zeros are pages like others. A page that was not in
 *     memory when it was discarded (never touched) is never lost. Lost pages read as zero, and take
 *     memory when they are next written.
 *
 *     Discarding a part of a hugepage splits it: discard 2 MiB at a time, aligned to 2 MiB, and hugepages stay. Limits
 *     count discarded pages as used. After a fork, pages that a child still shares are not discarded (HS_SHARED); what was
 *     discarded before may be undone in both processes, each of which has its own verdict. Costs: Docs/Discardable.md.
 */

/* What became of discarded contents. */
typedef enum hs_verdict {
  HS_INTACT = 0,     /* every page has what it had */
  HS_LOST = 1,       /* no page has */
  HS_PARTLY_LOST = 2 /* some have */
} hs_verdict;

/* Lets the kernel take the contents of pages that are all handed out and none of which is discarded. HS_INVALID if they are
 * not; HS_SHARED; HS_NO_MEMORY, HS_KERNEL if it refuses (locked memory). */
hs_status hs_discard(hs_heap *HS_NONNULL heap, void *HS_NONNULL address, size_t pages);

/* Takes them back. `lost`, unless NULL, has a word for each 64 pages (rounded up): bit i % 64 of word i / 64 is set if page i was
 * lost, else cleared. HS_INVALID if one of the pages is not discarded. */
hs_status hs_undo_discard(hs_heap *HS_NONNULL heap, void *HS_NONNULL address, size_t pages, uint64_t *HS_NULLABLE lost,
                          hs_verdict *HS_NONNULL verdict);

/* ---- Scavenging -------------------------------------------------------------------------------------------------- */

/*
 * Lets the policy decide. `now` is any clock that does not go back, `process_cpu` the CPU time of the process so
 * far, both in nanoseconds. Returns after how many nanoseconds the next tick should come at the latest; soon, if work was
 * left, or another thread was at it. To HS_POLICY_RENT_OR_BUY a program whose CPU time stands still is idle, and needs
 * no hugepages.
 */
uint64_t hs_tick(hs_heap *HS_NONNULL heap, uint64_t now, uint64_t process_cpu);

/*
 * PRESSURE
 *     With HS_STRATEGY_DEFERRED free memory goes when others need it. The scavenger's thread, or else hs_tick, looks at what there is to look
 *     at: the memory cgroups that the process is in (usage against limit, high and max), MemAvailable, the kernel's report of stalls (PSI) and
 *     pressure_limit_bytes; every 1 to 100 ms, by how fast memory goes. Below a reserve (a sixteenth of the limit, 32 MiB
 *     to 1 GiB, and what was taken in 0.1 s at the fastest of late) it gives memory back until there is twice the reserve: wholly free
 *     pageblocks, then what is free in broken ones, then it splits hugepages. Whoever ticks by hand must then do it as often as hs_tick says.
 *
 * For headroom that is known otherwise: gives free memory back until there are twice `reserve_bytes` left, if there are less than
 * that once; returns the bytes given back. Does nothing with other strategies.
 */
uint64_t hs_relieve(hs_heap *HS_NONNULL heap, int64_t headroom_bytes, uint64_t reserve_bytes);

/* What the looking gave so far. */
typedef struct hs_pressure {
  size_t size; /* set it to sizeof(hs_pressure) before the call */
  int64_t headroom_bytes, least_headroom_bytes; /* now, and the least that was seen; INT64_MAX without a limit */
  uint64_t looks, look_nanoseconds;             /* and their CPU time */
  uint64_t longest_reaction_nanoseconds; /* from the last look without need until all had been given back, at the most */
} hs_pressure;

/* Fills in as much as the caller's size holds. HS_INVALID if size is none of any version. */
hs_status hs_heap_pressure(hs_heap *HS_NONNULL heap, hs_pressure *HS_NONNULL pressure);

/* Starts a thread that ticks, also while the program is idle. False if none could be had. Starting twice is one start. A
 * forked child has none until it starts its own; see FORK. */
bool hs_scavenger_start(hs_heap *HS_NONNULL heap);

/*
 * The same with a thread that the C library does not know of, where that can be had (x86-64 with glibc, no sanitizer, no policy or
 * strategy of one's own; else as hs_scavenger_start). Calls no malloc. A C library spares its locks the atomic operations as long as
 * a program has one thread, and this one leaves it so: 3 to 4 % of sqlite3's time. setuid and its kin do not reach it: it gives up
 * all capabilities, and keeps the user that started it. Not for programs that change their user to be safe from what they run.
 */
bool hs_scavenger_start_bare(hs_heap *HS_NONNULL heap);
void hs_scavenger_stop(hs_heap *HS_NONNULL heap);

/* Releases until `bytes` are uncharged or nothing free is left; returns how many bytes really are, by what was resident before
 * and is gone after. Phantom memory goes besides. */
uint64_t hs_release_now(hs_heap *HS_NONNULL heap, uint64_t bytes);

/* New limits in bytes, 0 for none. Memory above a lowered limit goes when the heap grows next, or by hs_release_now. */
void hs_set_limits(hs_heap *HS_NONNULL heap, uint64_t soft_bytes, uint64_t hard_bytes);

/* ---- Fork ---------------------------------------------------------------------------------------------------------
 *
 * FORK
 *     A fork leaves a usable heap in both processes. The library has fork handlers (pthread_atfork), registered when the
 *     first heap of the process is made: before the fork they take the locks of all heaps, after it they let them go. They
 *     wait for operations that are under a lock, never for a system call that releases memory.
 *
 *     In the child, what another thread was just giving to the kernel is free memory again, and that thread is gone as
 *     every other. Spans that other threads held stay allocated.
 *
 *     Shared memory. Parent and child share all pages until one of both writes to them. The kernel ignores MADV_FREE and
 *     MADV_COLD of a shared page and reports success, and the release of a part of a shared hugepage frees
 *     nothing and costs the hugepage. So as long as another process maps a block that was in memory at the fork:
 *       - wholly free blocks are given up with MADV_DONTNEED, whatever the strategy; their memory is uncharged when
 *         the other process lets go of it, and hs_release_now does not count it before;
 *       - a part of a hugepage is not released; a part of a block of base pages is, and counts as phantom;
 *       - a wholly free block is given up before it is handed out again, so that its first touch brings a new hugepage
 *         and not copies of single pages. (With HS_STRATEGY_KEEP it is handed out as it is.)
 *     The heap asks the kernel whether that is over: /proc/self/pagemap tells it without privilege; a part of
 *     the blocks in each tick, all of them in hs_residency_pass. Where it cannot be read, blocks count as shared
 *     until they have been dropped once. A strategy of one's own is told (hs_release_range.is_shared) and has to see to it itself.
 *     What a program writes to shared hugepages costs these in the one that writes; no heap can help that.
 *
 *     The scavenger does not exist in the child, and none is started there unasked: the child may be about to exec, or to
 *     enter a name space that admits no second thread, and starting a thread allocates. If one ran in the
 *     parent, calls of hs_free in the child tick now and then (the first after 100 ms), until hs_scavenger_start or
 *     hs_scavenger_stop is called there. Where the parent ticks by hs_tick, so has the child.
 *
 *     Not handled: clone() and _Fork() call no handlers. If all threads but the caller are outside of the heap, both processes
 *     go on; that MADV_FREE has no effect is noticed by its samples (hs_statistics.effects_missing), and from then
 *     on memory counts as shared. A process made by vfork() must not call the heap. A policy or strategy of one's own
 *     must not fork.
 *
 *     Order. An allocator on top that takes locks of its own around a fork calls this library with them held. It must have
 *     all of them before the heap's are taken: handlers that were registered earlier run later before the fork. So
 *     either the library's are registered first, by hs_fork_register() or by making a heap, or the allocator calls the
 *     three functions itself, at the end of its own prepare handler and at the beginning of the other two.
 */

/* Registers the library's fork handlers now, unless they are. Makes no heap and calls no malloc. False if the C library has
 * no room for them. */
bool hs_fork_register(void);

/* The library's handlers do nothing from now on: the embedder calls the three functions below. Before the first fork. */
void hs_fork_by_hand(void);

/* Before a fork, in the thread that forks: takes the lock of every heap. No function of this library may be called until: */
void hs_fork_prepare(void);
/* After it in the parent, also when the fork failed. */
void hs_fork_parent(void);
/* After it in the child. */
void hs_fork_child(void);

/* ---- Arenas of a runtime ----------------------------------------------------------------------------------------
 *
 * ARENAS
 *     Runtimes with an allocator of their own (CPython and others) take its memory in arenas of some hundred kilobytes or
 *     more, by two functions with a context, which a program may replace at run time. hs_arena_source makes such functions for a heap. They
 *     are plain C functions that may be called by any thread, inside an allocator, before main, after a fork (see
 *     FORK), and while the program ends: a heap whose functions are installed somewhere must not be destroyed.
 *
 *     What the runtime had allocated before comes to the new functions when it is freed. That is told by its address and
 *     given to the functions that were there.
 *
 *     For CPython, in C (a PyObjectArenaAllocator has the layout of hs_arena_functions):
 *         PyObjectArenaAllocator previous, ours;
 *         PyObject_GetArenaAllocator(&previous);
 *         if (hs_arena_source(heap, (hs_arena_functions *)&previous, (hs_arena_functions *)&ours) == HS_OK)
 *           PyObject_SetArenaAllocator(&ours);
 */

/* A pair of functions, and what they want to be called with. */
typedef struct hs_arena_functions {
  void *HS_NULLABLE context;
  void *HS_NULLABLE (*HS_NULLABLE allocate)(void *HS_NULLABLE context, size_t bytes);
  void (*HS_NULLABLE free)(void *HS_NULLABLE context, void *HS_NULLABLE address, size_t bytes);
} hs_arena_functions;

/*
 * Fills in functions that take arenas from `heap`. `previous` are the functions that were installed before, which is copied; NULL
 * if there are none, and then a foreign address ends the program. Once for a heap: HS_INVALID the second time, and if
 * `previous` are already a heap's functions.
 */
hs_status hs_arena_source(hs_heap *HS_NONNULL heap, const hs_arena_functions *HS_NULLABLE previous,
                          hs_arena_functions *HS_NONNULL functions);

/* The functions themselves; `context` is the heap. An arena is aligned to the largest power of two that divides its
 * size, at least to a page and at most to a pageblock; its contents are unspecified. NULL when there is no memory (or a limit
 * was reached), and for no bytes. It is freed as a whole, with the size it was allocated with. */
void *HS_NULLABLE hs_arena_allocate(void *HS_NULLABLE context, size_t bytes);
void hs_arena_free(void *HS_NULLABLE context, void *HS_NULLABLE address, size_t bytes);

/* What these functions were asked. */
typedef struct hs_arena_statistics {
  size_t size; /* set it to sizeof(hs_arena_statistics) before the call */
  uint64_t allocations, frees;        /* arenas of the heap */
  uint64_t used_bytes, peak_used_bytes;
  uint64_t refused_allocations;       /* NULL was returned */
  uint64_t foreign_frees;             /* given to the previous functions */
} hs_arena_statistics;

/* Fills in as much as the caller's size holds. HS_INVALID if size is none of any version. */
hs_status hs_arena_counts(hs_heap *HS_NONNULL heap, hs_arena_statistics *HS_NONNULL statistics);

/* ---- Looking ----------------------------------------------------------------------------------------------------- */

/*
 * A snapshot; pages of 4 KiB. While no release is under way
 *     512 * blocks = used + free_resident + lazy + released + 512 * absent_blocks (pages)
 * and what the process is charged for are used + free_resident + lazy + phantom pages.
 */
typedef struct hs_statistics {
  size_t size; /* set it to sizeof(hs_statistics) before the call */
  /* Handed out. Free: in memory; given to the kernel and charged until it takes them (lazily freed or cold; paged out ones
   * are in swap, and count too); given back, in blocks of
   * which others are in memory. Given back from hugepages that stayed whole, and charged. Free behind large spans. */
  uint64_t used_pages, free_resident_pages, lazy_pages, released_pages, phantom_pages, donated_pages;
  /* Pageblocks: all that were ever taken into use; by state. Intact ones have their hugepage, as far as is known. */
  uint64_t blocks, full_blocks, partial_intact_blocks, partial_broken_blocks, free_resident_blocks, absent_blocks;
  /* Used pages by what is below them, as last learned from the kernel (by hs_residency_pass); unknown: not asked since. */
  uint64_t used_on_huge_pages, used_on_split_pages, used_on_unknown_pages;
  /* Counts since the heap was made, from here on. Refaulted pages had been released and were used again; whole: in wholly
   * released blocks, one fault for each block. */
  uint64_t allocations, frees, pages_released, pages_refaulted, pages_refaulted_whole, lazy_pages_reused;
  /* Hugepages broken by a release, phantom given back, emptied broken blocks dropped to come back huge; calls that
   * released, ranges in them, ranges that the kernel refused. */
  uint64_t splits, cures, rebuilt_blocks, release_calls, release_ranges, release_failures;
  uint64_t release_nanoseconds, longest_release_nanoseconds, ticks;
  /* Releases whose effect was read back, and those that had none; broken blocks that residency passes found huge, huge ones
   * found broken; bytes of the heap's tables (address space: they are in memory as far as they are used). */
  uint64_t effects_checked, effects_missing, reinflated_blocks, lost_blocks, residency_passes, metadata_bytes;
  uint64_t collapses; /* blocks that HS_POLICY_RENT_OR_BUY made huge again */
  uint64_t decommitted_blocks; /* a state: of the absent blocks, those that are to be committed before they are used */
  uint64_t drains, pages_drained; /* how often HS_STRATEGY_DEFERRED gave memory back for others' need, and how much */
  /* Of the used pages, those that are discarded now. Counts: ranges discarded, hugepages split by that, ranges undone by
   * verdict, pages found lost. */
  uint64_t discarded_pages;
  uint64_t discards, discard_splits, undone_intact, undone_lost, undone_partly, discarded_pages_lost;
  /* Free hugepages moved to where a span needed them, moves that the kernel refused, and the time of both. A state: blocks that have a
   * mapping of their own for it. */
  uint64_t blocks_moved, moves_refused, move_nanoseconds, displaced_blocks;
} hs_statistics;

/* Fills in as much as the caller's size holds. HS_INVALID if size is none of any version. O(blocks). */
hs_status hs_heap_statistics(hs_heap *HS_NONNULL heap, hs_statistics *HS_NONNULL statistics);

/*
 * The statistics in Prometheus' text format, each series with the label heap="NAME"; `name` may be any text. Writes at most
 * `capacity` bytes to `buffer`, the last of which is 0, and returns the bytes that all of it takes without that 0, as snprintf does:
 * if that is `capacity` or more, something is missing. About 5 KB. Allocates nothing. O(blocks).
 */
size_t hs_heap_prometheus(hs_heap *HS_NONNULL heap, const char *HS_NONNULL name, char *HS_NULLABLE buffer,
                          size_t capacity);

/*
 * The statistics page: what the heap is and what it is about to do, for other processes to read while it runs: totals, a
 * record for each pageblock, the next tick's work. hugespan explain and hugespan watch show it. Those of the same user, and
 * root, may read it (by /proc/PID/fd), nobody else may write it, and nothing of it is left when the process ends. It is
 * written by the scavenger's thread, or by hs_tick, at most ten times a second: some 50 ns a pageblock, 64 bytes of memory for
 * each, 64 MiB of address space, and a file descriptor (closed on exec). A forked child has a page of its own as soon as it ticks.
 *
 * HS_NO_MEMORY, HS_KERNEL if the kernel refuses; HS_OK if there is one already. The layout is in Docs/Explain.md.
 */
hs_status hs_page_open(hs_heap *HS_NONNULL heap);
void hs_page_close(hs_heap *HS_NONNULL heap);

/* What the kernel really has under the heap. used_pages_on_huge / used_pages is the coverage. */
typedef struct hs_residency {
  size_t size; /* set it to sizeof(hs_residency) before the call */
  uint64_t blocks, huge_blocks, split_blocks, absent_blocks, reinflated_blocks, lost_blocks;
  uint64_t resident_bytes, huge_bytes, used_pages_on_huge, used_pages;
} hs_residency;

/* Asks the kernel, and corrects what the heap believes. About a millisecond for 8 GiB of hugepages. HS_KERNEL. */
hs_status hs_residency_pass(hs_heap *HS_NONNULL heap, hs_residency *HS_NONNULL residency);

#ifdef __cplusplus
}
#endif
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
#endif /* HUGESPAN_H */
