// swift-tools-version: 6.3
//
// One engine directory, compiled twice: `HugeSpanCore` is ordinary Swift, `HugeSpanEmbedded` is the same files (by a
// relative symlink) as Embedded Swift without a runtime. Nothing here depends on another package, and nothing that
// the `HugeSpan` product reaches uses an unsafe flag.

import PackageDescription

/// Embedded Swift, and any allocation is a compile error: the heap sits under malloc and may not call it.
let embedded: [SwiftSetting] = [
  .enableExperimentalFeature("Embedded"), .unsafeFlags(["-no-allocations"]),
]

/// Tests are not optimised, also where what they test is: that takes the compiler longer than all of the sources.
let tests: [SwiftSetting] = [.unsafeFlags(["-Onone"], .when(configuration: .release))]

let package = Package(
  name: "hugespan",
  products: [
    .library(name: "HugeSpan", targets: ["HugeSpan"]),
    .library(name: "hugespan-embedded", type: .static, targets: ["HugeSpanEmbedded"]),
    .library(name: "hugespan-shared", type: .dynamic, targets: ["HugeSpanEmbedded"]),
    .library(name: "hugespan-recorder", type: .dynamic, targets: ["HugeSpanRecorder"]),
    .library(name: "hugespan-jemalloc", type: .dynamic, targets: ["HugeSpanJemalloc"]),
    .executable(name: "hugespan", targets: ["hugespan-cli"]),
    .executable(name: "hugespan-bench", targets: ["hugespan-bench"]),
    .plugin(name: "BuildCLibrary", targets: ["BuildCLibrary"]),
  ],
  targets: [
    // The page heap.
    .target(name: "CHugeSpanShims"),
    .target(name: "HugeSpanCore", dependencies: ["CHugeSpanShims"]),
    .target(name: "HugeSpan", dependencies: ["HugeSpanCore"]),

    // The C library: the same core and its C interface without a runtime, and once more as ordinary Swift for tests.
    .target(name: "CHugeSpan"),
    .target(name: "HugeSpanABI", dependencies: ["CHugeSpan", "CHugeSpanShims", "HugeSpanCore"]),
    .target(
      name: "HugeSpanEmbedded", dependencies: ["CHugeSpan", "CHugeSpanShims"], exclude: ["hugespan.map"],
      swiftSettings: embedded,
      linkerSettings: [
        .unsafeFlags([
          "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/HugeSpanEmbedded/hugespan.map",
        ])
      ]),

    .plugin(
      name: "BuildCLibrary",
      capability: .command(
        intent: .custom(
          verb: "build-c-library", description: "Build libhugespan.so and libhugespan.a, ready to install."),
        permissions: [.writeToPackageDirectory(reason: "To write the libraries and their header.")]),
      path: "Sources/Plugins/BuildCLibrary"),

    // Recording of real programs.
    .target(name: "TraceFormat"),
    .target(name: "CRecordingLog"),
    .target(name: "CHugeSpanLogWriter", dependencies: ["CRecordingLog"], cSettings: [.unsafeFlags(["-O2"])]),
    .target(name: "CHugeSpanRecorder", dependencies: ["CHugeSpanLogWriter"], cSettings: [.unsafeFlags(["-O2"])]),
    .target(
      name: "HugeSpanRecorder", dependencies: ["CHugeSpanRecorder", "CHugeSpanLogWriter"], exclude: ["recorder.map"],
      swiftSettings: embedded,
      linkerSettings: [
        .unsafeFlags([
          "-Xlinker",
          "--version-script=\(Context.packageDirectory)/Sources/HugeSpanRecorder/recorder.map",
        ])
      ]),

    // The heap under stock jemalloc: the same core once more, in a library that is preloaded before jemalloc's. It must be
    // the first to be initialised.
    .target(name: "CHugeSpanJemalloc", dependencies: ["CHugeSpanLogWriter"], cSettings: [.unsafeFlags(["-O2"])]),
    .target(
      name: "HugeSpanJemalloc",
      dependencies: ["CHugeSpan", "CHugeSpanShims", "CHugeSpanJemalloc", "CHugeSpanLogWriter"],
      exclude: ["jemalloc.map"], swiftSettings: embedded,
      linkerSettings: [
        .unsafeFlags([
          "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/HugeSpanJemalloc/jemalloc.map",
          "-Xlinker", "-z", "-Xlinker", "initfirst",
        ])
      ]),

    // Replay, comparison, the command line.
    .target(name: "OptionTable"),
    .target(name: "HugeSpanLab", dependencies: ["HugeSpanCore", "CHugeSpanShims", "TraceFormat", "CRecordingLog"]),
    .executableTarget(
      name: "hugespan-cli",
      dependencies: ["HugeSpanABI", "CHugeSpan", "HugeSpanLab", "TraceFormat", "OptionTable", "CHugeSpanShims"]),

    // Benchmarks.
    .target(name: "Harness", path: "Benchmarks/Harness"),
    .executableTarget(
      name: "hugespan-bench", dependencies: ["Harness", "HugeSpanCore", "OptionTable"],
      path: "Benchmarks/hugespan-bench"),

    .executableTarget(
      name: "simulation-scale", dependencies: ["HugeSpanCore", "HugeSpanLab", "OptionTable", "CHugeSpanShims"],
      path: "Benchmarks/Simulation"),

    .executableTarget(
      name: "discard-verdicts", dependencies: ["HugeSpanCore", "HugeSpanLab", "OptionTable", "CHugeSpanShims"],
      path: "Benchmarks/Discard"),

    // The Swift example of an allocator on the heap; the others are built against the C library, by Docs/Examples/run.
    .executableTarget(name: "slab-example", dependencies: ["HugeSpan"], path: "Docs/Examples/Slab"),

    // Tests.
    .target(
      name: "TestKernels", dependencies: ["HugeSpanCore", "CHugeSpanShims"], path: "Tests/TestKernels"),
    .target(name: "TestSupport", path: "Tests/TestSupport"),
    .testTarget(
      name: "HugeSpanCoreTests",
      dependencies: ["HugeSpanCore", "CHugeSpanShims", "HugeSpanLab", "TestKernels", "discard-verdicts"]),
    .testTarget(name: "HugeSpanTests", dependencies: ["HugeSpan"], swiftSettings: tests),
    .testTarget(name: "HugeSpanABITests", dependencies: ["HugeSpanABI", "CHugeSpan"], swiftSettings: tests),
    .testTarget(name: "TraceFormatTests", dependencies: ["TraceFormat"], swiftSettings: tests),
    .testTarget(
      name: "ProgramTests", dependencies: ["TraceFormat", "HugeSpanLab", "HugeSpanCore", "CRecordingLog"],
      swiftSettings: tests),
    .testTarget(name: "OptionTableTests", dependencies: ["OptionTable"], swiftSettings: tests),
    .testTarget(
      name: "HugeSpanLabTests",
      dependencies: ["HugeSpanLab", "HugeSpanCore", "TraceFormat", "TestKernels", "TestSupport"],
      swiftSettings: tests),
    .testTarget(
      name: "CommandTests",
      dependencies: ["HugeSpanLab", "HugeSpanCore", "OptionTable", "TraceFormat", "TestSupport", "hugespan-cli"],
      swiftSettings: tests),
  ]
)
