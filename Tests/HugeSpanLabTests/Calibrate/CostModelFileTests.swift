// The price list as a file: what is written is read back, and every mistake is named.

import Foundation
import HugeSpanCore
import HugeSpanLab
import Testing

/// A file with this text, gone with the value.
private final class Scratch {
  let path = NSTemporaryDirectory() + "hugespan-costs-\(UUID().uuidString).json"

  init(_ text: String) throws { try text.write(toFile: path, atomically: true, encoding: .utf8) }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}

@Suite struct CostModelFiles {
  private func failure(_ text: String) throws -> String {
    let scratch = try Scratch(text)
    defer { withExtendedLifetime(scratch) {} }
    do throws(CostModelFileError) { _ = try CostModel(file: scratch.path) } catch {
      #expect(!error.isMissing)
      return error.description
    }
    return "nothing"
  }

  @Test func carryEveryPrice() throws {
    var costs = CostModel()
    var value = 0.5
    for price in CostModel.Price.all {
      costs[price] = value
      value /= 2
    }
    let text = String(
      decoding: try JSONSerialization.data(withJSONObject: ["schema": CostModel.schema, "prices": costs.prices]),
      as: UTF8.self)
    let scratch = try Scratch(text)
    #expect(try CostModel(file: scratch.path) == costs)
    withExtendedLifetime(scratch) {}
    #expect(Set(costs.prices.keys).count == CostModel.Price.all.count)
  }

  @Test func mayLeavePricesOut() throws {
    let scratch = try Scratch(#"{"schema": "hugespan.cost-model/1", "prices": {"split": 400}}"#)
    var expected = CostModel()
    expected.split = 400
    #expect(try CostModel(file: scratch.path) == expected)
    withExtendedLifetime(scratch) {}
    #expect(expected.setting == "costs:split=400")
    #expect(CostModel().setting == nil)
  }

  @Test func areRefusedWithWhatIsWrong() throws {
    #expect(try failure("prices").contains("not a JSON object"))
    #expect(try failure("{}").contains("schema is missing"))
    #expect(try failure(#"{"schema": "hugespan.run/1"}"#).contains("schema is 'hugespan.run/1'"))
    #expect(try failure(#"{"schema": "hugespan.cost-model/1"}"#).contains("'prices' is missing"))
    func prices(_ text: String) -> String { #"{"schema": "hugespan.cost-model/1", "prices": {\#(text)}}"# }
    #expect(try failure(prices(#""splitt": 1"#)).contains("unknown price 'splitt' (known: releaseCall,"))
    #expect(try failure(prices(#""split": -1"#)).contains("split is -1, not a number from 0"))
    #expect(try failure(prices(#""split": "1""#)).contains("split is 1, not"))
    #expect(try failure(prices(#""split": true"#)).contains("split is"))
    #expect(try failure(prices(#""taxShare": 1.5"#)).contains("taxShare is 1.5, not a share from 0 to 1"))
  }

  @Test func thatAreNotThereAreMissing() {
    do throws(CostModelFileError) {
      _ = try CostModel(file: "/nonexistent/prices.json")
      Issue.record("read what is not there")
    } catch { #expect(error.isMissing && error.description.contains("hugespan calibrate -o FILE")) }
  }
}
