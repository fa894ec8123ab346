// What fibers and threads share: blocks, barriers, exchange between lanes.
#include "host_cuda.h"

#include <cstdio>

#ifdef __SANITIZE_THREAD__
extern "C" {  // of the thread sanitizer's library, which has no header for them
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

thread_local uint3 threadIdx{};
thread_local uint3 blockIdx{};
thread_local dim3 blockDim;
thread_local dim3 gridDim;

namespace host_cuda {
namespace {

// While it lives, the thread sanitizer takes no lock of this thread for an order between threads,
// and no access to the engine's memory for a race. The locks do their work all the same.
class Unseen {
 public:
#ifdef __SANITIZE_THREAD__
  explicit Unseen(bool hide = true) : hides(hide) {
    if (!hides) return;
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    if (!hides) return;
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;

 private:
  bool hides;
#else
  explicit Unseen(bool = true) {}
#endif
};

Lanes& lanesOf(Warp& warp, uint32_t mask, std::source_location site) {
  const Unseen unseen;
  auto lock = lockOf(warp.mutex);
  if (mask & ~warp.alive) fail("a mask names a lane that has ended", site);
  return warp.lanes[mask];
}

void endLane(Warp& warp, unsigned lane) {
  const Unseen unseen;
  auto lock = lockOf(warp.mutex);
  warp.alive &= ~(1U << lane);
}

}  // namespace

thread_local Thread* current = nullptr;

void become(Thread& thread) {
  current = &thread;
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  blockDim = thread.block->size;
  gridDim = thread.block->grid;
}

Options& options() {
  static Options all;
  return all;
}

std::vector<Watched>& watched() {
  static std::vector<Watched> all;
  return all;
}

void fail(const char* what, std::source_location site) {
  std::fprintf(stderr, "host_cuda: %s (%s:%u)\n", what, site.file_name(), site.line());
  std::_Exit(kFault);
}

void makeBlock(Block& block, size_t sharedBytes) {
  block.alive = block.size.x * block.size.y * block.size.z;
  block.dynamicShared = std::make_unique<std::byte[]>(sharedBytes);
  std::memset(block.dynamicShared.get(), 0xAB, sharedBytes);  // what the last kernel left
  block.warps = std::vector<Warp>((block.alive + 31) / 32);
  for (Warp& warp : block.warps)
    warp.alive = 0xFFFFFFFFU;
  if (block.alive % 32 != 0) block.warps.back().alive = (1U << block.alive % 32) - 1;
  block.barrier.what = "__syncthreads";
}

Block::~Block() {
  for (auto& memory : staticShared)
    delete[] memory.load();
}

void arrive(Meeting& meeting, std::unique_lock<std::mutex>& lock, std::source_location site) {
  if (meeting.arrived > 0 && (meeting.site.line() != site.line() ||
                              std::strcmp(meeting.site.file_name(), site.file_name()) != 0)) {
    std::fprintf(stderr, "host_cuda: other threads wait in %s at line %u\n", meeting.what,
                 meeting.site.line());
    fail("threads diverged: they meet from two places", site);
  }
  meeting.site = site;
  if (++meeting.arrived == meeting.expected) {
    release(meeting);
  } else {
    suspend(meeting, lock);
  }
}

void syncThreads(std::source_location site) {
  Block& block = *current->block;
  auto lock = lockOf(block.barrier.mutex);
  block.barrier.expected = block.alive;
  arrive(block.barrier, lock, site);
}

const std::array<std::array<std::byte, 16>, 32>& meetLanes(const char* what, uint32_t mask,
                                                           const void* value, size_t bytes,
                                                           std::source_location site) {
  Warp& warp = current->block->warps[current->number / 32];
  const unsigned lane = current->number % 32;
  if (!(mask >> lane & 1)) fail("a lane is not in its own mask", site);
  Lanes& lanes = lanesOf(warp, mask, site);
  const Unseen unseen(bytes > 0);  // only __syncwarp, which hands over nothing, orders memory
  auto lock = lockOf(lanes.meeting.mutex);
  auto& values = lanes.values[lanes.meeting.generation % 2];
  if (bytes > 0) std::memcpy(&values[lane], value, bytes);
  lanes.meeting.what = what;
  lanes.meeting.expected = static_cast<unsigned>(__builtin_popcount(mask));
  arrive(lanes.meeting, lock, site);
  return values;
}

void leave(Thread& thread) {
  Block& block = *thread.block;
  endLane(block.warps[thread.number / 32], thread.number % 32);
  auto lock = lockOf(block.barrier.mutex);
  block.barrier.expected = --block.alive;  // a barrier waits for the threads that have not ended
  if (block.alive > 0 && block.barrier.arrived == block.alive) release(block.barrier);
}

// Found without a lock, which would order the threads and so hide their races.
void* staticShared(unsigned key, size_t bytes) {
  auto& there = current->block->staticShared.at(key);
  if (std::byte* memory = there.load(std::memory_order_acquire)) return memory;
  auto mine = std::make_unique<std::byte[]>(bytes);
  std::memset(mine.get(), 0xAB, bytes);
  std::byte* other = nullptr;
  if (there.compare_exchange_strong(other, mine.get(), std::memory_order_acq_rel)) {
    return mine.release();
  }
  return other;
}

}  // namespace host_cuda
