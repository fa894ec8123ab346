// The list of a plane's best peaks in shared memory, for decode_peaks.cuh.
#pragma once

#include "best.cuh"

namespace cornernet {

constexpr int kMaxTopK = kMostBest;
constexpr int kPeakThreads = 256;
constexpr int kChunkCells = kPeakThreads * 16;
constexpr int kListedKeys = kMaxTopK + kChunkCells;
constexpr int kMaxTile = 128;  // vectors of a row that a chunk takes, at most

struct alignas(16) PeakMemory {
  Key keys[kListedKeys];  // the end of it also takes what threads tell each other
  Histograms histograms;
  uint4 carriedCells[kMaxTile];    // last row of the chunk before; NaN for what is no peak for sure
  uint4 carriedHighest[kMaxTile];  // maxima of three of that row
  float firstCells[4][kPeakThreads / 32];
  float lastCells[4][kPeakThreads / 32];
  int claimed[3];
};

static_assert(sizeof(PeakMemory) <= 48 << 10, "more than a block may have");

// Places in a list for `mine` keys of each thread; one barrier. Three counters take turns, as
// histograms do.
class Claims {
 public:
  __device__ explicit Claims(int (&counters)[3]) : counters_(counters) {
    if (threadIdx.x < 3) counters_[threadIdx.x] = 0;
    __syncthreads();
  }
  __device__ Place take(int mine) {
    const int next = turn_ == 2 ? 0 : turn_ + 1;
    if (threadIdx.x == 0) counters_[next] = 0;
    const int through = sumThroughLane(mine);
    int start = 0;
    if (threadIdx.x % 32 == 31 && through > 0) start = atomicAdd(&counters_[turn_], through);
    start = __shfl_sync(kAllLanes, start, 31);
    __syncthreads();
    const int total = counters_[turn_];
    turn_ = next;
    return {start + through - mine, total};
  }

 private:
  int (&counters_)[3];
  int turn_ = 0;
};

// The list of keys in shared memory.
class PeakList {
 public:
  __device__ PeakList(PeakMemory& memory, int topK)
      : memory_(memory), topK_(topK), claims_(memory.claimed) {}

  // Where this thread may put `mine` keys, of at most kChunkCells in all.
  __device__ int claim(int mine) {
    const Place place = claims_.take(mine);
    if (count_ + place.total > kListedKeys) cut();
    const int position = count_ + place.position;
    count_ += place.total;
    return position;
  }
  __device__ void put(int position, Key key) { memory_.keys[position] = key; }

  // Make room for what threads tell each other.
  __device__ void free(int keys) {
    if (count_ > kListedKeys - keys) cut();
  }

  // Write the best to `to`, at least topK where there are as many, at most `kept`; return how many.
  __device__ int write(Key* to, int kept) {
    const ListedKeys all{memory_.keys, count_};
    return gather(thresholdOf(all, topK_, kept, memory_.histograms), to);
  }

 private:
  __device__ void cut() {
    const ListedKeys all{memory_.keys, count_};
    count_ = gather(thresholdOf(all, topK_, topK_, memory_.histograms), memory_.keys);
    __syncthreads();
  }

  // Move keys from the threshold on to `to`, which may be the list itself: a key never moves up.
  __device__ int gather(Key threshold, Key* to) {
    int gathered = 0;
    for (int start = 0; start < count_; start += kPeakThreads) {
      const int i = start + static_cast<int>(threadIdx.x);
      Key key = 0;
      if (i < count_) key = memory_.keys[i];
      const bool kept = key != 0 && key >= threshold;
      const Place place = claims_.take(kept);
      if (kept) to[gathered + place.position] = key;
      gathered += place.total;
    }
    return gathered;
  }

  PeakMemory& memory_;
  int topK_;
  int count_ = 0;
  Claims claims_;
};

}  // namespace cornernet
