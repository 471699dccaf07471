// The C interface, called in process as ordinary Swift. The shipped library is tested from C (Tests/CLibrary).

import CHugeSpan
import HugeSpanABI
import Testing

@Suite struct LibraryTests {
  @Test func optionsOfAnotherVersionAreTakenAsFarAsTheyAreUnderstood() {
    var handle: OpaquePointer?
    // A caller built against a header with fewer fields: the rest are defaults.
    var options = hs_options()
    hs_options_init(&options, MemoryLayout<hs_options>.size)
    options.size = MemoryLayout<hs_options>.offset(of: \.rate)!
    options.rate = .nan
    #expect(hs_heap_create(&options, &handle) == HS_OK)
    hs_heap_destroy(handle!)
    options.size = MemoryLayout<hs_options>.size
    #expect(hs_heap_create(&options, &handle) == HS_INVALID)
    options.size = 0
    #expect(hs_heap_create(&options, &handle) == HS_INVALID)

    // A newer one: a field that is set and not known is refused, a zero one is not.
    struct Newer {
      var known = hs_options()
      var unknown: UInt64 = 0
    }
    var newer = Newer()
    hs_options_init(&newer.known, MemoryLayout<hs_options>.size)
    newer.known.size = MemoryLayout<Newer>.size
    func create() -> hs_status {
      withUnsafePointer(to: &newer) {
        hs_heap_create(UnsafeRawPointer($0).assumingMemoryBound(to: hs_options.self), &handle)
      }
    }
    #expect(create() == HS_OK)
    hs_heap_destroy(handle!)
    newer.unknown = 1
    #expect(create() == HS_INVALID)
  }

  @Test func valuesThatNoEnumerationHasAreInvalid() {
    var handle: OpaquePointer?
    var options = hs_options()
    hs_options_init(&options, MemoryLayout<hs_options>.size)
    options.policy_kind = hs_policy_kind(77)
    #expect(hs_heap_create(&options, &handle) == HS_INVALID)
    options.policy_kind = HS_POLICY_NEVER
    options.strategy_kind = hs_strategy_kind(77)
    #expect(hs_heap_create(&options, &handle) == HS_INVALID)
    options.strategy_kind = HS_STRATEGY_KEEP
    #expect(hs_heap_create(&options, &handle) == HS_OK)
    var allocation = hs_allocation()
    var request = hs_request()
    request.pages = 1
    request.lifetime = hs_lifetime(9)
    #expect(hs_allocate_request(handle!, &request, &allocation) == HS_INVALID)
    request.lifetime = HS_LIFETIME_SHORT
    request.alignment_pages = 3
    #expect(hs_allocate_request(handle!, &request, &allocation) == HS_INVALID)
    hs_heap_destroy(handle!)
  }

  @Test func everyStatusHasItsName() {
    let names = (0...7).map { String(cString: hs_status_name(hs_status($0))) }
    #expect(Set(names).count == 8 && names.allSatisfy { $0.hasPrefix("HS_") })
    #expect(String(cString: hs_status_name(hs_status(99))) == "unknown status")
  }
}
