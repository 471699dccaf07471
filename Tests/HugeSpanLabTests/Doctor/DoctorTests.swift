// The diagnosis on made-up machines: what is read of a tree, and what is said about it.

import Foundation
import HugeSpanCore
import TestSupport
import Testing

@testable import HugeSpanLab

/// A machine in a folder. As it is made, everything is fine: Linux 6.18, mode madvise, memory groups of version 2.
private struct MadeUpMachine {
  let folder: TemporaryFolder
  static let huge = "sys/kernel/mm/transparent_hugepage"

  init(_ changes: [String: String?] = [:]) throws {
    folder = try TemporaryFolder()
    let huge = Self.huge
    var files: [String: String] = [
      "proc/sys/kernel/osrelease": "6.18.1-generic",
      "proc/meminfo": "MemTotal:       16777216 kB\n",
      "proc/buddyinfo": "Node 0, zone   Normal 1 1 1 1 1 1 1 1 1 1 2048",
      "proc/cpuinfo": "flags : fpu vme\n",
      "proc/swaps": "Filename Type Size Used Priority\n",
      "proc/self/cgroup": "0::/app/web\n",
      "proc/sys/vm/max_map_count": "65530",
      "proc/sys/vm/overcommit_memory": "0",
      "sys/kernel/mm/lru_gen/enabled": "0x0007",
      "sys/module/zswap/parameters/enabled": "N",
      "\(huge)/enabled": "always [madvise] never",
      "\(huge)/defrag": "always defer defer+madvise [madvise] never",
      "\(huge)/hpage_pmd_size": "2097152",
      "\(huge)/shrink_underused": "0",
      "\(huge)/hugepages-64kB/enabled": "always inherit madvise [never]",
      "\(huge)/hugepages-2048kB/enabled": "always [inherit] madvise never",
      "\(huge)/khugepaged/defrag": "1",
      "\(huge)/khugepaged/max_ptes_none": "0",
      "\(huge)/khugepaged/pages_to_scan": "4096",
      "\(huge)/khugepaged/scan_sleep_millisecs": "10000",
      "sys/fs/cgroup/cgroup.controllers": "cpu memory",
      "sys/fs/cgroup/app/memory.max": "max",
      "sys/fs/cgroup/app/web/memory.max": "max",
      "sys/fs/cgroup/app/web/memory.current": "1048576",
    ]
    for (name, text) in changes { files[name] = text }
    for (name, text) in files { try folder.write(text + "\n", name) }
  }

  func facts() -> SystemFacts { SystemReader.read(root: folder.path) }

  func diagnosis(
    disabled: ProcessFacts.Disabled? = .nothing, able: KernelCapabilities? = .all
  ) -> Diagnosis { Diagnosis(facts(), ProcessFacts(disabled: disabled, capabilities: able)) }
}

extension Diagnosis {
  /// The finding with this key, which must be there once.
  fileprivate func finding(_ key: String) -> Finding? {
    let found = findings.filter { $0.key == key }
    return found.count == 1 ? found[0] : nil
  }

  fileprivate func verdict(_ key: String) -> Verdict? { finding(key)?.verdict }
}

private let modes = ["always", "madvise", "never"]
private let ownModes = ["always", "inherit", "madvise", "never"]

/// The line of a setting with one of its words chosen.
private func line(_ words: [String], _ chosen: String) -> String {
  words.map { $0 == chosen ? "[\($0)]" : $0 }.joined(separator: " ")
}

@Suite("What the doctor says of a machine")
struct DoctorTests {
  @Test("a machine on which nothing is wrong has nothing to be noted but that swap strategies do nothing")
  func healthy() throws {
    let diagnosis = try MadeUpMachine().diagnosis()
    let noted = diagnosis.findings.filter { $0.verdict != .fine }.map(\.key)
    #expect(noted == ["strategy.cold", "strategy.pageout"])
    #expect(diagnosis.isPossible && diagnosis.system.unreadable.isEmpty)
    #expect(diagnosis.findings.allSatisfy { $0.verdict != .fine || $0.advice == nil })
    #expect(diagnosis.rights == HugePageRights(isAdvisedHuge: true, isAnyHuge: false, mayCollapse: true))
  }

