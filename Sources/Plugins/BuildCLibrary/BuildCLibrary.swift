// `swift package build-c-library`: the C library, ready to be installed under a prefix.
//
// SwiftPM builds the shared library and a raw archive. The raw archive must not be shipped: it carries weak copies of the
// Swift runtime's symbols, and a program with a normal Swift runtime that links them crashes at its start. So the archive's
// objects are linked into one, and every symbol but ours is made local.

import Foundation
import PackagePlugin

@main
struct BuildCLibrary: CommandPlugin {
  static let help = """
    Builds libhugespan.so and libhugespan.a, with header, pkg-config file and CMake package, and what runs programs
    on the heap: libhugespan-jemalloc.so, which is preloaded, and the Python package (share/hugespan/python).

    Usage: swift package --allow-writing-to-package-directory build-c-library [--output DIR]

      --output DIR   where lib/, include/ and share/ are made (default: .build/c-library). A directory outside of
                     the package needs --allow-writing-to-directory DIR as well.
    """

  func performCommand(context: PluginContext, arguments: [String]) async throws {
    var extractor = ArgumentExtractor(arguments)
    if extractor.extractFlag(named: "help") > 0 {
      print(Self.help)
      return
    }
    let given = extractor.extractOption(named: "output")
    if let unknown = extractor.remainingArguments.first {
      throw Failure("unknown argument '\(unknown)'; the only option is --output DIR")
    }
    let root = context.package.directoryURL
    let output =
      given.last.map { URL(fileURLWithPath: $0, relativeTo: root) } ?? root.appending(path: ".build/c-library")

    let shared = try build("hugespan-shared", linkerFlags: ["-soname=libhugespan.so.0"])
    let archive = try build("hugespan-embedded", linkerFlags: [])
    let frontEnd = try build("hugespan-jemalloc", linkerFlags: ["-soname=libhugespan-jemalloc.so"])
    guard let sharedLibrary = shared.first(where: { $0.url.pathExtension == "so" })?.url,
      let frontEndLibrary = frontEnd.first(where: { $0.url.pathExtension == "so" })?.url,
      let rawArchive = archive.first(where: { $0.url.pathExtension == "a" })?.url
    else { throw Failure("the build left no library") }

    try install(
      root: root, output: output, shared: sharedLibrary, archive: rawArchive, work: context.pluginWorkDirectoryURL)
    try replace(output.appending(path: "lib/libhugespan-jemalloc.so"), with: frontEndLibrary)
    try installPythonPackage(root: root, output: output)
    print(
      "libhugespan.so, libhugespan.a, hugespan.h, hugespan.pc, a CMake package, libhugespan-jemalloc.so and the Python "
        + "package are under " + output.path)
  }

  private func build(_ product: String, linkerFlags: [String]) throws -> [PackageManager.BuildResult.BuiltArtifact] {
    var parameters = PackageManager.BuildParameters(configuration: .release, logging: .concise)
    parameters.otherLinkerFlags = linkerFlags
    let result = try packageManager.build(.product(product), parameters: parameters)
    guard result.succeeded else { throw Failure("\(product) does not build:\n\(result.logText)") }
    return result.builtArtifacts
  }

  private func install(root: URL, output: URL, shared: URL, archive: URL, work: URL) throws {
    let files = FileManager.default
    let library = output.appending(path: "lib")
    let include = output.appending(path: "include")
    for directory in [library.appending(path: "pkgconfig"), library.appending(path: "cmake/HugeSpan"), include] {
      try files.createDirectory(at: directory, withIntermediateDirectories: true)
    }
    let header = root.appending(path: "Sources/CHugeSpan/include/hugespan.h")
    try replace(include.appending(path: "hugespan.h"), with: header)
    try replace(library.appending(path: "libhugespan.so.0"), with: shared)
    try? files.removeItem(at: library.appending(path: "libhugespan.so"))
    try files.createSymbolicLink(
      atPath: library.appending(path: "libhugespan.so").path, withDestinationPath: "libhugespan.so.0")

    try files.createDirectory(at: work, withIntermediateDirectories: true)
    let object = work.appending(path: "hugespan.o")
    try run("ld", ["-r", "--whole-archive", archive.path, "-o", object.path])
    try run("objcopy", ["--wildcard", "--keep-global-symbol=hs_*", object.path])
    let finished = library.appending(path: "libhugespan.a")
    try? files.removeItem(at: finished)
    try run("ar", ["rcsD", finished.path, object.path])

    let version = try headerVersion(header)
    try Self.pkgConfig(prefix: output.path, version: version)
      .write(to: library.appending(path: "pkgconfig/hugespan.pc"), atomically: true, encoding: .utf8)
    try Self.cmakeConfig
      .write(to: library.appending(path: "cmake/HugeSpan/HugeSpanConfig.cmake"), atomically: true, encoding: .utf8)
    try Self.cmakeVersion(version).write(
      to: library.appending(path: "cmake/HugeSpan/HugeSpanConfigVersion.cmake"), atomically: true, encoding: .utf8)
  }

