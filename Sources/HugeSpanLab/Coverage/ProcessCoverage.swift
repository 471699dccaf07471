// What a process has on hugepages: the process found, looked at, and what could not be seen named.
//
// A process is nothing that waits: it may end between two reads. Each read that fails is told apart by what the system said (gone, not
// allowed) and by what the process is (a kernel thread has no memory of its own, a zombie none any more), and is an error, never a zero.
// All files are under a root that can be chosen, so that this can be shown recorded trees.

import Glibc

/// Why a process could not be looked at, in one line.
package enum CoverageError: Error, Equatable, Sendable, CustomStringConvertible {
  case noProcess(Int)
  case noName(String)
  case notAllowed(Int, name: String)
  case kernelThread(Int, name: String)
  case ended(Int, name: String)
  case unreadable(String, line: Int)
  case noGroup(String, reason: String)

  package var description: String {
    switch self {
    case .noProcess(let process):
      "\(process): there is no such process here (a process of another PID namespace has another number here)"
    case .noName(let name):
      "\(name): no process is called that; a name is what 'ps -o comm' prints, at most 15 characters"
    case .notAllowed(let process, let name):
      "\(process) (\(name)): not allowed to look at it: it belongs to another user, or is guarded from others"
    case .kernelThread(let process, let name): "\(process) (\(name)): is a kernel thread and has no memory of its own"
    case .ended(let process, let name): "\(process) (\(name)): has ended"
    case .unreadable(let path, let line): "\(path): line \(line) is nothing that the kernel is known to write"
    case .noGroup(let path, let reason): "\(path): is no memory group to be read: \(reason)"
    }
  }

  /// Whether the process was there and is gone, which is nothing wrong when many are looked at.
  package var isVanished: Bool {
    switch self {
    case .noProcess, .ended: true
    default: false
    }
  }
}

/// The figures of a process at one time.
package struct ProcessCoverage: Equatable, Sendable {
  package var process: Int
  /// As in `comm`.
  package var name: String
  package var total: MemoryFigures
  /// Ascending by address; empty if only the sum was asked for.
  package var mappings: [MappingReport] = []
  /// Bytes that the memory group of the process is charged, which may hold others too, and its directory.
  package var chargedBytes: Int?
  package var group: String?
  /// Hugepages by prctl(PR_SET_THP_DISABLE); nil where the kernel does not say.
  package var isDisabled: Bool?
  /// The system's mode for hugepages of 2 MiB: always, madvise, never; nil where it cannot be read.
  package var mode: String?

  /// Mappings with anonymous memory, the largest first.
  package var largest: [MappingReport] {
    mappings.filter { $0.figures.anonymousBytes > 0 || $0.figures.swappedBytes > 0 }
      .sorted { ($1.figures.anonymousBytes, $0.start) < ($0.figures.anonymousBytes, $1.start) }
  }
}

