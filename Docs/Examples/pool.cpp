// A pool of size classes under the standard containers: a std::pmr::memory_resource for many threads.
//
// What it shows of the page heap: slabs are spans aligned to their own length, so that the address of an object gives
// its slab by a mask; a slab goes back when its last object does, and large objects come straight from the heap; the
// scavenger's thread gives memory to the kernel while the program is idle; the residency pass tells the coverage.
#include <hugespan.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory_resource>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>
#define CHECK(condition) \
  do { if (!(condition)) std::fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition), std::exit(1); } while (0)

class span_pool final : public std::pmr::memory_resource {
  static constexpr std::size_t page_bytes = 4096, slab_pages = 16, slab_bytes = slab_pages * page_bytes;
  static constexpr std::uint32_t slot_bytes[] = {
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792,
    2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192};

  struct free_slot { free_slot *next; };
  struct alignas(64) slab {
    slab *next, *previous;    // in the list of slabs of its class that have room
    free_slot *returned;      // slots that are free again
    std::uint32_t fresh_from; // offset of the first slot that was never used
    std::uint32_t slot, in_use;
    bool is_full() const { return !returned && fresh_from + slot > slab_bytes; }
  };
  struct size_class {
    std::mutex lock;
    slab *with_room = nullptr;
    void insert(slab *s) {
      s->next = with_room, s->previous = nullptr;
      if (with_room) with_room->previous = s;
      with_room = s;
    }
    void remove(slab *s) {
      (s->previous ? s->previous->next : with_room) = s->next;
      if (s->next) s->next->previous = s->previous;
    }
  };

  hs_heap *heap;
  size_class classes[std::size(slot_bytes)];
  static bool is_small(std::size_t bytes, std::size_t alignment) { return bytes <= 8192 && alignment <= 16; }
  static std::size_t class_of(std::size_t bytes) {
    return std::lower_bound(std::begin(slot_bytes), std::end(slot_bytes), bytes) - std::begin(slot_bytes);
  }
  static std::size_t pages_of(std::size_t bytes) { return (std::max(bytes, page_bytes) + page_bytes - 1) / page_bytes; }

  void *span(std::size_t pages, std::size_t alignment_pages, hs_objects objects) {
    const hs_request request{pages, alignment_pages, nullptr, false, HS_LIFETIME_UNKNOWN, objects};
    hs_allocation made;
    if (hs_allocate_request(heap, &request, &made) != HS_OK) throw std::bad_alloc();
    return made.span.address;
  }

  void *do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (!is_small(bytes, alignment)) return span(pages_of(bytes), pages_of(alignment), HS_OBJECTS_FEW);
    size_class &its = classes[class_of(bytes)];
    std::lock_guard<std::mutex> guard(its.lock);
    if (!its.with_room) {
      void *memory = span(slab_pages, slab_pages, HS_OBJECTS_MANY);
      its.insert(new (memory) slab{nullptr, nullptr, nullptr, sizeof(slab), slot_bytes[class_of(bytes)], 0});
    }
    slab *from = its.with_room;
    void *result = from->returned;
    if (result) from->returned = from->returned->next;
    else result = reinterpret_cast<char *>(from) + from->fresh_from, from->fresh_from += from->slot;
    from->in_use++;
    if (from->is_full()) its.remove(from);
    return result;
  }

  void do_deallocate(void *object, std::size_t bytes, std::size_t alignment) override {
    if (!is_small(bytes, alignment)) return hs_free(heap, object, pages_of(bytes));
    size_class &its = classes[class_of(bytes)];
    std::lock_guard<std::mutex> guard(its.lock);
    slab *home = reinterpret_cast<slab *>(reinterpret_cast<std::uintptr_t>(object) & ~(slab_bytes - 1));
    if (home->is_full()) its.insert(home);
    home->returned = new (object) free_slot{home->returned};
    if (--home->in_use > 0) return;
    its.remove(home);
    hs_free(heap, home, slab_pages);
  }

  bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }
public:
  explicit span_pool(hs_heap *heap) : heap(heap) {}
};

using table = std::pmr::unordered_map<unsigned, std::pmr::string>;

static std::string text(unsigned key) {
  return std::string(key * 37 % (key % 500 == 0 ? 20000 : 600), char('a' + key % 26));
}

static void in_threads(std::vector<table> &tables, void (*body)(table &)) {
  std::vector<std::thread> threads;
  for (table &each : tables) threads.emplace_back(body, std::ref(each));
  for (std::thread &each : threads) each.join();
}

int main() {
  hs_options options;
  hs_options_init(&options, sizeof options);
  options.policy_kind = HS_POLICY_RENT_OR_BUY;
  hs_heap *heap = nullptr;
  hs_span probe;
  CHECK(HS_VERSION_CHECK() && hs_heap_create(&options, &heap) == HS_OK && hs_scavenger_start(heap));
  hs_statistics now;
  hs_residency seen;
  now.size = sizeof now, seen.size = sizeof seen;
  // Are there hugepages at all?
  CHECK(hs_allocate(heap, 512, &probe) == HS_OK);
  std::memset(probe.address, 1, 512 * 4096);
  CHECK(hs_residency_pass(heap, &seen) == HS_OK);
  const bool has_hugepages = seen.huge_blocks == 1;
  hs_free(heap, probe.address, probe.pages);

  span_pool pool(heap);
  std::vector<table> tables;
  for (int i = 0; i < 4; i++) tables.emplace_back(&pool);
  in_threads(tables, [](table &t) { for (unsigned key = 0; key < 50000; key++) t.emplace(key, text(key)); });
  CHECK(hs_residency_pass(heap, &seen) == HS_OK);
  const double coverage = 100.0 * seen.used_pages_on_huge / seen.used_pages;
  std::printf("200,000 strings in %zu MiB, %.0f %% of it on hugepages\n", size_t(seen.used_pages / 256), coverage);
  CHECK(!has_hugepages || coverage > 80);

  in_threads(tables, [](table &t) {
    for (unsigned key = 0; key < 50000; key++) if (key % 10 < 7) t.erase(key);
    for (unsigned key = 7; key < 50000; key++) if (key % 10 >= 7) CHECK(t.at(key) == text(key).c_str());
    CHECK(t.size() == 15000);
  });
  tables.clear();
  for (int i = 0; i < 200; i++) {
    CHECK(hs_heap_statistics(heap, &now) == HS_OK && now.used_pages == 0);
    if (now.absent_blocks == now.blocks) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  std::printf("the tables are gone; %zu MiB went to the kernel meanwhile\n", size_t(now.pages_released / 256));
  CHECK(now.absent_blocks == now.blocks);
  hs_heap_destroy(heap);
}