  /// Its sources only: what an interpreter left beside them is of that interpreter.
  private func installPythonPackage(root: URL, output: URL) throws {
    let files = FileManager.default
    let package = output.appending(path: "share/hugespan/python/hugespan")
    try? files.removeItem(at: package)
    try files.createDirectory(at: package, withIntermediateDirectories: true)
    let sources = root.appending(path: "Sources/HugeSpanPython/hugespan")
    for source in try files.contentsOfDirectory(at: sources, includingPropertiesForKeys: nil)
    where source.pathExtension == "py" {
      try files.copyItem(at: source, to: package.appending(path: source.lastPathComponent))
    }
  }

  private func replace(_ target: URL, with source: URL) throws {
    try? FileManager.default.removeItem(at: target)
    try FileManager.default.copyItem(at: source, to: target)
  }

  /// The version, from the one place where it is written.
  private func headerVersion(_ header: URL) throws -> String {
    let text = try String(contentsOf: header, encoding: .utf8)
    func number(_ name: String) throws -> String {
      guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("#define \(name) ") }),
        let value = line.split(separator: " ").last
      else { throw Failure("hugespan.h does not define \(name)") }
      return String(value)
    }
    return try number("HS_VERSION_MAJOR") + "." + number("HS_VERSION_MINOR")
  }

  private func run(_ tool: String, _ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [tool] + arguments
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure("\(tool) failed with status \(process.terminationStatus) (it comes with binutils)")
    }
  }

  static func pkgConfig(prefix: String, version: String) -> String {
    """
    prefix=${pcfiledir}/../..
    libdir=${prefix}/lib
    includedir=${prefix}/include

    Name: hugespan
    Description: A page heap that keeps memory on transparent hugepages
    Version: \(version)
    Libs: -L${libdir} -lhugespan
    Libs.private: -pthread
    Cflags: -I${includedir}

    """
  }

  static let cmakeConfig = """
    # Targets HugeSpan::hugespan (shared) and HugeSpan::hugespan_static.
    get_filename_component(_hugespan_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
    if(NOT TARGET HugeSpan::hugespan)
      add_library(HugeSpan::hugespan SHARED IMPORTED)
      set_target_properties(HugeSpan::hugespan PROPERTIES
        IMPORTED_LOCATION "${_hugespan_prefix}/lib/libhugespan.so.0"
        IMPORTED_SONAME "libhugespan.so.0"
        INTERFACE_INCLUDE_DIRECTORIES "${_hugespan_prefix}/include")
      add_library(HugeSpan::hugespan_static STATIC IMPORTED)
      set_target_properties(HugeSpan::hugespan_static PROPERTIES
        IMPORTED_LOCATION "${_hugespan_prefix}/lib/libhugespan.a"
        INTERFACE_INCLUDE_DIRECTORIES "${_hugespan_prefix}/include"
        INTERFACE_LINK_LIBRARIES "pthread")
    endif()

    """

  static func cmakeVersion(_ version: String) -> String {
    """
    set(PACKAGE_VERSION "\(version)")
    if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
      set(PACKAGE_VERSION_EXACT TRUE)
    endif()
    # Before version 1 a minor version may break.
    if(PACKAGE_FIND_VERSION STREQUAL "" OR PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
      set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()

    """
  }
}

/// What went wrong, in a line.
private struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