  @Test("facts are read where the kernel has them")
  func facts() throws {
    let facts = try MadeUpMachine().facts()
    #expect(facts.kernelRelease == "6.18.1-generic" && facts.memoryBytes == 16 << 30)
    #expect(facts.freeBlockBytes == (512 + 2048 * 1024) * 4096)
    #expect(facts.hugePages?.sizes.keys.sorted() == [64 << 10, 2 << 20])
    #expect(facts.hugePages?.ownMode?.selected == "inherit" && facts.hugePages?.khugepaged["pages_to_scan"] == 4096)
    #expect(facts.group?.directory == "/sys/fs/cgroup/app/web" && facts.group?.version == 2)
    #expect(facts.generationalLRU == 7 && facts.zswap == false && facts.swaps.isEmpty)
    #expect(facts.host.isVirtual == false && facts.host.hasBalloon == false)
    // A root with a slash behind it is the same root.
    let machine = try MadeUpMachine()
    #expect(SystemReader.read(root: machine.folder.path + "/") == machine.facts())
  }

  @Test(
    "modes of all sizes and of the size, in every combination, as the kernel takes them", arguments: modes, ownModes)
  func modesTogether(global: String, own: String) throws {
    let machine = try MadeUpMachine([
      "\(MadeUpMachine.huge)/enabled": line(modes, global),
      "\(MadeUpMachine.huge)/hugepages-2048kB/enabled": line(ownModes, own),
    ])
    let effective = own == "inherit" ? global : own
    for disabled in [ProcessFacts.Disabled.nothing, .exceptAdvised, .completely, nil] {
      let diagnosis = machine.diagnosis(disabled: disabled)
      let isOpen = disabled != .completely
      #expect(diagnosis.rights.isAdvisedHuge == (isOpen && effective != "never"))
      #expect(diagnosis.rights.isAnyHuge == (isOpen && disabled != .exceptAdvised && effective == "always"))
      #expect(diagnosis.rights.mayCollapse == isOpen)
      #expect(diagnosis.isPossible == diagnosis.rights.isAdvisedHuge)
    }
    // Named is the setting that has to be changed.
    let diagnosis = machine.diagnosis()
    #expect(diagnosis.verdict("thp.own") == (own == "never" ? .impossible : .fine))
    #expect(diagnosis.verdict("thp.enabled") == (own == "inherit" && global == "never" ? .impossible : .fine))
  }

  @Test("before sizes had modes of their own the one mode counts", arguments: modes)
  func oneMode(global: String) throws {
    let huge = MadeUpMachine.huge
    let diagnosis = try MadeUpMachine([
      "\(huge)/enabled": line(modes, global), "\(huge)/hugepages-64kB/enabled": nil,
      "\(huge)/hugepages-2048kB/enabled": nil, "\(huge)/shrink_underused": nil, "proc/sys/kernel/osrelease": "6.1.0",
    ]).diagnosis()
    #expect(diagnosis.isPossible == (global != "never") && diagnosis.finding("thp.own") == nil)
    #expect(diagnosis.finding("thp.underused")?.value == "none")
  }

  @Test("a smaller size that is on does not make hugepages possible, and is noted")
  func otherSizes() throws {
    let huge = MadeUpMachine.huge
    let diagnosis = try MadeUpMachine([
      "\(huge)/enabled": line(modes, "never"), "\(huge)/hugepages-64kB/enabled": line(ownModes, "always"),
    ]).diagnosis()
    #expect(!diagnosis.isPossible && diagnosis.verdict("thp.64kB") == .note)
    #expect(diagnosis.finding("thp.64kB")?.advice?.contains("hugepages-64kB/enabled") == true)
  }

