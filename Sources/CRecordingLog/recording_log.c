#include "recording_log.h"

_Static_assert(sizeof(hs_log_record) == 24, "records are 24 bytes");
_Static_assert(sizeof(hs_log_segment) == sizeof(hs_log_record), "a segment's frame takes the place of one record");
_Static_assert(sizeof(hs_log_header) <= HS_LOG_HEADER_BYTES, "the header fits its pages");
_Static_assert(HS_LOG_SEGMENT_BYTES % 65536 == 0, "segments can be mapped whatever the page size");
