// Options as text: `policy:seed,strategy:dontneed-whole`, the form of the environment variable HUGESPAN_CONF.
//
// The only place that knows the keys. It runs in a preloaded library, before main and before malloc: no allocation, and
// errors go into a buffer of the caller's. A key that is not known is an error, and so is a value: a setting that is
// silently not what was asked for is found only after the measurement.

import CHugeSpan
import CHugeSpanShims

#if !hasFeature(Embedded)
  import HugeSpanCore
#endif

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// Every key there is, in the order of messages.
enum OptionKey: UInt8 {
  case policy, rate, preferBroken, preferLong, discountRefaults
  case releaseRate, shortInterval, longInterval, decayTime, cpuBudget, goalPeriod
  case memoryPrice, rebuild, steering, costs
  case strategy, secondStage, freeWhole, pressureLimit, softLimit, hardLimit, hugePages, moving, firstArena
  case scavenger, statistics, page

  var name: StaticString {
    switch self {
    case .policy: "policy"
    case .rate: "rate"
    case .preferBroken: "prefer-broken"
    case .preferLong: "prefer-long"
    case .discountRefaults: "discount-refaults"
    case .releaseRate: "release-rate"
    case .shortInterval: "short-interval"
    case .longInterval: "long-interval"
    case .decayTime: "decay-time"
    case .cpuBudget: "cpu-budget"
    case .goalPeriod: "goal-period"
    case .memoryPrice: "memory-price"
    case .rebuild: "rebuild"
    case .steering: "steering"
    case .costs: "costs"
    case .strategy: "strategy"
    case .secondStage: "second-stage"
    case .freeWhole: "free-whole"
    case .pressureLimit: "pressure-limit"
    case .softLimit: "soft-limit"
    case .hardLimit: "hard-limit"
    case .hugePages: "huge-pages"
    case .moving: "moving"
    case .firstArena: "first-arena"
    case .scavenger: "scavenger"
    case .statistics: "statistics"
    case .page: "page"
    }
  }

  /// What a value of the key looks like.
  var expectation: StaticString {
    switch self {
    case .policy: "one of never, immediate, gperftools, seed, demand-window, decay, paced, rent-or-buy"
    case .rate: "a number from 0 to 1000000"
    case .releaseRate: "a size such as 32MiB (a second), or 0"
    case .shortInterval, .longInterval: "a time up to 10m"
    case .decayTime, .goalPeriod: "a time such as 500ms, 10s or 2m"
    case .cpuBudget: "a number above 0 and up to 100 (percent of a processor)"
    case .memoryPrice: "a number from 0 to 1000000000 (CPU-seconds per GiB-hour)"
    case .costs:
      """
      a list such as split=170/blockFault=200 of microseconds (coldAfter: seconds, taxShare: 0 to 1), of releaseCall, \
      releaseRange, releasePage, releaseBlock, split, pageFault, blockFault, coldBlockFault, coldAfter, blockMove, \
      collapse, cure, taxShare
      """
    case .preferBroken, .preferLong, .discountRefaults, .rebuild, .steering, .freeWhole, .hugePages, .moving, .page:
      "on or off"
    case .scavenger: "on, bare or off"
    case .strategy:
      """
      one of keep, dontneed, free, free-then-dontneed, split-dontneed, cold, pageout, decommit, deferred (all but \
      keep, decommit and deferred also with -whole appended)
      """
    case .secondStage: "a time such as 500ms, 10s or 2m"
    case .pressureLimit, .softLimit, .hardLimit: "a size such as 512MiB or 4GiB, or 0 for none"
    case .firstArena: "a size from 2MiB to 64TiB"
    case .statistics: "the name of a file, in which %p stands for the process and %% for %"
    }
  }

  /// The key is for the process, not for a heap.
  var isForProcess: Bool { self.rawValue >= OptionKey.scavenger.rawValue }

  /// The number of keys: raw values are 0 up to it.
  static var count: UInt8 { OptionKey.page.rawValue + 1 }
}