  @Test("a kernel without hugepages, without their size, or with another size, has none for the heap")
  func sizes() throws {
    let huge = MadeUpMachine.huge
    var without: [String: String?] = [:]
    for name in [
      "enabled", "defrag", "hpage_pmd_size", "shrink_underused", "hugepages-64kB/enabled", "hugepages-2048kB/enabled",
      "khugepaged/defrag", "khugepaged/max_ptes_none", "khugepaged/pages_to_scan", "khugepaged/scan_sleep_millisecs",
    ] { without["\(huge)/\(name)"] = .some(nil) }
    let none = try MadeUpMachine(without).diagnosis()
    #expect(!none.isPossible && none.verdict("thp") == .impossible && !none.rights.mayCollapse)
    let sizeless = try MadeUpMachine(["\(huge)/hpage_pmd_size": nil]).diagnosis()
    #expect(!sizeless.isPossible && sizeless.verdict("thp.size") == .impossible)
    let other = try MadeUpMachine(["\(huge)/hpage_pmd_size": "33554432"]).diagnosis()
    #expect(!other.isPossible && other.verdict("thp.size") == .impossible)
  }

  @Test("a setting that is not understood is shown, and not taken for never")
  func unreadable() throws {
    let huge = MadeUpMachine.huge
    let diagnosis = try MadeUpMachine([
      "\(huge)/enabled": "sometimes", "\(huge)/hugepages-2048kB/enabled": "[inherit] [always]",
      "\(huge)/defrag": "", "proc/swaps": "Filename\n?\n", "proc/sys/vm/max_map_count": "many",
      "sys/fs/cgroup/app/memory.max": "lots",
    ]).diagnosis()
    #expect(diagnosis.isPossible && diagnosis.verdict("thp.own") == .warning)
    #expect(diagnosis.findings.filter { $0.key == "unreadable" }.count == 6)
    #expect(diagnosis.system.unreadable["/\(huge)/enabled"] == "sometimes")
    #expect(diagnosis.system.unreadable["/sys/fs/cgroup/app/memory.max"] == "lots")
  }

  @Test(
    "how hard the kernel tries is a matter of degree",
    arguments: [
      ("always", Verdict.note), ("defer", .note), ("defer+madvise", .fine), ("madvise", .fine), ("never", .warning),
    ])
  func defrag(mode: String, verdict: Verdict) throws {
    let words = ["always", "defer", "defer+madvise", "madvise", "never"]
    let diagnosis = try MadeUpMachine(["\(MadeUpMachine.huge)/defrag": line(words, mode)]).diagnosis()
    #expect(diagnosis.verdict("thp.defrag") == verdict && diagnosis.isPossible)
    #expect((diagnosis.finding("thp.defrag")?.advice == nil) == (verdict == .fine))
  }

  @Test("the underused shrinker takes nothing while khugepaged would fill it up again")
  func underused() throws {
    let huge = MadeUpMachine.huge
    func finding(_ shrinks: String, _ none: String) throws -> Finding? {
      try MadeUpMachine(["\(huge)/shrink_underused": shrinks, "\(huge)/khugepaged/max_ptes_none": none]).diagnosis()
        .finding("thp.underused")
    }
    #expect(try finding("1", "511")?.verdict == .fine && finding("1", "511")?.value == "on, without effect")
    #expect(try finding("1", "409")?.verdict == .note && finding("1", "409")?.meaning.contains("409") == true)
    #expect(try finding("0", "409")?.verdict == .fine)
  }

