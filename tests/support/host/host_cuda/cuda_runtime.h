// CUDA for the CPU, for tests: found before the real header of this name, whose types it takes. A
// .cu file includes it unchanged and compiles as C++20, if it launches by cudaLaunchKernelEx and
// declares shared memory by the two macros below.
#pragma once

#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <utility>

#include "host_cuda.h"

#undef __launch_bounds__
#define __launch_bounds__(...)

#define DYNAMIC_SHARED(type, name) \
  type* name = reinterpret_cast<type*>(host_cuda::current->block->dynamicShared.get())
#define STATIC_SHARED(type, name) \
  type& name = *static_cast<type*>(host_cuda::staticShared(__COUNTER__, sizeof(type)))

using std::max;
using std::min;

inline void __syncthreads(std::source_location site = std::source_location::current()) {
  host_cuda::syncThreads(site);
}

inline void __syncwarp(uint32_t mask = 0xFFFFFFFFU,
                       std::source_location site = std::source_location::current()) {
  host_cuda::meetLanes("__syncwarp", mask, nullptr, 0, site);
}

namespace host_cuda {

inline int laneOf() {
  return static_cast<int>(current->number % 32);
}

template <typename T>
T takeFrom(const char* what, uint32_t mask, T value, int source, std::source_location site) {
  static_assert(sizeof(T) <= 8);
  const auto& values = meetLanes(what, mask, &value, sizeof(T), site);
  if (!(mask >> source & 1)) fail("a shuffle reads a lane that its mask does not name", site);
  std::memcpy(static_cast<void*>(&value), &values[source], sizeof(T));
  return value;
}

}  // namespace host_cuda

template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              std::source_location site = std::source_location::current()) {
  const int first = host_cuda::laneOf() / width * width;
  return host_cuda::takeFrom("__shfl_sync", mask, value, first + (source & (width - 1)), site);
}

template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 std::source_location site = std::source_location::current()) {
  const int lane = host_cuda::laneOf();
  const int source =
      lane % width >= static_cast<int>(delta) ? lane - static_cast<int>(delta) : lane;
  return host_cuda::takeFrom("__shfl_up_sync", mask, value, source, site);
}

template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   std::source_location site = std::source_location::current()) {
  const int lane = host_cuda::laneOf();
  const int source =
      lane % width + static_cast<int>(delta) < width ? lane + static_cast<int>(delta) : lane;
  return host_cuda::takeFrom("__shfl_down_sync", mask, value, source, site);
}

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int laneMask, int width = 32,
                  std::source_location site = std::source_location::current()) {
  const int lane = host_cuda::laneOf();
  const int other = lane ^ laneMask;
  const int source = other / width <= lane / width ? other : lane;
  return host_cuda::takeFrom("__shfl_xor_sync", mask, value, source, site);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate,
                              std::source_location site = std::source_location::current()) {
  const auto& values =
      host_cuda::meetLanes("__ballot_sync", mask, &predicate, sizeof(predicate), site);
  uint32_t votes = 0;
  for (int lane = 0; lane < 32; ++lane) {
    int vote = 0;
    std::memcpy(&vote, &values[lane], sizeof(vote));
    if ((mask >> lane & 1) && vote != 0) votes |= 1U << lane;
  }
  return votes;
}

inline int __any_sync(uint32_t mask, int predicate,
                      std::source_location site = std::source_location::current()) {
  return __ballot_sync(mask, predicate, site) != 0;
}

inline int __all_sync(uint32_t mask, int predicate,
                      std::source_location site = std::source_location::current()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

namespace host_cuda {

// A value that all lanes of the mask fold out of theirs, one after the other.
template <typename T, typename Fold>
T foldLanes(const char* what, uint32_t mask, T value, Fold fold, std::source_location site) {
  static_assert(sizeof(T) == 4, "as on the device");
  const auto& values = meetLanes(what, mask, &value, sizeof(T), site);
  for (int lane = 0; lane < 32; ++lane) {
    T other;
    std::memcpy(&other, &values[lane], sizeof(T));
    if (mask >> lane & 1) value = fold(value, other);
  }
  return value;
}

}  // namespace host_cuda

inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t value,
                                  std::source_location site = std::source_location::current()) {
  const auto fold = [](uint32_t a, uint32_t b) { return max(a, b); };
  return host_cuda::foldLanes("__reduce_max_sync", mask, value, fold, site);
}

inline uint32_t __reduce_min_sync(uint32_t mask, uint32_t value,
                                  std::source_location site = std::source_location::current()) {
  const auto fold = [](uint32_t a, uint32_t b) { return min(a, b); };
  return host_cuda::foldLanes("__reduce_min_sync", mask, value, fold, site);
}

inline int __popc(uint32_t bits) {
  return std::popcount(bits);
}

inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}

inline uint32_t __float_as_uint(float value) {
  return std::bit_cast<uint32_t>(value);
}

inline float __uint_as_float(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}

template <typename T>
void __stcg(T* to, T value) {
  *to = value;
}

// Atomics order nothing else, as on the device.
template <typename T>
T atomicAdd(T* to, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*to).fetch_add(value, std::memory_order_relaxed);
}

template <typename T>
T atomicExch(T* to, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*to).exchange(value, std::memory_order_relaxed);
}

template <typename T>
T atomicCAS(T* to, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*to).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}

template <typename T>
T atomicMax(T* to, std::type_identity_t<T> value) {
  std::atomic_ref<T> there(*to);
  T old = there.load(std::memory_order_relaxed);
  while (old < value && !there.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  if (attribute != cudaDevAttrMultiProcessorCount) return cudaErrorInvalidValue;
  *value = host_cuda::options().multiprocessors;
  return cudaSuccess;
}

// What a device would refuse is refused here: too large a block, too much shared memory without
// opting in.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 block = config->blockDim;
  const dim3 grid = config->gridDim;
  if (uint64_t{block.x} * block.y * block.z - 1 >= 1024 || grid.x - 1 >= 0x7FFFFFFFU ||
      grid.y - 1 >= 65535 || grid.z - 1 >= 65535 || config->dynamicSmemBytes > 48 << 10) {
    return cudaErrorInvalidConfiguration;
  }
  host_cuda::run(grid, block, config->dynamicSmemBytes,
                 [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}
