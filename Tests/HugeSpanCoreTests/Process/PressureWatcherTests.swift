// What the pressure watcher makes of recorded trees: both versions of memory groups, available memory, stalls, a limit of
// the user's own.

import Foundation
import Testing

@testable import HugeSpanCore

private let mebi = 1 << 20

/// Files under a root of their own, which go with the value.
private final class RecordedTree {
  let root = NSTemporaryDirectory() + "hugespan-tree-\(UUID().uuidString)"

  deinit { try? FileManager.default.removeItem(atPath: root) }

  func write(_ path: String, _ text: String) throws {
    let file = root + path
    try FileManager.default.createDirectory(
      atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    // In place: the watcher keeps its files open, as those of the kernel are.
    if let handle = FileHandle(forWritingAtPath: file) {
      try handle.truncate(atOffset: 0)
      try handle.write(contentsOf: Data((text + "\n").utf8))
      try handle.close()
    } else {
      try (text + "\n").write(toFile: file, atomically: false, encoding: .utf8)
    }
  }

  /// A group of version 2, in bytes; no limit is `max`.
  func group(_ path: String, usage: Int, max: Int? = nil, high: Int? = nil, inactive: Int = 0) throws {
    let directory = "/sys/fs/cgroup" + path
    try write(directory + "/cgroup.procs", "1")
    try write(directory + "/memory.current", "\(usage)")
    try write(directory + "/memory.max", max.map { "\($0)" } ?? "max")
    try write(directory + "/memory.high", high.map { "\($0)" } ?? "max")
    try write(directory + "/memory.stat", "anon 5\nfile 1\nactive_file 7\ninactive_file \(inactive)\nslab 3")
  }

  /// A group of version 1.
  func groupOne(_ path: String, usage: Int, limit: Int = 9_223_372_036_854_771_712, inactive: Int = 0) throws {
    let directory = "/sys/fs/cgroup/memory" + path
    try write(directory + "/memory.usage_in_bytes", "\(usage)")
    try write(directory + "/memory.limit_in_bytes", "\(limit)")
    try write(directory + "/memory.stat", "cache 1\ninactive_file 1\ntotal_cache 2\ntotal_inactive_file \(inactive)")
  }

  func watch<Result>(
    ownLimit: Int = 0, _ body: (inout PressureWatcher) throws -> Result
  ) rethrows -> Result {
    var watcher = root.withCString { PressureWatcher(root: $0, ownLimit: ownLimit, hasEvents: false) }
    defer { watcher.close() }
    return try body(&watcher)
  }

  func look(ownLimit: Int = 0) -> PressureReading { watch(ownLimit: ownLimit) { $0.look(now: 1_000_000_000) } }
}

@Suite struct TheWatcherOfPressure {
  @Test func seesNothingWhereNothingIs() {
    let reading = RecordedTree().look()
    #expect(reading == PressureReading() && !reading.isPressed)
    #expect(reading.nextLook == 100_000_000)
  }

