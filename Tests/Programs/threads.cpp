// Eight threads over the containers of the standard library; prints a sum that is the same on every allocator.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

// Before main, and freed after it.
static std::map<int, std::string> early = [] {
  std::map<int, std::string> made;
  for (int i = 0; i < 20000; i++) made[i] = std::string(i % 500, char('a' + i % 26));
  return made;
}();

static std::mutex lock;
static std::vector<std::shared_ptr<std::vector<int>>> shared_vectors;

static unsigned long work(unsigned index) {
  std::mt19937_64 random(index);
  std::unordered_map<unsigned long, std::string> table;
  std::vector<std::vector<char>> blocks(300);
  unsigned long sum = 0;
  for (int round = 0; round < 30000; round++) {
    unsigned long key = random() % 5000;
    auto found = table.find(key);
    if (found == table.end()) {
      table.emplace(key, std::string(random() % 2000, char('A' + key % 26)));
    } else {
      sum += found->second.size() + (found->second.empty() ? 0 : found->second[0]);
      if (random() % 2) table.erase(found);
    }
    auto &block = blocks[random() % blocks.size()];
    if (round % 20 == 0) {
      for (char c : block) sum += (unsigned char)c;
      block.assign(random() % 150000, (char)round);
    }
    if (round % 1000 == 0) {
      try {
        if (random() % 2) throw std::runtime_error(std::string(random() % 3000, 'e'));
      } catch (std::runtime_error &error) {
        sum += std::string(error.what()).size();
      }
      // Freed by whichever thread drops it last.
      auto made = std::make_shared<std::vector<int>>(50000, (int)index);
      std::lock_guard<std::mutex> guard(lock);
      shared_vectors.push_back(made);
      if (shared_vectors.size() > 40) shared_vectors.erase(shared_vectors.begin());
    }
  }
  for (auto &entry : table) sum += entry.first * entry.second.size();
  return sum;
}

int main() {
  std::vector<std::thread> threads;
  std::vector<unsigned long> sums(8);
  for (unsigned i = 0; i < 8; i++) threads.emplace_back([&sums, i] { sums[i] = work(i); });
  for (auto &thread : threads) thread.join();
  unsigned long total = 0;
  for (unsigned long sum : sums) total = total * 1000003 + sum;
  for (auto &entry : early) total = total * 31 + entry.second.size();
  printf("%lu\n", total);
}
