// Events become steps: objects get slots, which are reused when their objects die.

import TraceFormat

/// Gives objects their slots and turns events into steps.
struct SlotBuilder {
  private var slots: [UInt32]
  private var freeSlots: [UInt32] = []
  private var sizes: [Int] = []
  private(set) var slotCount = 0
  private(set) var smallBytes = 0
  private(set) var largeBytes = 0

  /// Bytes of a page of the trace, which a span's length counts.
  private let pageBytes: Int

  init(objectCount: Int, pageBytes: Int) {
    slots = [UInt32](repeating: 0, count: objectCount)
    self.pageBytes = pageBytes
  }

  /// A slot for an object of `bytes` bytes.
  private mutating func takeSlot(_ bytes: Int) -> UInt32 {
    let slot: UInt32
    if let last = freeSlots.popLast() {
      slot = last
    } else {
      slot = UInt32(slotCount)
      slotCount += 1
      sizes.append(0)
    }
    sizes[Int(slot)] = bytes
    return slot
  }

  private mutating func count(_ bytes: Int, _ sign: Int) {
    if bytes > SizeClasses.largestBytes { largeBytes += sign * bytes } else { smallBytes += sign * bytes }
  }

  mutating func step(for event: TraceEvent, _ summary: inout ProgramTotals) -> TraceStep {
    switch event.body {
    case .allocate(let object, let bytes, let alignment, let kind):
      let slot = takeSlot(bytes)
      slots[object] = slot
      count(bytes, 1)
      summary.allocations += 1
      summary.allocatedBytes += bytes
      return TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: StepKind.allocate.rawValue,
        alignmentShift: UInt8(max(alignment, 1).trailingZeroBitCount), isMapped: kind == .mapped)
    case .resize(let object, let bytes):
      let slot = slots[object]
      count(sizes[Int(slot)], -1)
      count(bytes, 1)
      sizes[Int(slot)] = bytes
      summary.resizes += 1
      return TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: StepKind.resize.rawValue, alignmentShift: 0, isMapped: false)
    case .free(let object):
      let slot = slots[object]
      let bytes = sizes[Int(slot)]
      count(bytes, -1)
      freeSlots.append(slot)
      summary.frees += 1
      return TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: StepKind.free.rawValue, alignmentShift: 0, isMapped: false)
    default: preconditionFailure("no step of a malloc-level trace")
    }
  }

  // MARK: Spans

  /// Calls `add` with the steps of an event of spans.
  mutating func addSpanSteps(for event: TraceEvent, _ summary: inout ProgramTotals, add: (TraceStep) -> Void) {
    func step(_ kind: StepKind, _ slot: UInt32, _ bytes: Int, traits: UInt8 = 0, alignmentShift: Int = 0) -> TraceStep {
      TraceStep(
        time: event.time, bytes: bytes, slot: slot, kind: kind.rawValue,
        alignmentShift: UInt8(clamping: alignmentShift), isMapped: false, traits: traits)
    }
    switch event.body {
    case .allocateSpan(let span, let pages, let traits):
      let bytes = pages * pageBytes
      let slot = takeSlot(bytes)
      slots[span] = slot
      count(bytes, 1)
      summary.allocations += 1
      summary.allocatedBytes += bytes
      // Of one page nothing is asked: every span is aligned to that.
      let shift = traits.alignmentPages == 1 ? 0 : (traits.alignmentPages * pageBytes).trailingZeroBitCount
      add(step(.allocateSpan, slot, bytes, traits: traits.coded, alignmentShift: shift))
    case .resizeSpan(let span, let pages, let isZeroed):
      let slot = slots[span]
      setSize(slot, pages * pageBytes)
      summary.resizes += 1
      add(step(.resizeSpan, slot, pages * pageBytes, traits: SpanTraits(isZeroed: isZeroed).coded))
    case .free(let span):
      summary.frees += 1
      add(step(.free, slots[span], sizes[Int(slots[span])]))
      release(slots[span])
    case .freePages(let span, let first, let pages, let tail, let isJoined):
      summary.frees += 1
      var slot = slots[span]
      func split(at bytes: Int) -> UInt32 {
        let other = takeSlot(0)
        let size = sizes[Int(slot)]
        setSize(slot, bytes)
        setSize(other, size - bytes)
        add(step(.split, slot, bytes / SizeClasses.pageBytes | Int(other) << 32))
        return other
      }
      if first > 0 { slot = split(at: first * pageBytes) }
      if let tail { slots[tail] = split(at: pages * pageBytes) }
      add(step(.free, slot, pages * pageBytes, traits: isJoined ? 1 : 0))
      release(slot)
    case .refuseSpan, .refuseGrowth: break
    case .allocate, .resize, .sample: preconditionFailure("no step of a trace of spans")
    }
  }

  /// Changes the size of a slot; a size of 0 is not counted.
  private mutating func setSize(_ slot: UInt32, _ bytes: Int) {
    count(sizes[Int(slot)], -1)
    count(bytes, 1)
    sizes[Int(slot)] = bytes
  }

  private mutating func release(_ slot: UInt32) {
    setSize(slot, 0)
    freeSlots.append(slot)
  }
}