/// Looks at processes.
package struct CoverageReader: Sendable {
  /// `/proc`, or a recorded tree.
  package var proc = "/proc"
  package var cgroups = "/sys/fs/cgroup"
  package var hugePages = "/sys/kernel/mm/transparent_hugepage"

  package init() {}

  /// All processes, ascending.
  package func processes() -> [Int] {
    guard let directory = opendir(proc) else { return [] }
    defer { closedir(directory) }
    var result: [Int] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if let process = Int(name) { result.append(process) }
    }
    return result.sorted()
  }

  /// The processes that `text` names: a number, or a name as in comm.
  package func processes(named text: String) throws(CoverageError) -> [Int] {
    if let number = Int(text) {
      guard number > 0, access("\(proc)/\(number)", F_OK) == 0 else { throw .noProcess(number) }
      return [number]
    }
    let found = processes().filter { name(of: $0) == text }
    if found.isEmpty { throw .noName(text) }
    return found
  }

  /// The processes in the memory group at `path`, without those in groups below it.
  package func processes(inGroup path: String) throws(CoverageError) -> [Int] {
    guard let text = contents(ofFile: path + "/cgroup.procs") else {
      throw .noGroup(path, reason: String(cString: strerror(errno)))
    }
    return text.split(separator: "\n").compactMap { Int($0) }.sorted()
  }

  /// How many processes are in the group at `path` besides one; nil if that cannot be read.
  func others(inGroup path: String) -> Int? {
    contents(ofFile: path + "/cgroup.procs").map { max(0, $0.split(separator: "\n").count - 1) }
  }

  /// Children of `process`, where the kernel lists them.
  func children(of process: Int) -> [Int] {
    contents(ofFile: "\(proc)/\(process)/task/\(process)/children")?.split(separator: " ").compactMap { Int($0) } ?? []
  }

  func name(of process: Int) -> String? {
    contents(ofFile: "\(proc)/\(process)/comm").map { text in
      var text = text
      if text.hasSuffix("\n") { text.removeLast() }
      return text
    }
  }

  /// Looks at `process`: each mapping, or only the sum, which is quicker.
  package func look(at process: Int, mappings: Bool = true) throws(CoverageError) -> ProcessCoverage {
    let directory = "\(proc)/\(process)"
    guard let name = name(of: process) else { throw .noProcess(process) }
    var file = directory + (mappings ? "/smaps" : "/smaps_rollup")
    // Before Linux 4.14 there is no sum.
    if !mappings && access(file, F_OK) != 0 && access(directory + "/smaps", F_OK) == 0 { file = directory + "/smaps" }
    errno = 0
    let text = contents(ofFile: file)
    let code = errno
    guard let text, !text.isEmpty else {
      if let why = withoutMemory(process, name) { throw why }
      if text == nil && (code == EACCES || code == EPERM) { throw .notAllowed(process, name: name) }
      throw .ended(process, name: name)
    }
    let parsed: [MappingReport]
    do throws(SmapsError) { parsed = try parseSmaps(text) } catch { throw .unreadable(file, line: error.line) }
    var total = MemoryFigures()
    for mapping in parsed { total += mapping.figures }
    // The sum's one line of addresses goes from the first mapping to the last.
    if !mappings, let status = status(of: process) { total.sizeBytes = status.sizeBytes }
    var result = ProcessCoverage(process: process, name: name, total: total, mappings: mappings ? parsed : [])
    result.isDisabled = statusValue("THP_enabled", of: process).map { $0 == "0" }
    if mappings { result.mode = mode() }
    if let membership = membership(of: process) {
      result.group = membership.directory
      result.chargedBytes = charge(membership)
    }
    return result
  }

  private func mode() -> String? {
    contents(ofFile: hugePages + "/enabled")?.split(whereSeparator: \.isWhitespace).first { $0.hasPrefix("[") }
      .map { String($0.dropFirst().dropLast()) }
  }

  /// The memory group of `process`; nil if that cannot be told.
  func membership(of process: Int) -> CgroupMembership? {
    try? CgroupMembership.find(root: cgroups, membership: contents(ofFile: "\(proc)/\(process)/cgroup"))
  }

  /// What the kernel counts of a process' memory as it goes; nil if it is gone or has none.
  func status(of process: Int) -> ProcessStatus? {
    contents(ofFile: "\(proc)/\(process)/status").flatMap { ProcessStatus($0) }
  }

  func charge(_ membership: CgroupMembership) -> Int? {
    let file = membership.version == .one ? "memory.usage_in_bytes" : "memory.current"
    return contents(ofFile: "\(membership.directory)/\(file)").flatMap {
      Int($0.split(whereSeparator: { $0 == "\n" }).first ?? "")
    }
  }

  /// What is the matter with a process that has no mappings to show.
  private func withoutMemory(_ process: Int, _ name: String) -> CoverageError? {
    guard let state = statusValue("State", of: process) else { return .ended(process, name: name) }
    if state.hasPrefix("Z") || state.hasPrefix("X") { return .ended(process, name: name) }
    if statusValue("VmSize", of: process) != nil { return nil }
    // One that is just ending has given its memory up before it is a zombie.
    return isKernelThread(process) ?? true ? .kernelThread(process, name: name) : .ended(process, name: name)
  }

  /// PF_KTHREAD among the flags; nil if they cannot be read.
  private func isKernelThread(_ process: Int) -> Bool? { statField(.flags, of: process).map { $0 & 0x20_0000 != 0 } }

  /// Fields of `/proc/PID/stat`, counted from the state, which is behind the name.
  enum StatField: Int {
    case flags = 6
    /// When it began, in the clock's ticks.
    case start = 19
  }

  /// A number of `stat`; nil if it cannot be read. The name, in parentheses before, may hold anything.
  func statField(_ field: StatField, of process: Int) -> UInt64? {
    guard let text = contents(ofFile: "\(proc)/\(process)/stat"), let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > field.rawValue ? UInt64(fields[field.rawValue]) : nil
  }

  private func statusValue(_ key: String, of process: Int) -> String? {
    for line in contents(ofFile: "\(proc)/\(process)/status")?.split(separator: "\n") ?? []
    where line.hasPrefix(key + ":") {
      return line.dropFirst(key.count + 1).drop { $0 == "\t" || $0 == " " }.description
    }
    return nil
  }
}
