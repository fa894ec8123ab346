// A thread of the operating system for each thread of a grid, for the thread sanitizer. Only
// __syncthreads and __syncwarp order anything that it sees, and only inside their block, so that
// what races on a device races here.
#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>

#include "host_cuda.h"

namespace host_cuda {

std::unique_lock<std::mutex> lockOf(std::mutex& mutex) {
  return std::unique_lock(mutex);
}

void suspend(Meeting& meeting, std::unique_lock<std::mutex>& lock) {
  const uint64_t generation = meeting.generation;
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(60);
  while (meeting.generation == generation) {
    if (meeting.everybody.wait_until(lock, deadline) == std::cv_status::timeout) {
      fail("threads wait for others that never come", meeting.site);
    }
  }
}

void release(Meeting& meeting) {
  meeting.arrived = 0;
  ++meeting.generation;
  meeting.everybody.notify_all();
}

void run(dim3 grid, dim3 size, size_t sharedBytes, const std::function<void()>& body) {
  std::vector<uint64_t> waiting(uint64_t{grid.x} * grid.y * grid.z);
  std::iota(waiting.begin(), waiting.end(), 0);
  std::shuffle(waiting.begin(), waiting.end(), std::mt19937(options().seed));
  while (!waiting.empty()) {
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::thread> threads;
    // All begin together: one that ends before another begins cannot race with it.
    std::atomic<bool> go = false;
    for (; !waiting.empty() && blocks.size() < options().blocksInFlight; waiting.pop_back()) {
      const uint64_t number = waiting.back();
      Block& block = *blocks.emplace_back(std::make_unique<Block>());
      block.grid = grid;
      block.size = size;
      block.index = {static_cast<unsigned>(number % grid.x),
                     static_cast<unsigned>(number / grid.x % grid.y),
                     static_cast<unsigned>(number / grid.x / grid.y)};
      makeBlock(block, sharedBytes);
    }
    for (const auto& block : blocks) {
      for (unsigned i = 0; i < size.x * size.y * size.z; ++i) {
        threads.emplace_back([&body, &go, &block = *block, size, i] {
          Thread thread{{i % size.x, i / size.x % size.y, i / size.x / size.y}, &block, i};
          become(thread);
          go.wait(false);
          body();
          leave(thread);
        });
      }
    }
    go = true;
    go.notify_all();
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
}

}  // namespace host_cuda