  @Test("khugepaged's speed is what it looks at in a minute, whatever the numbers")
  func khugepaged() throws {
    let huge = MadeUpMachine.huge + "/khugepaged"
    #expect(try MadeUpMachine().diagnosis().finding("khugepaged.scan")?.value == "96 MiB a minute")
    let busy = try MadeUpMachine(["\(huge)/scan_sleep_millisecs": "0", "\(huge)/defrag": "0"]).diagnosis()
    #expect(busy.verdict("khugepaged.scan") == .note && busy.verdict("khugepaged.defrag") == .note)
    let absurd = try MadeUpMachine([
      "\(huge)/pages_to_scan": "\(Int.max)", "\(huge)/scan_sleep_millisecs": "1", "\(huge)/max_ptes_none": "\(Int.max)",
    ]).diagnosis()
    #expect(absurd.finding("khugepaged.scan") != nil && absurd.isPossible)
  }

  @Test("the old and the new kernel are told by number, not by letter")
  func kernels() throws {
    for (release, verdict) in [
      ("6.18.44", Verdict.fine), ("6.1.0-18-amd64", .fine), ("5.15.0", .note), ("5.3.18", .warning),
      ("4.18.0-553", .warning),
      ("10.2", .fine),
    ] {
      let diagnosis = try MadeUpMachine(["proc/sys/kernel/osrelease": release]).diagnosis()
      #expect(diagnosis.verdict("kernel") == verdict, "\(release)")
    }
  }

  @Test("what a process may have is asked, and what is not known is said")
  func process() throws {
    let machine = try MadeUpMachine()
    #expect(machine.diagnosis(disabled: .completely).verdict("process.disabled") == .impossible)
    #expect(machine.diagnosis(disabled: .exceptAdvised).verdict("process.disabled") == .fine)
    #expect(machine.diagnosis(disabled: nil).verdict("process.disabled") == .note)
    #expect(machine.diagnosis(able: nil).verdict("tried") == .note)
  }

  @Test("what was tried and did not work is refused, and the default strategy's refusal is a warning")
  func capabilities() throws {
    let machine = try MadeUpMachine()
    var able = KernelCapabilities.all
    able.remove(.honestSplit)
    able.remove(.exactResidency)
    able.remove(.batchedAdvice)
    let unsplit = machine.diagnosis(able: able)
    #expect(unsplit.verdict("strategy.split-dontneed") == .warning && unsplit.verdict("strategy.deferred") == .note)
    #expect(unsplit.verdict("tried.residency") == .note && unsplit.verdict("tried.batches") == .note)
    #expect(unsplit.verdict("strategy.dontneed") == .fine && unsplit.isPossible)
    // Allowed, and none came: memory is fragmented. Not allowed: as expected.
    able.remove(.hugePages)
    #expect(machine.diagnosis(able: able).verdict("tried.huge") == .warning)
    #expect(machine.diagnosis(disabled: .completely, able: able).verdict("tried.huge") == .note)
  }
}

@Suite("What the doctor says of what is around hugepages")
struct DoctorSurroundingsTests {
  private let group = "sys/fs/cgroup/app"

  @Test("the tightest limit counts, also one above the group")
  func versionTwo() throws {
    let machine = try MadeUpMachine([
      "\(group)/memory.max": "1073741824", "\(group)/memory.current": "1040187392",
      "\(group)/web/memory.max": "2147483648",
      "\(group)/web/memory.high": "536870912", "\(group)/memory.swap.max": "0",
    ])
    let limits = machine.facts().group
    #expect(limits?.limitBytes == 1 << 30 && limits?.limitDirectory == "/sys/fs/cgroup/app")
    #expect(limits?.usedBytes == 1_040_187_392 && limits?.highBytes == 512 << 20 && limits?.swapLimitBytes == 0)
    let diagnosis = machine.diagnosis()
    #expect(diagnosis.verdict("group.limit") == .warning && diagnosis.verdict("group.high") == .note)
    #expect(diagnosis.finding("group.limit")?.advice?.contains("/sys/fs/cgroup/app/memory.max") == true)
    let roomy = try MadeUpMachine(["\(group)/memory.max": "1073741824", "\(group)/memory.current": "4096"])
    #expect(roomy.diagnosis().verdict("group.limit") == .fine)
  }

