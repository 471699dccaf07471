// The heap's life in a process that knows nothing of it: made before main, ticked by a thread.

import CHugeSpan
import CHugeSpanJemalloc

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// What HUGESPAN_CONF said of the process. The path points into the environment, which is the program's, and is copied.
nonisolated(unsafe) var runsScavenger = false
/// And whether its thread is one that the C library does not know of.
nonisolated(unsafe) private var isScavengerBare = false
/// Bytes of the path's pattern; 0 if no statistics are wanted.
nonisolated(unsafe) var statisticsPathLength = 0

/// As adapter.h says.
@c @implementation
public func hs_adapter_create(_ configuration: UnsafePointer<CChar>?) -> Bool {
  var options = hs_options()
  hs_options_init(&options, MemoryLayout<hs_options>.size)
  var process = hs_process_options()
  hs_process_options_init(&process, MemoryLayout<hs_process_options>.size)
  if let configuration {
    var error = hs_options_error()
    guard hs_options_parse(configuration, &options, &process, &error) == HS_OK else {
      sayMistake(&error)
      return false
    }
  }
  runsScavenger = process.scavenger
  isScavengerBare = process.bare
  if let path = process.statistics_path {
    // The parser takes no path that would not fit.
    statisticsPathLength = min(process.statistics_path_length, Int(HS_PATH_BYTES))
    hs_report_path_pattern().withMemoryRebound(to: CChar.self, capacity: Int(HS_PATH_BYTES)) {
      $0.update(from: path, count: statisticsPathLength)
    }
  }
  guard let translated = heapOptions(options) else {
    say("HUGESPAN_CONF: these settings make no sense together")
    return false
  }
  do throws(HeapError) {
    adapterHeap = try LinuxHeap.create(translated)
    // For people only: the program runs without.
    if process.page && adapterHeap.pointee.openPage() != nil {
      say("the kernel gives no statistics page, so this process cannot be explained or watched")
    }
    return true
  } catch {
    switch error {
    case .unsupportedPageSize: say("pages are not 4 KiB, or hugepages not 2 MiB, on this machine")
    case .strategyNotSupported: say("this kernel lacks what the strategy needs; choose another in HUGESPAN_CONF")
    case .kernel: say("the kernel gives no memory for the heap's tables")
    case .limitExceeded, .addressNotFree, .invalidRequest, .sharedWithChild:
      say("the heap cannot be made with these settings")
    }
    return false
  }
}

private func say(_ message: StaticString) {
  var text = FixedText(hs_report_text(), capacity: Int(HS_REPORT_BYTES))
  text.append("hugespan: ")
  text.append(message)
  text.append("\n")
  hs_adapter_say(hs_report_text(), text.count)
}

private func sayMistake(_ error: inout hs_options_error) {
  var text = FixedText(hs_report_text(), capacity: Int(HS_REPORT_BYTES))
  text.append("hugespan: HUGESPAN_CONF: ")
  withUnsafeBytes(of: &error.message) { bytes in
    for byte in bytes {
      if byte == 0 { break }
      text.append(byte)
    }
  }
  text.append("\n")
  hs_adapter_say(hs_report_text(), text.count)
}

/// As adapter.h says.
@c @implementation
public func hs_adapter_start_scavenger() {
  if runsScavenger && !LinuxHeap.startScavenger(adapterHeap, isBare: isScavengerBare) {
    say("no thread can be started, so no memory is released while the program idles")
  }
}

// MARK: Fork

/// As adapter.h says.
@c @implementation
public func hs_adapter_register_fork_handlers() -> Bool { ForkHandlers.register() == nil }
