// The settings of transparent hugepages, judged.

private let directory = "/sys/kernel/mm/transparent_hugepage"

extension Diagnosis {
  mutating func judgeHugePages() {
    guard let settings = system.hugePages else {
      add(
        Finding(
          "thp", "hugepages", "none", .impossible, "this kernel was built without transparent hugepages",
          advice: "a kernel with CONFIG_TRANSPARENT_HUGEPAGE=y"))
      return
    }
    judgeSize(settings)
    judgeModes(settings)
    judgeDefrag(settings)
    judgeKhugepaged(settings)
    judgeUnderused(settings)
    judgeFragmentation(settings)
  }

  private mutating func judgeSize(_ settings: HugePageSettings) {
    let pages = (settings.hugePageBytes ?? 0) / system.pageBytes
    let value = (settings.hugePageBytes ?? 0) > 0 ? settings.hugePageBytes!.asBytes : "none"
    if pages == 0 {
      add(
        Finding(
          "thp.size", "hugepage size", value, .impossible,
          "the kernel does not say that a PMD entry can map memory here",
          advice: "a processor with 2 MiB hugepages, and a kernel that uses them"))
    } else if pages != 512 {
      add(
        Finding(
          "thp.size", "hugepage size", value, .impossible,
          "the heap refuses hugepages of \(pages) pages; it knows those of 512",
          advice: "a kernel with 4 KiB pages"))
    } else {
      add(Finding("thp.size", "hugepage size", value, .fine, "what the heap knows: 512 pages"))
    }
  }

  // MARK: Modes

  private mutating func judgeModes(_ settings: HugePageSettings) {
    let own = settings.ownMode?.selected
    let isInherited = own == nil || own == "inherit"
    let change = "echo madvise > \(directory)/enabled"
    let global = settings.enabled?.selected
    let value = global ?? "unknown"
    switch global {
    case _ where !isInherited:
      add(
        Finding(
          "thp.enabled", "hugepages, all sizes", value, .fine, "does not count: the size below has a mode of its own"))
    case "always": add(Finding("thp.enabled", "hugepages, all sizes", value, .fine, "all memory may have them"))
    case "madvise":
      add(
        Finding(
          "thp.enabled", "hugepages, all sizes", value, .fine, "memory that asks for them may have them; the heap asks")
      )
    case "never":
      add(
        Finding(
          "thp.enabled", "hugepages, all sizes", value, .impossible, "no memory gets them, whether it asks or not",
          advice: change))
    default:
      add(
        Finding(
          "thp.enabled", "hugepages, all sizes", value, .warning, "whether memory may have them is not known",
          advice: change))
    }
    if let bytes = settings.hugePageBytes, let own { judgeOwnSize(bytes, own) }
    judgeOtherSizes(settings)
  }

  private func file(ofSize bytes: Int) -> String { "\(directory)/hugepages-\(bytes >> 10)kB/enabled" }

  /// The size that one PMD entry maps, which the heap wants.
  private mutating func judgeOwnSize(_ bytes: Int, _ mode: String) {
    let meaning: String
    var verdict = Verdict.fine
    switch mode {
    case "inherit": meaning = "the line above counts"
    case "always": meaning = "all memory may have them"
    case "madvise": meaning = "memory that asks for them may have them; the heap asks"
    case "never":
      meaning = "this size is turned off, whatever is set for all sizes"
      verdict = .impossible
    default:
      meaning = "whether memory may have them is not known"
      verdict = .warning
    }
    add(
      Finding(
        "thp.own", "hugepages of \(bytes.asBytes)", mode, verdict, meaning,
        advice: verdict == .fine ? nil : "echo inherit > \(file(ofSize: bytes))"))
  }

  /// Smaller sizes: where no hugepage is to be had, memory gets these. Those that are off are one finding together.
  private mutating func judgeOtherSizes(_ settings: HugePageSettings) {
    let others = settings.sizes.filter { $0.key != settings.hugePageBytes }.sorted { $0.key < $1.key }
    let isOff = { (mode: ModeChoice) in
      (mode.selected == "inherit" ? settings.enabled?.selected : mode.selected) == "never"
    }
    let off = others.filter { isOff($0.value) }
    if let first = off.first, let last = off.last {
      let range = off.count == 1 ? first.key.asBytes : "\(first.key.asBytes) to \(last.key.asBytes)"
      add(
        Finding(
          "thp.others", "other sizes, off", range, .fine, "where no hugepage is to be had memory comes page by page"))
    }
    for (bytes, mode) in others where !isOff(mode) {
      add(
        Finding(
          "thp.\(bytes >> 10)kB", "hugepages of \(bytes.asBytes)", mode.selected, .note,
          "where no hugepage is to be had a touch brings so much at once; coverage does not count it",
          advice: "echo never > \(file(ofSize: bytes))"))
    }
  }

