// What is on the screen besides the looks themselves: the view, the pace, what the user is told.

/// The views, in the order in which the key goes through them.
package enum WatchView: Int, CaseIterable, Sendable {
  case curves, map, mappings, numbers

  package var title: String {
    switch self {
    case .curves: "curves"
    case .map: "map"
    case .mappings: "mappings"
    case .numbers: "numbers"
    }
  }

  package var next: WatchView { Self.allCases[(rawValue + 1) % Self.allCases.count] }
}

/// The state of the view. Keys change it; drawing reads it.
package struct WatchDisplay: Sendable {
  package var view = WatchView.curves
  package var isHelp = false
  package var pace: WatchPace
  /// What to say for the whole time, such as where a program's output goes.
  package var remark: String?
  /// What a pause shows; the ring goes on.
  package private(set) var frozen: WatchRing?
  package var ring = WatchRing()
  /// Until the program that watch started has ended.
  package var isEnding = false

  package init(pace: WatchPace, remark: String? = nil) {
    self.pace = pace
    self.remark = remark
  }

  package var isPaused: Bool { frozen != nil }

  /// The looks to draw.
  package var shown: WatchRing { frozen ?? ring }

  /// Does what `key` asks for; false if that is nothing, or not for the view to do.
  package mutating func handle(_ key: WatchKey) -> Bool {
    // Any key closes the help; one that means something does that too.
    let wasHelp = isHelp
    isHelp = false
    switch key {
    case .quit: return false
    case .pause: frozen = isPaused ? nil : ring
    case .nextView: view = view.next
    case .longer: pace.lengthen()
    case .shorter: pace.shorten()
    case .help: isHelp = !wasHelp
    case .other: return wasHelp
    }
    return true
  }
}
