// What surrounds hugepages, judged: the process' rights, its memory group, swap, the host, limits of the kernel.

extension Diagnosis {
  mutating func judgeProcess() {
    let name = "prctl THP_DISABLE"
    switch process.disabled {
    case .nothing:
      add(Finding("process.disabled", name, "not set", .fine, "this process, and those it starts, may have hugepages"))
    case .completely:
      add(
        Finding(
          "process.disabled", name, "completely", .impossible,
          "this process, and those it starts, get none: it or a parent called prctl(PR_SET_THP_DISABLE)",
          advice: "start from another parent, or call prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) before"))
    case .exceptAdvised:
      add(
        Finding(
          "process.disabled", name, "except advised", .fine,
          "only memory that asks for hugepages gets them; the heap asks"))
    case nil:
      add(Finding("process.disabled", name, "unknown", .note, "whether a parent has disabled hugepages was not asked"))
    }
  }

  // MARK: Memory group

  mutating func judgeGroup() {
    guard let group = system.group else {
      add(
        Finding(
          "group", "memory group", "none", .note,
          "what the memory costs cannot be read as a charge: \(system.groupReason ?? "no group")"))
      return
    }
    let kind = "version \(group.version)"
    let huge = system.hugePages?.hugePageBytes ?? 1 << 21
    let file = group.version == 1 ? "memory.limit_in_bytes" : "memory.max"
    if let limit = group.limitBytes, let directory = group.limitDirectory {
      let command = "echo BYTES > \(directory)/\(file)"
      let used = group.usedBytes
      let value = "\(limit.asBytes)\(used.map { ", \($0.asBytes) used" } ?? "") (\(kind))"
      if limit < huge {
        add(
          Finding(
            "group.limit", "memory limit", value, .impossible, "a hugepage does not fit", advice: command))
      } else if let used, limit - used < limit / 16 {
        add(
          Finding(
            "group.limit", "memory limit", value, .warning,
            "so near to the limit a hugepage may be refused, and base pages come in its place",
            advice: "\(command), or release memory earlier (hugespan run --memory-price)"))
      } else {
        add(
          Finding(
            "group.limit", "memory limit", value, .fine, "hugepages are charged whole, and there is room for them"))
      }
    } else {
      add(Finding("group.limit", "memory limit", "none (\(kind))", .fine, "only the machine's memory limits hugepages"))
    }
    if let high = group.highBytes {
      add(
        Finding(
          "group.high", "memory.high", high.asBytes, high < huge ? .warning : .note,
          "beyond it the program is slowed down and its memory reclaimed, hugepages split for that",
          advice: "echo max > \(group.directory)/memory.high"))
    }
  }

  // MARK: Swap

  mutating func judgeSwap() {
    let limit = system.group?.swapLimitBytes
    if system.swaps.isEmpty {
      add(
        Finding(
          "swap", "swap", "none", .fine, "hugepages never leave memory; strategies cold and pageout give nothing back"))
    } else {
      for area in system.swaps {
        let value = "\(area.sizeBytes.asBytes) on \(area.kind.rawValue), \(area.usedBytes.asBytes) used (\(area.path))"
        let back = "what is swapped comes back in base pages"
        switch area.kind {
        case .zram:
          add(
            Finding(
              "swap", "swap", value, area.usedBytes > 0 ? .note : .fine, "\(back); quick, and it costs memory elsewhere"
            ))
        case .disk, .file:
          add(
            Finding(
              "swap", "swap", value, .note, "\(back), from a disk one by one",
              advice: "prefer releases to swapping; or zram: modprobe zram, mkswap, swapon -p 100 /dev/zram0"))
        }
      }
    }
    if limit == 0 && !system.swaps.isEmpty {
      add(
        Finding(
          "swap.limit", "memory.swap.max", "0", .fine,
          "nothing of this group is swapped; strategies cold and pageout give nothing back"))
    }
    if system.zswap == true {
      add(
        Finding(
          "swap.zswap", "zswap", "on", system.swaps.isEmpty ? .fine : .note,
          system.swaps.isEmpty
            ? "without swap it does nothing"
            : "swapped pages are compressed in memory first, which is charged to the group"))
    } else if system.zswap == false {
      add(Finding("swap.zswap", "zswap", "off", .fine, "swapped pages are not held in memory"))
    }
  }