  @Test("a limit in which no hugepage fits makes them impossible")
  func tooSmall() throws {
    let diagnosis = try MadeUpMachine(["\(group)/web/memory.max": "1048576"]).diagnosis()
    #expect(diagnosis.verdict("group.limit") == .impossible && !diagnosis.isPossible)
  }

  @Test("version 1: no limit is a large number, and the path may be the host's")
  func versionOne() throws {
    let memory = "sys/fs/cgroup/memory"
    let changes: [String: String?] = [
      "proc/self/cgroup": "4:memory:/service/web\n0::/", "\(memory)/memory.limit_in_bytes": "9223372036854771712",
      "\(memory)/service/memory.limit_in_bytes": "268435456", "\(memory)/service/memory.usage_in_bytes": "1048576",
      "\(memory)/service/web/memory.limit_in_bytes": "9223372036854771712",
    ]
    let limits = try MadeUpMachine(changes).facts().group
    #expect(limits?.version == 1 && limits?.limitBytes == 256 << 20 && limits?.usedBytes == 1 << 20)
    #expect(limits?.limitDirectory == "/sys/fs/cgroup/memory/service")
    let container = try MadeUpMachine(
      changes.merging(["proc/self/cgroup": "4:memory:/docker/abc"]) { $1 })
    #expect(container.facts().group?.directory == "/sys/fs/cgroup/memory")
    #expect(container.diagnosis().finding("group.limit")?.value == "none (version 1)")
    let none = try MadeUpMachine(["sys/fs/cgroup/cgroup.controllers": "cpu"]).diagnosis()
    #expect(none.verdict("group") == .note && none.finding("group")?.meaning.contains("no memory controller") == true)
  }

  @Test("swap is judged by what it lies on, and zswap by whether there is swap")
  func swap() throws {
    func diagnosis(_ lines: String, _ more: [String: String?] = [:]) throws -> Diagnosis {
      try MadeUpMachine(["proc/swaps": "Filename Type Size Used Priority\n" + lines].merging(more) { $1 }).diagnosis()
    }
    let zram = try diagnosis("/dev/zram0 partition 1048576 0 100")
    #expect(zram.verdict("swap") == .fine && zram.finding("swap")?.value.contains("zram") == true)
    #expect(zram.verdict("strategy.pageout") == .fine)
    #expect(try diagnosis("/dev/sda2 partition 1048576 0 -2").verdict("swap") == .note)
    #expect(try diagnosis("/swapfile file 1048576 0 -2").verdict("swap") == .note)
    let forbidden = try diagnosis("/dev/zram0 partition 1048576 0 100", ["\(group)/web/memory.swap.max": "0"])
    #expect(forbidden.verdict("swap.limit") == .fine && forbidden.verdict("strategy.pageout") == .note)
    let zswap: [String: String?] = ["sys/module/zswap/parameters/enabled": "Y"]
    #expect(try diagnosis("", zswap).verdict("swap.zswap") == .fine)
    #expect(try diagnosis("/dev/sda2 partition 1048576 0 -2", zswap).verdict("swap.zswap") == .note)
  }

  private func balloon(_ features: String, order: String? = nil, hasDriver: Bool = true) -> [String: String?] {
    let device = "sys/bus/virtio/devices/virtio3"
    var files: [String: String?] = [
      "proc/cpuinfo": "flags : fpu hypervisor", "\(device)/device": "0x0005", "\(device)/features": features,
      "sys/bus/virtio/devices/virtio0/device": "0x0001",
    ]
    if hasDriver { files["\(device)/driver/uevent"] = "" }
    if let order { files["sys/module/page_reporting/parameters/page_reporting_order"] = order }
    return files
  }

