// Forks for C: the handlers, for those who order them or call them by hand.

import CHugeSpan

#if !hasFeature(Embedded)
  import HugeSpanCore
#endif

// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// As hugespan.h says.
@c @implementation
public func hs_fork_register() -> Bool { ForkHandlers.register() == nil }

/// As hugespan.h says.
@c @implementation
public func hs_fork_by_hand() { ForkHandlers.handleByHand() }

/// As hugespan.h says.
@c @implementation
public func hs_fork_prepare() { ForkHandlers.prepare() }

/// As hugespan.h says.
@c @implementation
public func hs_fork_parent() { ForkHandlers.resumeInParent() }

/// As hugespan.h says.
@c @implementation
public func hs_fork_child() { ForkHandlers.resumeInChild() }
