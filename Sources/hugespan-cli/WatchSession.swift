// The loop of `hugespan watch`: waits for time, keys and signals, looks, shows.

import Glibc
import HugeSpanLab
import OptionTable

/// One run of the command, from the first look to the exit status.
struct WatchSession {
  var source: any WatchSource
  let program: WatchedProgram?
  /// Nil where lines are written.
  let terminal: WatchTerminal?
  /// The end of the pipe that signals come from.
  let signals: Int32
  let glyphs: WatchGlyphs
  let limit: Int
  let json: TextOutput?
  /// JSON is all that standard output gets.
  let isSilent: Bool
  var display: WatchDisplay

  private var looks = 0
  private var start: UInt64 = 0
  private var lastLook: UInt64 = 0
  private var title = ""

  init(
    source: any WatchSource, program: WatchedProgram?, terminal: WatchTerminal?, signals: Int32, glyphs: WatchGlyphs,
    limit: Int, json: TextOutput?, isSilent: Bool, display: WatchDisplay
  ) {
    self.source = source
    self.program = program
    self.terminal = terminal
    self.signals = signals
    self.glyphs = glyphs
    self.limit = limit
    self.json = json
    self.isSilent = isSilent
    self.display = display
  }

  /// Why the view is over.
  private enum Ending {
    /// The user has pressed a key, the looks are done, or nobody reads any more.
    case asked
    case processEnded
    case signal(WatchSignal)
  }

  mutating func run() throws -> ExitCode {
    // Whatever happens below, also an error.
    defer { terminal?.leave() }
    let ending: Ending
    do { ending = try loop() } catch {
      program?.end()
      throw error
    }
    switch ending {
    case .asked:
      if program != nil && program?.ended() == nil {
        display.isEnding = true
        draw()
        program?.end()
      }
      return .success
    case .processEnded:
      terminal?.leave()
      guard let program else {
        printError("hugespan: \(title) has ended")
        return .success
      }
      return waitForEnd(of: program)
    case .signal(let signal):
      terminal?.leave()
      guard let program else { WatchSignals.end(by: signal.number) }
      program.send(signal)
      return waitForEnd(of: program)
    }
  }

  /// The status of the program, once it has ended; until then it gets every signal.
  private func waitForEnd(of program: WatchedProgram) -> ExitCode {
    while program.ended() == nil {
      var waiting = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
      guard poll(&waiting, 1, 200) > 0 else { continue }
      for signal in WatchSignals.read(from: signals) {
        passOn(signal)
        if signal.number == SIGTSTP { stop() }
        // A program that was stopped would not see its end.
        if WatchSignals.ending.contains(signal.number) { program.resume() }
      }
    }
    let name = title.isEmpty ? "\(program.name) (\(program.process))" : title
    switch program.ended() {
    case .signalled(let signal):
      printError("hugespan: \(name) was ended by signal \(signal)")
      return ExitCode(128 + signal)
    case .exited(let status):
      printError("hugespan: \(name) has ended with status \(status)")
      return ExitCode(status)
    case nil: return .success
    }
  }

  /// Stops this process, so that its shell has the terminal.
  private func stop() {
    // Not by SIGTSTP, which the kernel drops where no shell would notice.
    kill(getpid(), SIGSTOP)
  }

  private func passOn(_ signal: WatchSignal) {
    if signal.number != SIGCHLD && signal.number != SIGWINCH { program?.send(signal) }
  }

