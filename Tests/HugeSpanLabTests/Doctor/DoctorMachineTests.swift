// The doctor against the machine: what it says of settings is what memory then gets.
//
// The machine is walked through every combination of the modes of all sizes and of the size, defrag, the underused
// shrinker, and what prctl leaves the process; in each, memory is mapped, touched, and read back from smaps. While that
// takes place nothing else on the machine has the hugepages it should have: so these tests are asked for, run alone, and
// take seconds.
//
//     HUGESPAN_CHANGE_SYSTEM=1 swift test --filter DoctorMachineTests

import Foundation
import Glibc
import HugeSpanCore
import Testing

@testable import HugeSpanLab

private let huge = "/sys/kernel/mm/transparent_hugepage"
private let ownFile = "\(huge)/hugepages-2048kB/enabled"

/// Why the machine's settings cannot be changed; empty if they can.
private let refusal: String = {
  if getuid() != 0 { return "only root may change the machine's settings" }
  if access("\(huge)/enabled", W_OK) != 0 { return "the settings of hugepages cannot be written here" }
  if ProcessInfo.processInfo.environment["HUGESPAN_CHANGE_SYSTEM"] != "1" {
    return "changes settings of the whole machine: set HUGESPAN_CHANGE_SYSTEM=1, and run it alone"
  }
  return ""
}()

private let hasZram =
  access("/sys/class/zram-control/hot_add", R_OK) == 0
  && ["/usr/sbin/", "/sbin/"].contains { access($0 + "mkswap", X_OK) == 0 && access($0 + "swapon", X_OK) == 0 }

/// Memory in which blocks can be tried.
private struct TryMemory {
  static let block = 1 << 21
  let range: UInt
  static let blocks = 4

  /// Within a reservation, so that the kernel joins it to no other mapping.
  init?() {
    let size = (Self.blocks + 3) * Self.block
    guard let reserved = mmap(nil, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      reserved != MAP_FAILED
    else { return nil }
    let first = UInt(bitPattern: reserved) + UInt(2 * Self.block - 1)
    range = first & ~UInt(Self.block - 1)
    whole = (UInt(bitPattern: reserved), size)
    if mprotect(pointer, Self.blocks * Self.block, PROT_READ | PROT_WRITE) != 0 { return nil }
  }

  private let whole: (start: UInt, byteCount: Int)
  var pointer: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: range)! }

  func advise(_ advice: Int32) { _ = madvise(pointer, Self.blocks * Self.block, advice) }
  func touch() {
    for block in 0..<Self.blocks { pointer.storeBytes(of: 1, toByteOffset: block * Self.block, as: UInt8.self) }
  }
  func unmap() { munmap(UnsafeMutableRawPointer(bitPattern: whole.start), whole.byteCount) }

  var figures: MemoryFigures? {
    let mappings = (try? parseSmaps(contents(ofFile: "/proc/self/smaps") ?? "")) ?? []
    return mappings.first { $0.start <= range && range < $0.end }?.figures
  }
}

/// What memory really gets, by smaps.
private struct Trial: Equatable {
  var isAdvisedHuge: Bool
  var isAnyHuge: Bool
  var mayCollapse: Bool

