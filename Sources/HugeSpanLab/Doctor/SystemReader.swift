// Reading the facts, file by file, under a root that can be chosen.

import CHugeSpanShims
import Glibc
import HugeSpanCore

/// Reads what a machine is set to.
package struct SystemReader {
  /// `/`, or where a tree like it begins.
  private let root: String
  private var facts = SystemFacts()

  private init(root: String) {
    var root = root
    while root.hasSuffix("/") { root.removeLast() }
    self.root = root
  }

  /// All facts of the machine whose files are under `root`.
  package static func read(root: String = "/") -> SystemFacts {
    var reader = SystemReader(root: root)
    reader.readAll()
    return reader.facts
  }

  private mutating func readAll() {
    facts.kernelRelease = text("/proc/sys/kernel/osrelease").map(firstLine)
    if root.isEmpty { facts.pageBytes = Int(getpagesize()) }
    facts.memoryBytes = text("/proc/meminfo").flatMap { memoryField("MemTotal", of: $0) }
    facts.hugePages = hugePages()
    let hugePageBytes = facts.hugePages?.hugePageBytes ?? 1 << 21
    let order = max(hugePageBytes / facts.pageBytes, 1).trailingZeroBitCount
    facts.freeBlockBytes = value("/proc/buddyinfo") { [facts] in
      parseFreeBlocks($0, order: order, pageBytes: facts.pageBytes)
    }
    readGroup()
    facts.swaps = value("/proc/swaps", parseSwaps) ?? []
    facts.zswap = value("/sys/module/zswap/parameters/enabled", kernelFlag)
    facts.host = host()
    facts.generationalLRU = value("/sys/kernel/mm/lru_gen/enabled", kernelNumber)
    facts.mostMappings = value("/proc/sys/vm/max_map_count", kernelNumber)
    facts.overcommit = value("/proc/sys/vm/overcommit_memory", kernelNumber)
  }

  // MARK: Parts

  private mutating func hugePages() -> HugePageSettings? {
    let directory = "/sys/kernel/mm/transparent_hugepage"
    guard exists(directory) else { return nil }
    var settings = HugePageSettings()
    settings.enabled = value(directory + "/enabled", ModeChoice.init)
    settings.defrag = value(directory + "/defrag", ModeChoice.init)
    settings.hugePageBytes = value(directory + "/hpage_pmd_size", kernelNumber)
    settings.shrinksUnderused = value(directory + "/shrink_underused", kernelFlag)
    settings.usesZeroPage = value(directory + "/use_zero_page", kernelFlag)
    for setting in [
      "defrag", "max_ptes_none", "max_ptes_swap", "max_ptes_shared", "pages_to_scan", "scan_sleep_millisecs",
      "alloc_sleep_millisecs",
    ] { settings.khugepaged[setting] = value(directory + "/khugepaged/" + setting, kernelNumber) }
    for name in entries(directory) where name.hasPrefix("hugepages-") && name.hasSuffix("kB") {
      guard let kilobytes = Int(name.dropFirst(10).dropLast(2)), (1..<1 << 40).contains(kilobytes) else { continue }
      // Sizes of shared memory alone have no such file. A mode that is not understood is no missing one.
      let file = "\(directory)/\(name)/enabled"
      let mode = value(file, ModeChoice.init)
      settings.sizes[kilobytes << 10] = mode ?? (exists(file) ? ModeChoice(selected: "unknown") : nil)
    }
    return settings
  }

  private mutating func readGroup() {
    let mount = root + "/sys/fs/cgroup"
    let membership: CgroupMembership
    do throws(CgroupUnavailable) {
      membership = try CgroupMembership.find(root: mount, membership: text("/proc/self/cgroup"))
    } catch {
      facts.groupReason = error.reason
      return
    }
    let isOne = membership.version == .one
    var limits = GroupLimits(version: membership.version.rawValue, directory: shown(membership.directory))
    let top = isOne ? mount + "/memory" : mount
    var directory = membership.directory
    while true {
      // Version 1 writes the largest number of whole pages for no limit, version 2 "max".
      if let limit = groupNumber(directory, isOne ? "memory.limit_in_bytes" : "memory.max"), limit < 1 << 62,
        limit < limits.limitBytes ?? .max
      {
        limits.limitBytes = limit
        limits.limitDirectory = shown(directory)
        limits.usedBytes = groupNumber(directory, isOne ? "memory.usage_in_bytes" : "memory.current")
      }
      if !isOne {
        if let high = groupNumber(directory, "memory.high") { limits.highBytes = min(high, limits.highBytes ?? .max) }
        if let swap = groupNumber(directory, "memory.swap.max") {
          limits.swapLimitBytes = min(swap, limits.swapLimitBytes ?? .max)
        }
      }
      guard directory.count > top.count, let slash = directory.lastIndex(of: "/") else { break }
      directory = String(directory[..<slash])
    }
    facts.group = limits
  }

  /// Nil for "max", and where there is no such file.
  private mutating func groupNumber(_ directory: String, _ name: String) -> Int? {
    let path = shown(directory + "/" + name)
    guard let text = text(path), firstLine(text) != "max" else { return nil }
    if let number = kernelNumber(text) { return number }
    facts.unreadable[path] = firstLine(text)
    return nil
  }

  private mutating func host() -> HostFacts {
    var host = HostFacts()
    host.isVirtual = text("/proc/cpuinfo").flatMap(parseHypervisorFlag)
    // Processors without such a flag: Xen tells, and so does the firmware's table of machines that are made up.
    if host.isVirtual == nil, exists("/sys/hypervisor/type") || exists("/proc/device-tree/hypervisor") {
      host.isVirtual = true
    }
    host.reportingOrder = value("/sys/module/page_reporting/parameters/page_reporting_order", kernelNumber)
    let devices = "/sys/bus/virtio/devices"
    for name in entries(devices) where text("\(devices)/\(name)/device").flatMap(kernelNumber) == 5 {
      // Device 5 of virtio is the balloon, its feature 5 is free page reporting.
      guard exists("\(devices)/\(name)/driver") else { continue }
      host.hasBalloon = true
      let reports = value("\(devices)/\(name)/features") { featureBit(5, of: $0) }
      host.reportsFreePages = host.reportsFreePages == true ? true : reports
    }
    return host
  }

  // MARK: Files

  private func text(_ path: String) -> String? { contents(ofFile: root + path) }

  private func exists(_ path: String) -> Bool { access(root + path, F_OK) == 0 }

  /// What `parse` makes of a file; one that it makes nothing of is noted.
  private mutating func value<T>(_ path: String, _ parse: (String) -> T?) -> T? {
    guard let text = text(path) else { return nil }
    if let value = parse(text) { return value }
    facts.unreadable[path] = firstLine(text)
    return nil
  }

  /// The path as it is below the root.
  private func shown(_ path: String) -> String { String(path.dropFirst(root.count)) }

  private func entries(_ path: String) -> [String] {
    guard let directory = opendir(root + path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      names.append(
        withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        })
    }
    return names.sorted()
  }
}

private func firstLine(_ text: String) -> String { String(text.prefix { $0 != "\n" }.prefix(120)) }

extension ProcessFacts {
  /// This process: asked of prctl, and tried on the kernel, which takes about a millisecond.
  package static func current() -> ProcessFacts {
    ProcessFacts(disabled: currentlyDisabled(), capabilities: LinuxKernel().capabilities)
  }

  /// What prctl(PR_GET_THP_DISABLE) says: bit 0 that hugepages are disabled, bit 1 that advised memory is excepted.
  package static func currentlyDisabled() -> Disabled? {
    switch hs_shim_hugepages_disabled() {
    case 0: .nothing
    case 1: .completely
    case 3: .exceptAdvised
    default: nil
    }
  }
}
