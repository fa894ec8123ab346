// Corner pooling on the GPU: what callers see. CUDA only; nothing here knows TensorRT.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace cornernet {

// top-left:     out[y, x] = max(vertical[y:, x])   + max(horizontal[y, x:])
// bottom-right: out[y, x] = max(vertical[:y+1, x]) + max(horizontal[y, :x+1])
enum class Corner : int32_t { kTopLeft, kBottomRight };

enum class MapFormat : int32_t {
  kFloatLinear,       // float  [N, C, H, W]
  kHalfLinear,        // __half [N, C, H, W]
  kHalfChannelsLast8  // __half [N, H, W, C rounded up to 8]; TensorRT's kHWC8
};

struct MapShape {
  int64_t batch;
  int64_t channels;
  int64_t height;
  int64_t width;
};

// Bytes of device memory that launchCornerPool wants as workspace, on any device. 0 up to a width
// of 9,000 in the linear formats and 2,000 channels-last, and for a shape that it refuses.
size_t cornerPoolWorkspaceBytes(MapFormat format, MapShape shape);

// Enqueue one kernel that pools both maps towards `corner` and adds them. Allocates nothing and
// never synchronises, so it may be captured into a graph.
//
// Args:
//   vertical, horizontal: on the device. Each is read once, except vertical channels-last, which is
//     read up to 4.5 times at small batches. Linear maps may lie anywhere; 16-byte alignment and
//     rows of a multiple of 16 bytes are fastest. Channels-last they must be 16-byte aligned.
//   output: on the device, of the same shape, type and format, apart from the inputs.
//   Channels-last,
//     padding channels are pooled like any other: zeros stay zeros.
//   workspace: on the device, 16-byte aligned; may be null where cornerPoolWorkspaceBytes is 0.
//
// Exact for finite and infinite values, and deterministic. What a NaN makes of the cells that look
// across it is not specified; it never stops the kernel and changes no other cell.
//
// Returns:
//   cudaSuccess, also for a shape with a 0, where nothing is launched; cudaErrorInvalidValue for
//   null or misaligned pointers, a side below 0 or over 2^30, 2^62 elements or more, an unknown
//   format or corner, or too small a workspace; otherwise what the launch returned.
cudaError_t launchCornerPool(Corner corner, MapFormat format, const void* vertical,
                             const void* horizontal, void* output, MapShape shape, void* workspace,
                             size_t workspaceBytes, cudaStream_t stream);

}  // namespace cornernet
