// Who may have hugepages by the settings: the kernel's own rule, in one place.
//
// Memory gets a hugepage on first touch if the mode of that size allows it, and the process has not been shut out. From
// Linux 6.8 on each size has a mode of its own, of which `inherit` means the old, global one; so `never` there and `always`
// for the size is a machine with hugepages, and the other way round one without. MADV_COLLAPSE asks neither mode, only the
// process. The rule is tried against the kernel in every combination (DoctorMachineTests).

/// What the settings allow memory of a process.
package struct HugePageRights: Equatable, Sendable, Codable {
  /// Memory that was advised MADV_HUGEPAGE, as the heap's is, gets hugepages when it is touched.
  package var isAdvisedHuge: Bool
  /// So does memory that was not advised.
  package var isAnyHuge: Bool
  /// MADV_COLLAPSE makes hugepages of advised memory.
  package var mayCollapse: Bool

  package init(isAdvisedHuge: Bool, isAnyHuge: Bool, mayCollapse: Bool) {
    self.isAdvisedHuge = isAdvisedHuge
    self.isAnyHuge = isAnyHuge
    self.mayCollapse = mayCollapse
  }

  /// By `settings`, for a process that may have what `disabled` leaves. A mode that could not be read allows all:
  /// nothing is called impossible that is only not known.
  package init(_ settings: HugePageSettings?, _ disabled: ProcessFacts.Disabled?) {
    guard let settings, let bytes = settings.hugePageBytes, bytes > 0 else {
      self.init(isAdvisedHuge: false, isAnyHuge: false, mayCollapse: false)
      return
    }
    let mode = Self.effectiveMode(settings)
    let shutOut = disabled == .completely
    self.init(
      isAdvisedHuge: !shutOut && mode != "never",
      isAnyHuge: !shutOut && disabled != .exceptAdvised && mode != "never" && mode != "madvise",
      mayCollapse: !shutOut)
  }

  /// The mode that counts for what one PMD entry maps: `always`, `madvise` or `never`; nil if it could not be read.
  package static func effectiveMode(_ settings: HugePageSettings) -> String? {
    guard let own = settings.ownMode, own.selected != "inherit" else { return settings.enabled?.selected }
    return own.selected
  }
}
