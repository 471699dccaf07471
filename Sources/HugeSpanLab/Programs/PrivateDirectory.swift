// A directory of a run's own, for what its programs have to find or leave behind.
//
// Below /tmp and not $TMPDIR: the path goes into LD_PRELOAD and HUGESPAN_CONF, where blanks, colons and commas separate. The name cannot be
// guessed, and a directory that is there already, somebody else's, is not taken.

import Foundation
import Glibc

/// Made at once, with all that is in it removed with the last reference.
final class PrivateDirectory {
  let path: String

  /// - Parameters:
  ///   - purpose: What it is for, as in "no directory can be made for …".
  ///   - mode: Permission bits.
  init(for purpose: String, mode: mode_t = 0o700) throws(ProgramError) {
    path = "/tmp/hugespan-\(UUID().uuidString.lowercased())"
    // The bits are set apart from the making, which the process' umask cuts.
    if mkdir(path, 0o700) != 0 || (mode != 0o700 && chmod(path, mode) != 0) {
      throw ProgramError(.unavailable, "/tmp: no directory can be made for \(purpose): \(errorText(errno))")
    }
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}
