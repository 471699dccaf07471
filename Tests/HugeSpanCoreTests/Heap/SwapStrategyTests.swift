// Strategies `cold` and `pageout` on the real kernel, without swap and with zram: what they do is read back from the page
// tables, from the charge of a memory group and from what is in swap.

import Foundation
import HugeSpanCore
import HugeSpanLab
import TestKernels
import Testing

/// A zram device of the test's own, in use as swap at the lowest priority until the value goes.
final class ZramSwap {
  private let number: Int

  private init(number: Int) { self.number = number }

  /// Makes one, or says why not.
  static func make(byteCount: Int) -> (swap: ZramSwap?, reason: String) {
    guard getuid() == 0 else { return (nil, "only root may add swap") }
    guard let text = contents(ofFile: "/sys/class/zram-control/hot_add") else { return (nil, "no zram") }
    guard let number = Int(text.filter(\.isNumber)) else { return (nil, "no zram device can be added") }
    let swap = ZramSwap(number: number)
    do {
      try "\(byteCount)".write(toFile: "/sys/block/zram\(number)/disksize", atomically: false, encoding: .utf8)
      if !FileManager.default.fileExists(atPath: swap.device) {
        let numbers = (contents(ofFile: "/sys/block/zram\(number)/dev") ?? "").split { $0 == ":" || $0 == "\n" }
        guard numbers.count == 2, run("mknod", [swap.device, "b"] + numbers.map(String.init)) else {
          return (nil, "no device file can be made")
        }
        swap.hasMadeFile = true
      }
    } catch { return (nil, "zram\(number) takes no size") }
    guard run("mkswap", [swap.device]) else { return (nil, "mkswap failed or is not there") }
    swap.isOn = run("swapon", ["-p", "0", swap.device])
    return swap.isOn ? (swap, "") : (nil, "swapon failed")
  }

  private var isOn = false
  private var hasMadeFile = false
  private var device: String { "/dev/zram\(number)" }

  deinit {
    if isOn { _ = Self.run("swapoff", [device]) }
    try? "1".write(toFile: "/sys/block/zram\(number)/reset", atomically: false, encoding: .utf8)
    try? "\(number)".write(toFile: "/sys/class/zram-control/hot_remove", atomically: false, encoding: .utf8)
    if hasMadeFile { unlink(device) }
  }

  private static func run(_ command: String, _ arguments: [String]) -> Bool {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [command] + arguments
    process.environment = ["PATH": "/usr/sbin:/sbin:/usr/bin:/bin"]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return false }
    process.waitUntilExit()
    return process.terminationStatus == 0
  }
}

private var hasSwap: Bool { (contents(ofFile: "/proc/swaps") ?? "").split(separator: "\n").count > 1 }

private let zramReason: String = {
  if hasSwap { return "there is other swap, which would be used too" }
  return ZramSwap.make(byteCount: 64 << 20).reason
}()

private func swappedBytes() -> Int {
  let text = contents(ofFile: "/proc/self/status") ?? ""
  let line = text.split(separator: "\n").first { $0.hasPrefix("VmSwap:") } ?? ""
  return (Int(line.split { $0 == " " || $0 == "\t" }.dropFirst().first ?? "") ?? -1) * 1024
}

private func hugeBytes(_ heap: borrowing PageHeapCore<LinuxKernel>) -> Int { (try? heap.observe().hugeBytes) ?? -1 }

@Suite(
  .serialized, .enabled(if: canBeCharged, "no memory group of one's own can be made here"),
  .enabled(if: canSplit, "this kernel gives no hugepages, or does not split them"),
  .enabled(if: !hasAddressSanitizer, "the address sanitizer's own memory is charged too"))
