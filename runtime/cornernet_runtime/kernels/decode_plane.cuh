// One plane of a heat map, and its cells by vectors of 16 bytes, for decode_peaks.cuh.
#pragma once

#include <cuda_fp16.h>

#include "keys.cuh"

namespace cornernet {

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

}  // namespace cornernet
