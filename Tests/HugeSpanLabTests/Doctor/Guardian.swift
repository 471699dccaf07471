// Settings of the machine that a test changes, and that are put back whatever becomes of the test.
//
// A shell waits for the end of a pipe whose other end is this process': closed by the test, or by the kernel when the
// process is killed. Then it writes every setting back. So there is one way back, and it is the one that a crash takes
// too. A lock keeps two of them apart, of other processes as well.

import Foundation
import Glibc

@testable import HugeSpanLab

/// A shell that runs a script when this value goes, or its process.
final class Guardian {
  private let shell = Process()
  private let pipe = Pipe()
  private var isDone = false

  /// - Parameters:
  ///   - script: What is done in the end, with `arguments` as its own.
  init(script: String, arguments: [String]) throws {
    shell.executableURL = URL(fileURLWithPath: "/bin/sh")
    // A signal to the terminal's whole group must not end the one who tidies up.
    shell.arguments = ["-c", "trap '' INT TERM HUP; cat >/dev/null; " + script, "guardian"] + arguments
    shell.standardInput = pipe
    shell.standardOutput = FileHandle.nullDevice
    shell.standardError = FileHandle.nullDevice
    try shell.run()
    try pipe.fileHandleForReading.close()
  }

  /// Has the script run, and waits for it.
  func finish() {
    if isDone { return }
    isDone = true
    try? pipe.fileHandleForWriting.close()
    shell.waitUntilExit()
  }

  deinit { finish() }
}

/// Files with settings, as they were.
final class KeptSettings {
  let values: [String: String]
  private let guardian: Guardian
  private var lock: Int32

  /// Keeps what `paths` say. Of one word of several the chosen one is kept. Waits for others that change settings.
  init(_ paths: [String]) throws {
    lock = open("/tmp/hugespan-system-settings.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
    if lock >= 0 { while flock(lock, LOCK_EX) != 0 && errno == EINTR {} }
    values = paths.reduce(into: [:]) { $0[$1] = Self.value(of: $1) }
    guardian = try Guardian(
      script: #"while [ $# -gt 1 ]; do printf %s "$2" >"$1"; shift 2; done"#,
      arguments: values.sorted { $0.key < $1.key }.flatMap { [$0.key, $0.value] })
  }

  /// Writes all back.
  func restore() {
    guardian.finish()
    if lock >= 0 { close(lock) }
    lock = -1
  }

  /// What a setting is set to; nil if there is no such setting.
  static func value(of path: String) -> String? {
    guard let text = contents(ofFile: path) else { return nil }
    return ModeChoice(text)?.selected ?? text.trimmingCharacters(in: .whitespacesAndNewlines)
  }
}

/// A zram device of the test's own, in use as swap at the lowest priority.
final class SwapOnZram {
  let device: String
  private let guardian: Guardian

  /// Nil where there can be none: no zram, no right, no tools.
  init?(byteCount: Int) {
    guard let number = contents(ofFile: "/sys/class/zram-control/hot_add").flatMap(kernelNumber) else { return nil }
    device = "/dev/zram\(number)"
    let script = """
      swapoff "$1"; echo 1 >/sys/block/zram"$2"/reset; echo "$2" >/sys/class/zram-control/hot_remove
      [ "$3" = made ] && rm -f "$1"
      """
    let isMade = access(device, F_OK) != 0
    guard let guardian = try? Guardian(script: script, arguments: [device, "\(number)", isMade ? "made" : ""]) else {
      return nil
    }
    self.guardian = guardian
    let setting = """
      echo "$2" >/sys/block/zram"$3"/disksize || exit 1
      [ -e "$1" ] || mknod "$1" b $(tr : ' ' </sys/block/zram"$3"/dev) || exit 1
      mkswap "$1" && swapon -p 0 "$1"
      """
    let shell = Process()
    shell.executableURL = URL(fileURLWithPath: "/bin/sh")
    shell.arguments = ["-c", setting, "zram", device, "\(byteCount)", "\(number)"]
    shell.environment = ["PATH": "/usr/sbin:/sbin:/usr/bin:/bin"]
    shell.standardOutput = FileHandle.nullDevice
    shell.standardError = FileHandle.nullDevice
    guard (try? shell.run()) != nil else { return nil }
    shell.waitUntilExit()
    if shell.terminationStatus != 0 { return nil }
  }

  func remove() { guardian.finish() }
}