struct FreeMemoryThatKeepsItsContents {
  @Test(.enabled(if: !hasSwap, "there is swap"))
  func staysWhenItIsColdAndThereIsNoSwap() async {
    await #expect(processExitsWith: .success) {
      try HalfReleased.run(.cold) { program in
        let report = program.heap.tick(at: 1, processCPU: 0)
        program.expect(report.releasedPages == 25_600, "\(report)")
        program.expect(program.resident == HalfReleased.bytes, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes, "charge")
        program.expect(hugeBytes(program.heap) == 0, "a cold half leaves the hugepage")
        let statistics = program.heap.statistics()
        program.expect(statistics.lazyPages == 25_600 && statistics.splits == 100, "\(statistics)")
        // Nothing is done twice, and reuse costs nothing.
        program.expect(program.heap.tick(at: 2_000_000_000, processCPU: 0).releasedPages == 0, "cooled again")
        let span = try program.heap.allocate(SpanRequest(pageCount: 256)).span
        program.expect(!program.kept.contains(span) && program.resident == HalfReleased.bytes, "not reused")
      }
    }
  }

  @Test(.enabled(if: !hasSwap, "there is swap"))
  func isNotTornForNothingByPageoutWithoutSwap() async {
    await #expect(processExitsWith: .success) {
      try HalfReleased.run(.pageout) { program in
        let report = program.heap.tick(at: 1, processCPU: 0)
        program.expect(report.releasedPages == 0, "\(report)")
        program.expect(program.resident == HalfReleased.bytes, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes, "charge")
        program.expect(hugeBytes(program.heap) == 99 << 21, "\(hugeBytes(program.heap)) bytes on hugepages")
        program.expect(program.heap.statistics().pagesReleased == 0, "counted as released")
      }
    }
  }

  @Test(.enabled(if: zramReason.isEmpty, "no zram as swap can be had here"))
  func goesToZramAtOnceByPageout() async {
    await #expect(processExitsWith: .success) {
      let zram = ZramSwap.make(byteCount: 512 << 20).swap
      try #require(zram != nil)
      defer { withExtendedLifetime(zram) {} }
      try HalfReleased.run(.pageout) { program in
        let report = program.heap.tick(at: 1, processCPU: 0)
        program.expect(report.releasedPages == 25_600, "\(report)")
        program.expect(program.resident == HalfReleased.bytes / 2, "\(program.resident) bytes are resident")
        program.expectNear(program.charge, HalfReleased.bytes / 2, "charge")
        program.expectNear(swappedBytes(), HalfReleased.bytes / 2, "swapped bytes")
        program.expect(program.heap.statistics().splits == 100, "\(program.heap.statistics().splits) splits")
        // Reuse of a part reads it back; a whole block is dropped first.
        for span in program.kept[..<50] { program.heap.free(span) }
        _ = program.heap.tick(at: 2_000_000_000, processCPU: 0)
        for _ in 0..<50 {
          HalfReleased.write(try program.heap.allocate(SpanRequest(pageCount: 512)).span)
        }
        program.expect(hugeBytes(program.heap) == 50 << 21, "\(hugeBytes(program.heap)) bytes on hugepages")
        program.expectNear(swappedBytes(), HalfReleased.bytes / 4, "swapped bytes after the reuse")
        program.forget(50)
      }
    }
  }

  @Test(.enabled(if: zramReason.isEmpty, "no zram as swap can be had here"))
  func isSwappedBeforeWhatIsUsedWhenItIsCold() async {
    await #expect(processExitsWith: .success) {
      let zram = ZramSwap.make(byteCount: 512 << 20).swap
      try #require(zram != nil)
      defer { withExtendedLifetime(zram) {} }
      try HalfReleased.run(.cold) { program in
        _ = program.heap.tick(at: 1, processCPU: 0)
        program.expect(swappedBytes() < 1 << 20, "\(swappedBytes()) bytes swapped without pressure")
        // The group has to do with 60 MB less than it holds.
        let file = program.group.version == .one ? "memory.limit_in_bytes" : "memory.max"
        let limit = program.charge - 60 << 20
        program.expect(
          (try? "\(limit)".write(toFile: program.group.directory + "/" + file, atomically: false, encoding: .utf8))
            != nil,
          "no limit can be set")
        let kept = try program.kept.reduce(0) { try $0 + realKernel.presentBytes(of: $1.range) }
        program.expect(swappedBytes() > 50 << 20, "\(swappedBytes()) bytes swapped under pressure")
        program.expectNear(kept, HalfReleased.bytes / 2, "what is in use")
      }
    }
  }
}