  @Test("a guest's free pages go to the host in blocks of a size, and small ones break the host's hugepages")
  func host() throws {
    let guest = try MadeUpMachine(["proc/cpuinfo": "flags : fpu hypervisor"]).diagnosis()
    #expect(guest.verdict("host") == .note && guest.verdict("host.balloon") == .fine)
    let whole = try MadeUpMachine(balloon("0110010", order: "9")).diagnosis()
    #expect(whole.verdict("host.reporting") == .note)
    #expect(whole.finding("host.reporting")?.value == "free blocks of 2 MiB")
    let small = try MadeUpMachine(balloon("0110010", order: "5")).diagnosis()
    #expect(small.verdict("host.reporting") == .warning && small.isPossible)
    for order in ["-1", "0", "4000", "\(Int.max)"] {
      #expect(try MadeUpMachine(balloon("0110010", order: order)).diagnosis().verdict("host.reporting") == .note)
    }
    let silent = try MadeUpMachine(balloon("0110000", order: "9")).diagnosis()
    #expect(silent.verdict("host.balloon") == .note && silent.finding("host.reporting") == nil)
    let idle = try MadeUpMachine(balloon("0110010", order: "9", hasDriver: false)).diagnosis()
    #expect(idle.verdict("host.balloon") == .fine)
    #expect(try MadeUpMachine(["proc/cpuinfo": "Features : fp"]).diagnosis().verdict("host") == .note)
  }

  @Test("limits of the kernel")
  func limits() throws {
    func verdict(_ file: String, _ text: String?, _ key: String) throws -> Verdict? {
      try MadeUpMachine([file: text]).diagnosis().verdict(key)
    }
    #expect(try verdict("proc/sys/vm/max_map_count", "1000", "limits.mappings") == .warning)
    #expect(try verdict("proc/sys/vm/max_map_count", "1048576", "limits.mappings") == .fine)
    #expect(try verdict("proc/sys/vm/overcommit_memory", "2", "limits.overcommit") == .note)
    #expect(try verdict("proc/sys/vm/overcommit_memory", "1", "limits.overcommit") == .fine)
    #expect(try verdict("proc/buddyinfo", "Node 0, zone Normal 9 9 9 9 9 9 9 9 9 9 9", "memory.blocks") == .note)
    for text in ["0x0000", "0x0007", nil] {
      #expect(try verdict("sys/kernel/mm/lru_gen/enabled", text, "lru") == .fine)
    }
    #expect(try MadeUpMachine(["sys/kernel/mm/lru_gen/enabled": nil]).diagnosis().finding("lru")?.value == "none")
  }

  @Test("an empty tree is a machine of which nothing is known, and hugepages are impossible")
  func empty() throws {
    let folder = try TemporaryFolder()
    let diagnosis = Diagnosis(SystemReader.read(root: folder.path), ProcessFacts())
    #expect(!diagnosis.isPossible && diagnosis.verdict("kernel") == .note)
  }

  @Test("what is said for people has the value, the advice and the end; JSON reads back as it was")
  func texts() throws {
    let machine = try MadeUpMachine(["\(MadeUpMachine.huge)/enabled": line(modes, "never")])
    let diagnosis = machine.diagnosis()
    let text = DoctorText.lines(diagnosis, TableStyle())
    #expect(text.contains("impossible  hugepages, all sizes") && text.contains("echo madvise > /sys/kernel/mm/"))
    #expect(text.contains("impossible on first touch: hugepages, all sizes never. MADV_COLLAPSE"))
    #expect(text.components(separatedBy: "\n").dropLast(2).allSatisfy { $0.count <= 100 }, "\(text)")
    let brief = DoctorText.lines(diagnosis, least: .note, TableStyle())
    #expect(!brief.contains("fine ") && brief.contains("impossible  hugepages, all sizes"))
    let record = DoctorRecord(diagnosis)
    #expect(record.counts["impossible"] == 1 && !record.isPossible && record.schema == "hugespan.doctor/1")
    let json = try jsonText(record)
    #expect(try JSONDecoder().decode(DoctorRecord.self, from: Data(json.utf8)) == record)
  }
}
