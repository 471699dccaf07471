// A price list as a file: what `hugespan calibrate` writes, and every command takes.
//
// JSON, since people read and change it: the prices by name, and beside them how they came about. Only the prices are read
// back; one that is missing has its default, one that is not known is a mistake and not silently nothing.

import Foundation
import HugeSpanCore

/// What is wrong with a cost model file.
package struct CostModelFileError: Error, CustomStringConvertible, Sendable {
  package var description: String
  /// The file is not there, or may not be read.
  package var isMissing: Bool
}

extension CostModel.Price {
  package static var all: [CostModel.Price] { (0..<count).compactMap(CostModel.Price.init(rawValue:)) }

  package var text: String { "\(name)" }

  package var unit: String {
    switch self {
    case .taxShare: "share"
    case .coldAfter: "s"
    default: "us"
    }
  }

  /// What the price is of, for tables.
  package var help: String {
    switch self {
    case .releaseCall: "a release call"
    case .releaseRange: "a range in a release call"
    case .releasePage: "a page released from base pages"
    case .releaseBlock: "a whole hugepage released"
    case .split: "a hugepage split on purpose"
    case .pageFault: "a 4 KiB page faulted back"
    case .blockFault: "a hugepage faulted back at once"
    case .coldBlockFault: "a hugepage faulted back when it has been idle"
    case .coldAfter: "idleness from which a hugepage is cold"
    case .blockMove: "a hugepage moved to another address"
    case .collapse: "a block made huge again"
    case .cure: "phantom given back by a split"
    case .taxShare: "share of busy time lost when all is on base pages"
    }
  }
}

extension CostModel {
  /// The prices by name, as reports carry them, with the memory price.
  package func dictionary(memoryPrice: Double) -> [String: Double] {
    var result = prices
    result["memoryPrice"] = memoryPrice
    return result
  }

  /// The prices by name.
  package var prices: [String: Double] {
    Dictionary(uniqueKeysWithValues: Price.all.map { ($0.text, self[$0]) })
  }

  /// As HUGESPAN_CONF has it: what differs from the defaults. Nil if nothing does.
  package var setting: String? {
    let defaults = CostModel()
    let parts = Price.all.filter { self[$0] != defaults[$0] }.map { "\($0.text)=\(plain(self[$0]))" }
    return parts.isEmpty ? nil : "costs:" + parts.joined(separator: "/")
  }

  /// Reads a file that `hugespan calibrate` wrote.
  package init(file path: String) throws(CostModelFileError) {
    func fail(_ text: String, isMissing: Bool = false) -> CostModelFileError {
      CostModelFileError(description: "\(path): \(text)", isMissing: isMissing)
    }
    guard let data = FileManager.default.contents(atPath: path) else {
      throw fail("no such file, or it may not be read; 'hugespan calibrate -o FILE' makes one", isMissing: true)
    }
    guard let root = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
      throw fail("not a JSON object; a cost model is what 'hugespan calibrate' writes")
    }
    guard let schema = root["schema"] as? String, schema == CostModel.schema else {
      throw fail("schema is \((root["schema"] as? String).map { "'\($0)'" } ?? "missing"), not '\(CostModel.schema)'")
    }
    guard let prices = root["prices"] as? [String: Any] else { throw fail("'prices' is missing or not an object") }
    self.init()
    for (name, value) in prices.sorted(by: { $0.key < $1.key }) {
      guard let price = Price.all.first(where: { $0.text == name }) else {
        throw fail("unknown price '\(name)' (known: \(Price.all.map(\.text).joined(separator: ", ")))")
      }
      guard let number = value as? NSNumber, CFGetBoolean(number) == false, price.allows(number.doubleValue) else {
        throw fail("\(name) is \(value), not \(price == .taxShare ? "a share from 0 to 1" : "a number from 0")")
      }
      self[price] = number.doubleValue
    }
  }

  package static let schema = "hugespan.cost-model/1"
}

/// Whether a JSON number was written as true or false.
private func CFGetBoolean(_ number: NSNumber) -> Bool { String(cString: number.objCType) == "c" }
