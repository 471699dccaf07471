// The raw log: what the preloaded recorder leaves behind and `hugespan record` turns into a trace.
//
// The recorder may be killed between any two instructions, with its program, and what was logged must still be there.
// So the log is a file that the program maps, shared: a record is three stores, and the kernel keeps them whatever
// becomes of the process. No write call, no buffer to flush, no lock between threads.
//
//     header (64 KiB) | segment 0 | segment 1 | ...          256 KiB each, claimed by a counter in the header
//     segment: frame, then records of 24 bytes; the first whose `head` is 0 is the end
//
// A segment belongs to one thread at a time (a `thread` record hands it on when a thread ends), so its records are in
// the order of time. Times are taken after an allocation returns and before a release is made: then, merged by time, an
// address is never born before its last owner is dead.
//
// This header is all that the recorder (Embedded Swift and C, inside any program) and the converter (ordinary Swift)
// share.

#ifndef RECORDING_LOG_H
#define RECORDING_LOG_H

#include <stddef.h>
#include <stdint.h>

#define HS_LOG_MAGIC 0x31474F4C52535348ull /* "HSSRLOG1" */
#define HS_LOG_SEGMENT_MAGIC 0x474553u
#define HS_LOG_HEADER_BYTES 65536
#define HS_LOG_SEGMENT_BYTES (256 * 1024)

/// The environment variable that names the log to the recorder.
#define HS_LOG_VARIABLE "HUGESPAN_RECORDING_LOG"

typedef struct {
  uint64_t magic;
  /// CLOCK_MONOTONIC and CLOCK_REALTIME at the start, in nanoseconds. Records count from the first.
  uint64_t start_monotonic;
  uint64_t start_realtime;
  uint32_t page_bytes;
  /// The process that is recorded, 0 before the recorder has found itself in it. Its children see that they are others.
  uint32_t process;
  /// How many program images the process has had: 1, and 1 more for each exec.
  uint32_t images;
  /// Threads numbered so far, segments claimed so far.
  uint32_t threads;
  uint32_t segments;
  /// Why recording stopped early (`hs_log_problem`), and the system's error number.
  uint32_t problem;
  uint32_t problem_error;
  /// Whose log it is (`hs_log_level`): a recorder of the other level leaves it alone.
  uint32_t level;
} hs_log_header;

typedef enum {
  /// The recorder that stands before malloc.
  HS_LOG_LEVEL_MALLOC = 0,
  /// An allocator's front end over the page heap.
  HS_LOG_LEVEL_SPAN = 1,
} hs_log_level;

typedef enum {
  HS_LOG_COMPLETE = 0,
  /// A segment could not be opened, given disk space, or mapped.
  HS_LOG_NO_SPACE = 1,
  /// The kernel cannot wipe a page on fork, so that a child could not be told from its parent.
  HS_LOG_NO_WIPE_ON_FORK = 2,
} hs_log_problem;

typedef struct {
  uint64_t magic;
  uint32_t index;
  /// The thread that claimed the segment.
  uint32_t thread;
  uint64_t reserved;
} hs_log_segment;

typedef struct {
  /// Bits 0-47: nanoseconds since the start; 48-55: `hs_log_kind`; 56-63: logarithm of the alignment. Stored last.
  uint64_t head;
  uint64_t address;
  uint64_t bytes;
} hs_log_record;

#define HS_LOG_TIME_BITS 48

typedef enum {
  HS_LOG_MALLOC = 1,
  HS_LOG_CALLOC = 2,
  HS_LOG_ALIGNED = 3,
  HS_LOG_FREE = 4,
  /// Before a realloc: the address that is given up. The thread's next record is the end of it.
  HS_LOG_REALLOC_BEGIN = 5,
  /// After it: the new address and size; address 0 when it failed and the old object stands.
  HS_LOG_REALLOC_END = 6,
  HS_LOG_MAP = 7,
  HS_LOG_UNMAP = 8,
  /// As for realloc; with the old size at the begin, and address 0 for failure at the end.
  HS_LOG_REMAP_BEGIN = 9,
  HS_LOG_REMAP_END = 10,
  /// The segment's following records are by the thread in `address`.
  HS_LOG_THREAD = 11,
  /// The process runs another program from here on (exec): all that lived is gone.
  HS_LOG_IMAGE = 12,
  /// A span of the page heap. `bytes` has the hints of `hs_log_span_hint` in its lowest bits: it is a number of pages.
  HS_LOG_SPAN = 13,
  /// The same at the address that was wished for.
  HS_LOG_SPAN_AT = 14,
  /// Any range of pages goes back to the page heap.
  HS_LOG_SPAN_FREE = 15,
  /// The page heap refused a span: `address` is where it was wished for, or 0.
  HS_LOG_SPAN_REFUSED = 16,
} hs_log_kind;

/// All of the span must read as zero; the caller's hints, as SpanTraits in the trace format codes them.
typedef enum {
  HS_LOG_SPAN_ZEROED = 1,
  HS_LOG_SPAN_HINTS = 0xFFF,
} hs_log_span_hint;

/// A sample of the program, in a file of its own beside the log, written by `hugespan record`.
typedef struct {
  /// Nanoseconds since the log's start.
  uint64_t time;
  uint64_t cpu_nanoseconds;
  uint64_t anonymous_bytes;
  uint64_t huge_bytes;
  uint64_t minor_faults;
  uint64_t major_faults;
} hs_log_sample;

#endif