/// As hugespan.h says.
@c @implementation
public func hs_process_options_init(_ options: UnsafeMutablePointer<hs_process_options>, _ size: Int) {
  var defaults = hs_process_options(
    size: size, scavenger: true, statistics_path: nil, statistics_path_length: 0, page: false, bare: false)
  withUnsafeBytes(of: &defaults) { bytes in
    UnsafeMutableRawPointer(options).copyMemory(from: bytes.baseAddress!, byteCount: min(size, bytes.count))
  }
}

/// As hugespan.h says.
@c @implementation
public func hs_options_parse(
  _ text: UnsafePointer<CChar>, _ options: UnsafeMutablePointer<hs_options>,
  _ process: UnsafeMutablePointer<hs_process_options>?, _ error: UnsafeMutablePointer<hs_options_error>?
) -> hs_status {
  var length = 0
  while text[length] != 0 { length += 1 }
  let bytes = UnsafeRawPointer(text).assumingMemoryBound(to: UInt8.self)
  var reader = OptionsReader(
    text: Word(start: bytes, count: length), options: options.pointee, process: process?.pointee)
  // Of a structure that ends before a field is known a setting could get lost without a word.
  let isComplete =
    options.pointee.size >= MemoryLayout<hs_options>.size
    && process?.pointee.size ?? .max >= MemoryLayout<hs_process_options>.size
  reader.error = error
  let mistake = isComplete ? reader.read() : OptionsMistake(word: Word(start: bytes, count: 0), kind: .structure)
  if let mistake {
    if case .inFile = mistake.kind {
      error?.pointee.offset = bytes.distance(to: mistake.word.baseAddress!)
      error?.pointee.length = mistake.word.count
    } else if let error {
      describe(mistake, offset: bytes.distance(to: mistake.word.baseAddress!), process != nil, error)
    }
    return HS_INVALID
  }
  options.pointee = reader.options
  if let process, let settings = reader.process { process.pointee = settings }
  return HS_OK
}

/// What is wrong, and where.
private struct OptionsMistake {
  enum Kind {
    case structure
    case noPair
    case unknownKey
    case badValue(OptionKey)
    case unreadableFile
    /// Described already: the words of a file are gone with it.
    case inFile
  }
  var word: Word
  var kind: Kind
}

/// Settings as they are read, key by key.
private struct OptionsReader {
  let text: Word
  var options: hs_options
  var process: hs_process_options?
  var error: UnsafeMutablePointer<hs_options_error>?
  private var hasRate = false
  private var hasPolicy = false

  init(text: Word, options: hs_options, process: hs_process_options?) {
    self.text = text
    self.options = options
    self.process = process
  }

  /// Reads all of the text; returns what is wrong, or nil.
  mutating func read() -> OptionsMistake? {
    var start = 0
    while start < text.count {
      var end = start
      while end < text.count && text[end] != UInt8(ascii: ",") { end += 1 }
      if let mistake = readPair(Word(rebasing: text[start..<end])) { return mistake }
      // A comma with nothing behind it is a pair that was forgotten.
      if end == text.count - 1 { return OptionsMistake(word: Word(rebasing: text[end...]), kind: .noPair) }
      start = end + 1
    }
    // The two counters have scales of their own; a rate that was meant for one says nothing of the other.
    if hasPolicy && !hasRate { options.rate = options.policy_kind == HS_POLICY_GPERFTOOLS ? 1 : 100 }
    return nil
  }

