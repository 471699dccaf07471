// What the kernel did when it was tried, judged: hugepages, how memory is released, how residency is learned.
//
// Trying is the last word on what a call does: a filter of system calls or a kernel's own patch is in no setting. It is
// not where no hugepage came, since the one block that was asked for may not have been free; then the settings hold.

import HugeSpanCore

extension Diagnosis {
  mutating func judgeCapabilities() {
    guard let able = process.capabilities else {
      add(Finding("tried", "tried", "no", .note, "only settings were read, of a tree that is not this machine's"))
      return
    }
    judgeTriedHugePages(able)
    for name in StrategyChoice.knownNames.map(\.name) where name != "keep" {
      guard let choice = try? StrategyChoice(notation: name) else { continue }
      judgeStrategy(name, choice.kind, able)
    }
    add(
      able.contains(.exactResidency)
        ? Finding(
          "tried.residency", "residency", "exact", .fine, "PAGEMAP_SCAN tells page by page what is on hugepages")
        : Finding(
          "tried.residency", "residency", "by smaps", .note,
          "without PAGEMAP_SCAN (Linux 6.7) a hugepage is known only where all of a mapping is huge"))
    add(
      able.contains(.batchedAdvice)
        ? Finding("tried.batches", "batched advice", "yes", .fine, "many ranges are released by one call")
        : Finding(
          "tried.batches", "batched advice", "no", .note, "without process_madvise on oneself each range costs a call"))
  }

  private mutating func judgeTriedHugePages(_ able: KernelCapabilities) {
    let isHuge = able.contains(.hugePages)
    let name = "tried: hugepage on touch"
    let value = able.contains(.hugePagesUnasked) ? "yes, also unasked" : isHuge ? "yes" : "no"
    if isHuge {
      add(Finding("tried.huge", name, value, .fine, "a block that was advised came as a hugepage"))
    } else if rights.isAdvisedHuge {
      add(
        Finding(
          "tried.huge", name, value, .warning,
          "the settings allow it, and none came: no block of 2 MiB was free just now",
          advice: "echo 1 > /proc/sys/vm/compact_memory, and look again"))
    } else {
      add(Finding("tried.huge", name, value, .note, "as was to be expected by what is set"))
    }
    if able.contains(.collapse) {
      add(Finding("tried.collapse", "tried: MADV_COLLAPSE", "yes", .fine, "the heap can put broken hugepages together"))
    } else {
      add(
        Finding(
          "tried.collapse", "tried: MADV_COLLAPSE", "no", rights.mayCollapse ? .warning : .note,
          "a broken hugepage stays broken until khugepaged comes by",
          advice: rights.mayCollapse ? "Linux 6.1 or later" : nil))
    }
    if able.contains(.move) {
      add(
        Finding(
          "tried.move", "tried: move a hugepage", "yes", .fine,
          "a span of several blocks gets free hugepages from anywhere in the heap"))
    } else {
      add(
        Finding(
          "tried.move", "tried: move a hugepage", "no", .note,
          "a span of several blocks is faulted in where free hugepages lie apart",
          advice: isHuge ? "Linux 5.7 or later" : nil))
    }
  }

  private mutating func judgeStrategy(_ name: String, _ kind: StrategyKind, _ able: KernelCapabilities) {
    let key = "strategy.\(name)"
    let line = "strategy \(name)"
    guard able.supports(kind) else {
      let isOwn = kind == .splitDontneed
      add(
        Finding(
          key, line, "refused", isOwn ? .warning : .note,
          isOwn
            ? "a hugepage cannot be split here before a part of it is released, so the charge would not fall"
            : "would not do here what it says",
          advice: isOwn ? "strategy dontneed-whole, which releases whole blocks only" : nil))
      return
    }
    let needsSwap = kind == .cold || kind == .pageout
    if needsSwap && (system.swaps.isEmpty || system.group?.swapLimitBytes == 0) {
      add(Finding(key, line, "works, without effect", .note, "without swap nothing goes"))
    } else {
      add(Finding(key, line, "works", .fine, meaning(of: kind)))
    }
  }

  private func meaning(of kind: StrategyKind) -> String {
    switch kind {
    case .keep: "releases nothing"
    case .dontneed: "gives memory back at once; parts of hugepages stay charged until the hugepage is split"
    case .free: "gives memory back when the kernel wants it"
    case .freeThenDontneed: "lazily first, at once when it has aged"
    case .splitDontneed: "splits the hugepage first, so that the charge falls; the default"
    case .cold: "keeps memory, and has it swapped out first"
    case .pageout: "swaps memory out at once"
    case .decommit: "gives memory back, and what was promised of it"
    case .deferred: "waits until memory gets short, and splits then"
    }
  }
}
