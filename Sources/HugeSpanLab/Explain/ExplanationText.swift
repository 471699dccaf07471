// An explanation as people read it.

import Foundation

/// The tables of `hugespan explain`.
package enum ExplanationText {
  private static func mebibytes(_ bytes: Int) -> String { String(format: "%.1f", Double(bytes) / 1_048_576) }

  private static func time(_ seconds: Double) -> String {
    if seconds < 0.0005 { return "now" }
    if seconds < 1 { return String(format: "%.0f ms", seconds * 1000) }
    if seconds < 120 { return String(format: "%.1f s", seconds) }
    return seconds < 7200 ? String(format: "%.0f min", seconds / 60) : String(format: "%.0f h", seconds / 3600)
  }

  private static func count(_ number: Int, _ thing: String) -> String { "\(number) \(thing)\(number == 1 ? "" : "s")" }

  /// One heap.
  package static func text(_ explanation: Explanation, _ style: TableStyle) -> String {
    let title =
      "\(explanation.name) (\(explanation.process)), heap \(explanation.heap): policy \(explanation.policy), strategy "
      + "\(explanation.strategy), as it was \(time(explanation.oldestSeconds)) ago\n"
    return title
      + [
        reasons(explanation, style), waiting(explanation, style), costly(explanation, style), next(explanation),
        history(explanation),
      ].filter { !$0.isEmpty }.joined(separator: "\n")
  }

  private static func reasons(_ explanation: Explanation, _ style: TableStyle) -> String {
    func row(_ label: String, _ amounts: BlockAmounts) -> [TextTable.Cell] {
      [
        label, "\(amounts.blocks)", mebibytes(amounts.usedBytes), mebibytes(amounts.idleBytes),
        mebibytes(amounts.lazyBytes), mebibytes(amounts.releasedBytes), mebibytes(amounts.phantomBytes),
      ].map { TextTable.Cell($0) }
    }
    let rows = explanation.rows.map { row($0.label, $1) } + [row("all pageblocks", explanation.total)]
    var text = TextTable(
      heads: ["MiB by cause", "blocks", "used", "free", "lazily free", "released", "phantom"], rows: rows, labelCount: 1
    ).text(style)
    if let anonymous = explanation.kernelAnonymousBytes, let huge = explanation.kernelHugeBytes {
      let share = anonymous == 0 ? "-" : String(format: "%.1f%%", 100 * Double(huge) / Double(anonymous))
      text +=
        "By the kernel's word \(mebibytes(anonymous)) MiB are in memory under it now, \(mebibytes(huge)) of them on hugepages (\(share)).\n"
    }
    if let resident = explanation.kernelAnonymousBytes {
      let believed = explanation.total.usedBytes + explanation.total.idleBytes + explanation.total.lazyBytes
      if resident > believed + believed / 8 + 4 << 20 {
        text +=
          "That is \(mebibytes(resident - believed)) MiB more than the heap believes: khugepaged has brought released memory back (its max_ptes_none: 'hugespan doctor'); the next residency pass finds out.\n"
      }
    }
    if explanation.discardedBytes > 0 {
      text +=
        "Of the used memory \(mebibytes(explanation.discardedBytes)) MiB are discarded: the kernel may take them.\n"
    }
    return text
  }

  private static func stepLabel(_ step: String) -> String {
    switch step {
    case "releaseWhole": "wholly free blocks, to be released"
    case "breakBlock": "free parts of hugepages, to be broken for them"
    case "releaseIdle": "free parts of broken blocks, to be released"
    case "rebuild": "broken blocks, to be made huge again"
    default: step
    }
  }

  private static func waiting(_ explanation: Explanation, _ style: TableStyle) -> String {
    var text = ""
    if explanation.deferredBytes > 0 {
      text +=
        "\(mebibytes(explanation.deferredBytes)) MiB of free memory are deferred: they go when somebody needs memory.\n"
    }
    if !explanation.waiting.isEmpty {
      let rows = explanation.waiting.map { waiting in
        [
          stepLabel(waiting.step), "\(waiting.blocks)", mebibytes(waiting.bytes), time(waiting.firstSeconds),
          time(waiting.lastSeconds), String(format: "%.0f", waiting.meanPrice),
        ].map { TextTable.Cell($0) }
      }
      text +=
        TextTable(heads: ["waiting", "blocks", "MiB", "first in", "last in", "price us"], rows: rows, labelCount: 1)
        .text(style)
    } else if explanation.policy == "rent-or-buy" && explanation.deferredBytes == 0 {
      text += "Nothing waits: no free memory has to be paid for, and no broken block is worth rebuilding.\n"
    }
    if explanation.keptByTax.blocks > 0 {
      text +=
        "\(mebibytes(explanation.keptByTax.idleBytes)) MiB free in \(count(explanation.keptByTax.blocks, "hugepage")) stay: breaking them would cost more in TLB misses than the memory is worth.\n"
    }
    return text
  }

  private static func costly(_ explanation: Explanation, _ style: TableStyle) -> String {
    if explanation.costly.isEmpty { return "" }
    let rows = explanation.costly.map { block in
      [
        block.address, block.reason.label, mebibytes(block.usedBytes), mebibytes(block.idleBytes + block.phantomBytes),
        String(format: "%.1f", block.rent), String(format: "%.1f", block.tax),
        block.step.map { shortLabel($0) + (block.seconds.map { " in \(time($0))" } ?? ": not worth it") } ?? "",
      ].map { TextTable.Cell($0) }
    }
    let price = String(format: "%.0f CPU-seconds per GiB-hour", explanation.memoryPrice)
    let whose = explanation.isOwnPrice ? price : "\(price), which this policy does not go by"
    return TextTable(
      heads: ["block", "cause", "used", "free", "rent us/s", "tax us/s", "next"], rows: rows, labelCount: 2
    ).text(style) + "The blocks that cost most, at \(whose).\n"
  }

  private static func shortLabel(_ step: String) -> String {
    switch step {
    case "releaseWhole", "releaseIdle": "release"
    case "breakBlock": "break"
    default: step
    }
  }

  private static func next(_ explanation: Explanation) -> String {
    let next = explanation.next
    var parts: [String] = []
    if let bytes = next.bytes, bytes > 0 {
      parts.append("releases \(explanation.policy == "rent-or-buy" ? "" : "up to ")\(mebibytes(bytes)) MiB")
    }
    if let blocks = next.wholeBlocks, blocks > 0 { parts.append("gives \(count(blocks, "whole block")) away") }
    if let blocks = next.breaks, blocks > 0 { parts.append("breaks \(count(blocks, "hugepage"))") }
    if let blocks = next.idleBlocks, blocks > 0 { parts.append("trims \(count(blocks, "broken block"))") }
    if let blocks = next.rebuilds, blocks > 0 { parts.append("makes \(count(blocks, "block")) huge again") }
    if let cures = next.cures, cures > 0 { parts.append("cures the phantom of \(count(cures, "block"))") }
    let what: String
    if next.bytes == nil {
      what = "is the embedder's own policy's, which cannot be asked"
    } else {
      what = parts.isEmpty ? "does nothing" : parts.joined(separator: ", ")
    }
    let when =
      explanation.hasScavenger
      ? next.seconds < 0.0005 ? "at once" : "in \(time(next.seconds))" : "when the program ticks"
    return "The next scavenge, \(when), \(what), if nothing changes.\n"
  }

  private static func history(_ explanation: Explanation) -> String {
    func number(_ name: String) -> UInt64 { explanation.counters[name] ?? 0 }
    return
      "So far: \(number("releasedPages") / 256) MiB released and \(number("refaultedPages") / 256) refaulted; hugepages split \(number("splits") + number("discardSplits")), lost to the kernel \(number("lostBlocks")), rebuilt \(number("rebuilds")), made huge again by the kernel \(number("reinflatedBlocks")).\n"
  }
}
