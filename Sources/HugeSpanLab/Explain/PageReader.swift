// The statistics pages of a process, found and read.
//
// A page is a file without a name that the process holds open and maps; it is found among the descriptors under /proc/PID/fd, and
// read there. A page that a forked child inherited, but does not map, is its parent's and is passed over. One that the program closed
// (a daemon that closes what it knows nothing of) cannot be found; reading the mapping instead would take the right to change the process.

import CHugeSpanShims
import Glibc
import HugeSpanCore

/// Why a process cannot be explained, in one line.
package enum PageError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The process cannot be looked at.
  case process(CoverageError)
  /// It publishes nothing; and its child that does, if there is one.
  case noPage(Int, name: String, child: Int?)
  /// There is a page, and it cannot be opened.
  case notAllowed(Int, name: String)
  case unreadable(Int, name: String, SnapshotError)
  /// It was being written whenever it was looked at.
  case busy(Int, name: String)

  package var description: String {
    switch self {
    case .process(let error): "\(error)"
    case .noPage(let process, let name, let child?):
      "\(process) (\(name)): publishes no statistics page; its child \(child) does"
    case .noPage(let process, let name, nil):
      """
      \(process) (\(name)): publishes no statistics page; start it by 'hugespan run', with page:on in HUGESPAN_CONF, or call \
      hs_page_open ('hugespan coverage' shows any process)
      """
    case .notAllowed(let process, let name):
      "\(process) (\(name)): its statistics page may be read by the same user and by root only"
    case .unreadable(let process, let name, let error): "\(process) (\(name)): \(error.description)"
    case .busy(let process, let name):
      "\(process) (\(name)): the statistics page is never still; is the process stopped?"
    }
  }
}