  /// Reads the settings in the file whose name is behind the `@` of `word`: a setting a line, or several with commas; what is
  /// behind a `#` is for people. A file names no other file and no statistics: a path would be gone with it.
  private mutating func readFile(_ word: Word) -> OptionsMistake? {
    var path = InlineArray<4096, UInt8>(repeating: 0)
    var bytes = InlineArray<8192, UInt8>(repeating: 0)
    let unreadable = OptionsMistake(word: word, kind: .unreadableFile)
    if word.count < 2 || word.count > 4096 { return unreadable }
    for index in 1..<word.count { path[index - 1] = word[index] }
    let file = withUnsafePointer(to: &path) {
      hs_shim_open_read(UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
    }
    if file < 0 { return unreadable }
    var length = 0
    var isReadable = true
    while length < 8192 {
      let count = withUnsafeMutablePointer(to: &bytes) {
        hs_shim_read(file, UnsafeMutableRawPointer($0) + length, 8192 - length)
      }
      if count <= 0 {
        // A directory opens, too.
        isReadable = count == 0
        break
      }
      length += count
    }
    hs_shim_close(file)
    if !isReadable { return unreadable }
    // One that fills the buffer may go on.
    if length == 8192 { return unreadable }
    var isWrong = false
    withUnsafePointer(to: &bytes) { pointer in
      let text = Word(start: UnsafeRawPointer(pointer).assumingMemoryBound(to: UInt8.self), count: length)
      isWrong = !readLines(text, of: word)
    }
    return isWrong ? OptionsMistake(word: word, kind: .inFile) : nil
  }

  /// False if a line is wrong, which is described then.
  private mutating func readLines(_ text: Word, of file: Word) -> Bool {
    func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0D }
    var line = 1
    var start = 0
    var isComment = false
    for index in 0...text.count {
      let byte = index < text.count ? text[index] : UInt8(ascii: "\n")
      if byte == UInt8(ascii: "#") && !isComment {
        // A setting before it on the line ends here.
        if let mistake = readTrimmed(text, start, index, isSpace) { return describe(mistake, line, file) }
        isComment = true
      }
      if byte != UInt8(ascii: "\n") && (byte != UInt8(ascii: ",") || isComment) { continue }
      if !isComment, let mistake = readTrimmed(text, start, index, isSpace) { return describe(mistake, line, file) }
      start = index + 1
      if byte == UInt8(ascii: "\n") {
        line += 1
        isComment = false
      }
    }
    return true
  }

  private mutating func readTrimmed(
    _ text: Word, _ start: Int, _ end: Int, _ isSpace: (UInt8) -> Bool
  ) -> OptionsMistake? {
    var (first, last) = (start, end)
    while first < last && isSpace(text[first]) { first += 1 }
    while last > first && isSpace(text[last - 1]) { last -= 1 }
    if first == last { return nil }
    let pair = Word(rebasing: text[first..<last])
    if pair[0] == UInt8(ascii: "@") { return OptionsMistake(word: pair, kind: .noPair) }
    let path = process?.statistics_path
    let mistake = readPair(pair)
    if mistake == nil && process?.statistics_path != path {
      process?.statistics_path = path
      return OptionsMistake(word: pair, kind: .noPair)
    }
    return mistake
  }

  private func describe(_ mistake: OptionsMistake, _ line: Int, _ file: Word) -> Bool {
    guard let error else { return false }
    var message = messageText(error)
    message.append(quoting: file)
    message.append(", line ")
    message.append(decimal: UInt64(line))
    message.append(": ")
    explain(mistake, process != nil, &message)
    message.terminate()
    return false
  }

  private mutating func readPair(_ pair: Word) -> OptionsMistake? {
    if !pair.isEmpty && pair[0] == UInt8(ascii: "@") { return readFile(pair) }
    guard let colon = pair.firstIndex(of: UInt8(ascii: ":")), colon > 0 else {
      return OptionsMistake(word: pair, kind: .noPair)
    }
    let word = Word(rebasing: pair[..<colon])
    let value = Word(rebasing: pair[(colon + 1)...])
    guard let key = key(named: word), process != nil || !key.isForProcess else {
      return OptionsMistake(word: word, kind: .unknownKey)
    }
    return set(key, value) ? nil : OptionsMistake(word: value, kind: .badValue(key))
  }

  private func key(named word: Word) -> OptionKey? {
    for number in 0..<OptionKey.count {
      if let key = OptionKey(rawValue: number), spells(word, key.name) { return key }
    }
    return nil
  }

