// The machine that a comparison was made on: what a reader needs to know before comparing figures.

import Glibc

/// Machine, kernel and those settings of it that change what hugepages cost.
package struct Machine: Codable, Equatable, Sendable {
  package var processor: String?
  package var cores: Int
  package var memoryBytes: Int?
  package var swapBytes: Int?
  package var kernelRelease: String
  package var architecture: String
  package var pageBytes: Int
  package var hugePageBytes: Int?
  /// The selected words of /sys/kernel/mm/transparent_hugepage.
  package var thpEnabled: String?
  package var thpDefrag: String?
  package var khugepaged: [String: Int]
  /// 1 or 2; null without a memory controller.
  package var memoryCgroupVersion: Int?

  /// Reads all of it from the running system.
  package static func current() -> Machine {
    var name = utsname()
    uname(&name)
    let huge = "/sys/kernel/mm/transparent_hugepage/"
    var khugepaged: [String: Int] = [:]
    for setting in ["defrag", "max_ptes_none", "pages_to_scan", "scan_sleep_millisecs", "alloc_sleep_millisecs"] {
      khugepaged[setting] = number(contents(ofFile: huge + "khugepaged/" + setting))
    }
    let memory = contents(ofFile: "/proc/meminfo") ?? ""
    return Machine(
      processor: processorName(), cores: Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))),
      memoryBytes: field("MemTotal", memory), swapBytes: field("SwapTotal", memory),
      kernelRelease: text(of: &name.release), architecture: text(of: &name.machine),
      pageBytes: Int(getpagesize()), hugePageBytes: number(contents(ofFile: huge + "hpage_pmd_size")),
      thpEnabled: selected(contents(ofFile: huge + "enabled")), thpDefrag: selected(contents(ofFile: huge + "defrag")),
      khugepaged: khugepaged, memoryCgroupVersion: (try? CgroupMembership.find())?.version.rawValue)
  }

  /// Hugepages that khugepaged has put together since the system started; nil where the kernel does not tell.
  static func khugepagedCollapses() -> Int? {
    number(contents(ofFile: "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed"))
  }

  package func encode(to encoder: any Encoder) throws {
    var box = encoder.container(keyedBy: CodingKeys.self)
    try box.encode(processor, forKey: .processor)
    try box.encode(cores, forKey: .cores)
    try box.encode(memoryBytes, forKey: .memoryBytes)
    try box.encode(swapBytes, forKey: .swapBytes)
    try box.encode(kernelRelease, forKey: .kernelRelease)
    try box.encode(architecture, forKey: .architecture)
    try box.encode(pageBytes, forKey: .pageBytes)
    try box.encode(hugePageBytes, forKey: .hugePageBytes)
    try box.encode(thpEnabled, forKey: .thpEnabled)
    try box.encode(thpDefrag, forKey: .thpDefrag)
    try box.encode(khugepaged, forKey: .khugepaged)
    try box.encode(memoryCgroupVersion, forKey: .memoryCgroupVersion)
  }

  /// One line for the head of a report.
  package var summary: String {
    let memory = memoryBytes.map { ", \($0 >> 30) GiB" } ?? ""
    let swap = (swapBytes ?? 0) > 0 ? ", swap \(swapBytes! >> 20) MiB" : ", no swap"
    let cgroup = memoryCgroupVersion.map { ", memory cgroup v\($0)" } ?? ", no memory cgroup"
    return "\(processor ?? architecture), \(cores) cores\(memory)\(swap), Linux \(kernelRelease), "
      + "THP \(thpEnabled ?? "absent") (defrag \(thpDefrag ?? "absent"))\(cgroup)"
  }

  private static func processorName() -> String? {
    for line in (contents(ofFile: "/proc/cpuinfo") ?? "").split(separator: "\n") where line.hasPrefix("model name") {
      return line.split(separator: ":", maxSplits: 1).last.map { String($0.drop { $0 == " " }) }
    }
    return nil
  }

  /// A line such as `MemTotal:  24683040 kB`, in bytes.
  private static func field(_ key: String, _ text: String) -> Int? {
    for line in text.split(separator: "\n") where line.hasPrefix(key + ":") {
      return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }
    return nil
  }

  private static func number(_ text: String?) -> Int? {
    text.flatMap { Int($0.prefix { $0.isNumber }) }
  }

  /// The word in brackets of `always [madvise] never`.
  static func selected(_ text: String?) -> String? {
    guard let text, let open = text.firstIndex(of: "["), let close = text.firstIndex(of: "]"), open < close else {
      return nil
    }
    return String(text[text.index(after: open)..<close])
  }

  private static func text<T>(of field: inout T) -> String {
    withUnsafeBytes(of: &field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
