// Peaks of one plane, the heat map of a class, and the best of them.
//
// A block takes a plane, from the top down, in chunks of 16 cells a thread. A thread loads vectors
// of 16 bytes: one column of vectors, and a few rows one under the other. The next chunk is on its
// way while this one is searched, so a block has 32 KiB in flight. A cell is compared with the
// maxima of three cells across, of its own row and of the rows above and below: across by shuffles,
// down by shared memory. What lies outside the plane is NaN, which fmaxf ignores.
//
// Keys of peaks are listed in shared memory. A list that would overflow is cut to the best `topK`
// before it takes the next chunk. That happens on plateaus only: of distinct values one in four can
// be a peak, and 128 x 128 cells fit.
#pragma once

#include <cuda_fp16.h>

#include "best.cuh"

namespace cornernet {

constexpr int kMaxTopK = kMostBest;
constexpr int kPeakThreads = 256;
constexpr int kChunkCells = kPeakThreads * 16;
constexpr int kListedKeys = kMaxTopK + kChunkCells;
constexpr int kMaxTile = 128;  // vectors of a row that a chunk takes, at most

struct PeakSearch {
  const void*
      heat[2];  // top-left, bottom-right: [images, classes, height, width], one of the two types
  Key* keys;    // [images, 2, classes, kept]: value, flat index in [classes, height, width]
  int* counts;  // [images, 2, classes]
  int classes;
  int height;
  int width;
  int topK;
  int kept;   // room for keys of a plane, at least topK
  int tile;   // vectors of a row side by side, a power of two up to kMaxTile
  int whole;  // vectors are aligned and do not pass the end of a row
};

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

// A vector of cells, and the cells as floats.
template <typename Element>
struct Cells;

template <>
struct Cells<float> {
  static constexpr int kCount = 4;
  using Bits = unsigned;
  static constexpr unsigned kNaN = 0x7FC00000U;
  static __device__ float toFloat(Bits bits) { return __uint_as_float(bits); }
  static __device__ void unpack(const uint4& vector, float (&cells)[kCount]) {
    cells[0] = __uint_as_float(vector.x);
    cells[1] = __uint_as_float(vector.y);
    cells[2] = __uint_as_float(vector.z);
    cells[3] = __uint_as_float(vector.w);
  }
  static __device__ uint4 pack(const float (&cells)[kCount]) {
    return {__float_as_uint(cells[0]), __float_as_uint(cells[1]), __float_as_uint(cells[2]),
            __float_as_uint(cells[3])};
  }
};

template <>
struct Cells<__half> {
  static constexpr int kCount = 8;
  using Bits = unsigned short;
  static constexpr unsigned short kNaN = 0x7E00U;
  static __device__ float toFloat(Bits bits) { return __half2float(__ushort_as_half(bits)); }
  static __device__ void unpackWord(unsigned word, float& low, float& high) {
    low = toFloat(static_cast<Bits>(word & 0xFFFFU));
    high = toFloat(static_cast<Bits>(word >> 16));
  }
  static __device__ unsigned packWord(float low, float high) {
    const unsigned lower = __half_as_ushort(__float2half_rn(low));
    return lower | static_cast<unsigned>(__half_as_ushort(__float2half_rn(high))) << 16;
  }
  static __device__ void unpack(const uint4& vector, float (&cells)[kCount]) {
    unpackWord(vector.x, cells[0], cells[1]);
    unpackWord(vector.y, cells[2], cells[3]);
    unpackWord(vector.z, cells[4], cells[5]);
    unpackWord(vector.w, cells[6], cells[7]);
  }
  static __device__ uint4 pack(const float (&cells)[kCount]) {
    return {packWord(cells[0], cells[1]), packWord(cells[2], cells[3]),
            packWord(cells[4], cells[5]), packWord(cells[6], cells[7])};
  }
};

template <typename Element>
struct Plane {
  using Bits = typename Cells<Element>::Bits;
  static constexpr int kCount = Cells<Element>::kCount;
  const Bits* cells;
  int height;
  int width;
  bool whole;

