// The kernel of corner_pool.cu: both directions of corner pooling and their sum.
//
// A block pools one plane: the H x W map of a channel, or of 8 channels where channels come last.
// It walks the plane in scan order, which for the top-left corner starts at the bottom row and at
// the right column, so that every maximum is a running one. A thread loads kRows rows of one
// 16-byte vector from each map before it computes anything: with 512 threads that is 64 KiB in
// flight on an SM, and a half plane of 128 x 128, the design point, is wholly in registers after
// one round trip to memory. 128 such planes fill the 132 SMs of an H200 with a block each, so
// linear planes are never split.
//
// Vertical: down the thread's own rows in registers; then the threads' last rows go through shared
// memory, where each column of 4-byte words is scanned by one thread. The maxima of the rows before
// this pass are carried along per column.
//
// Horizontal: inside the vector; over the lanes that share a row by shuffles; over warps and the
// tiles of a wide row through shared memory.
//
// Channels-last, a plane is 8 channels, so a batch of one has only 16 of them in 128 channels.
// There a plane is split into bands of rows. A band needs the maxima of all rows before it, which
// its block reads for itself: no block waits for another, so that blocks may run in any order on
// any GPU, and all reads but the first hit L2.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "corner_pool_plane.cuh"
#include "corner_pool_vector.cuh"

#ifndef DYNAMIC_SHARED  // the tests compile this file for the CPU, with a definition of their own
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

