// Candidates of all views of a frame to detections, as processing/nms.py computes them: two
// launches, for all classes and several frames. Nothing has to be cleared before them.
//
// Scores only fall, so what a class picks depends on no other class, and the picks of all classes,
// sorted, are those of a search among all.
//
// 1. A block for each class and frame picks up to the final cut.
// 2. A block for each frame sorts the picks of all classes and writes the best.

#include "shared_memory.cuh"
#include "soft_nms_class.cuh"

namespace cornernet {

struct FinalCut {
  CandidateArrays found;  // as in ClassSuppression, like the next four
  const Key* picks;
  const int* counts;
  const float4* merged;  // null: boxes do not move
  int views;
  int classes;
  int kept;
  // [frames]: int count and 12 bytes of 0; float boxes [most, 4]; float scores [most]; int labels
  // [most]; up to a multiple of 16 bytes. Rows behind the count are 0.
  unsigned char* detections;
  int most;
  int frameBytes;
};

struct CutMemory {
  BestMemory best;
  int warps[32];
};

using SmallClass = ClassMemory<256, 4>;
using LargeClass = ClassMemory<512, 20>;

// Grid: classes, frames. For up to 1,024 candidates of a frame.
extern "C" __global__ void __launch_bounds__(256) suppressClass(const ClassSuppression p) {
  STATIC_SHARED(SmallClass, memory);
  ClassOfFrame<256, 4, false>(p, memory).suppress();
}

extern "C" __global__ void __launch_bounds__(256) suppressClassMerging(const ClassSuppression p) {
  STATIC_SHARED(SmallClass, memory);
  ClassOfFrame<256, 4, true>(p, memory).suppress();
}

// The same for up to 10,240.
extern "C" __global__ void __launch_bounds__(512) suppressLargeClass(const ClassSuppression p) {
  STATIC_SHARED(LargeClass, memory);
  ClassOfFrame<512, 20, false>(p, memory).suppress();
}

extern "C" __global__ void __launch_bounds__(512)
    suppressLargeClassMerging(const ClassSuppression p) {
  STATIC_SHARED(LargeClass, memory);
  ClassOfFrame<512, 20, true>(p, memory).suppress();
}

// Grid: frames. A power of two of threads, at least `most`.
extern "C" __global__ void __launch_bounds__(kMostBest, 1) cutDetections(const FinalCut p) {
  STATIC_SHARED(CutMemory, memory);
  const size_t frame = blockIdx.x;
  const size_t start = frame * p.views * p.found.capacity;
  const KeyLists picks{p.picks + frame * p.classes * p.kept, p.counts + frame * p.classes,
                       p.classes, p.kept};
  const Key key = bestKey(picks, p.most, memory.best);
  const int count = placeOf(key != 0, memory.warps).total;
  unsigned char* to = p.detections + frame * p.frameBytes;
  const int rank = static_cast<int>(threadIdx.x);
  if (rank == 0) *reinterpret_cast<int4*>(to) = {count, 0, 0, 0};
  if (rank >= p.most) return;
  auto* boxes = reinterpret_cast<float4*>(to + sizeof(int4));
  auto* scores = reinterpret_cast<float*>(boxes + p.most);
  auto* labels = reinterpret_cast<int*>(scores + p.most);
  float4 box{0, 0, 0, 0};
  float score = 0;
  int label = 0;
  if (key != 0) {
    const size_t index = start + indexOf(key);
    const float4* from = p.merged ? p.merged : p.found.boxes;
    box = from[index];
    score = valueOf(key);
    label = p.found.labels[index];
  }
  boxes[rank] = box;
  scores[rank] = score;
  labels[rank] = label;
}

}  // namespace cornernet
