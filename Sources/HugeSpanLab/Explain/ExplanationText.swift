// An explanation as people read it: causes, waits, the dearest blocks, and what comes next, each a table with sentences under it.

import Foundation

/// The tables of `hugespan explain`.
package struct ExplanationText {
  private let explanation: Explanation
  private let style: TableStyle

  /// One heap.
  package static func text(_ explanation: Explanation, _ style: TableStyle) -> String {
    let text = ExplanationText(explanation: explanation, style: style)
    return [text.title + text.causes, text.waits, text.costs, text.next, text.history].filter { !$0.isEmpty }
      .joined(separator: "\n")
  }

  private func mebibytes(_ bytes: Int) -> String { HumanNumber.mebibytes(bytes) }
  private func time(_ seconds: Double) -> String { seconds < 0.0005 ? "now" : HumanNumber.duration(seconds) }
  private func count(_ number: Int, _ thing: String) -> String { "\(number) \(thing)\(number == 1 ? "" : "s")" }

  private func table(_ heads: [String], _ rows: [[String]], labels: Int = 1) -> String {
    TextTable(heads: heads, rows: rows.map { $0.map { TextTable.Cell($0) } }, labelCount: labels).text(style)
  }

  private var title: String {
    style.wrapped(
      "\(explanation.name) (\(explanation.process)), heap \(explanation.heap): policy \(explanation.policy), strategy "
        + "\(explanation.strategy), as it was \(time(explanation.oldestSeconds)) ago")
  }

  private var causes: String {
    func row(_ label: String, _ amounts: BlockAmounts) -> [String] {
      [label, "\(amounts.blocks)"]
        + [
          amounts.usedBytes, amounts.idleBytes, amounts.lazyBytes, amounts.releasedBytes, amounts.phantomBytes,
        ].map(mebibytes)
    }
    let rows = explanation.rows.map { row($0.label, $1) } + [row("all pageblocks", explanation.total)]
    var notes = ""
    if let resident = explanation.kernelAnonymousBytes, let huge = explanation.kernelHugeBytes {
      let share = HumanNumber.percent(resident == 0 ? nil : Double(huge) / Double(resident))
      notes +=
        "By the kernel's word \(mebibytes(resident)) MiB are in memory under it now, \(mebibytes(huge)) of them on "
        + "hugepages (\(share)).\n"
      // A little is always on its way.
      let believed = explanation.total.usedBytes + explanation.total.idleBytes + explanation.total.lazyBytes
      if resident > believed + believed / 8 + 4 << 20 {
        notes +=
          "That is \(mebibytes(resident - believed)) MiB more than the heap believes: khugepaged has brought released "
          + "memory back (its max_ptes_none: 'hugespan doctor'); the next residency pass finds out.\n"
      }
    }
    if explanation.discardedBytes > 0 {
      notes +=
        "Of the used memory \(mebibytes(explanation.discardedBytes)) MiB are discarded: the kernel may take them.\n"
    }
    return table(["MiB by cause", "blocks", "used", "free", "lazily free", "released", "phantom"], rows)
      + style.wrapped(notes)
  }

  private func name(ofStep step: String) -> String {
    switch step {
    case "releaseWhole": "wholly free blocks, to be released"
    case "breakBlock": "free parts of hugepages, to be broken for them"
    case "releaseIdle": "free parts of broken blocks, to be released"
    case "rebuild": "broken blocks, to be made huge again"
    default: step
    }
  }

  private var waits: String {
    var text = ""
    var notes = ""
    if explanation.deferredBytes > 0 {
      notes +=
        "\(mebibytes(explanation.deferredBytes)) MiB of free memory are deferred: they go when somebody needs memory.\n"
    }
    if !explanation.waiting.isEmpty {
      text = table(
        ["waiting", "blocks", "MiB", "first in", "last in", "price us"],
        explanation.waiting.map {
          [
            name(ofStep: $0.step), "\($0.blocks)", mebibytes($0.bytes), time($0.firstSeconds), time($0.lastSeconds),
            fixed($0.meanPrice, 0),
          ]
        })
    } else if explanation.isOwnPrice && explanation.deferredBytes == 0 {
      notes += "Nothing waits: no free memory has to be paid for, and no broken block is worth rebuilding.\n"
    }
    if explanation.keptByTax.blocks > 0 {
      notes +=
        "\(mebibytes(explanation.keptByTax.idleBytes)) MiB free in \(count(explanation.keptByTax.blocks, "hugepage")) "
        + "stay: breaking them would cost more in TLB misses than the memory is worth.\n"
    }
    return text + style.wrapped(notes)
  }

  private var costs: String {
    if explanation.costly.isEmpty { return "" }
    let rows = explanation.costly.map { block in
      let step = block.step.map {
        switch $0 {
        case "releaseWhole", "releaseIdle": "release"
        case "breakBlock": "break"
        default: $0
        }
      }
      let next = step.map { $0 + (block.seconds.map { " in \(time($0))" } ?? ": not worth it") } ?? ""
      return [
        block.address, block.reason.label, mebibytes(block.usedBytes), mebibytes(block.idleBytes + block.phantomBytes),
        fixed(block.rent, 1), fixed(block.tax, 1), next,
      ]
    }
    let whose = explanation.isOwnPrice ? "" : ", which this policy does not go by"
    return table(["block", "cause", "used", "free", "rent us/s", "tax us/s", "next"], rows, labels: 2)
      + style.wrapped(
        "The blocks that cost most, at \(fixed(explanation.memoryPrice, 0)) CPU-seconds per GiB-hour\(whose).")
  }

  private var next: String {
    let next = explanation.next
    var parts: [String] = []
    func add(_ number: Int?, _ verb: String, _ thing: String, _ rest: String = "") {
      if let number, number > 0 { parts.append("\(verb) \(count(number, thing))\(rest)") }
    }
    if let bytes = next.bytes, bytes > 0 {
      parts.append("releases \(explanation.isOwnPrice ? "" : "up to ")\(mebibytes(bytes)) MiB")
    }
    add(next.wholeBlocks, "gives", "whole block", " away")
    add(next.breaks, "breaks", "hugepage")
    add(next.idleBlocks, "trims", "broken block")
    add(next.rebuilds, "makes", "block", " huge again")
    add(next.cures, "cures the phantom of", "block")
    var what = parts.isEmpty ? "does nothing" : parts.joined(separator: ", ")
    if next.bytes == nil { what = "is the embedder's own policy's, which cannot be asked" }
    let when = explanation.hasScavenger ? "in \(time(next.seconds))" : "when the program ticks"
    var text = "The next scavenge, \(when), \(what), if nothing changes."
    if next.bytes != nil, parts.isEmpty, let first = explanation.waiting.map(\.firstSeconds).min() {
      text += " The first that does something is due in \(time(first))."
    }
    return style.wrapped(text)
  }

  private var history: String {
    func number(_ name: String) -> UInt64 { explanation.counters[name] ?? 0 }
    return style.wrapped(
      "So far: \(number("releasedPages") / 256) MiB released and \(number("refaultedPages") / 256) refaulted; hugepages "
        + "split \(number("splits") + number("discardSplits")), lost to the kernel \(number("lostBlocks")), rebuilt "
        + "\(number("rebuilds")), made huge again by the kernel \(number("reinflatedBlocks")).")
  }
}
