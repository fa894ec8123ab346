// Corner maps to candidate boxes, as processing/decode.py computes them: three launches, for
// all classes and all images of a batch. Nothing has to be cleared before them.
//
// 1. A block for each class, kind of corner and image reads its plane of heat once and lists the
//    best peaks.
// 2. A block for each kind and image takes the best of its lists, in order, and reads position and
//    embedding there.
// 3. A block for each image pairs the two kinds and writes the best pairs, in pixels of the frame.

#include "decode_corners.cuh"
#include "decode_pairs.cuh"
#include "decode_peaks.cuh"
#include "shared_memory.cuh"

namespace cornernet {

// Grid: classes, 2 * images.
extern "C" __global__ void __launch_bounds__(kPeakThreads, 2) findPeaksFloat(const PeakSearch p) {
  STATIC_SHARED(PeakMemory, memory);
  searchPlane<float>(p, memory);
}

extern "C" __global__ void __launch_bounds__(kPeakThreads, 2) findPeaksHalf(const PeakSearch p) {
  STATIC_SHARED(PeakMemory, memory);
  searchPlane<__half>(p, memory);
}

// Grid: 2 * images. A power of two of threads, at least topK.
extern "C" __global__ void __launch_bounds__(kMostBest, 1) selectCorners(const CornerSelection p) {
  STATIC_SHARED(BestMemory, memory);
  selectBestCorners(p, memory);
}

// Grid: images. A power of two of threads, at least the capacity of the candidates.
extern "C" __global__ void __launch_bounds__(kMostBest, 1) pairCorners(const Pairing p) {
  STATIC_SHARED(PairMemory, memory);
  DYNAMIC_SHARED(float4, shared);
  pairBestCorners(p, memory, shared);
}

}  // namespace cornernet
