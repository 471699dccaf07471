// The layout of the structures that programs were built against: fields are added at the end, and nowhere else.

import CHugeSpan
import Testing

@Suite("The C interface keeps its layout:") struct LayoutTests {
  @Test("hs_options begins with its size and keeps every field in its place") func options() {
    #expect(MemoryLayout<hs_options>.offset(of: \.size) == 0)
    #expect(MemoryLayout<hs_options>.offset(of: \.user_data) == 8)
    #expect(MemoryLayout<hs_options>.offset(of: \.advise_huge_pages) == 9)
    #expect(MemoryLayout<hs_options>.offset(of: \.whole_blocks_only) == 10)
    #expect(MemoryLayout<hs_options>.offset(of: \.discount_refaults) == 13)
    #expect(MemoryLayout<hs_options>.offset(of: \.first_arena_bytes) == 16)
    #expect(MemoryLayout<hs_options>.offset(of: \.soft_limit_bytes) == 24)
    #expect(MemoryLayout<hs_options>.offset(of: \.hard_limit_bytes) == 32)
    #expect(MemoryLayout<hs_options>.offset(of: \.policy_kind) == 40)
    #expect(MemoryLayout<hs_options>.offset(of: \.strategy_kind) == 44)
    #expect(MemoryLayout<hs_options>.offset(of: \.rate) == 48)
    #expect(MemoryLayout<hs_options>.offset(of: \.second_stage_nanoseconds) == 56)
    #expect(MemoryLayout<hs_options>.offset(of: \.policy) == 64)
    #expect(MemoryLayout<hs_options>.offset(of: \.strategy) == 72)
    #expect(MemoryLayout<hs_options>.offset(of: \.memory_price) == 80)
    #expect(MemoryLayout<hs_options>.offset(of: \.rebuild) == 88)
    #expect(MemoryLayout<hs_options>.offset(of: \.steering) == 89)
    #expect(MemoryLayout<hs_options>.offset(of: \.costs) == 96)
    #expect(MemoryLayout<hs_options>.offset(of: \.pressure_limit_bytes) == 248)
    #expect(MemoryLayout<hs_options>.offset(of: \.move_blocks) == 256)
    // A structure inside a structure cannot grow.
    #expect(MemoryLayout<hs_costs>.size == 96 && MemoryLayout<hs_costs>.offset(of: \.tax_share) == 88)
  }

  @Test("what is handed out and answered keeps its fields in their places") func results() {
    #expect(MemoryLayout<hs_span>.size == 16 && MemoryLayout<hs_span>.offset(of: \.pages) == 8)
    #expect(MemoryLayout<hs_allocation>.offset(of: \.is_zero) == 16)
    #expect(MemoryLayout<hs_allocation>.offset(of: \.refaulted_pages) == 24)
    #expect(MemoryLayout<hs_request>.offset(of: \.alignment_pages) == 8)
    #expect(MemoryLayout<hs_request>.offset(of: \.wished_address) == 16)
    #expect(MemoryLayout<hs_request>.offset(of: \.must_be_zero) == 24)
    #expect(MemoryLayout<hs_request>.offset(of: \.lifetime) == 28)
    #expect(MemoryLayout<hs_request>.offset(of: \.objects) == 32)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.used_pages) == 8)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.donated_pages) == 48)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.absent_blocks) == 96)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.allocations) == 128)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.splits) == 176)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.ticks) == 240)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.metadata_bytes) == 288)
    #expect(MemoryLayout<hs_statistics>.offset(of: \.collapses) == 296)
    #expect(MemoryLayout<hs_residency>.offset(of: \.blocks) == 8)
    #expect(MemoryLayout<hs_residency>.offset(of: \.resident_bytes) == 56)
    #expect(MemoryLayout<hs_residency>.offset(of: \.used_pages) == 80)
    #expect(MemoryLayout<hs_arena_statistics>.offset(of: \.foreign_frees) == 48)
    #expect(MemoryLayout<hs_process_options>.offset(of: \.statistics_path_length) == 24)
    #expect(MemoryLayout<hs_process_options>.offset(of: \.page) == 32)
    #expect(MemoryLayout<hs_process_options>.offset(of: \.bare) == 33)
    #expect(MemoryLayout<hs_options_error>.offset(of: \.message) == 16)
  }

  @Test("tables of functions and what they are called with keep their fields in their places") func tables() {
    #expect(MemoryLayout<hs_policy>.offset(of: \.plan) == 8 && MemoryLayout<hs_policy>.offset(of: \.booked) == 16)
    #expect(MemoryLayout<hs_strategy>.offset(of: \.release) == 8)
    #expect(MemoryLayout<hs_scavenge_input>.offset(of: \.phantom_pages) == 56)
    #expect(MemoryLayout<hs_scavenge_plan>.offset(of: \.cures) == 16)
    #expect(MemoryLayout<hs_scavenge_plan>.offset(of: \.whole_first) == 22)
    // An array of them is handed over: it cannot grow.
    #expect(MemoryLayout<hs_release_range>.stride == 32 && MemoryLayout<hs_release_range>.offset(of: \.effect) == 24)
    #expect(MemoryLayout<hs_arena_functions>.size == 24)
  }

  @Test("values that programs hold keep their meaning") func values() {
    #expect(HS_POLICY_RENT_OR_BUY.rawValue == 5 && HS_STRATEGY_CUSTOM.rawValue == 5 && HS_KERNEL.rawValue == 7)
    #expect(HS_BACKING_ABSENT.rawValue == 3 && HS_EFFECT_LAZY.rawValue == 4)
    #expect(HS_LIFETIME_LONG.rawValue == 2 && HS_OBJECTS_MANY.rawValue == 2)
  }
}
