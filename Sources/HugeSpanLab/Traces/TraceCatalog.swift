// Where the traces are that come with the project.

import Foundation

/// The bundled traces.
package enum TraceCatalog {
  /// The extension of trace files.
  package static let fileExtension = "hstrace"

  /// Folders in which bundled traces may be: in the sources that this was built from, or in a package around the program
  /// or around the working folder.
  static func folders(executable: String, workingFolder: String, sourceFile: String = #filePath) -> [String] {
    var folders: [String] = []
    for start in [sourceFile, executable, workingFolder + "/."] {
      var folder = URL(fileURLWithPath: start).deletingLastPathComponent()
      while true {
        if FileManager.default.fileExists(atPath: folder.appendingPathComponent("Package.swift").path) {
          folders.append(folder.appendingPathComponent("Benchmarks/Traces").path)
        }
        if folder.path == "/" { break }
        folder.deleteLastPathComponent()
      }
    }
    return folders
  }

  /// Paths of the bundled traces by name, from the first folder that has any.
  package static func bundled() -> [String] {
    let executable = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/"
    let candidates = folders(executable: executable, workingFolder: FileManager.default.currentDirectoryPath)
    for folder in candidates {
      let traces = traces(in: folder)
      if !traces.isEmpty { return traces }
    }
    return []
  }

  static func traces(in folder: String) -> [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.filter { $0.hasSuffix("." + fileExtension) }.sorted().map { folder + "/" + $0 }
  }
}