  private mutating func set(_ key: OptionKey, _ value: Word) -> Bool {
    switch key {
    case .policy: return setPolicy(value)
    case .rate:
      guard let rate = numberValue(value), rate <= 1_000_000 else { return false }
      options.rate = rate
      hasRate = true
      return true
    case .preferBroken: return setSwitch(&options.prefer_broken, value)
    case .preferLong: return setSwitch(&options.prefer_long, value)
    case .discountRefaults: return setSwitch(&options.discount_refaults, value)
    case .releaseRate: return setNumber(&options.release_rate, sizeValue(value))
    case .shortInterval: return setInterval(&options.short_interval_nanoseconds, value)
    case .longInterval: return setInterval(&options.long_interval_nanoseconds, value)
    case .decayTime: return setNumber(&options.decay_nanoseconds, timeValue(value))
    case .cpuBudget:
      guard let percent = numberValue(value), percent > 0, percent <= 100 else { return false }
      options.cpu_budget_percent = percent
      return true
    case .goalPeriod: return setNumber(&options.goal_period_nanoseconds, timeValue(value))
    case .memoryPrice:
      guard let price = numberValue(value), price <= 1_000_000_000 else { return false }
      options.memory_price = price
      return true
    case .rebuild: return setSwitch(&options.rebuild, value)
    case .steering: return setSwitch(&options.steering, value)
    case .costs: return setCosts(value)
    case .hugePages: return setSwitch(&options.advise_huge_pages, value)
    case .moving: return setSwitch(&options.move_blocks, value)
    case .strategy: return setStrategy(value)
    case .secondStage: return setNumber(&options.second_stage_nanoseconds, timeValue(value))
    case .freeWhole: return setSwitch(&options.free_whole_blocks, value)
    case .pressureLimit: return setNumber(&options.pressure_limit_bytes, sizeValue(value))
    case .softLimit: return setNumber(&options.soft_limit_bytes, sizeValue(value))
    case .hardLimit: return setNumber(&options.hard_limit_bytes, sizeValue(value))
    case .firstArena:
      guard let bytes = sizeValue(value), bytes >= 1 << 21, bytes <= 1 << 46 else { return false }
      options.first_arena_bytes = bytes
      return true
    case .scavenger:
      let isBare = spells(value, "bare")
      guard let isOn = isBare ? true : switchValue(value) else { return false }
      process?.scavenger = isOn
      process?.bare = isBare
      return true
    case .statistics:
      guard isFileName(value) else { return false }
      process?.statistics_path = UnsafeRawPointer(value.baseAddress!).assumingMemoryBound(to: CChar.self)
      process?.statistics_path_length = value.count
      return true
    case .page:
      guard let isOn = switchValue(value) else { return false }
      process?.page = isOn
      return true
    }
  }

  private mutating func setPolicy(_ value: Word) -> Bool {
    if spells(value, "never") {
      options.policy_kind = HS_POLICY_NEVER
    } else if spells(value, "immediate") {
      options.policy_kind = HS_POLICY_IMMEDIATE
    } else if spells(value, "gperftools") {
      options.policy_kind = HS_POLICY_GPERFTOOLS
    } else if spells(value, "seed") {
      options.policy_kind = HS_POLICY_SEED
    } else if spells(value, "demand-window") {
      options.policy_kind = HS_POLICY_DEMAND_WINDOW
    } else if spells(value, "decay") {
      options.policy_kind = HS_POLICY_DECAY
    } else if spells(value, "paced") {
      options.policy_kind = HS_POLICY_PACED
    } else if spells(value, "rent-or-buy") {
      options.policy_kind = HS_POLICY_RENT_OR_BUY
    } else {
      return false
    }
    hasPolicy = true
    return true
  }

  private mutating func setStrategy(_ value: Word) -> Bool {
    let isWhole = endsWith(value, "-whole")
    let name = isWhole ? Word(rebasing: value[..<(value.count - 6)]) : value
    if spells(name, "keep") && !isWhole {
      options.strategy_kind = HS_STRATEGY_KEEP
    } else if spells(name, "dontneed") {
      options.strategy_kind = HS_STRATEGY_DONTNEED
    } else if spells(name, "free") {
      options.strategy_kind = HS_STRATEGY_FREE
    } else if spells(name, "free-then-dontneed") {
      options.strategy_kind = HS_STRATEGY_FREE_THEN_DONTNEED
    } else if spells(name, "split-dontneed") {
      options.strategy_kind = HS_STRATEGY_SPLIT_DONTNEED
    } else if spells(name, "cold") {
      options.strategy_kind = HS_STRATEGY_COLD
    } else if spells(name, "pageout") {
      options.strategy_kind = HS_STRATEGY_PAGEOUT
    } else if spells(name, "decommit") && !isWhole {
      options.strategy_kind = HS_STRATEGY_DECOMMIT
    } else if spells(name, "deferred") && !isWhole {
      options.strategy_kind = HS_STRATEGY_DEFERRED
    } else {
      return false
    }
    options.whole_blocks_only = isWhole
    return true
  }

