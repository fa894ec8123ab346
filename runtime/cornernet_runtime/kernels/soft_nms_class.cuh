// Soft non-maximum suppression within one class of one frame, by one block.
//
// A thread keeps the scores of up to kItems candidates in registers. For each pick, warps find
// their best by two reductions, tell each other through shared memory behind one barrier, and every
// thread lowers its own scores. As few warps as the class needs take part, one and no barrier at
// all up to 128 candidates.
#pragma once

#include "best.cuh"
#include "candidates.cuh"

namespace cornernet {

enum class Decay : int { kGaussian, kLinear, kHard };

struct ClassSuppression {
  CandidateArrays found;  // [frames * views, capacity]
  Key* picks;             // [frames, classes, kept]: score, index in [views, capacity]; best first
  int* counts;            // [frames, classes]
  float4* merged;         // [frames, views, capacity]: picked boxes after merging
  int views;
  int classes;
  int kept;  // picks of a class, at most
  Decay decay;
  float gaussianFactor;  // -1 / sigma
  float iouThreshold;
  float scoreFloor;  // above 0
  float pixelExtent;
  float mergeExponent;
};

constexpr int kHeldItems = 4;  // a thread keeps the boxes of as many in registers as well

template <int kThreads, int kItems>
struct ClassMemory {
  unsigned short members[kThreads * kItems];  // indices in [views, capacity], ascending
  int warps[2][32];
  Key slots[2][kThreads / 32];
  double sums[kThreads / 32][6];
};

inline __device__ float areaOf(const float4& box, float extent) {
  return (box.z - box.x + extent) * (box.w - box.y + extent);
}

// The factor for the score of a box beside a picked one.
inline __device__ float decayOf(const ClassSuppression& p, const float4& one, float oneArea,
                                const float4& other) {
  const float width = fminf(other.z, one.z) - fmaxf(other.x, one.x) + p.pixelExtent;
  const float height = fminf(other.w, one.w) - fmaxf(other.y, one.y) + p.pixelExtent;
  const float shared = fmaxf(width, 0.0F) * fmaxf(height, 0.0F);
  const float joined = areaOf(other, p.pixelExtent) + oneArea - shared;
  float decay = 1;
  if (shared > 0 && joined > 0) {
    const float iou = shared / joined;
    if (p.decay == Decay::kGaussian) {
      decay = expf(iou * iou * p.gaussianFactor);
    } else if (iou > p.iouThreshold) {
      decay = p.decay == Decay::kHard ? 0.0F : 1.0F - iou;
    }
  }
  return decay;
}

// Corners of boxes around a picked one, added up with their weights.
struct MergeSums {
  double values[6];  // x1 y1 x2 y2, weight of the top-left corners, of the bottom-right ones

  __device__ void add(double weight, const float4& box, float tlScore, float brScore) {
    const double tl = weight * tlScore;
    const double br = weight * brScore;
    values[0] += box.x * tl;
    values[1] += box.y * tl;
    values[2] += box.z * br;
    values[3] += box.w * br;
    values[4] += tl;
    values[5] += br;
  }

  // Add up those of the warp, and through `sums` those of all warps, for the first thread.
  __device__ void gather(int warps, double (*sums)[6]) {
#pragma unroll
    for (double& value : values) {
      for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, distance);
      }
    }
    if (warps == 1) return;
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int i = 0; i < 6; ++i)
        sums[threadIdx.x / 32][i] = values[i];
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int warp = 1; warp < warps; ++warp) {
#pragma unroll
      for (int i = 0; i < 6; ++i)
        values[i] += sums[warp][i];
    }
  }

  // In double precision, so that a mean of boxes within the frame is within the frame.
  __device__ float4 mean(const float4& own) const {
    float4 box = own;
    if (values[4] > 0) {
      box.x = static_cast<float>(values[0] / values[4]);
      box.y = static_cast<float>(values[1] / values[4]);
    }
    if (values[5] > 0) {
      box.z = static_cast<float>(values[2] / values[5]);
      box.w = static_cast<float>(values[3] / values[5]);
    }
    return box;
  }
};

// The candidates of one class of one frame, spread over threads.
template <int kThreads, int kItems, bool kMerges>
class ClassOfFrame {
 public:
  using Memory = ClassMemory<kThreads, kItems>;

  __device__ ClassOfFrame(const ClassSuppression& p, Memory& memory)
      : p_(p), memory_(memory), start_(size_t{blockIdx.y} * p.views * p.found.capacity) {
    collect();
    const int wanted = (count_ + kHeldItems - 1) / kHeldItems;
    warps_ = min(max((wanted + 31) / 32, 1), kThreads / 32);
    threads_ = warps_ * 32;
  }

