import Foundation
import Glibc
import TestSupport
import Testing

@testable import HugeSpanLab

/// A version 2 tree as systemd makes one.
private func unifiedTree(_ folder: TemporaryFolder, controllers: String = "cpu memory pids") throws {
  try folder.write(controllers + "\n", "cgroup.controllers")
  try folder.write("memory pids\n", "user.slice/app/cgroup.subtree_control")
  try folder.write("12\n", "user.slice/app/cgroup.procs")
}

@Suite("Memory cgroups")
struct CgroupTests {
  @Test("a version 1 membership is found, also where the path is the host's")
  func versionOne() throws {
    let folder = try TemporaryFolder()
    try folder.write("", "memory/service/web/memory.usage_in_bytes")
    let text = "12:cpu,cpuacct:/\n4:memory:/service/web\n0::/init.scope\n"
    let found = try CgroupMembership.find(root: folder.path, membership: text)
    #expect(found == CgroupMembership(version: .one, directory: folder.path + "/memory/service/web"))
    let elsewhere = try CgroupMembership.find(root: folder.path, membership: "4:memory:/docker/abc\n")
    #expect(elsewhere.directory == folder.path + "/memory")
  }

  @Test("a version 2 membership is found if the controller exists")
  func versionTwo() throws {
    let folder = try TemporaryFolder()
    try unifiedTree(folder)
    let found = try CgroupMembership.find(root: folder.path, membership: "0::/user.slice/app\n")
    #expect(found == CgroupMembership(version: .two, directory: folder.path + "/user.slice/app"))
    let bare = try TemporaryFolder()
    try unifiedTree(bare, controllers: "cpu pids")
    #expect(throws: CgroupUnavailable(reason: "the kernel has no memory controller")) {
      try CgroupMembership.find(root: bare.path, membership: "0::/user.slice/app\n")
    }
  }

  @Test("a system without the controller says so")
  func nothing() throws {
    let folder = try TemporaryFolder()
    #expect(throws: CgroupUnavailable.self) { try CgroupMembership.find(root: folder.path, membership: "0::/\n") }
    #expect(throws: CgroupUnavailable.self) { try CgroupMembership.find(root: folder.path, membership: nil) }
    #expect(throws: CgroupUnavailable.self) {
      try CgroupMembership.find(root: folder.path, membership: "4:memory:/x\n")
    }
  }

  /// A version 2 group with the kernel's rule: no controller for children while it has processes of its own.
  private final class UnifiedGroup: @unchecked Sendable {
    var processes: [String: Set<Int32>]
    var isDelegated = false
    var isAllowed = true

    init(_ processes: Set<Int32>) { self.processes = ["/g": processes] }

    var files: CgroupFiles {
      CgroupFiles(
        read: { path in
          if path.hasSuffix("/cgroup.procs") {
            return self.processes[String(path.dropLast(13))]?.map { "\($0)\n" }.joined()
          }
          return self.isDelegated ? "memory pids\n" : "pids\n"
        },
        write: { text, path in
          if path.hasSuffix("/cgroup.procs") {
            let group = String(path.dropLast(13))
            if group == "/g" && self.isDelegated { return EBUSY }
            for key in self.processes.keys { self.processes[key]!.remove(Int32(text)!) }
            self.processes[group]!.insert(Int32(text)!)
            return 0
          }
          if !self.isAllowed { return EPERM }
          if text == "+memory" && !self.processes["/g"]!.isEmpty { return EBUSY }
          self.isDelegated = text == "+memory"
          return 0
        },
        makeDirectory: { path in
          self.processes[path] = []
          return 0
        },
        removeDirectory: { path in
          guard self.processes[path]?.isEmpty == true else { return EBUSY }
          self.processes[path] = nil
          return 0
        })
    }
  }

  private let unified = CgroupMembership(version: .two, directory: "/g")

  @Test("in version 2 a process that is alone in its group moves into a leaf, and back")
  func delegation() throws {
    let group = UnifiedGroup([getpid()])
    var delegation = try CgroupDelegation(unified, files: group.files)
    #expect(group.isDelegated && delegation.home == "/g/hugespan-\(getpid())-home")
    #expect(group.processes[delegation.home] == [getpid()])
    delegation.undo()
    #expect(!group.isDelegated && group.processes == ["/g": [getpid()]])
  }

  @Test("in version 2 a group with other processes, or without the right, is left as it is")
  func noDelegation() throws {
    let shared = UnifiedGroup([getpid(), 1])
    #expect { try CgroupDelegation(unified, files: shared.files) } throws: {
      ($0 as? CgroupUnavailable)?.reason.contains("Delegate=yes") == true
    }
    #expect(shared.processes == ["/g": [getpid(), 1]] && !shared.isDelegated)
    let forbidden = UnifiedGroup([])
    forbidden.isAllowed = false
    #expect(throws: CgroupUnavailable.self) { try CgroupDelegation(unified, files: forbidden.files) }
    #expect(forbidden.processes == ["/g": []])
  }

  @Test("in version 2 a group that delegates already is not changed")
  func alreadyDelegated() throws {
    let group = UnifiedGroup([])
    group.isDelegated = true
    var delegation = try CgroupDelegation(unified, files: group.files)
    #expect(delegation.home == "/g")
    delegation.undo()
    #expect(group.isDelegated)
  }

  @Test("groups of processes that are gone are removed, others are not")
  func stale() throws {
    let folder = try TemporaryFolder()
    // No process has this number: it is beyond the kernel's limit.
    for name in ["hugespan-4194999-3", "hugespan-\(getpid())-0", "other-4194999-1", "hugespan-abc"] {
      #expect(mkdir(folder.path + "/" + name, 0o755) == 0)
    }
    MemoryCgroup.removeStale(under: CgroupMembership(version: .one, directory: folder.path))
    let left = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    #expect(left == ["hugespan-\(getpid())-0", "hugespan-abc", "other-4194999-1"].sorted())
  }

  @Test("the charge of version 1 is usage without cache and kernel memory")
  func chargeOne() throws {
    let folder = try TemporaryFolder()
    try folder.write("10000000\n", "memory.usage_in_bytes")
    try folder.write("300000\n", "memory.kmem.usage_in_bytes")
    try folder.write("cache 2000000\nrss 7000000\nrss_huge 0\ntotal_cache 9000000\n", "memory.stat")
    #expect(try ChargeReader(version: .one, directory: folder.path).read() == 7_700_000)
    // A kernel without the kernel-memory counter.
    unlink(folder.path + "/memory.kmem.usage_in_bytes")
    #expect(try ChargeReader(version: .one, directory: folder.path).read() == 8_000_000)
  }

  @Test("the charge of version 2 is current without file and kernel memory, before and after there was a sum")
  func chargeTwo() throws {
    let folder = try TemporaryFolder()
    try folder.write("10000000\n", "memory.current")
    try folder.write("anon 7000000\nfile 2000000\nkernel 500000\nkernel_stack 100000\nslab 200000\n", "memory.stat")
    #expect(try ChargeReader(version: .two, directory: folder.path).read() == 7_500_000)
    try folder.write(
      "anon 7000000\nfile 2000000\nkernel_stack 100000\npagetables 50000\npercpu 1000\nslab 200000\n", "memory.stat")
    #expect(try ChargeReader(version: .two, directory: folder.path).read() == 7_649_000)
  }

  @Test("a charge that follows the file, reading after reading")
  func rereading() throws {
    let folder = try TemporaryFolder()
    try folder.write("5000000\n", "memory.current")
    try folder.write("file 0\nkernel 0\n", "memory.stat")
    let reader = try ChargeReader(version: .two, directory: folder.path)
    #expect(reader.read() == 5_000_000)
    let file = open(folder.path + "/memory.current", O_WRONLY | O_TRUNC)
    _ = write(file, "9\n", 2)
    close(file)
    #expect(reader.read() == 9)
  }

  @Test("a missing group is no charge, with a reason")
  func missing() throws {
    #expect(throws: CgroupUnavailable(reason: "/nowhere has no charge to read")) {
      _ = try ChargeReader(version: .one, directory: "/nowhere")
    }
  }

  @Test(
    "on this system a group is made, has a charge and is removed",
    .enabled(if: canMakeGroup, "no group can be made here"))
  func real() throws {
    let membership = try CgroupMembership.find()
    let group = try MemoryCgroup.make(under: membership, number: 99)
    defer { group.remove() }
    #expect(try ChargeReader(version: group.version, directory: group.directory).read() == 0)
    #expect(group.remove())
    #expect(access(group.directory, F_OK) != 0)
  }
}

/// Whether this process may make memory groups.
let canMakeGroup: Bool = {
  guard let membership = try? CgroupMembership.find(),
    let group = try? MemoryCgroup.make(under: membership, number: 98)
  else { return false }
  return group.remove()
}()
