// What is asked of the heap, as records of the raw log: births after they are done, releases before, so that by time an
// address is never born before its last owner is dead.

import CHugeSpanJemalloc
import CHugeSpanLogWriter

/// A span that the heap gave for `request`.
@inline(never)
func record(_ span: PageSpan, _ request: SpanRequest) {
  let kind = request.wishedAddress == nil ? HS_LOG_SPAN : HS_LOG_SPAN_AT
  append(kind, span.address, request)
}

/// The heap has no span for `request`.
@inline(never)
func recordRefusal(of request: SpanRequest) {
  append(HS_LOG_SPAN_REFUSED, request.wishedAddress ?? 0, request)
}

/// The pages of a range are about to go back.
@inline(never)
func recordFree(_ address: UnsafeMutableRawPointer, _ size: Int) {
  hs_adapter_record(HS_LOG_SPAN_FREE.rawValue, 0, UInt(bitPattern: address), UInt64(size))
}

private func append(_ kind: hs_log_kind, _ address: UInt, _ request: SpanRequest) {
  let alignment = UInt32(truncatingIfNeeded: request.alignmentPages.trailingZeroBitCount + pageShift)
  let hints = request.mustBeZero ? HS_LOG_SPAN_ZEROED.rawValue : 0
  hs_adapter_record(
    kind.rawValue, alignment, address, UInt64(request.pageCount) &<< UInt64(pageShift) | UInt64(hints))
}