  // MARK: Host

  mutating func judgeHost() {
    let host = system.host
    switch host.isVirtual {
    case true:
      add(
        Finding(
          "host", "virtual machine", "yes", .note,
          "a hugepage gains all only if the host's memory beneath is huge too, which cannot be seen",
          advice: "on the host: hugepages for the guest's memory; here: hugespan calibrate, which measures the gain"))
    case false: add(Finding("host", "virtual machine", "no", .fine, "hugepages are the processor's own"))
    default: add(Finding("host", "virtual machine", "unknown", .note, "the processor's flags do not say"))
    }
    if let reports = host.reportsFreePages {
      guard reports else {
        add(
          Finding(
            "host.balloon", "balloon", "without reporting", .note,
            "the host may take memory away by it, in base pages as a rule, and blocks with it"))
        return
      }
      let order = host.reportingOrder ?? 0
      let block = (order >= 0 && order < 30 ? 1 << order : 512) * system.pageBytes
      let isSmall = order > 0 && block < system.hugePages?.hugePageBytes ?? 1 << 21
      let value = "free blocks of \(order > 0 ? block.asBytes : "the kernel's choice")"
      if isSmall {
        add(
          Finding(
            "host.reporting", "free page reporting", value, .warning,
            "less than a hugepage is given to the host, which breaks its hugepages beneath",
            advice: "start the kernel with page_reporting.page_reporting_order=9"))
      } else {
        add(
          Finding(
            "host.reporting", "free page reporting", value, .note,
            "free blocks go to the host and are dear to touch again: a release costs more than it seems",
            advice: "hugespan calibrate -o FILE, then --cost-model FILE"))
      }
    } else if host.hasBalloon {
      add(Finding("host.balloon", "balloon", "yes", .note, "the host may take memory away by it"))
    } else {
      add(Finding("host.balloon", "balloon", "none", .fine, "the host takes no memory back"))
    }
  }

  // MARK: Limits

  mutating func judgeLimits() {
    if let bits = system.generationalLRU {
      let isOn = bits & 1 != 0
      add(
        Finding(
          "lru", "multi-gen LRU", isOn ? "on (0x\(String(bits, radix: 16)))" : "off", .fine,
          isOn
            ? "a hugepage ages as a whole: one page in use keeps all of it from reclaim"
            : "reclaim goes by two lists; a hugepage has one place in them"))
    } else {
      add(
        Finding(
          "lru", "multi-gen LRU", "none", .fine, "reclaim goes by two lists; a hugepage has one place in them"))
    }
    if let most = system.mostMappings {
      let isEnough = most >= 65_530
      add(
        Finding(
          "limits.mappings", "max_map_count", "\(most)", isEnough ? .fine : .warning,
          isEnough
            ? "enough for a heap; strategy decommit needs up to two for each released block"
            : "less than the kernel's own 65530: cutting a mapping may be refused, and with it advice and decommit",
          advice: isEnough ? nil : "sysctl -w vm.max_map_count=65530"))
    }
    switch system.overcommit {
    case 0?: add(Finding("limits.overcommit", "overcommit", "0 (heuristic)", .fine, "reserving address space is free"))
    case 1?: add(Finding("limits.overcommit", "overcommit", "1 (always)", .fine, "reserving address space is free"))
    case 2?:
      add(
        Finding(
          "limits.overcommit", "overcommit", "2 (strict)", .note,
          "memory that the heap has committed counts, touched or not, until it is decommitted",
          advice: "strategy decommit, or sysctl -w vm.overcommit_memory=0"))
    case let other?:
      add(Finding("limits.overcommit", "overcommit", "\(other)", .note, "a value that is not known"))
    case nil: break
    }
  }
}
