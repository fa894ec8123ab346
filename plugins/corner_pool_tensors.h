// Which tensors the corner pooling plugins take, and the words for those that they do not.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

#include "corner_pool.cuh"

namespace cornernet {

constexpr int32_t kInputs = 2;
constexpr int32_t kOutputs = 1;

// Set `found` to what the kernel calls this pair, and return whether it is offered.
bool hasFormat(nvinfer1::DataType type, nvinfer1::TensorFormat format, MapFormat& found) noexcept;

// The functions below return whether all is well, and log what is not. `name` is the plugin's.

bool hasCounts(const char* name, int32_t inputs, int32_t outputs) noexcept;
bool isGiven(const char* name, const void* first, const void* second) noexcept;

// The two inputs and the output are of one offered type and format and of one shape, which has four
// sides and less than 2^31 elements. Where `wildcards`, a side of -1 is one not known yet.
bool fit(const char* name, const nvinfer1::PluginTensorDesc& first,
         const nvinfer1::PluginTensorDesc& second, const nvinfer1::PluginTensorDesc& output,
         bool wildcards) noexcept;

// A tensor in words, as in "fp16 hwc8 [1, 128, 64, 64]".
struct Description {
  char text[160];
};
Description describe(const nvinfer1::PluginTensorDesc& tensor) noexcept;

}  // namespace cornernet
