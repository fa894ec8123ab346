// The best corners of one kind in one image, from the best peaks of its planes.
#pragma once

#include <cuda_fp16.h>

#include "best.cuh"

namespace cornernet {

struct CornerSelection {
  const Key* keys;        // of PeakSearch: [images, 2, classes, kept]
  const int* counts;      // of PeakSearch: [images, 2, classes]
  const void* embed[2];   // top-left, bottom-right: [images, 1, height, width]
  const void* offset[2];  // [images, 2, height, width], x and y
  float4* corners;        // [images, 2, topK]: x, y in cells, embedding, score; best first
  int* labels;            // [images, 2, topK]; -1: no corner, or one that pairs with nothing
  int classes;
  int height;
  int width;
  int topK;
  int kept;
  int half;  // whether embed and offset hold __half instead of float
};

inline __device__ float valueAt(const void* map, bool half, size_t index) {
  if (half) return __half2float(static_cast<const __half*>(map)[index]);
  return static_cast<const float*>(map)[index];
}

inline __device__ bool isFinite(float value) {
  return (__float_as_uint(value) & 0x7F800000U) != 0x7F800000U;
}

// 1 / (1 + exp(-x)) without overflow.
inline __device__ float sigmoid(float logit) {
  const float small = expf(-fabsf(logit));
  return (logit >= 0 ? 1.0F : small) / (1.0F + small);
}

inline __device__ void selectBestCorners(const CornerSelection& p, BestMemory& memory) {
  const size_t number = blockIdx.x;  // 2 * image + kind
  const bool topLeft = blockIdx.x % 2 == 0;
  const size_t image = blockIdx.x / 2;
  const KeyLists planes{p.keys + number * p.classes * p.kept, p.counts + number * p.classes,
                        p.classes, p.kept};
  const Key key = bestKey(planes, p.topK, memory);
  const int rank = static_cast<int>(threadIdx.x);
  if (rank >= p.topK) return;
  float4 corner{0, 0, 0, 0};
  int label = -1;
  if (key != 0) {
    const unsigned size = p.height * p.width;
    const unsigned cell = indexOf(key) % size;
    const bool half = p.half != 0;
    const void* offset = topLeft ? p.offset[0] : p.offset[1];
    const void* embed = topLeft ? p.embed[0] : p.embed[1];
    corner.x = static_cast<float>(cell % p.width) + valueAt(offset, half, image * 2 * size + cell);
    corner.y =
        static_cast<float>(cell / p.width) + valueAt(offset, half, (image * 2 + 1) * size + cell);
    corner.z = valueAt(embed, half, image * size + cell);
    corner.w = sigmoid(valueOf(key));
    const bool usable = isFinite(corner.x) && isFinite(corner.y) && isFinite(corner.z);
    if (usable) label = static_cast<int>(indexOf(key) / size);
  }
  p.corners[number * p.topK + rank] = corner;
  p.labels[number * p.topK + rank] = label;
}

}  // namespace cornernet
