// The best pairs of corners of one image, as boxes in pixels of its frame.
#pragma once

#include "best.cuh"
#include "candidates.cuh"

namespace cornernet {

// Where a view lies in its frame; in device memory, for a captured graph keeps its parameters.
struct ViewPlacement {
  double ratioX, ratioY;    // input pixels a cell
  double scaleX, scaleY;    // input pixels a frame pixel
  double left, top;         // border, input pixels
  double mirrorWidth;       // width of the input, pixels; below 0: not mirrored
  double extentX, extentY;  // what boxes can reach in the frame, pixels
};

struct Pairing {
  const float4* corners;       // of CornerSelection: [images, 2, topK]
  const int* labels;           // of CornerSelection: [images, 2, topK]
  const ViewPlacement* views;  // [images]
  CandidateArrays found;       // of this batch: [images, capacity]
  int topK;
  int listed;  // pairs that shared memory has room for
  float embeddingDistance;
  int rejectEmpty;
};

struct PairMemory {
  BestMemory best;
  int listed;
  int warps[32];
};

// Bottom-right corners in shared memory.
struct Partners {
  float4* corners;  // [topK]
  int* labels;      // [topK]
};

// Every pair that the rules keep: warps take top-left corners in turn, lanes their partners.
struct PairKeys {
  const float4* corners;
  const int* labels;
  Partners partners;
  int topK;
  float embeddingDistance;
  bool rejectEmpty;

  __device__ bool isBefore(float first, float second) const {
    return rejectEmpty ? first < second : first <= second;
  }

  template <typename Visit>
  __device__ void each(Visit visit) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int i = threadIdx.x / 32; i < topK; i += blockDim.x / 32) {
      const int label = labels[i];
      if (label < 0) continue;
      const float4 tl = corners[i];
      for (int start = 0; start < topK; start += 32) {
        const int j = start + lane;
        Key key = 0;
        if (j < topK && partners.labels[j] == label) {
          const float4 br = partners.corners[j];
          const bool paired = fabsf(tl.z - br.z) <= embeddingDistance && isBefore(tl.x, br.x) &&
                              isBefore(tl.y, br.y);
          if (paired) key = keyOf((tl.w + br.w) / 2.0F, static_cast<unsigned>(i) << 16 | j);
        }
        visit(key);
      }
    }
  }
};

// As Placement.to_frame and clip_to_frame of the runtime, in double precision like them. Returns
// whether the box touches the frame.
inline __device__ bool toFrame(const ViewPlacement& view, float4& box) {
  double x1 = box.x * view.ratioX;
  double x2 = box.z * view.ratioX;
  if (view.mirrorWidth >= 0) {
    const double mirrored = view.mirrorWidth - x2;
    x2 = view.mirrorWidth - x1;
    x1 = mirrored;
  }
  x1 = (x1 - view.left) / view.scaleX;
  x2 = (x2 - view.left) / view.scaleX;
  const double y1 = (box.y * view.ratioY - view.top) / view.scaleY;
  const double y2 = (box.w * view.ratioY - view.top) / view.scaleY;
  box.x = static_cast<float>(fmin(fmax(x1, 0.0), view.extentX));
  box.y = static_cast<float>(fmin(fmax(y1, 0.0), view.extentY));
  box.z = static_cast<float>(fmin(fmax(x2, 0.0), view.extentX));
  box.w = static_cast<float>(fmin(fmax(y2, 0.0), view.extentY));
  return x2 >= 0 && y2 >= 0 && x1 <= view.extentX && y1 <= view.extentY;
}

// The best pairs, one a thread. Where they fit, pairs are listed in shared memory as they are
// found; where not, they are found anew for each digit of their keys.
inline __device__ Key bestPair(const PairKeys& pairs, Key* list, int room, int wanted,
                               PairMemory& memory) {
  if (threadIdx.x == 0) memory.listed = 0;
  __syncthreads();
  pairs.each([&](Key key) {
    const unsigned votes = __ballot_sync(kAllLanes, key != 0);
    if (votes == 0) return;
    int start = 0;
    if (threadIdx.x % 32 == 0) start = atomicAdd(&memory.listed, __popc(votes));
    start = __shfl_sync(kAllLanes, start, 0);
    const int position = start + lanesBefore(votes);
    if (key != 0 && position < room) list[position] = key;
  });
  __syncthreads();
  const int count = memory.listed;
  if (count <= room) return bestKey(ListedKeys{list, count}, wanted, memory.best);
  return bestKey(pairs, wanted, memory.best);
}

inline __device__ void pairBestCorners(const Pairing& p, PairMemory& memory, float4* shared) {
  const size_t image = blockIdx.x;
  const size_t first = image * 2 * p.topK;  // top-left
  const size_t second = first + p.topK;     // bottom-right
  const int listBytes = p.listed * static_cast<int>(sizeof(Key));
  auto* list = reinterpret_cast<Key*>(shared + p.topK);
  const Partners partners{shared,
                          reinterpret_cast<int*>(reinterpret_cast<char*>(list) + listBytes)};
  for (int i = threadIdx.x; i < p.topK; i += blockDim.x) {
    partners.corners[i] = p.corners[second + i];
    partners.labels[i] = p.labels[second + i];
  }
  const PairKeys pairs{p.corners + first,   p.labels + first,  partners, p.topK,
                       p.embeddingDistance, p.rejectEmpty != 0};
  const Key key = bestPair(pairs, list, p.listed, p.found.capacity, memory);

  float4 box{0, 0, 0, 0};
  float tlScore = 0;
  float brScore = 0;
  int label = 0;
  bool inside = false;
  if (key != 0) {
    const unsigned i = indexOf(key) >> 16;
    const unsigned j = indexOf(key) & 0xFFFFU;
    const float4 tl = p.corners[first + i];
    const float4 br = partners.corners[j];
    label = partners.labels[j];
    tlScore = tl.w;
    brScore = br.w;
    box = {tl.x, tl.y, br.x, br.y};
    inside = toFrame(p.views[image], box);
  }
  const Place place = placeOf(inside, memory.warps);
  const size_t to = image * p.found.capacity + place.position;
  if (inside) {
    p.found.boxes[to] = box;
    p.found.scores[to] = valueOf(key);
    p.found.tlScores[to] = tlScore;
    p.found.brScores[to] = brScore;
    p.found.labels[to] = label;
  }
  if (threadIdx.x == 0) p.found.counts[image] = place.total;
}

}  // namespace cornernet
