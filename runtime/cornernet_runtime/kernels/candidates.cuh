// Candidate boxes in device memory, between decode.cu and soft_nms.cu.
#pragma once

#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>
#endif

namespace cornernet {

// Of several views, one after the other; each has room for `capacity`, best first, in pixels of the
// frame.
struct CandidateArrays {
  float4* boxes;    // [views, capacity], x1 y1 x2 y2
  float* scores;    // [views, capacity]
  float* tlScores;  // [views, capacity]
  float* brScores;  // [views, capacity]
  int* labels;      // [views, capacity]
  int* counts;      // [views]
  int capacity;
};

}  // namespace cornernet