  @Test func takesTheTightestOfTheGroupsAboveTheProcess() throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "0::/a/b/c")
    try tree.group("/a/b/c", usage: 100 * mebi)
    try tree.group("/a/b", usage: 300 * mebi, max: 700 * mebi)
    try tree.group("/a", usage: 900 * mebi, max: 1200 * mebi)
    #expect(tree.look().headroom == 300 * mebi)
    try tree.group("/a/b", usage: 650 * mebi, max: 700 * mebi)
    #expect(tree.look().headroom == 50 * mebi)
  }

  @Test func takesTheBoundThatThrottlesForALimit() throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "0::/a")
    try tree.group("/a", usage: 100 * mebi, max: 700 * mebi, high: 300 * mebi)
    #expect(tree.look().headroom == 200 * mebi)
  }

  @Test func knowsTheFirstVersionsWayToSayNoLimit() throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "5:cpu,memory:/x/y\n0::/")
    try tree.groupOne("/x/y", usage: 100 * mebi)
    #expect(tree.look().headroom == .max)
    try tree.groupOne("/x", usage: 400 * mebi, limit: 600 * mebi)
    #expect(tree.look().headroom == 200 * mebi)
  }

  @Test func findsTheMountedGroupOfAContainer() throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "4:memory:/host/path/of/the/container")
    try tree.groupOne("", usage: 400 * mebi, limit: 600 * mebi)
    #expect(tree.look().headroom == 200 * mebi)
  }

  @Test(arguments: [false, true])
  func countsFileCacheAsRoomWhenItIsTight(isFirstVersion: Bool) throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", isFirstVersion ? "4:memory:/a" : "0::/a")
    func set(usage: Int, inactive: Int) throws {
      if isFirstVersion {
        try tree.groupOne("/a", usage: usage, limit: 1024 * mebi, inactive: inactive)
      } else {
        try tree.group("/a", usage: usage, max: 1024 * mebi, inactive: inactive)
      }
    }
    try set(usage: 1020 * mebi, inactive: 500 * mebi)
    #expect(tree.look().headroom == 504 * mebi && !tree.look().isPressed)
    try set(usage: 1020 * mebi, inactive: 10 * mebi)
    #expect(tree.look().headroom == 14 * mebi && tree.look().isPressed)
    // Where there is room the longer file is not read.
    try set(usage: 500 * mebi, inactive: 10 * mebi)
    #expect(tree.look().headroom == 524 * mebi)
  }

  @Test func seesTheSystemsMemoryAndItsOwn() throws {
    let tree = RecordedTree()
    try tree.write("/proc/meminfo", "MemTotal:       4194304 kB\nMemFree:          1000 kB\nMemAvailable:    409600 kB")
    #expect(tree.look().headroom == 400 * mebi && tree.look().reserve == 256 * mebi)
    try tree.write("/proc/self/statm", "99999 25600 10 1 0 9 0")
    #expect(tree.look(ownLimit: 150 * mebi).headroom == 50 * mebi)
    try tree.write("/proc/self/statm", "99999 51200 10 1 0 9 0")
    let reading = tree.look(ownLimit: 150 * mebi)
    #expect(reading.headroom == -50 * mebi && reading.isPressed)
  }

  @Test func countsStallsInWindowsOfTwoSeconds() throws {
    let tree = RecordedTree()
    func set(_ total: Int) throws {
      try tree.write(
        "/proc/pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=\(total)\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7")
    }
    try set(5_000_000)
    try tree.watch { (watcher: inout PressureWatcher) throws in
      var now: UInt64 = 1_000_000_000
      func stalls(after milliseconds: UInt64, _ total: Int) throws -> Bool {
        now += milliseconds * 1_000_000
        try set(total)
        return watcher.look(now: now).isStalled
      }
      #expect(try !stalls(after: 0, 5_000_000))
      #expect(try !stalls(after: 500, 5_100_000))
      #expect(try stalls(after: 500, 5_210_000))
      // A new window begins with each; what is spread over more than two seconds is no pressure.
      #expect(try !stalls(after: 500, 5_220_000))
      for step in 1...20 { #expect(try !stalls(after: 500, 5_220_000 + step * 40_000)) }
      #expect(try stalls(after: 500, 6_500_000))
    }
  }

  @Test func looksAtTheStallsOfItsOwnGroup() throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "0::/a")
    try tree.group("/a", usage: 1 * mebi)
    try tree.write("/sys/fs/cgroup/a/memory.pressure", "some avg10=0.00 total=0")
    try tree.write("/proc/pressure/memory", "some avg10=0.00 total=0")
    try tree.watch { watcher in
      _ = watcher.look(now: 1)
      try tree.write("/proc/pressure/memory", "some avg10=0.00 total=900000")
      #expect(!watcher.look(now: 1_000_000_000).isStalled)
      try tree.write("/sys/fs/cgroup/a/memory.pressure", "some avg10=0.00 total=900000")
      #expect(watcher.look(now: 1_200_000_000).isStalled)
    }
  }

  /// A neighbour takes memory at 100 MB/s to 2 GB/s. When the need is first seen, a good part of the reserve is left.
  @Test(arguments: [100, 500, 2000])
  func noticesInTimeHowFastMemoryGoes(megabytesPerSecond: Int) throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "0::/a")
    let limit = 700 * mebi
    func usage(_ now: UInt64) -> Int { 200 * mebi + Int(now / 1000) * megabytesPerSecond }
    try tree.group("/a", usage: usage(0), max: limit)
    try tree.watch { watcher in
      var now: UInt64 = 0
      var reading = PressureReading()
      var looks = 0
      while !reading.isPressed && looks < 10_000 {
        try tree.write("/sys/fs/cgroup/a/memory.current", "\(usage(now))")
        reading = watcher.look(now: now + 1)
        looks += 1
        if !reading.isPressed { now += reading.nextLook }
      }
      #expect(reading.isPressed && reading.headroom > 30 * mebi, "\(reading) after \(looks) looks")
      #expect(looks < 300)
    }
  }

  @Test func looksSeldomAtWhatDoesNotMove() throws {
    let tree = RecordedTree()
    try tree.write("/proc/self/cgroup", "0::/a")
    try tree.group("/a", usage: 600 * mebi, max: 700 * mebi)
    tree.watch { watcher in
      var now: UInt64 = 1
      var looks = 0
      while now < 10_000_000_000 {
        now += watcher.look(now: now).nextLook
        looks += 1
      }
      // 14 ms at the most often; a look takes a few microseconds.
      #expect(looks < 750, "\(looks) looks in ten seconds")
    }
  }
}
