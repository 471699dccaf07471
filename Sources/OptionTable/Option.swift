/// An option.
public struct Option {}