/// Reads the statistics pages of one process, again and again.
package final class PageReader {
  package let process: Int
  package let name: String
  private let directory: String
  private var files: [(file: Int32, path: String)] = []

  /// Finds the pages of `process`.
  package init(process: Int, proc: String = "/proc") throws(PageError) {
    self.process = process
    directory = "\(proc)/\(process)"
    guard let comm = contents(ofFile: directory + "/comm") else { throw .process(.noProcess(process)) }
    name = comm.split(separator: "\n").first.map(String.init) ?? ""
    try open()
  }

  deinit { for each in files { close(each.file) } }

  private static let fileName = "/memfd:hugespan-heap"
  /// Heaps of a process that are looked at.
  private static let mostPages = 64
  /// Nanoseconds until a page that is never still is given up.
  private static let patience: UInt64 = 300_000_000

  private func open() throws(PageError) {
    var coverage = CoverageReader()
    coverage.proc = String(directory.dropLast("/\(process)".count))
    guard let descriptors = opendir(directory + "/fd") else {
      // The reader of mappings knows what may be the matter with a process.
      do throws(CoverageError) { _ = try coverage.look(at: process, mappings: false) } catch { throw .process(error) }
      throw .process(.notAllowed(process, name: name))
    }
    defer { closedir(descriptors) }
    var refused = false
    while let entry = readdir(descriptors) {
      let number = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      let path = "\(directory)/fd/\(number)"
      guard Int(number) != nil, let target = link(path), target.hasPrefix(PageReader.fileName) else { continue }
      // What the link names may be another file by now, and a pipe would wait for its writer.
      let file = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
      if files.count == PageReader.mostPages { break }
      if file < 0 { refused = true } else if isMapped(file) { files.append((file, path)) } else { close(file) }
    }
    if !files.isEmpty { return }
    if refused { throw .notAllowed(process, name: name) }
    do throws(CoverageError) { _ = try coverage.look(at: process, mappings: false) } catch { throw .process(error) }
    throw .noPage(process, name: name, child: coverage.children(of: process).first { hasPage($0) })
  }

  /// Whether a process maps a page, as the name of a mapping says.
  private func hasPage(_ process: Int) -> Bool {
    contents(ofFile: String(directory.dropLast("\(self.process)".count)) + "\(process)/maps")?
      .contains(PageReader.fileName) ?? false
  }

  private func link(_ path: String) -> String? {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) { buffer in
      let count = buffer.withMemoryRebound(to: CChar.self) { readlink(path, $0.baseAddress!, 256) }
      return count <= 0 ? nil : String(decoding: buffer.prefix(count), as: UTF8.self)
    }
  }

  /// Whether the process maps the file: a child has its parent's open, until it executes another program.
  private func isMapped(_ file: Int32) -> Bool {
    var about = stat()
    guard fstat(file, &about) == 0, about.st_mode & S_IFMT == S_IFREG, about.st_size <= PublishedHeap.byteCount,
      let maps = contents(ofFile: directory + "/maps")
    else { return false }
    for line in maps.split(separator: "\n") where line.contains(PageReader.fileName) {
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      if fields.count > 4, fields[4] == "\(about.st_ino)" { return true }
    }
    return false
  }

  /// The heaps as they are published now, by their number.
  package func read() throws(PageError) -> [PublishedSnapshot] {
    var result: [PublishedSnapshot] = []
    for each in files {
      let snapshot = try read(each.file)
      // A heap may be gone, and another program may have taken the process' place: what is read then is what was left.
      if isStill(each.file, each.path) { result.append(snapshot) }
    }
    if access(directory, F_OK) != 0 { throw .process(.ended(process, name: name)) }
    if result.isEmpty { throw .noPage(process, name: name, child: nil) }
    return result.sorted { $0.heap.heapNumber < $1.heap.heapNumber }
  }

  /// Whether `path` still leads to the open file.
  private func isStill(_ file: Int32, _ path: String) -> Bool {
    var (open, named) = (stat(), stat())
    return fstat(file, &open) == 0 && stat(path, &named) == 0 && open.st_ino == named.st_ino
      && open.st_dev == named.st_dev
  }

  private func read(_ file: Int32) throws(PageError) -> PublishedSnapshot {
    // A write takes a fraction of a millisecond.
    let start = hs_shim_monotonic_nanoseconds()
    var attempt = 0
    while hs_shim_monotonic_nanoseconds() - start < PageReader.patience {
      if attempt > 0 { usleep(attempt < 20 ? 200 : 2000) }
      attempt += 1
      let head = copy(file, from: 0, bytes: PublishedHeap.recordsOffset)
      let header = try header(head)
      if header.sequence & 1 != 0 { continue }
      let bytes =
        head
        + copy(
          file, from: PublishedHeap.recordsOffset, bytes: Int(header.recordsEnd) * Int(header.blockBytes))
      let after = try self.header(copy(file, from: 0, bytes: PublishedHeap.recordsOffset))
      if after.sequence != header.sequence { continue }
      do throws(SnapshotError) { return try snapshot(bytes) } catch { throw .unreadable(process, name: name, error) }
    }
    throw .busy(process, name: name)
  }

  private func snapshot(_ bytes: [UInt8]) throws(SnapshotError) -> PublishedSnapshot {
    var result: Result<PublishedSnapshot, SnapshotError> = .failure(.foreign)
    bytes.withUnsafeBytes { buffer in
      do throws(SnapshotError) { result = .success(try PublishedSnapshot(buffer)) } catch { result = .failure(error) }
    }
    return try result.get()
  }

  private func header(_ bytes: [UInt8]) throws(PageError) -> PublishedHeap {
    var result: Result<PublishedHeap, SnapshotError> = .failure(.foreign)
    bytes.withUnsafeBytes { buffer in
      do throws(SnapshotError) { result = .success(try PublishedSnapshot.header(buffer)) } catch {
        result = .failure(error)
      }
    }
    switch result {
    case .success(let header): return header
    case .failure(let error): throw .unreadable(process, name: name, error)
    }
  }

  /// As many of the bytes as there are.
  private func copy(_ file: Int32, from offset: Int, bytes count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      while filled < count {
        let got = pread(file, buffer.baseAddress! + filled, count - filled, off_t(offset + filled))
        if got <= 0 { break }
        filled += got
      }
    }
  }
}