  static func make() throws -> Trial {
    let advised = try #require(TryMemory())
    defer { advised.unmap() }
    advised.advise(14)  // MADV_HUGEPAGE
    advised.touch()
    let isAdvisedHuge = try #require(advised.figures).hugeBytes > 0
    advised.advise(25)  // MADV_COLLAPSE
    let mayCollapse = try #require(advised.figures).hugeBytes > 0
    let plain = try #require(TryMemory())
    defer { plain.unmap() }
    plain.touch()
    return Trial(
      isAdvisedHuge: isAdvisedHuge, isAnyHuge: try #require(plain.figures).hugeBytes > 0, mayCollapse: mayCollapse)
  }
}

private typealias Prctl = @convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32

/// Writes a setting, and sees that the kernel has taken it. A setting that this kernel does not have is passed over.
private func set(_ path: String, _ value: String) throws -> Bool {
  if access(path, F_OK) != 0 { return true }
  try value.write(toFile: path, atomically: false, encoding: .utf8)
  return KeptSettings.value(of: path) == value
}

/// All combinations, in a process of its own.
private func walk() throws {
  let prctl = unsafeBitCast(try #require(dlsym(nil, "prctl")), to: Prctl.self)
  let parent = getppid()
  let hasSizes = access(ownFile, F_OK) == 0
  let canExcept = prctl(41, 1, 2, 0, 0) == 0
  let kinds: [(ProcessFacts.Disabled, UInt, UInt)] =
    [(.nothing, 0, 0), (.completely, 1, 0)] + (canExcept ? [(.exceptAdvised, 1, 2)] : [])
  var count = 0
  var possible = 0
  for global in ["always", "madvise", "never"] {
    for own in hasSizes ? ["always", "inherit", "madvise", "never"] : [""] {
      for defrag in ["always", "defer", "defer+madvise", "madvise", "never"] {
        for shrinks in ["0", "1"] {
          // The test that started this is gone, and the settings are being put back.
          if getppid() != parent { exit(1) }
          try #require(try set("\(huge)/enabled", global) && set(ownFile, own))
          try #require(try set("\(huge)/defrag", defrag) && set("\(huge)/shrink_underused", shrinks))
          for (disabled, value, flags) in kinds {
            try #require(prctl(41, value, flags, 0, 0) == 0)
            let combination: Comment = "\(global), \(own), \(defrag), shrinker \(shrinks), prctl \(disabled)"
            let diagnosis = Diagnosis(SystemReader.read(), .current())
            let trial = try Trial.make()
            #expect(diagnosis.process.disabled == disabled, combination)
            #expect(diagnosis.isPossible == trial.isAdvisedHuge, combination)
            #expect(diagnosis.rights.isAdvisedHuge == trial.isAdvisedHuge, combination)
            #expect(diagnosis.rights.isAnyHuge == trial.isAnyHuge, combination)
            #expect(diagnosis.rights.mayCollapse == trial.mayCollapse, combination)
            #expect(diagnosis.process.capabilities?.contains(.hugePages) == trial.isAdvisedHuge, combination)
            count += 1
            if trial.isAdvisedHuge { possible += 1 }
          }
        }
      }
    }
  }
  #expect(count == (hasSizes ? 120 : 30) * kinds.count)
  // Of the twelve pairs of modes eight give hugepages; of the kinds of process all but one.
  #expect(possible == (hasSizes ? 80 : 20) * (kinds.count - 1))
}

@Suite("The doctor against this machine", .serialized, .enabled(if: refusal.isEmpty, "\(refusal)"))
struct DoctorMachineTests {
  @Test("hugepages are possible where memory gets them, in every combination of settings, and all are put back")
  func combinations() async throws {
    let kept = try KeptSettings(["\(huge)/enabled", ownFile, "\(huge)/defrag", "\(huge)/shrink_underused"])
    defer { kept.restore() }
    await #expect(processExitsWith: .success) { try walk() }
    kept.restore()
    for (path, value) in kept.values { #expect(KeptSettings.value(of: path) == value, "\(path)") }
  }

  @Test("a test that is killed leaves the settings as they were")
  func killed() async throws {
    let kept = try KeptSettings(["\(huge)/shrink_underused"])
    defer { kept.restore() }
    let before = try #require(kept.values["\(huge)/shrink_underused"], "this kernel has no such shrinker")
    await #expect(processExitsWith: .signal(SIGKILL)) {
      let inner = try Guardian(
        script: #"printf %s "$2" >"$1""#,
        arguments: ["\(huge)/shrink_underused", try #require(KeptSettings.value(of: "\(huge)/shrink_underused"))])
      let other = KeptSettings.value(of: "\(huge)/shrink_underused") == "1" ? "0" : "1"
      try #require(try set("\(huge)/shrink_underused", other))
      withExtendedLifetime(inner) { _ = kill(getpid(), SIGKILL) }
    }
    let end = Date().addingTimeInterval(5)
    while KeptSettings.value(of: "\(huge)/shrink_underused") != before && Date() < end { usleep(10_000) }
    #expect(KeptSettings.value(of: "\(huge)/shrink_underused") == before)
  }

  @Test(
    "swap on zram is seen, and strategies that need it take effect with it and not without",
    .enabled(if: hasZram, "no zram, or no tools for it"))
  func swap() throws {
    /// Bytes that go when they are asked to.
    func swapped() throws -> Int {
      let memory = try #require(TryMemory())
      defer { memory.unmap() }
      memory.advise(15)  // MADV_NOHUGEPAGE
      memory.touch()
      memory.advise(21)  // MADV_PAGEOUT
      return try #require(memory.figures).swappedBytes
    }
    func value() -> String? {
      Diagnosis(SystemReader.read(), .current()).findings.first { $0.key == "strategy.pageout" }?.value
    }
    if SystemReader.read().swaps.isEmpty {
      #expect(try swapped() == 0)
      #expect(value() == "works, without effect")
    }
    let zram = try #require(SwapOnZram(byteCount: 64 << 20))
    defer { zram.remove() }
    let area = SystemReader.read().swaps.first { $0.path == zram.device }
    #expect(area?.kind == .zram && (area?.sizeBytes ?? 0) > 60 << 20)
    #expect(try swapped() > 0)
    #expect(value() == "works")
    zram.remove()
    #expect(!SystemReader.read().swaps.contains { $0.path == zram.device })
  }
}
