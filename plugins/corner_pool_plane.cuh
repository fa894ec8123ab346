// Where things lie, for corner_pool.cu: the arguments of the kernel, its variants, and the vectors
// of a plane.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "corner_pool_vector.cuh"

namespace cornernet {

// Rows that a thread loads together. Loads of single elements are four to eight times as many, and
// so need registers.
constexpr int rowsOfThread(bool whole) {
  return whole ? 4 : 1;
}

struct Pooling {
  const void* vertical;
  const void* horizontal;
  void* output;
  uint4* carry;    // [blocks, vectors]; null: in shared memory
  int64_t planes;  // of the whole batch
  int64_t groups;  // planes of one image
  int height;
  int width;
  int vectors;   // of a row
  int bands;     // of a plane, a block each
  int bandRows;  // the last band may have fewer
  // Lanes of a warp that share a row: a power of two, 32 where a row needs more than one warp.
  int lanes;
  int warpsX;  // side by side in a row; the other warps of the block take further rows
};

template <typename Element_, bool kChannelsLast_, bool kWhole_, bool kTopLeft_>
struct Variant {
  using Element = Element_;
  // What a vector hands to the next one in its row: channels-last, every channel has a maximum of
  // its own.
  using Edge = std::conditional_t<kChannelsLast_, Vector<Element>, typename Vector<Element>::Word>;
  static constexpr bool kChannelsLast = kChannelsLast_;
  static constexpr bool kWhole = kWhole_;  // vectors are aligned and never pass the end of a row
  static constexpr bool kTopLeft = kTopLeft_;
  static constexpr int kRows = rowsOfThread(kWhole);
};

// Where the vectors of a plane lie. Rows and vectors of a row are counted in scan order.
template <typename V>
struct Plane {
  static constexpr int kSize = Vector<typename V::Element>::kSize;
  int64_t start, rowStride, vectorStride;  // in elements
  int height, width, vectors;

  __device__ Plane(const Pooling& p, int64_t plane)
      : height(p.height), width(p.width), vectors(p.vectors) {
    const int64_t cells = int64_t{p.height} * p.width;
    vectorStride = V::kChannelsLast ? p.groups * kSize : kSize;
    rowStride = V::kChannelsLast ? p.width * vectorStride : p.width;
    start = V::kChannelsLast ? plane / p.groups * cells * vectorStride + plane % p.groups * kSize
                             : plane * cells;
  }
  __device__ int64_t offset(int row, int vector) const {
    const int64_t y = V::kTopLeft ? height - 1 - row : row;
    const int64_t x = V::kTopLeft ? vectors - 1 - vector : vector;
    return start + y * rowStride + x * vectorStride;
  }
  __device__ int count(int row, int last, int vector) const {  // of elements that exist
    if (row >= last || vector >= vectors) return 0;
    const int x = V::kTopLeft ? vectors - 1 - vector : vector;
    return V::kWhole ? kSize : min(width - x * kSize, kSize);
  }
  __device__ Vector<typename V::Element> load(const void* map, int row, int last,
                                              int vector) const {
    const int elements = count(row, last, vector);
    if (elements == 0) return Vector<typename V::Element>::lowest();
    const auto* from = static_cast<const typename V::Element*>(map) + offset(row, vector);
    return Vector<typename V::Element>::template load<V::kWhole>(from, elements);
  }
  __device__ void store(void* map, int row, int last, int vector,
                        const Vector<typename V::Element>& value) const {
    const int elements = count(row, last, vector);
    if (elements == 0) return;
    auto* to = static_cast<typename V::Element*>(map) + offset(row, vector);
    value.template store<V::kWhole>(to, elements);
  }
};

}  // namespace cornernet
