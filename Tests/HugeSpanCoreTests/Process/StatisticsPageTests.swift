// The statistics page of a process: what others can do with it, and what is left of it.

import CHugeSpanShims
import Foundation
import HugeSpanCore
import Testing

private func never() -> HeapOptions {
  var options = HeapOptions()
  options.policy = .never
  options.firstArenaBytes = 64 << 21
  return options
}

/// Descriptors of this process that are statistics pages.
private func pages(of process: String = "self") -> [String] {
  let directory = "/proc/\(process)/fd"
  return ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).filter {
    ((try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\($0)")) ?? "").hasPrefix(
      "/memfd:hugespan-heap")
  }.map { "\(directory)/\($0)" }
}

private func descriptor(_ heap: UnsafeMutablePointer<LinuxHeap>) -> Int32? { heap.pointee.pageDescriptor }

private func header(_ path: String) -> PublishedHeap? {
  guard let file = FileHandle(forReadingAtPath: path), let bytes = try? file.read(upToCount: 4096), bytes.count == 4096
  else { return nil }
  return bytes.withUnsafeBytes { $0.loadUnaligned(as: PublishedHeap.self) }
}

// Descriptors are the process', and other suites have pages too: one test at a time.
@Suite(.serialized) struct AStatisticsPage {
  @Test func isReadByOthersAndWrittenByNobodyElse() throws {
    let heap = try LinuxHeap.create(never())
    defer { LinuxHeap.destroy(heap) }
    let before = Set(pages())
    #expect(heap.pointee.openPage() == nil && heap.pointee.openPage() == nil)
    let path = "/proc/self/fd/\(try #require(descriptor(heap)))"
    #expect(pages().contains(path) && !before.contains(path))
    let first = try #require(header(path))
    #expect(first.magic == PublishedHeap.magicWord && first.processID == UInt32(getpid()) && first.sequence & 1 == 0)
    let span = try heap.pointee.core.allocate(SpanRequest(pageCount: 300)).span
    usleep(120_000)
    heap.pointee.publish(untilNextTick: 1_000_000)
    let second = try #require(header(path))
    #expect(second.usedPages == 300 && second.blocks >= 1 && second.sequence != first.sequence)
    // Not even by its owner, by another way than the one mapping.
    let file = open(path, O_RDWR)
    if file >= 0 {
      #expect(write(file, "x", 1) == -1 && errno == EPERM)
      #expect(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED)
      #expect(ftruncate(file, 0) == -1)
      close(file)
    }
    heap.pointee.core.free(span)
  }

  @Test func isGoneWithItsHeapAndLeavesOtherDescriptorsAlone() throws {
    let heap = try LinuxHeap.create(never())
    #expect(heap.pointee.openPage() == nil)
    let number = try #require(descriptor(heap))
    // The program closes what it does not know and uses the number itself.
    let other = open("/dev/null", O_RDONLY)
    #expect(dup2(other, number) == number)
    LinuxHeap.destroy(heap)
    #expect(fcntl(number, F_GETFD) >= 0)
    close(number)
    close(other)
    let again = try LinuxHeap.create(never())
    #expect(again.pointee.openPage() == nil)
    let next = "/proc/self/fd/\(try #require(descriptor(again)))"
    let mine = try #require(header(next)?.heapNumber)
    again.pointee.closePage()
    #expect(descriptor(again) == nil && header(next)?.heapNumber != mine)
    LinuxHeap.destroy(again)
  }

  @Test func isWrittenByTheScavengerWhileNothingHappens() throws {
    let heap = try LinuxHeap.create(never())
    defer { LinuxHeap.destroy(heap) }
    #expect(heap.pointee.openPage() == nil && LinuxHeap.startScavenger(heap))
    let path = "/proc/self/fd/\(try #require(descriptor(heap)))"
    _ = try heap.pointee.core.allocate(SpanRequest(pageCount: 700))
    for _ in 0..<200 where header(path)?.usedPages != 700 { usleep(20_000) }
    let now = try #require(header(path))
    #expect(now.usedPages == 700 && now.flags & PublishedHeap.hasScavenger != 0)
    var latest = now.publishedAt
    for _ in 0..<200 where latest == now.publishedAt {
      usleep(20_000)
      latest = header(path)?.publishedAt ?? latest
    }
    #expect(latest > now.publishedAt)
  }

  @Test func ofAParentIsNotTheChilds() throws {
    let heap = try LinuxHeap.create(never())
    defer { LinuxHeap.destroy(heap) }
    #expect(heap.pointee.openPage() == nil)
    let path = "/proc/self/fd/\(try #require(descriptor(heap)))"
    let parents = try #require(header(path))
    let child = ForkedChild(
      {
        // What the child does to its heap is told on a page of its own, which it gets when it first ticks.
        guard (try? heap.pointee.core.allocate(SpanRequest(pageCount: 50))) != nil else { return false }
        heap.pointee.publish(untilNextTick: 0)
        usleep(120_000)
        heap.pointee.publish(untilNextTick: 0)
        return pages().contains { header($0)?.processID == UInt32(getpid()) && header($0)?.usedPages == 50 }
      },
      last: {
        heap.pointee.closePage()
        usleep(120_000)
        heap.pointee.publish(untilNextTick: 0)
        return !pages().contains { header($0)?.processID == UInt32(getpid()) }
      })
    #expect(header(path) == parents)
    #expect(child.end() == 0)
  }
}
