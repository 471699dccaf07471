// A slab allocator for values of one type, in Swift.
//
// What it shows of the page heap: a value's address leads to its span, and the span's word of user data to its slab, so
// `deallocate` needs nothing but the pointer; slabs go back when they are empty; the hard limit is an error to be caught;
// ticks come by a clock of one's own; the residency pass tells how much lies on hugepages.

import Glibc
import HugeSpan

/// Memory for values of `Element`, one at a time. Not for several threads at once.
final class SlabPool<Element> {
  private struct Slab {
    var span: PageSpan
    var freeSlots: [UInt16]
  }

  let heap: PageHeap
  private var slabs: [Slab?] = []
  private var unusedNumbers: [Int] = []
  /// Slabs that may have room, newest last. Those that were filled or given back meanwhile are passed over.
  private var candidates: [Int] = []
  private let slotsPerSlab = 32 * PageHeap.pageBytes / MemoryLayout<Element>.stride

  init(on heap: PageHeap) { self.heap = heap }

  /// Uninitialized memory for one value. Throws what the heap throws; then nothing has changed.
  func allocate() throws(HeapError) -> UnsafeMutablePointer<Element> {
    while let number = candidates.last {
      if let slot = slabs[number]?.freeSlots.popLast() {
        return address(slabs[number]!.span, Int(slot))
      }
      candidates.removeLast()
    }
    let number = try addSlab()
    return address(slabs[number]!.span, Int(slabs[number]!.freeSlots.removeLast()))
  }

  /// Gives back the memory of one value, which must be deinitialized.
  func deallocate(_ pointer: UnsafeMutablePointer<Element>) {
    guard let span = heap.span(containing: pointer) else { fatalError("\(pointer) is not of this pool") }
    let number = Int(heap.userData(of: span)) - 1
    let slot = pointer - address(span, 0)
    if slabs[number]!.freeSlots.isEmpty { candidates.append(number) }
    slabs[number]!.freeSlots.append(UInt16(slot))
    if slabs[number]!.freeSlots.count == slotsPerSlab {
      slabs[number] = nil
      unusedNumbers.append(number)
      heap.free(span)
    }
  }

  private func addSlab() throws(HeapError) -> Int {
    var request = SpanRequest(pageCount: 32)
    request.objectsPerSpan = .many
    let span = try heap.allocate(request).span
    let slab = Slab(span: span, freeSlots: Array((0..<UInt16(slotsPerSlab)).reversed()))
    let number = unusedNumbers.popLast() ?? slabs.count
    if number == slabs.count { slabs.append(slab) } else { slabs[number] = slab }
    heap.setUserData(UInt(number) + 1, of: span)
    candidates.append(number)
    return number
  }

  private func address(_ span: PageSpan, _ slot: Int) -> UnsafeMutablePointer<Element> {
    span.pointer.assumingMemoryBound(to: Element.self) + slot
  }
}

/// A node of a tree that keeps the sum of what is below it.
struct Node {
  var key: UInt64
  var sum: UInt64
  var children: (UnsafeMutablePointer<Node>?, UnsafeMutablePointer<Node>?) = (nil, nil)
}

/// A tree over `keys`, every node from the pool.
func makeTree(_ keys: Range<UInt64>, _ pool: SlabPool<Node>) throws(HeapError) -> UnsafeMutablePointer<Node>? {
  if keys.isEmpty { return nil }
  let middle = keys.lowerBound + UInt64(keys.count / 2)
  let node = try pool.allocate()
  node.initialize(to: Node(key: middle, sum: middle))
  node.pointee.children = (
    try makeTree(keys.lowerBound..<middle, pool), try makeTree(middle + 1..<keys.upperBound, pool)
  )
  node.pointee.sum += (node.pointee.children.0?.pointee.sum ?? 0) + (node.pointee.children.1?.pointee.sum ?? 0)
  return node
}

/// Takes the tree apart and answers how many nodes it had, each of which must be what it was.
func takeApart(_ node: UnsafeMutablePointer<Node>?, _ pool: SlabPool<Node>) -> Int {
  guard let node else { return 0 }
  let (left, right) = node.pointee.children
  check(node.pointee.sum == node.pointee.key + (left?.pointee.sum ?? 0) + (right?.pointee.sum ?? 0))
  let count = 1 + takeApart(left, pool) + takeApart(right, pool)
  node.deinitialize(count: 1)
  pool.deallocate(node)
  return count
}

func check(_ holds: Bool, line: Int = #line) {
  if holds { return }
  print("Slab.swift:\(line): this does not hold")
  exit(1)
}

var options = HeapOptions()
options.userData = true
options.hardLimitBytes = 16 << 20
options.policy = .rentOrBuy(RentOrBuyOptions())
let heap = try PageHeap(options)
let pool = SlabPool<Node>(on: heap)

let tree = try makeTree(1..<200_001, pool)
let residency = try heap.residencyPass()
let coverage = 100 * residency.usedPagesOnHuge / residency.usedPages
print("200,000 nodes in \(residency.usedPages / 256) MiB, \(coverage) % of it on hugepages")
check(tree?.pointee.sum == 20_000_100_000)

// Nodes until the limit: the error is caught, and what was there is what it was.
var extra: [UnsafeMutablePointer<Node>] = []
do throws(HeapError) {
  while true { extra.append(try pool.allocate()) }
} catch {
  print("\(extra.count) more until the limit of 16 MiB")
  check(error == .limitExceeded && extra.count > 200_000)
}
extra.forEach(pool.deallocate)
check(takeApart(tree, pool) == 200_000 && heap.statistics.usedPages == 0)

// Idle, by a clock of our own, which takes no time.
var now: UInt64 = 0
while heap.statistics.freeResidentPages > 0 && now < 60_000_000_000 {
  now += heap.tick(at: now, processCPU: 0).nextTickNanoseconds
}
print("idle for \(Double(now) / 1e9) s, and all memory is with the kernel")
check(try heap.residencyPass().residentBytes == 0)
