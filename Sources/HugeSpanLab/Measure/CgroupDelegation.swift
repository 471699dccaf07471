// Version 2's rule of inner groups: a group with processes of its own cannot hand the memory controller to children.
//
// So a program that is alone in its group (a systemd scope of its own, a container's first process) first moves into a
// leaf beneath it, then hands the controller on, and takes both back at the end. In a group that others share nothing is done: moving a
// user's shell is not ours to do. The file operations are a value, so that the rule can be played through
// without a system that has it.

import Glibc

/// What is asked of the cgroup file system. Each returns 0 or an error number.
package struct CgroupFiles: Sendable {
  package var read: @Sendable (String) -> String?
  package var write: @Sendable (_ text: String, _ path: String) -> Int32
  package var makeDirectory: @Sendable (String) -> Int32
  package var removeDirectory: @Sendable (String) -> Int32

  /// The real ones.
  package static let system = CgroupFiles(
    read: { contents(ofFile: $0) },
    write: { text, path in
      let file = open(path, O_WRONLY | O_CLOEXEC)
      if file < 0 { return errno }
      defer { close(file) }
      let length = text.utf8.count
      return Glibc.write(file, text, length) == length ? 0 : errno
    },
    makeDirectory: { mkdir($0, 0o755) == 0 ? 0 : errno },
    removeDirectory: { rmdir($0) == 0 ? 0 : errno })
}

/// A group that can have children with the memory controller, and what was changed for that.
package struct CgroupDelegation: Sendable {
  /// Where a process goes that leaves one of the children.
  package private(set) var home: String
  private var directory: String
  private var leaf: String?
  private var hasEnabled = false
  private let files: CgroupFiles

  /// Prepares `membership` for children. Version 1 needs nothing.
  package init(
    _ membership: CgroupMembership, files: CgroupFiles = .system, process: Int32 = getpid()
  ) throws(CgroupUnavailable) {
    directory = membership.directory
    home = membership.directory
    self.files = files
    if membership.version == .one { return }
    let control = directory + "/cgroup.subtree_control"
    if words(files.read(control)).contains("memory") { return }
    var code = files.write("+memory", control)
    if code == EBUSY {
      guard words(files.read(directory + "/cgroup.procs")).allSatisfy({ Int32($0) == process }) else {
        throw CgroupUnavailable(
          reason: "\(directory) has other processes, so it cannot have groups beneath it; start this command with "
            + "'systemd-run --scope -p Delegate=yes' (and --user if you are not root)")
      }
      try moveIntoLeaf(process)
      code = files.write("+memory", control)
    }
    if code != 0 {
      undo()
      throw CgroupUnavailable(
        reason: "the memory controller is not delegated to children of \(directory): \(String(cString: strerror(code)))"
      )
    }
    hasEnabled = true
  }

  private mutating func moveIntoLeaf(_ process: Int32) throws(CgroupUnavailable) {
    let leaf = "\(directory)/hugespan-\(process)-home"
    var code = files.makeDirectory(leaf)
    if code == 0 {
      self.leaf = leaf
      home = leaf
      code = files.write("\(process)", leaf + "/cgroup.procs")
    }
    if code != 0 {
      undo()
      throw CgroupUnavailable(reason: "\(leaf) cannot be used: \(String(cString: strerror(code)))")
    }
  }

  /// Takes back what was changed. Call it when all children are removed.
  package mutating func undo() {
    if hasEnabled { _ = files.write("-memory", directory + "/cgroup.subtree_control") }
    hasEnabled = false
    if let leaf {
      _ = files.write("\(getpid())", directory + "/cgroup.procs")
      _ = files.removeDirectory(leaf)
    }
    leaf = nil
    home = directory
  }
}

private func words(_ text: String?) -> [Substring] { (text ?? "").split { $0 == " " || $0 == "\n" } }