  private func now(_ clock: clockid_t = CLOCK_MONOTONIC) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  private mutating func loop() throws -> Ending {
    var keyReader = WatchKeyReader()
    while true {
      let time = now()
      if looks == 0 || time >= lastLook + display.pace.interval {
        lastLook = time
        if looks == 0 { start = time }
        if let ending = try look() { return ending }
        if program?.ended() != nil { return .processEnded }
        if looks >= limit { return .asked }
      }
      var waiting = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
      // A descriptor of -1 is passed over.
      waiting.append(pollfd(fd: terminal?.keys ?? -1, events: Int16(POLLIN), revents: 0))
      let due = lastLook + display.pace.interval
      let rest = due - min(due, now())
      // Rounded up: to wake before it is time would be to wake twice.
      if poll(&waiting, 2, Int32(clamping: (rest + 999_999) / 1_000_000)) <= 0 { continue }
      if waiting[0].revents != 0 {
        for signal in WatchSignals.read(from: signals) { if let ending = handle(signal) { return ending } }
      }
      if waiting[1].revents != 0, let terminal {
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = read(terminal.keys, &bytes, bytes.count)
        // The terminal is gone, or what gave the keys has ended.
        if count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN) {
          terminal.dropKeys()
          if isatty(STDOUT_FILENO) == 0 { return .asked }
        }
        for key in keyReader.keys(bytes.prefix(max(count, 0))) {
          if key == .quit { return .asked }
          guard display.handle(key) else { continue }
          if !draw() { return .asked }
          // Its mappings are not known yet.
          if display.view == .mappings && !display.isPaused { lastLook = 0 }
        }
      }
    }
  }

  /// Nil if the view goes on.
  private mutating func handle(_ signal: WatchSignal) -> Ending? {
    switch signal.number {
    case SIGWINCH: draw()
    case SIGCHLD: if program?.ended() != nil { return .processEnded }
    case SIGTSTP:
      terminal?.leave()
      passOn(signal)
      stop()
    case SIGCONT:
      terminal?.enter()
      passOn(signal)
      draw()
    case let number where WatchSignals.ending.contains(number): return .signal(signal)
    default: passOn(signal)
    }
    return nil
  }

  /// Looks once and shows it. Returns why the view is over, if it is.
  private mutating func look() throws -> Ending? {
    let before = now(CLOCK_PROCESS_CPUTIME_ID)
    var sample: WatchSample
    do throws(CoverageError) {
      // Only lines can do without; a terminal may be switched to them at any time, but that costs a look only then.
      sample = try source.look(mappings: terminal != nil && display.view == .mappings && !display.isPaused)
    } catch {
      // A program of our own has a status to tell, however short it was.
      if error.isVanished && (looks > 0 || program != nil) { return .processEnded }
      throw CommandFailure("\(error)", status: error.isVanished ? .missingInput : .unavailable)
    }
    sample.seconds = Double(lastLook - min(start, lastLook)) / 1e9
    title = "\(WatchCanvas.printable(sample.name)) (\(sample.process))"
    display.ring.append(sample)
    // The screen is taken only when there is something to show on it.
    if looks == 0 { terminal?.enter() }
    let isShown = terminal != nil ? draw() : isSilent || writeLine(sample)
    if try json?.write(WatchRecord(sample, interval: display.pace.interval).line()) == false { return .asked }
    looks += 1
    let interval = display.pace.interval
    display.pace.note(cost: now(CLOCK_PROCESS_CPUTIME_ID) - before)
    // On a screen the line of state says so.
    if terminal == nil && !isSilent && display.pace.isLengthened && display.pace.interval > 2 * interval {
      let seconds = HumanNumber.duration(Double(display.pace.interval) / 1e9)
      printError("hugespan: looks take long: \(seconds) apart from now on")
    }
    return isShown ? nil : .asked
  }

  @discardableResult
  private func draw() -> Bool {
    guard let terminal else { return true }
    let size = terminal.size
    let canvas = WatchDrawing.canvas(display, width: size.width, height: size.height, glyphs)
    return terminal.show(canvas, hasColour: glyphs.hasColour)
  }

  private func writeLine(_ sample: WatchSample) -> Bool {
    let hasHeap = sample.usedBytes != nil
    let heading = looks % WatchPlain.linesPerHeading == 0 ? WatchPlain.heading(hasHeap: hasHeap) : ""
    return printOutput(heading + WatchPlain.line(sample, hasHeap: hasHeap))
  }
}