  __device__ void suppress() {
    if (static_cast<int>(threadIdx.x) >= threads_) return;
    const size_t number = size_t{blockIdx.y} * p_.classes + blockIdx.x;
    float4 boxes[kHeld];
    float scores[kItems];
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      scores[i] = -1;
      if (!exists(i)) continue;
      scores[i] = p_.found.scores[start_ + member(i)];
      if (kHeld == kItems) boxes[i % kHeld] = boxOf(member(i));
    }
    int picked = 0;
    for (; picked < p_.kept; ++picked) {
      const Key best = findBest(scores, picked % 2);
      if (best == 0) break;
      const int position = static_cast<int>(indexOf(best));
      const unsigned index = memory_.members[position];
      const float4 own = boxOf(index);
      const float ownArea = areaOf(own, p_.pixelExtent);
      MergeSums sums{};
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        if (i * threads_ >= count_) continue;  // the same for all threads
        if (scores[i] < p_.scoreFloor) continue;
        float4 box;
        if constexpr (kHeld == kItems) {
          box = boxes[i];
        } else {
          box = boxOf(member(i));
        }
        const bool isPicked = positionAt(i) == position;
        const float decay = decayOf(p_, own, ownArea, box);
        scores[i] = isPicked ? -1.0F : scores[i] * decay;
        if constexpr (kMerges) {
          if (isPicked || decay < 1 || p_.mergeExponent == 0) {
            const float weight = isPicked ? 1.0F : powf(1.0F - decay, p_.mergeExponent);
            const size_t at = start_ + member(i);
            sums.add(weight, box, p_.found.tlScores[at], p_.found.brScores[at]);
          }
        }
      }
      if constexpr (kMerges) sums.gather(warps_, memory_.sums);
      if (threadIdx.x == 0) {
        p_.picks[number * p_.kept + picked] = keyOf(scoreOf(best), index);
        if (kMerges) p_.merged[start_ + index] = sums.mean(own);
      }
    }
    if (threadIdx.x == 0) p_.counts[number] = picked;
  }

 private:
  static constexpr int kHeld = kItems <= kHeldItems ? kItems : 1;

  // List the candidates of the class that reach the floor, in order.
  __device__ void collect() {
    const int all = p_.views * p_.found.capacity;
    int turn = 0;
    for (int start = 0; start < all; start += kThreads) {
      const int index = start + static_cast<int>(threadIdx.x);
      const int view = index / p_.found.capacity;
      bool kept = false;
      if (index < all &&
          index % p_.found.capacity < p_.found.counts[blockIdx.y * p_.views + view]) {
        kept = p_.found.labels[start_ + index] == static_cast<int>(blockIdx.x) &&
               p_.found.scores[start_ + index] >= p_.scoreFloor;
      }
      const Place place = placeOf(kept, memory_.warps[turn]);
      if (kept) memory_.members[count_ + place.position] = static_cast<unsigned short>(index);
      count_ += place.total;
      turn ^= 1;
    }
    __syncthreads();
  }

  __device__ int positionAt(int item) const {
    return item * threads_ + static_cast<int>(threadIdx.x);
  }
  __device__ bool exists(int item) const { return positionAt(item) < count_; }
  __device__ unsigned member(int item) const { return memory_.members[positionAt(item)]; }
  __device__ float4 boxOf(unsigned index) const { return p_.found.boxes[start_ + index]; }

  // The best score of the warp, and among equal ones the lowest position, as a key; scores are
  // positive, so their bits order them.
  static __device__ Key bestOfWarp(unsigned bits, unsigned position) {
    const unsigned highest = maximumOfWarp(bits);
    const unsigned first = minimumOfWarp(bits == highest ? position : 0xFFFFFFFFU);
    return highest == 0 ? 0 : Key{highest} << 32 | ~first;
  }
  static __device__ float scoreOf(Key key) {
    return __uint_as_float(static_cast<unsigned>(key >> 32));
  }

  __device__ Key findBest(const float (&scores)[kItems], int turn) {
    float highest = 0;
    int position = 0;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (scores[i] >= p_.scoreFloor && scores[i] > highest) {
        highest = scores[i];
        position = positionAt(i);
      }
    }
    Key best = bestOfWarp(__float_as_uint(highest), position);
    if (warps_ == 1) return best;
    if (threadIdx.x % 32 == 0) memory_.slots[turn][threadIdx.x / 32] = best;
    __syncthreads();
    const int lane = static_cast<int>(threadIdx.x % 32);
    best = 0;
    if (lane < warps_) best = memory_.slots[turn][lane];
    return bestOfWarp(static_cast<unsigned>(best >> 32), indexOf(best));
  }

  const ClassSuppression& p_;
  Memory& memory_;
  size_t start_;  // of the frame's candidates
  int count_ = 0;
  int threads_ = 0;  // that take part
  int warps_ = 0;
};

}  // namespace cornernet
