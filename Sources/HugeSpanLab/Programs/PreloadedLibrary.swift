// Where a library to be preloaded is: beside this program when the whole package was built, else it is built now.

import CRecordingLog
import Glibc

/// A shared library of this package that is preloaded into other programs.
package struct PreloadedLibrary: Sendable {
  /// The product that it is; the file is named after it.
  package var product: String
  /// What it is to the user.
  package var title: String

  /// Logs the program's allocations.
  package static let recorder = PreloadedLibrary(product: "hugespan-recorder", title: "the recorder")
  private init(product: String, title: String, installedName: String? = nil) {
    self.product = product
    self.title = title
    self.installedName = installedName
  }

  /// Puts the heap under jemalloc.
  package static let jemalloc = PreloadedLibrary(product: "hugespan-jemalloc", title: "the front end for jemalloc")

  /// The C library: preloaded into nothing, but found and built in the same way.
  package static let heap = PreloadedLibrary(
    product: "hugespan-shared", title: "the C library", installedName: "libhugespan.so.0")

  /// The file's name in a prefix, where it is another.
  private var installedName: String?

  private var fileName: String { "lib\(product).so" }

  /// The environment variable that names the directory of the libraries, where they are not beside this program: those of
  /// another build, say.
  package static let directoryVariable = "HUGESPAN_LIBRARIES"

  /// The library's path; built on the spot when it is not there yet, which `say` is told.
  package func locate(say: (String) -> Void) throws(ProgramError) -> String {
    var places: [String] = []
    if let chosen = getenv(Self.directoryVariable).map({ String(cString: $0) }), !chosen.isEmpty {
      for name in [fileName, installedName ?? fileName] where access("\(chosen)/\(name)", R_OK) == 0 {
        return Self.absolute("\(chosen)/\(name)")
      }
      throw ProgramError(.unavailable, "\(fileName) is not in \(chosen), which \(Self.directoryVariable) names")
    }
    if let image = Self.imageDirectory() { places.append(image) }
    let executable = Self.parent(of: Self.executablePath())
    if !places.contains(executable) { places.append(executable) }
    // Installed: PREFIX/bin and PREFIX/lib.
    places.append("\(executable)/../lib")
    let root = Self.packageRoot(near: executable)
    if let root { places.append("\(root)/.build/release") }
    for place in places {
      for name in [fileName, installedName ?? fileName] where access("\(place)/\(name)", R_OK) == 0 {
        return Self.absolute("\(place)/\(name)")
      }
    }
    guard let root else {
      throw ProgramError(
        .unavailable,
        "\(fileName) is neither beside \(executable) nor can it be built: the package's sources are not here")
    }
    say("building \(title) (swift build -c release --product \(product))")
    let status = Self.run(["swift", "build", "-c", "release", "--product", product, "--package-path", root])
    let built = "\(root)/.build/release/\(fileName)"
    guard status == 0, access(built, R_OK) == 0 else {
      throw ProgramError(.unavailable, "\(title) could not be built (swift build ended with status \(status))")
    }
    return Self.absolute(built)
  }

  /// The directory of the Python package that is the front end for CPython.
  package static func pythonPackage() throws(ProgramError) -> String {
    let executable = parent(of: executablePath())
    var places = ["\(executable)/../share/hugespan/python/hugespan"]
    if let root = packageRoot(near: executable) { places.append("\(root)/Sources/HugeSpanPython/hugespan") }
    for place in places where access("\(place)/__main__.py", R_OK) == 0 { return absolute(place) }
    throw ProgramError(
      .unavailable, "the Python package is not here (looked for: \(places.joined(separator: ", ")))")
  }

  /// The directory of the program or library that this code is in: a test bundle is a library.
  private static func imageDirectory() -> String? {
    guard let name = hs_host_image_path() else { return nil }
    let path = String(cString: name)
    return path.contains("/") ? parent(of: path) : nil
  }

  private static func executablePath() -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let count = readlink("/proc/self/exe", &buffer, Int(PATH_MAX))
    return count > 0 ? String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) : "/"
  }

  /// The package that this program was built in: above the executable, else where its sources were compiled.
  private static func packageRoot(near directory: String) -> String? {
    var candidate = directory
    while candidate != "/" && !candidate.isEmpty {
      if isPackage(candidate) { return candidate }
      candidate = parent(of: candidate)
    }
    // This file is four levels below the root.
    let source = parent(of: parent(of: parent(of: parent(of: #filePath))))
    return isPackage(source) ? source : nil
  }

  private static func isPackage(_ directory: String) -> Bool {
    access("\(directory)/Package.swift", R_OK) == 0 && access("\(directory)/Sources/HugeSpanRecorder", R_OK) == 0
  }

  private static func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private static func absolute(_ path: String) -> String {
    guard let resolved = realpath(path, nil) else { return path }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// Runs a command with our standard error for both of its outputs, so that ours stays clean.
  private static func run(_ command: [String]) -> Int32 {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO)
    var process: pid_t = 0
    let error = withCStrings(command) { posix_spawnp(&process, command[0], &actions, nil, $0, environ) }
    if error != 0 { return 127 }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + status & 0x7F
  }
}

/// A name for a library that can stand in LD_PRELOAD, where blanks and colons separate: the path itself, or a link to it.
final class PreloadName {
  let path: String
  private let directory: PrivateDirectory?

  init(for library: String) throws(ProgramError) {
    if !library.contains(where: { $0 == ":" || $0.isWhitespace }) {
      path = library
      directory = nil
      return
    }
    let made = try PrivateDirectory(for: "a link to \(library)")
    directory = made
    path = "\(made.path)/library.so"
    if symlink(library, path) != 0 {
      throw ProgramError(.unavailable, "\(path): cannot be made: \(errorText(errno))")
    }
  }
}

/// Calls `body` with `strings` as a null-terminated array of C strings.
func withCStrings<Result>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  var pointers = strings.map { strdup($0) }
  pointers.append(nil)
  defer { for pointer in pointers { free(pointer) } }
  return pointers.withUnsafeBufferPointer { body($0.baseAddress!) }
}
