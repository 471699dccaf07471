// Memory cgroups: finding the caller's own, making a child of it for a run, taking it away again.
//
// Resident size does not tell what a program costs (a partly released hugepage stays whole, and charged), only the
// memory controller's charge does. So each run wants a group of its own. Both versions of the interface are spoken. A
// group that cannot be made is no error: then the charge is unknown, and the reason is told. All paths begin at a
// root that can be chosen, so that the code can be shown recorded trees.

import Glibc

/// Why there is no group of one's own, in words for the user.
package struct CgroupUnavailable: Error, Equatable, Sendable {
  package var reason: String
}

/// Which interface the memory controller has.
package enum CgroupVersion: Int, Sendable {
  case one = 1
  case two = 2
}

/// The memory group that a process is in.
package struct CgroupMembership: Equatable, Sendable {
  package var version: CgroupVersion
  /// The group's directory.
  package var directory: String

  /// Finds the group from the text of `/proc/PID/cgroup` and the tree under `root`.
  package static func find(
    root: String = "/sys/fs/cgroup", membership: String? = contents(ofFile: "/proc/self/cgroup")
  ) throws(CgroupUnavailable) -> CgroupMembership {
    guard let membership else { throw CgroupUnavailable(reason: "/proc/self/cgroup cannot be read") }
    var unified: Substring?
    for line in membership.split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      if fields[1].split(separator: ",").contains("memory") {
        // In a container the path may be one of the host's; then the mounted root is the group itself.
        for directory in [root + "/memory" + fields[2], root + "/memory"] where isDirectory(directory) {
          return CgroupMembership(version: .one, directory: trimmed(directory))
        }
        throw CgroupUnavailable(reason: "the memory controller is not mounted under \(root)/memory")
      }
      if fields[0] == "0" && fields[1].isEmpty { unified = fields[2] }
    }
    if let unified, let controllers = contents(ofFile: root + "/cgroup.controllers") {
      guard words(controllers).contains("memory") else {
        throw CgroupUnavailable(reason: "the kernel has no memory controller")
      }
      for directory in [root + unified, root] where isDirectory(directory) {
        return CgroupMembership(version: .two, directory: trimmed(directory))
      }
    }
    throw CgroupUnavailable(reason: "no memory controller is mounted under \(root)")
  }

  private static func trimmed(_ path: String) -> String {
    var path = path
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    return path
  }
}

/// A group that was made for a run.
package struct MemoryCgroup: Equatable, Sendable {
  package var version: CgroupVersion
  package var directory: String
  /// Where its processes go when they leave.
  package var parent: String

  /// Names a group that exists.
  package init(version: CgroupVersion, directory: String, parent: String) {
    self.version = version
    self.directory = directory
    self.parent = parent
  }

  /// Names of our groups: the prefix, the process that answers for them, a number.
  private static let prefix = "hugespan-"

  /// Makes a child group of `membership` called `hugespan-PID-NUMBER`. Version 2 needs a `CgroupDelegation` before.
  ///
  /// - Parameter home: Where a process goes that leaves the group; the parent itself by default.
  package static func make(
    under membership: CgroupMembership, number: Int, owner: Int32 = getpid(), home: String? = nil
  ) throws(CgroupUnavailable) -> MemoryCgroup {
    let directory = "\(membership.directory)/\(prefix)\(owner)-\(number)"
    guard mkdir(directory, 0o755) == 0 else {
      throw CgroupUnavailable(reason: "no group can be made in \(membership.directory): \(errorText())")
    }
    return MemoryCgroup(version: membership.version, directory: directory, parent: home ?? membership.directory)
  }

  /// Moves the calling process into the group. What it was charged for before stays with the old one.
  package func enter() throws(CgroupUnavailable) {
    guard Self.write("\(getpid())", toFile: directory + "/cgroup.procs") else {
      throw CgroupUnavailable(reason: "\(directory) cannot be entered: \(errorText())")
    }
  }

  /// Sets the group's hard limit, beyond which the kernel reclaims, and kills where that does not help.
  package func setLimit(bytes: Int) throws(CgroupUnavailable) {
    let file = directory + (version == .one ? "/memory.limit_in_bytes" : "/memory.max")
    guard Self.write("\(bytes)", toFile: file) else {
      throw CgroupUnavailable(reason: "\(file) cannot be set: \(errorText())")
    }
  }

  /// Moves the calling process back and removes the group.
  package func leaveAndRemove() {
    _ = Self.write("\(getpid())", toFile: parent + "/cgroup.procs")
    remove()
  }

  /// Removes the group, which may hold a process that is just ending. Returns whether it is gone.
  @discardableResult
  package func remove() -> Bool {
    for attempt in 0..<200 {
      if rmdir(directory) == 0 || errno == ENOENT { return true }
      if errno != EBUSY { return false }
      usleep(attempt < 20 ? 1_000 : 10_000)
    }
    return false
  }

  /// Removes groups of ours whose process is gone: it was killed without a chance to clean up.
  package static func removeStale(under membership: CgroupMembership) {
    for name in entries(ofDirectory: membership.directory) where name.hasPrefix(prefix) {
      guard let owner = Int32(name.dropFirst(prefix.count).prefix { $0 != "-" }) else { continue }
      if kill(owner, 0) == 0 || errno == EPERM { continue }
      _ = rmdir(membership.directory + "/" + name)
    }
  }

  private static func write(_ text: String, toFile path: String) -> Bool {
    let file = open(path, O_WRONLY | O_CLOEXEC)
    if file < 0 { return false }
    let length = text.utf8.count
    let written = Glibc.write(file, text, length)
    let code = errno
    close(file)
    errno = code
    return written == length
  }
}

/// The whole text of a small file, or nil.
package func contents(ofFile path: String) -> String? {
  let file = open(path, O_RDONLY | O_CLOEXEC)
  if file < 0 { return nil }
  defer { close(file) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = read(file, &buffer, buffer.count)
    if count < 0 { return nil }
    if count == 0 { break }
    bytes += buffer[0..<count]
  }
  return String(decoding: bytes, as: UTF8.self)
}

private func entries(ofDirectory path: String) -> [String] {
  guard let directory = opendir(path) else { return [] }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    names.append(
      withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      })
  }
  return names
}

private func isDirectory(_ path: String) -> Bool {
  var status = stat()
  return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

private func words(_ text: String) -> [Substring] { text.split { $0 == " " || $0 == "\n" } }

private func errorText() -> String { String(cString: strerror(errno)) }
