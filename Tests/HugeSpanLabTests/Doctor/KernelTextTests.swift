import Testing

@testable import HugeSpanLab

@Suite("What the kernel writes of its settings")
struct KernelTextTests {
  @Test("a mode is the one word in brackets")
  func mode() {
    #expect(
      ModeChoice("always [madvise] never\n")
        == ModeChoice(selected: "madvise", offered: ["always", "madvise", "never"]))
    #expect(ModeChoice("always inherit madvise [never]")?.selected == "never")
    #expect(ModeChoice("always defer [defer+madvise] madvise never")?.selected == "defer+madvise")
    for text in ["", "always madvise never", "[always] [never]", "[]", "always ] never [", "[always"] {
      #expect(ModeChoice(text) == nil, "\(text)")
    }
  }

  @Test("a number is one word, decimal or hexadecimal, and anything else is none")
  func number() {
    #expect(kernelNumber("511\n") == 511 && kernelNumber("0x0007\n") == 7 && kernelNumber("-1\n") == -1)
    for text in ["", "\n", "max\n", "1 2\n", "0x\n", "0x-7", "12kB", "99999999999999999999", "0xffffffffffffffffff"] {
      #expect(kernelNumber(text) == nil, "\(text)")
    }
  }

  private let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

  @Test("swap is told apart by what it lies on")
  func swaps() {
    #expect(parseSwaps(heading) == [])
    let text = """
      /dev/zram0                              partition\t524284\t\t1024\t\t100
      /dev/nvme0n1p3                          partition\t8388604\t\t0\t\t-2
      /swap\\040file\\040(deleted)              file\t\t2097148\t\t4\t\t-3
      """
    let areas = parseSwaps(heading + text)
    #expect(areas?.map(\.kind) == [.zram, .disk, .file])
    #expect(areas?.map(\.sizeBytes) == [524_284 << 10, 8_388_604 << 10, 2_097_148 << 10])
    #expect(areas?.map(\.usedBytes) == [1 << 20, 0, 4096])
    for text in ["/dev/sda partition 12", "/dev/sda partition x 0 1", "/dev/sda partition -4 0 1"] {
      #expect(parseSwaps(heading + text) == nil, "\(text)")
    }
  }

  @Test("free blocks are counted from an order on, over all zones")
  func freeBlocks() {
    let text = """
      Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3
      Node 0, zone   Normal    100      0      0      0      0      0      0      0      0      2      1
      """
    #expect(parseFreeBlocks(text, order: 9, pageBytes: 4096) == (3 * 512 + 4 * 1024) * 4096)
    #expect(parseFreeBlocks(text, order: 11, pageBytes: 4096) == 0)
    for text in ["", "Node 0, zone Normal\n", "Node 0, area Normal 1 2 3", "Node 0, zone Normal 1 x 3"] {
      #expect(parseFreeBlocks(text, order: 9, pageBytes: 4096) == nil, "\(text)")
    }
  }

  @Test("bits, flags and fields that are not there are not false")
  func flags() {
    #expect(featureBit(5, of: "0110010\n") == true && featureBit(3, of: "0110010\n") == false)
    #expect(featureBit(7, of: "0110010\n") == nil && featureBit(0, of: "") == nil)
    #expect(parseHypervisorFlag("processor : 0\nflags : fpu hypervisor sse\n") == true)
    #expect(parseHypervisorFlag("flags : fpu hypervisors\n") == false && parseHypervisorFlag("Features: fp\n") == nil)
    #expect(kernelFlag("Y\n") == true && kernelFlag("0\n") == false && kernelFlag("") == nil && kernelFlag("2") == nil)
    #expect(memoryField("MemTotal", of: "MemFree: 1 kB\nMemTotal:   24 kB\n") == 24 << 10)
    #expect(
      memoryField("MemTotal", of: "MemTotal: many kB\n") == nil && memoryField("Mem", of: "MemTotal: 1 kB") == nil)
  }

  @Test("bytes are written as people say them")
  func bytes() {
    let expected = [
      (0, "0 bytes"), (4096, "4 KiB"), (2 << 20, "2 MiB"), (1536 << 20, "1.5 GiB"), (1 << 40, "1 TiB"),
      (24_683_040 << 10, "23.5 GiB"),
    ]
    for (bytes, text) in expected { #expect(bytes.asBytes == text) }
  }
}