  __device__ bool holds(int y, int x) const { return y < height && x >= 0 && x < width; }
  __device__ Bits bits(int y, int x) const {
    Bits found = Cells<Element>::kNaN;
    if (holds(y, x)) found = __ldg(cells + y * width + x);
    return found;
  }
  __device__ float cell(int y, int x) const { return Cells<Element>::toFloat(bits(y, x)); }
  __device__ unsigned word(int y, int x) const {
    if constexpr (sizeof(Bits) == 4) {
      return bits(y, x);
    } else {
      return bits(y, x) | static_cast<unsigned>(bits(y, x + 1)) << 16;
    }
  }
  __device__ uint4 vector(int y, int x) const {
    constexpr unsigned kNaN = sizeof(Bits) == 4 ? Cells<Element>::kNaN : 0x7E007E00U;
    constexpr int kStep = kCount / 4;
    uint4 found{kNaN, kNaN, kNaN, kNaN};
    if (whole) {
      if (holds(y, x)) found = __ldg(reinterpret_cast<const uint4*>(cells + y * width + x));
    } else {
      found.x = word(y, x);
      found.y = word(y, x + kStep);
      found.z = word(y, x + 2 * kStep);
      found.w = word(y, x + 3 * kStep);
    }
    return found;
  }
};

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

// Maxima of each cell and the two beside it.
template <int kCount>
__device__ void maximaAcross(const float (&cells)[kCount], float before, float after,
                             float (&highest)[kCount]) {
#pragma unroll
  for (int c = 0; c < kCount; ++c) {
    const float left = c > 0 ? cells[c > 0 ? c - 1 : 0] : before;
    const float right = c < kCount - 1 ? cells[c < kCount - 1 ? c + 1 : 0] : after;
    highest[c] = fmaxf(fmaxf(left, cells[c]), right);
  }
}

template <typename Element>
__device__ void searchPlane(const PeakSearch& p, PeakMemory& memory) {
  constexpr int kCount = Cells<Element>::kCount;
  constexpr int kRows = 16 / kCount;
  constexpr int kToldKeys = 2 * kPeakThreads * sizeof(uint4) / sizeof(Key);
  const int label = static_cast<int>(blockIdx.x);
  const size_t number = size_t{blockIdx.y} * p.classes + label;
  const int size = p.height * p.width;
  const auto* heat = static_cast<const typename Cells<Element>::Bits*>(
      blockIdx.y % 2 == 0 ? p.heat[0] : p.heat[1]);
  const Plane<Element> plane{heat + (size_t{blockIdx.y / 2} * p.classes + label) * size, p.height,
                             p.width, p.whole != 0};
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int column = thread % p.tile;
  const int strip = thread / p.tile;  // of kRows rows
  const int strips = kPeakThreads / p.tile;
  const int lanes = min(p.tile, 32);  // that share a row
  const bool firstLane = thread % lanes == 0;
  const bool lastLane = thread % lanes == lanes - 1;
  uint4* told = reinterpret_cast<uint4*>(memory.keys + kListedKeys - kToldKeys);
  PeakList list(memory, p.topK);

  for (int left = 0; left < p.width; left += p.tile * kCount) {
    const int x = left + column * kCount;
    uint4 next[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      next[r] = plane.vector(strip * kRows + r, x);
    }
    for (int top = 0; top < p.height; top += strips * kRows) {
      const int row = top + strip * kRows;
      const int bottom = top + strips * kRows;  // first row of the next chunk
      float cells[kRows][kCount];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        Cells<Element>::unpack(next[r], cells[r]);
        next[r] = plane.vector(bottom + strip * kRows + r, x);
      }
      if (p.tile > 32) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (firstLane) memory.firstCells[r][warp] = cells[r][0];
          if (lastLane) memory.lastCells[r][warp] = cells[r][kCount - 1];
        }
        __syncthreads();
      }
      float highest[kRows][kCount];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float before = __shfl_up_sync(kAllLanes, cells[r][kCount - 1], 1);
        float after = __shfl_down_sync(kAllLanes, cells[r][0], 1);
        if (column == 0) {
          before = plane.cell(row + r, x - 1);  // outside the plane, but in a very wide one
        } else if (firstLane) {
          before = memory.lastCells[r][warp - 1];
        }
        if (column == p.tile - 1) {
          after = plane.cell(row + r, x + kCount);
        } else if (lastLane) {
          after = memory.firstCells[r][warp + 1];
        }
        maximaAcross<kCount>(cells[r], before, after, highest[r]);
      }
      told[thread] = Cells<Element>::pack(highest[0]);
      told[kPeakThreads + thread] = Cells<Element>::pack(highest[kRows - 1]);
      __syncthreads();

      // Three rows at a time: above, this one, below.
      const uint4 nothing = plane.vector(p.height, 0);
      uint4 toldAbove = nothing;
      if (strip > 0) {
        toldAbove = told[kPeakThreads + thread - p.tile];
      } else if (top > 0) {
        toldAbove = memory.carriedHighest[column];
      }
      uint4 toldBelow = nothing;
      if (strip < strips - 1) toldBelow = told[thread + p.tile];
      float above[kCount], below[kCount];
      Cells<Element>::unpack(toldAbove, above);
      Cells<Element>::unpack(toldBelow, below);
      // The last row of a chunk is decided when the next one is known.
      const bool carries = strip == strips - 1 && bottom < p.height;
      unsigned peaks = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          const float over = r > 0 ? highest[r > 0 ? r - 1 : 0][c] : above[c];
          const float under = r < kRows - 1 ? highest[r < kRows - 1 ? r + 1 : 0][c] : below[c];
          const float around = fmaxf(fmaxf(over, highest[r][c]), under);
          if (cells[r][c] >= around) peaks |= 1U << (r * kCount + c);
        }
      }

      if (top > 0) {
        unsigned carriedPeaks = 0;
        float carried[kCount];
        uint4 kept = nothing;
        if (strip == 0) kept = memory.carriedCells[column];
        Cells<Element>::unpack(kept, carried);
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          if (carried[c] >= fmaxf(carried[c], highest[0][c])) carriedPeaks |= 1U << c;
        }
        int position = list.claim(__popc(carriedPeaks));
        const unsigned start = static_cast<unsigned>(label) * size + (top - 1) * p.width + x;
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          if (carriedPeaks >> c & 1) list.put(position++, keyOf(carried[c], start + c));
        }
      }
      const unsigned lastRow = ((1U << kCount) - 1) << (kRows - 1) * kCount;
      const unsigned decided = carries ? peaks & ~lastRow : peaks;
      int position = list.claim(__popc(decided));
      const unsigned start = static_cast<unsigned>(label) * size + row * p.width + x;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          if (decided >> (r * kCount + c) & 1) {
            list.put(position++, keyOf(cells[r][c], start + r * p.width + c));
          }
        }
      }
      if (carries) {
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          if (!(peaks >> ((kRows - 1) * kCount + c) & 1)) cells[kRows - 1][c] = notANumber();
        }
        memory.carriedCells[column] = Cells<Element>::pack(cells[kRows - 1]);
        memory.carriedHighest[column] = Cells<Element>::pack(highest[kRows - 1]);
      }
      list.free(kToldKeys);
    }
  }
  const int written = list.write(p.keys + number * p.kept, p.kept);
  if (thread == 0) p.counts[number] = written;
}

}  // namespace cornernet
