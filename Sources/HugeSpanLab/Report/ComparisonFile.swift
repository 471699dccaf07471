// Reading what `compare --json` wrote, by another machine and perhaps another version of the program.
//
// The schema is looked at first: a file of another kind is named as such, and not by the first key that it lacks. What
// the decoder cannot know (series as long as their times, films of known characters) is checked after it, so that a page
// is made of nothing that its script would stumble over.

import Foundation

/// Why a file is no comparison.
package struct ComparisonFileError: Error, Equatable, CustomStringConvertible {
  package var description: String
}

/// Reads a comparison from its JSON.
package func comparison(fromJSON data: Data) throws(ComparisonFileError) -> Comparison {
  struct Head: Decodable {
    var schema: String?
  }
  func decoded<T: Decodable>(_ type: T.Type) throws(ComparisonFileError) -> T {
    do { return try JSONDecoder().decode(type, from: data) } catch {
      throw ComparisonFileError(description: explanation(of: error))
    }
  }
  let expected = "'\(Comparison.schemaName)', as 'hugespan compare --json' writes it, is wanted"
  guard let schema = try decoded(Head.self).schema else {
    throw ComparisonFileError(description: "has no 'schema'; \(expected)")
  }
  guard schema == Comparison.schemaName else {
    throw ComparisonFileError(description: "its schema is '\(schema.prefix(60))'; \(expected)")
  }
  let comparison = try decoded(Comparison.self)
  for (index, run) in comparison.runs.enumerated() {
    if let series = run.series, !series.isEven {
      throw ComparisonFileError(
        description: "runs[\(index)].series: as many values of each quantity as there are seconds are wanted")
    }
    if let defect = run.blocks?.defect {
      throw ComparisonFileError(description: "runs[\(index)].blocks: \(defect)")
    }
  }
  return comparison
}

/// What the decoder stumbled over, and where.
private func explanation(of error: any Error) -> String {
  func place(_ path: [any CodingKey]) -> String {
    let text = path.map { key in key.intValue.map { "[\($0)]" } ?? "." + key.stringValue }.joined()
    return text.isEmpty ? "the top" : text.hasPrefix(".") ? String(text.dropFirst()) : text
  }
  switch error as? DecodingError {
  case .keyNotFound(let key, let context):
    return "'\(key.stringValue)' is missing at \(place(context.codingPath))"
  case .typeMismatch(_, let context), .valueNotFound(_, let context):
    return "\(place(context.codingPath)) is of another type than a comparison has there"
  case .dataCorrupted(let context) where !context.codingPath.isEmpty:
    return "\(place(context.codingPath)) has a value that is out of range"
  default: return "is no JSON"
  }
}