namespace cornernet {

constexpr int kThreads = 512;  // of a block, at most

// Running maxima in the vector, where its elements are neighbours; returns what it hands on.
template <typename V>
__device__ typename V::Edge scanVector(Vector<typename V::Element>& vector) {
  if constexpr (V::kChannelsLast)
    return vector;
  else
    return vector.template scan<V::kTopLeft>();
}

// Running maxima over the vectors of the lanes that share a row; returns what this lane hands on.
template <typename V>
__device__ typename V::Edge scanLanes(Vector<typename V::Element>& vector, int lane, int lanes) {
  typename V::Edge edge = scanVector<V>(vector);
  for (int distance = 1; distance < lanes; distance *= 2) {
    const auto other = fromLaneBefore(edge, distance, lanes);
    if (lane >= distance) edge = maximum(edge, other);
  }
  const auto before = fromLaneBefore(edge, 1, lanes);
  if (lane > 0) vector = maximum(vector, before);
  return edge;
}

template <typename V>
__device__ typename V::Edge lowestEdge() {
  if constexpr (V::kChannelsLast)
    return Vector<typename V::Element>::lowest();
  else
    return Vector<typename V::Element>::lowestWord();
}

// Make of totals [slots, tile] the maxima of each column before that slot, and of carry [min(tile,
// valid)] those with all slots. Fresh: nothing is carried yet. A word of carry is only ever touched
// by one thread, so it needs no barrier.
template <typename Element>
__device__ void scanSlots(Vector<Element>* totals, Vector<Element>* carry, int slots, int tile,
                          int valid, bool fresh) {
  using Word = typename Vector<Element>::Word;
  constexpr int kBatch = 8;  // loaded before the first use, for a scan in place would wait for each
  const Word lowest = Vector<Element>::lowestWord();
  auto* words = reinterpret_cast<Word*>(totals);
  auto* carried = reinterpret_cast<Word*>(carry);
  const int pitch = tile * Vector<Element>::kWords;
  const int existing = min(tile, valid) * Vector<Element>::kWords;
  for (int w = threadIdx.x; w < existing; w += blockDim.x) {
    Word running = lowest;  // no ?: between the two: it takes an address, and so a stack frame
    if (!fresh) running = carried[w];
    for (int slot = 0; slot < slots; slot += kBatch) {
      Word next[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        next[i] = lowest;
        if (slot + i < slots) next[i] = words[(slot + i) * pitch + w];
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (slot + i < slots) words[(slot + i) * pitch + w] = running;
        running = maximum(running, next[i]);
      }
    }
    carried[w] = running;
  }
}

// Leave in carry [vectors] the column maxima of the rows before `first`.
template <typename V>
__device__ void carryRowsBefore(const Plane<V>& plane, const void* map, int first,
                                Vector<typename V::Element>* totals,
                                Vector<typename V::Element>* carry, int tile, int column) {
  using Vector = Vector<typename V::Element>;
  constexpr int kRows = V::kRows;
  const int slots = blockDim.x / tile;
  for (int start = 0; start < plane.vectors; start += tile) {
    Vector before = Vector::lowest();
    for (int row = threadIdx.x / tile; row < first; row += slots * kRows) {
      Vector rows[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        rows[r] = plane.load(map, row + r * slots, first, start + column);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        before = maximum(before, rows[r]);
      }
    }
    totals[threadIdx.x] = before;
    __syncthreads();
    scanSlots(totals, carry + start, slots, tile, plane.vectors - start, true);
    __syncthreads();
  }
}

// Long, for what lives across the two barriers stays in registers. The first barrier is between
// what threads leave in shared memory and its scan, the second between the scan and its use. No
// third is needed: after the second a thread touches only its own element of totals until the next
// first, and edges were read before it.
template <typename V>
__global__ void __launch_bounds__(kThreads, 1) cornerPoolKernel(const Pooling p) {
  using Vector = Vector<typename V::Element>;
  constexpr int kRows = V::kRows;
  DYNAMIC_SHARED(uint4, shared);

  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % p.lanes;
  const int warpX = warp % p.warpsX;
  const int tile = p.warpsX * p.lanes;  // vectors of a row at a time
  const int column = warpX * p.lanes + lane;
  const int slots = blockDim.x / tile;  // of kRows rows each
  const int slot = threadIdx.x / tile;
  const bool wide = p.vectors > p.lanes;  // a row is more than one warp takes at once

  auto* totals = reinterpret_cast<Vector*>(shared);                        // [slots, tile]
  auto* edges = reinterpret_cast<typename V::Edge*>(totals + blockDim.x);  // [slots, kRows, warpsX]
  auto* carry = reinterpret_cast<Vector*>(p.carry ? p.carry + int64_t{blockIdx.x} * p.vectors
                                                  : shared + blockDim.x + blockDim.x / 32 * kRows);
  edges += slot * kRows * p.warpsX;

  const int first = static_cast<int>(blockIdx.x % p.bands) * p.bandRows;
  const int last = min(first + p.bandRows, p.height);
  for (int64_t i = blockIdx.x / p.bands; i < p.planes; i += gridDim.x / p.bands) {
    const Plane<V> plane(p, i);

    if (first > 0) {
      carryRowsBefore<V>(plane, p.vertical, first, totals, carry, tile, column);
    }
    for (int top = first; top < last; top += slots * kRows) {
      const int row = top + slot * kRows;
      typename V::Edge rowCarry[kRows];  // of the tiles before
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        rowCarry[r] = lowestEdge<V>();
      }
      for (int start = 0; start < p.vectors; start += tile) {
        Vector vertical[kRows], horizontal[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          vertical[r] = plane.load(p.vertical, row + r, last, start + column);
          horizontal[r] = plane.load(p.horizontal, row + r, last, start + column);
        }
#pragma unroll
        for (int r = 1; r < kRows; ++r) {
          vertical[r] = maximum(vertical[r], vertical[r - 1]);
        }
        totals[threadIdx.x] = vertical[kRows - 1];

#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const auto edge = scanLanes<V>(horizontal[r], lane, p.lanes);
          if (wide && lane == 31) edges[r * p.warpsX + warpX] = edge;
          horizontal[r] = maximum(horizontal[r], rowCarry[r]);
        }
        __syncthreads();

        if (wide) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            for (int w = 0; w < p.warpsX; ++w) {
              const auto edge = edges[r * p.warpsX + w];
              if (w < warpX) horizontal[r] = maximum(horizontal[r], edge);
              rowCarry[r] = maximum(rowCarry[r], edge);
            }
          }
        }
        scanSlots(totals, carry + start, slots, tile, p.vectors - start, top == 0);
        __syncthreads();

        const Vector above = totals[threadIdx.x];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          plane.store(p.output, row + r, last, start + column,
                      sum(maximum(vertical[r], above), horizontal[r]));
        }
      }
    }
  }
}

}  // namespace cornernet