  /// Prices by name; those that are not named stay.
  private mutating func setCosts(_ value: Word) -> Bool {
    var costs = costModel(options.costs)
    var start = 0
    while start < value.count {
      var end = start
      while end < value.count && value[end] != UInt8(ascii: "/") { end += 1 }
      let part = Word(rebasing: value[start..<end])
      guard let equals = part.firstIndex(of: UInt8(ascii: "=")),
        let price = price(named: Word(rebasing: part[..<equals])),
        let number = numberValue(Word(rebasing: part[(equals + 1)...])), price.allows(number)
      else { return false }
      costs[price] = number
      if end == value.count - 1 { return false }
      start = end + 1
    }
    options.costs = hs_costs(costs)
    return !value.isEmpty
  }

  private func price(named word: Word) -> CostModel.Price? {
    for number in 0..<CostModel.Price.count {
      if let price = CostModel.Price(rawValue: number), spells(word, price.name) { return price }
    }
    return nil
  }

  private func setSwitch(_ field: inout Bool, _ value: Word) -> Bool {
    guard let isOn = switchValue(value) else { return false }
    field = isOn
    return true
  }

  private func setInterval(_ field: inout UInt64, _ value: Word) -> Bool {
    guard let time = timeValue(value), time <= DemandWindowOptions.longestNanoseconds else { return false }
    field = time
    return true
  }

  private func setNumber(_ field: inout UInt64, _ number: UInt64?) -> Bool {
    guard let number else { return false }
    field = number
    return true
  }

  /// Something is there, it fits into a path, and every percent sign is one of the two that mean something.
  private func isFileName(_ value: Word) -> Bool {
    var index = 0
    while index < value.count {
      if value[index] == UInt8(ascii: "%") {
        index += 1
        guard index < value.count, value[index] == UInt8(ascii: "p") || value[index] == UInt8(ascii: "%") else {
          return false
        }
      }
      index += 1
    }
    return !value.isEmpty && value.count < 4000
  }
}

private func describe(
  _ mistake: OptionsMistake, offset: Int, _ hasProcess: Bool, _ error: UnsafeMutablePointer<hs_options_error>
) {
  error.pointee.offset = offset
  error.pointee.length = mistake.word.count
  var message = messageText(error)
  explain(mistake, hasProcess, &message)
  message.terminate()
}

private func messageText(_ error: UnsafeMutablePointer<hs_options_error>) -> FixedText {
  let capacity = MemoryLayout.size(ofValue: error.pointee.message)
  // Behind the offset and the length; a key path would not be Embedded Swift.
  let start = UnsafeMutableRawPointer(error) + 2 * MemoryLayout<Int>.stride
  return FixedText(start.assumingMemoryBound(to: UInt8.self), capacity: capacity)
}

private func explain(_ mistake: OptionsMistake, _ hasProcess: Bool, _ message: inout FixedText) {
  switch mistake.kind {
  case .structure: message.append("the structures are of another version of hugespan.h")
  case .noPair:
    message.append(quoting: mistake.word)
    message.append(" is no setting; a setting is KEY:VALUE, and settings are separated by commas")
  case .unknownKey:
    message.append("unknown key ")
    message.append(quoting: mistake.word)
    message.append(" (known: ")
    var isFirst = true
    for number in 0..<OptionKey.count {
      guard let key = OptionKey(rawValue: number), hasProcess || !key.isForProcess else { continue }
      if !isFirst { message.append(", ") }
      isFirst = false
      message.append(key.name)
    }
    message.append(")")
  case .badValue(let key):
    message.append(key.name)
    message.append(": ")
    message.append(quoting: mistake.word)
    message.append(" is not ")
    message.append(key.expectation)
  case .unreadableFile:
    message.append(quoting: mistake.word)
    message.append(": there is no such file of settings, or it cannot be read, or has 8 KiB and more")
  case .inFile: break
  }
}
