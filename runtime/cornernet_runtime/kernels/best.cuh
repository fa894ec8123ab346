// The best of many distinct keys, exactly and in order, by one block.
//
// Keys come from a source with a method each(visit), which gives every warp of the block its share:
// the lanes of a warp call visit(key) together, with 0 where a lane has none.
#pragma once

#include "keys.cuh"

namespace cornernet {

constexpr int kMostBest = 1024;  // a key for each thread of the largest block
constexpr int kDigits = 256;

// Three, so that one barrier a round is enough: while a round counts in one, it clears the next,
// and a slow warp may still read the one before.
struct alignas(16) Histograms {
  unsigned counts[3][kDigits];
};

struct BestMemory {
  Histograms histograms;
  Key keys[2][kMostBest];
  int staged;
};

// Keys of an array, in shared or device memory.
struct ListedKeys {
  const Key* keys;
  int count;

  template <typename Visit>
  __device__ void each(Visit visit) const {
    for (int start = threadIdx.x & ~31U; start < count; start += blockDim.x) {
      const int i = start + static_cast<int>(threadIdx.x % 32);
      Key key = 0;
      if (i < count) key = keys[i];
      visit(key);
    }
  }
};

// Keys of several lists, which have the same room; warps take lists in turn.
struct KeyLists {
  const Key* keys;
  const int* counts;
  int lists;
  int room;

  template <typename Visit>
  __device__ void each(Visit visit) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int list = threadIdx.x / 32; list < lists; list += blockDim.x / 32) {
      const int count = counts[list];
      for (int start = 0; start < count; start += 32) {
        Key key = 0;
        if (start + lane < count) key = keys[static_cast<size_t>(list) * room + start + lane];
        visit(key);
      }
    }
  }
};

// Where the wanted-th largest key is among those counted by digit: each warp finds it for itself.
struct Digit {
  unsigned value;  // of the digit
  int above;       // keys with a larger digit
  int equal;       // keys with this one
  int total;
};

inline __device__ Digit findDigit(const unsigned* counts, int wanted) {
  constexpr int kOfLane = kDigits / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int highest = kDigits - 1 - lane * kOfLane;  // the first lane has the largest digits
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    sum += static_cast<int>(counts[highest - i]);
  }
  const int through = sumThroughLane(sum);
  const unsigned reached = __ballot_sync(kAllLanes, through >= wanted);
  Digit digit{};
  digit.total = __shfl_sync(kAllLanes, through, 31);
  const int source = reached ? __ffs(static_cast<int>(reached)) - 1 : 31;
  int above = through - sum;
  int equal = 0;
  unsigned value = 0;
  bool found = false;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    if (!found) {
      above += equal;
      equal = static_cast<int>(counts[highest - i]);
      value = highest - i;
      found = above + equal >= wanted;
    }
  }
  digit.value = __shfl_sync(kAllLanes, value, source);
  digit.above = __shfl_sync(kAllLanes, above, source);
  digit.equal = __shfl_sync(kAllLanes, equal, source);
  return digit;
}

// Return a key that at least `wanted` and at most `most` keys reach; 0 where there are no more than
// `most` at all. Counts digits of 8 bits from the top down, and stops as soon as the count fits:
// after two or three rounds for values of a network, after eight at worst.
template <typename Source>
__device__ Key thresholdOf(const Source& source, int wanted, int most, Histograms& histograms) {
  __syncthreads();  // whoever used the memory before has done so
  for (unsigned i = threadIdx.x; i < kDigits; i += blockDim.x)
    histograms.counts[0][i] = 0;
  __syncthreads();
  Key prefix = 0;
  int above = 0;
  int now = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    unsigned* counts = histograms.counts[now];
    const int next = now == 2 ? 0 : now + 1;
    for (unsigned i = threadIdx.x; i < kDigits; i += blockDim.x)
      histograms.counts[next][i] = 0;
    source.each([&](Key key) {
      // In two steps, for a shift by 64 is not defined.
      const bool same = key >> shift >> 8 == prefix >> shift >> 8;
      if (key != 0 && same) atomicAdd(&counts[key >> shift & (kDigits - 1)], 1U);
    });
    __syncthreads();
    const Digit digit = findDigit(counts, wanted - above);
    if (shift == 56 && digit.total <= most) return 0;
    prefix |= Key{digit.value} << shift;
    above += digit.above;
    if (above + digit.equal <= most) break;
    now = next;
  }
  return prefix;
}

// Sort one key a thread, largest first, over the first `count` threads, a power of two. Bitonic.
// The two buffers take turns, so that an exchange needs one barrier.
inline __device__ Key sortedKey(Key key, int count, Key (*buffers)[kMostBest]) {
  const int thread = static_cast<int>(threadIdx.x);
  int turn = 0;
  for (int size = 2; size <= count; size *= 2) {
    for (int distance = size / 2; distance > 0; distance /= 2) {
      Key other;
      if (distance < 32) {
        other = __shfl_xor_sync(kAllLanes, key, distance);
      } else {
        buffers[turn][thread] = key;
        __syncthreads();
        other = buffers[turn][thread ^ distance];
        turn ^= 1;
      }
      const bool first = (thread & distance) == 0;
      const bool descending = (thread & size) == 0;
      if (first == descending ? other > key : other < key) key = other;
    }
  }
  return key;
}

// Return the key of rank threadIdx.x among the `wanted` best, 0 where there is none. The block has
// a power of two of threads, at least 32 and at least `wanted`. Leaves `memory` free after the next
// barrier.
template <typename Source>
__device__ Key bestKey(const Source& source, int wanted, BestMemory& memory) {
  int most = 32;
  while (most < wanted)
    most *= 2;
  if (threadIdx.x == 0) memory.staged = 0;
  const Key threshold = thresholdOf(source, wanted, most, memory.histograms);
  source.each([&](Key key) {
    const bool kept = key != 0 && key >= threshold;
    const unsigned votes = __ballot_sync(kAllLanes, kept);
    if (votes == 0) return;
    int start = 0;
    if (threadIdx.x % 32 == 0) start = atomicAdd(&memory.staged, __popc(votes));
    start = __shfl_sync(kAllLanes, start, 0);
    if (kept) memory.keys[0][start + lanesBefore(votes)] = key;
  });
  __syncthreads();
  const int staged = memory.staged;
  Key key = 0;
  if (static_cast<int>(threadIdx.x) < staged) key = memory.keys[0][threadIdx.x];
  int size = 2;
  while (size < staged)
    size *= 2;
  __syncthreads();
  key = sortedKey(key, size, memory.keys);
  return static_cast<int>(threadIdx.x) < wanted ? key : 0;
}

// Where this thread's entry goes among those that are kept, in order of threads, and how many there
// are; warps [32] must be free. One barrier.
struct Place {
  int position;
  int total;
};

inline __device__ Place placeOf(bool kept, int* warps) {
  const unsigned votes = __ballot_sync(kAllLanes, kept);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (lane == 0) warps[warp] = __popc(votes);
  __syncthreads();
  int count = 0;
  if (lane < static_cast<int>(blockDim.x / 32)) count = warps[lane];
  const int through = sumThroughLane(count);
  const int before = __shfl_sync(kAllLanes, through - count, warp);
  return {before + lanesBefore(votes), __shfl_sync(kAllLanes, through, 31)};
}

}  // namespace cornernet
