// The engine under cuda_runtime.h of this folder: the threads of a grid, run on the CPU.
//
// host_cuda_fibers.cpp switches between fibers on one core: quick, repeatable by seed, finds
// deadlocks, runs under the address and undefined-behaviour sanitizers. host_cuda_threads.cpp takes
// an operating system thread for each CUDA thread: slow, for the thread sanitizer. Both keep
// several blocks in flight and start them in random order, so no block waits for another.
#pragma once

#include <vector_types.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <source_location>
#include <vector>

extern thread_local uint3 threadIdx;
extern thread_local uint3 blockIdx;
extern thread_local dim3 blockDim;
extern thread_local dim3 gridDim;

namespace host_cuda {

struct Thread;

// A point where threads wait for each other. All must come from the same line: threads that come
// from two have diverged.
struct Meeting {
  std::mutex mutex;  // of its own: a lock for a whole block would order warps that do not meet
  const char* what = "";
  unsigned expected = 0;
  unsigned arrived = 0;
  uint64_t generation = 0;
  std::source_location site;
  std::vector<Thread*> waiting;       // fibers
  std::condition_variable everybody;  // threads
};

// The lanes of one mask. Values lie in two sets in turn, for a quick lane may meet again before a
// slow one has read.
struct Lanes {
  Meeting meeting;
  std::array<std::array<std::array<std::byte, 16>, 32>, 2> values{};
};

struct Warp {
  std::mutex mutex;
  uint32_t alive = 0;
  std::map<uint32_t, Lanes> lanes;  // by mask
};

struct Block {
  uint3 index{};
  dim3 size, grid;
  std::unique_ptr<std::byte[]> dynamicShared;
  std::array<std::atomic<std::byte*>, 64> staticShared{};
  Meeting barrier;  // its mutex is that of the next as well
  unsigned alive = 0;
  std::vector<Warp> warps;

  ~Block();
};

struct Thread {
  uint3 index{};
  Block* block = nullptr;
  unsigned number = 0;  // in the block
};

extern thread_local Thread* current;

// Go on as this thread: sets the variables below as well.
void become(Thread& thread);

struct Options {
  unsigned seed = 1;
  unsigned blocksInFlight = 3;
  int multiprocessors = 132;
};
Options& options();

// Run the body for each thread of the grid. Prints what is wrong and ends the process with kFault
// when threads diverge or wait for each other for ever.
inline constexpr int kFault = 86;
void run(dim3 grid, dim3 block, size_t sharedBytes, const std::function<void()>& body);

void syncThreads(std::source_location site);
// Deposit `bytes` of this lane, wait for the lanes of `mask`, and return what all deposited, by
// lane. Orders memory only where `bytes` is 0, in __syncwarp: a shuffle or a vote waits for its
// lanes, but promises nothing about what they wrote before.
const std::array<std::array<std::byte, 16>, 32>& meetLanes(const char* what, uint32_t mask,
                                                           const void* value, size_t bytes,
                                                           std::source_location site);
void* staticShared(unsigned key, size_t bytes);
[[noreturn]] void fail(const char* what, std::source_location site);

// Accesses to memory watched so, by kernels compiled with -fsanitize=thread and linked to
// host_cuda_count.cpp.
struct Watched {
  const std::byte* start;
  size_t bytes;
  uint64_t readBytes = 0;
  uint64_t writtenBytes = 0;
};
std::vector<Watched>& watched();

// Between the engine and its two ways to run threads.
void makeBlock(Block& block, size_t sharedBytes);
void arrive(Meeting& meeting, std::unique_lock<std::mutex>& lock, std::source_location site);
void leave(Thread& thread);
void release(Meeting& meeting);
void suspend(Meeting& meeting, std::unique_lock<std::mutex>& lock);
std::unique_lock<std::mutex> lockOf(std::mutex& mutex);

}  // namespace host_cuda
