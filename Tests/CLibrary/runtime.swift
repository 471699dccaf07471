// The C library in a program that has a normal Swift runtime of its own: neither disturbs the other.

import Foundation

final class Box {
  let text: String
  init(_ text: String) { self.text = text }
}

var heap: OpaquePointer?
precondition(hs_heap_create(nil, &heap) == HS_OK && hs_scavenger_start(heap!))
var boxes: [String: Box] = [:]
for index in 0..<10_000 {
  var span = hs_span()
  precondition(hs_allocate(heap!, 1 + index % 9, &span) == HS_OK)
  boxes["\(span.address!)"] = Box("\(index) of \(span.pages)")
  if index % 3 == 0 { hs_free(heap!, span.address!, span.pages) }
}
let json = try JSONSerialization.data(withJSONObject: boxes.mapValues(\.text))
precondition(boxes.count > 1_000 && json.count > 10_000)
hs_heap_destroy(heap!)
print("beside a Swift runtime")
