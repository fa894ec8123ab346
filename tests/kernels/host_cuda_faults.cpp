// Kernels with a fault each, and sound ones beside them, for test_host_cuda.py: host_cuda_faults
// KERNEL [SEED].
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <string>

namespace {

constexpr int kThreads = 64;
using Row = int[kThreads];

// Each block reverses its part of the numbers through shared memory.
__global__ void reverseInBlocks(int* numbers) {
  STATIC_SHARED(Row, shared);
  shared[threadIdx.x] = numbers[blockIdx.x * kThreads + threadIdx.x];
  __syncthreads();
  numbers[blockIdx.x * kThreads + threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void reverseWithoutBarrier(int* numbers) {
  STATIC_SHARED(Row, shared);
  shared[threadIdx.x] = numbers[blockIdx.x * kThreads + threadIdx.x];
  numbers[blockIdx.x * kThreads + threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void addAtomically(int* numbers) {
  atomicAdd(&numbers[0], 1);
}

__global__ void addInARace(int* numbers) {
  if (threadIdx.x == 0) numbers[0] += 1;  // every block does
}

__global__ void writeBehindTheEnd(int* numbers) {
  numbers[blockIdx.x * kThreads + threadIdx.x + 1] = 0;
}

__global__ void writeBehindDynamicShared(int* numbers) {
  DYNAMIC_SHARED(int, shared);  // kThreads of them
  shared[threadIdx.x + 1] = static_cast<int>(threadIdx.x);
  __syncthreads();
  numbers[blockIdx.x * kThreads + threadIdx.x] = shared[threadIdx.x];
}

// Only the first half of each warp shuffles, and its mask says so.
__global__ void shuffleInHalfAWarp(int* numbers) {
  const unsigned lane = threadIdx.x % 32;
  if (lane < 16) {
    numbers[threadIdx.x] = __shfl_xor_sync(0x0000FFFFU, static_cast<int>(lane), 15, 16);
  }
}

__global__ void shuffleWithAbsentLanes(int* numbers) {
  const unsigned lane = threadIdx.x % 32;
  if (lane < 16) {
    numbers[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFU, static_cast<int>(lane), 15, 16);
  }
  __syncthreads();  // here the others wait for ever
}

__global__ void shuffleOnBothSides(int* numbers) {
  if (threadIdx.x % 2 == 0) {
    numbers[threadIdx.x] = __shfl_sync(0xFFFFFFFFU, 1, 0);
  } else {
    numbers[threadIdx.x] = __shfl_sync(0xFFFFFFFFU, 2, 0);
  }
}

__global__ void barrierForSome(int* numbers) {
  if (threadIdx.x < 32) __syncthreads();
  numbers[threadIdx.x] = __any_sync(0xFFFFFFFFU, 1);
  __syncthreads();
}

// Sums by shuffles of each warp, votes, and half arithmetic: numbers[i] = 2 * (0 + ... + 31) + 100
// * votes.
__global__ void sumVoteAndHalve(int* numbers) {
  int sum = static_cast<int>(threadIdx.x % 32);
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, distance);
  }
  const uint32_t even = __ballot_sync(0xFFFFFFFFU, threadIdx.x % 2 == 0);
  const bool all = __all_sync(0xFFFFFFFFU, 1) && !__all_sync(0xFFFFFFFFU, threadIdx.x % 32 < 31);
  const bool any = __any_sync(0xFFFFFFFFU, threadIdx.x % 32 == 5) && !__any_sync(0xFFFFFFFFU, 0);
  const __half twice = __hadd(__float2half(static_cast<float>(sum)), __float2half(496.0F));
  const int votes = (even == 0x55555555U) + all + any;
  numbers[blockIdx.x * kThreads + threadIdx.x] =
      static_cast<int>(__half2float(twice)) + 100 * votes;
}

// Extremes over a warp, once of all lanes and once of the upper half, and what is done to bits.
__global__ void reduceAndCount(int* numbers) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned value = (lane * 5 + 3) % 32;  // each of 0 to 31 once
  unsigned extremes = __reduce_max_sync(0xFFFFFFFFU, value) - __reduce_min_sync(0xFFFFFFFFU, value);
  if (lane >= 16) {
    extremes = 100 * __reduce_max_sync(0xFFFF0000U, lane) + __reduce_min_sync(0xFFFF0000U, lane);
  }
  const int bits = 1000 * __popc(0xF0F0U) + 100 * __ffs(0x60) + __ffs(0);  // 8000 + 600
  const bool same = __uint_as_float(0x3FC00000U) == 1.5F && __float_as_uint(-0.0F) == 0x80000000U;
  numbers[blockIdx.x * kThreads + threadIdx.x] = static_cast<int>(extremes) + (same ? bits : 0);
}

// Lane 0 of each warp hands its number to the others through shared memory, after `meet`: of these
// only __syncwarp orders memory.
template <typename Meet>
__device__ void passOn(int* numbers, Meet meet) {
  STATIC_SHARED(Row, shared);
  const unsigned first = threadIdx.x / 32 * 32;
  __syncwarp();  // what it ordered, it ordered before
  if (threadIdx.x == first) shared[first] = numbers[blockIdx.x * kThreads + first];
  meet();
  const int passed = shared[first];
  __syncthreads();
  numbers[blockIdx.x * kThreads + threadIdx.x] = passed;
}

__global__ void passOnBySyncwarp(int* numbers) {
  passOn(numbers, [] { __syncwarp(); });
}

__global__ void passOnByShuffle(int* numbers) {
  passOn(numbers, [] { __shfl_sync(0xFFFFFFFFU, 1, 0); });
}

__global__ void passOnByBallot(int* numbers) {
  passOn(numbers, [] { __ballot_sync(0xFFFFFFFFU, 1); });
}

__global__ void passOnByReduction(int* numbers) {
  passOn(numbers, [] { __reduce_max_sync(0xFFFFFFFFU, 1); });
}

// The order of __syncwarp holds for the lanes of its mask.
__global__ void passOnBySyncwarpOfHalves(int* numbers) {
  passOn(numbers, [] { __syncwarp(threadIdx.x % 32 < 16 ? 0x0000FFFFU : 0xFFFF0000U); });
}

}  // namespace

int main(int count, char** arguments) {
  const std::string name = arguments[1];
  if (count > 2) host_cuda::options().seed = static_cast<unsigned>(std::stoi(arguments[2]));
  const std::map<std::string, void (*)(int*)> kernels = {
      {"reverse_in_blocks", reverseInBlocks},
      {"reverse_without_barrier", reverseWithoutBarrier},
      {"add_atomically", addAtomically},
      {"add_in_a_race", addInARace},
      {"write_behind_the_end", writeBehindTheEnd},
      {"write_behind_dynamic_shared", writeBehindDynamicShared},
      {"shuffle_in_half_a_warp", shuffleInHalfAWarp},
      {"shuffle_with_absent_lanes", shuffleWithAbsentLanes},
      {"shuffle_on_both_sides", shuffleOnBothSides},
      {"barrier_for_some", barrierForSome},
      {"sum_vote_and_halve", sumVoteAndHalve},
      {"reduce_and_count", reduceAndCount},
      {"pass_on_by_syncwarp", passOnBySyncwarp},
      {"pass_on_by_shuffle", passOnByShuffle},
      {"pass_on_by_ballot", passOnByBallot},
      {"pass_on_by_reduction", passOnByReduction},
      {"pass_on_by_syncwarp_of_halves", passOnBySyncwarpOfHalves},
  };
  constexpr int kBlocks = 4;
  const auto numbers = std::make_unique<int[]>(kBlocks * kThreads);
  for (int i = 0; i < kBlocks * kThreads; ++i)
    numbers[i] = i;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(kBlocks);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kThreads * sizeof(int);
  if (cudaLaunchKernelEx(&config, kernels.at(name), numbers.get()) != cudaSuccess) return 1;
  for (int i = 0; i < kBlocks * kThreads; ++i)
    std::printf("%d ", numbers[i]);
}