  // MARK: How hard the kernel tries

  private mutating func judgeDefrag(_ settings: HugePageSettings) {
    let value = settings.defrag?.selected ?? "unknown"
    let name = "defrag"
    let better = "echo madvise > \(directory)/defrag"
    switch value {
    case "madvise", "defer+madvise":
      add(
        Finding(
          "thp.defrag", name, value, .fine,
          "where no free block is left, a touch of memory that asked for hugepages makes one, and waits for it"))
    case "always":
      add(
        Finding(
          "thp.defrag", name, value, .note,
          "every touch may wait until a block has been made, also of memory that did not ask",
          advice: better))
    case "defer":
      add(
        Finding(
          "thp.defrag", name, value, .note,
          "where no free block is left, a touch gets a base page, and khugepaged mends it later", advice: better))
    case "never":
      add(
        Finding(
          "thp.defrag", name, value, .warning,
          "only blocks that happen to be free become hugepages: coverage falls as memory is fragmented", advice: better)
      )
    default:
      add(Finding("thp.defrag", name, value, .note, "how hard the kernel tries is not known", advice: better))
    }
  }

  private mutating func judgeKhugepaged(_ settings: HugePageSettings) {
    let khugepaged = settings.khugepaged
    if let pages = khugepaged["pages_to_scan"], let pause = khugepaged["scan_sleep_millisecs"] {
      let name = "khugepaged scans"
      if pause <= 0 {
        add(
          Finding(
            "khugepaged.scan", name, "without a pause", .note,
            "broken hugepages are soon put together, and a core is busy with it",
            advice: "echo 10000 > \(directory)/khugepaged/scan_sleep_millisecs"))
      } else {
        let perMinute = Int(clamping: Int64(clamping: pages) &* 60_000 / Int64(pause)).clamped &* system.pageBytes
        let value = "\(perMinute.asBytes) a minute"
        let meaning =
          "hugepages that were broken or never given come back at most at this rate, unless the heap rebuilds them"
        add(Finding("khugepaged.scan", name, value, .fine, meaning))
      }
    }
    if khugepaged["defrag"] == 0 {
      add(
        Finding(
          "khugepaged.defrag", "khugepaged defrag", "0", .note, "khugepaged uses only blocks that happen to be free",
          advice: "echo 1 > \(directory)/khugepaged/defrag"))
    }
    if let most = khugepaged["max_ptes_none"] {
      let name = "khugepaged max_ptes_none"
      if most == 0 {
        add(Finding("khugepaged.none", name, "0", .fine, "only blocks that are fully in use are put together"))
      } else {
        let least = max(512 - most, 1)
        add(
          Finding(
            "khugepaged.none", name, "\(most)", .note,
            "blocks with \(least) of 512 pages in use are made whole: what was released is charged once more",
            advice: "echo 0 > \(directory)/khugepaged/max_ptes_none"))
      }
    }
  }

  private mutating func judgeUnderused(_ settings: HugePageSettings) {
    let name = "underused shrinker"
    guard let shrinks = settings.shrinksUnderused else {
      add(
        Finding(
          "thp.underused", name, "none", .fine,
          "this kernel (before 6.12) does not split hugepages for the zeros in them"))
      return
    }
    let most = settings.khugepaged["max_ptes_none"] ?? 511
    if !shrinks {
      add(Finding("thp.underused", name, "off", .fine, "hugepages are not split for the zeros in them"))
    } else if most >= 511 {
      add(
        Finding(
          "thp.underused", name, "on, without effect", .fine,
          "it takes hugepages with more than max_ptes_none pages of zeros, and none has more than 511"))
    } else {
      add(
        Finding(
          "thp.underused", name, "on", .note,
          "under pressure hugepages with more than \(most) pages of zeros are split, unfilled ones too",
          advice: "echo 0 > \(directory)/shrink_underused"))
    }
  }

  private mutating func judgeFragmentation(_ settings: HugePageSettings) {
    guard let free = system.freeBlockBytes, let memory = system.memoryBytes, memory > 0 else { return }
    let name = "free hugepage blocks"
    // A twentieth of the memory is what a program that starts would like to find.
    if free >= memory / 20 {
      add(Finding("memory.blocks", name, free.asBytes, .fine, "so much can become hugepages at once"))
    } else {
      add(
        Finding(
          "memory.blocks", name, free.asBytes, .note,
          "more has to be made of fragmented memory first, which takes time and may fail",
          advice: "echo 1 > /proc/sys/vm/compact_memory"))
    }
  }
}

extension Int {
  /// Small enough to be multiplied by a page without overflow.
  fileprivate var clamped: Int { Swift.min(self, 1 << 45) }
}
