// Keys that rank values: a larger key comes first. The upper half orders by value, the lower half
// sends ties to the lower index. No key is 0, which stands for none.
#pragma once

#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>
#endif

namespace cornernet {

using Key = unsigned long long;

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

inline __device__ float notANumber() {
  return __uint_as_float(0x7FC00000U);
}

// The value must not be NaN. 0 and -0 are equal.
inline __device__ Key keyOf(float value, unsigned index) {
  const unsigned bits = __float_as_uint(value + 0.0F);
  const unsigned order = bits ^ (bits >> 31 ? 0xFFFFFFFFU : 0x80000000U);
  return Key{order} << 32 | ~index;
}

inline __device__ float valueOf(Key key) {
  const unsigned order = static_cast<unsigned>(key >> 32);
  return __uint_as_float(order ^ (order >> 31 ? 0x80000000U : 0xFFFFFFFFU));
}

inline __device__ unsigned indexOf(Key key) {
  return ~static_cast<unsigned>(key);
}

// Maximum and minimum over a warp, whose lanes all take part.
#if defined(CORNERNET_SHUFFLE) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800)
inline __device__ unsigned maximumOfWarp(unsigned value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}
inline __device__ unsigned minimumOfWarp(unsigned value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = min(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}
#else
inline __device__ unsigned maximumOfWarp(unsigned value) {
  return __reduce_max_sync(kAllLanes, value);
}
inline __device__ unsigned minimumOfWarp(unsigned value) {
  return __reduce_min_sync(kAllLanes, value);
}
#endif

// Sum over this lane and those before it.
inline __device__ int sumThroughLane(int value) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

inline __device__ int lanesBefore(unsigned votes) {
  return __popc(votes & ((1U << threadIdx.x % 32) - 1));
}

}  // namespace cornernet
