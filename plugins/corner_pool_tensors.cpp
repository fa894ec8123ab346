#include "corner_pool_tensors.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "plugin_log.h"

namespace cornernet {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int64_t kMaxElements = (int64_t{1} << 31) - 1;  // of a tensor of TensorRT

bool arePossible(const Dims& dims, bool wildcards) {
  if (dims.nbDims != 4) return false;
  const int64_t least = wildcards ? -1 : 0;
  return std::all_of(dims.d, dims.d + 4, [least](int64_t side) { return side >= least; });
}

bool mayBeEqual(const Dims& a, const Dims& b) {
  for (int i = 0; i < 4; ++i) {
    if (a.d[i] != b.d[i] && a.d[i] != -1 && b.d[i] != -1) return false;
  }
  return true;
}

bool areFew(const Dims& dims) {
  if (std::count(dims.d, dims.d + 4, 0) > 0) return true;
  int64_t elements = 1;
  for (int i = 0; i < 4; ++i) {
    const int64_t side = std::max<int64_t>(dims.d[i], 1);
    if (side > kMaxElements / elements) return false;
    elements *= side;
  }
  return true;
}

const char* wordFor(DataType type) {
  switch (type) {
    case DataType::kFLOAT:
      return "fp32";
    case DataType::kHALF:
      return "fp16";
    case DataType::kBF16:
      return "bf16";
    case DataType::kINT8:
      return "int8";
    default:
      return "another type";
  }
}

const char* wordFor(TensorFormat format) {
  switch (format) {
    case TensorFormat::kLINEAR:
      return "linear";
    case TensorFormat::kHWC8:
      return "hwc8";
    default:
      return "another format";
  }
}

}  // namespace

bool hasFormat(DataType type, TensorFormat format, MapFormat& found) noexcept {
  if (type == DataType::kFLOAT && format == TensorFormat::kLINEAR) {
    found = MapFormat::kFloatLinear;
  } else if (type == DataType::kHALF && format == TensorFormat::kLINEAR) {
    found = MapFormat::kHalfLinear;
  } else if (type == DataType::kHALF && format == TensorFormat::kHWC8) {
    found = MapFormat::kHalfChannelsLast8;
  } else {
    return false;
  }
  return true;
}

bool hasCounts(const char* name, int32_t inputs, int32_t outputs) noexcept {
  if (inputs == kInputs && outputs == kOutputs) return true;
  reportError("%s: expected 2 inputs and 1 output, got %d and %d", name, inputs, outputs);
  return false;
}

bool isGiven(const char* name, const void* first, const void* second) noexcept {
  if (first && second) return true;
  reportError("%s: expected its tensors, got a null pointer", name);
  return false;
}

bool fit(const char* name, const PluginTensorDesc& first, const PluginTensorDesc& second,
         const PluginTensorDesc& output, bool wildcards) noexcept {
  const PluginTensorDesc* tensors[] = {&first, &second, &output};
  const char* roles[] = {"input 0", "input 1", "the output"};
  for (int i = 0; i < kInputs + kOutputs; ++i) {
    const PluginTensorDesc& tensor = *tensors[i];
    const Description got = describe(tensor);
    MapFormat format;
    if (!hasFormat(tensor.type, tensor.format, format)) {
      reportError("%s: expected fp32 linear, fp16 linear or fp16 hwc8 as %s, got %s", name,
                  roles[i], got.text);
      return false;
    }
    if (!arePossible(tensor.dims, wildcards)) {
      reportError("%s: expected %s to have 4 sides, none negative, got %s", name, roles[i],
                  got.text);
      return false;
    }
    if (tensor.type != first.type || tensor.format != first.format ||
        !mayBeEqual(tensor.dims, first.dims)) {
      reportError("%s: expected %s to be as input 0, %s, got %s", name, roles[i],
                  describe(first).text, got.text);
      return false;
    }
    if (!areFew(tensor.dims)) {
      reportError("%s: expected at most %" PRId64 " elements in %s, got %s", name, kMaxElements,
                  roles[i], got.text);
      return false;
    }
  }
  return true;
}

Description describe(const PluginTensorDesc& tensor) noexcept {
  Description words;
  constexpr int kBytes = sizeof(words.text);
  int length =
      std::snprintf(words.text, kBytes, "%s %s [", wordFor(tensor.type), wordFor(tensor.format));
  for (int i = 0; i < std::min(tensor.dims.nbDims, Dims::MAX_DIMS); ++i) {
    length += std::snprintf(words.text + length, kBytes - length, "%s%" PRId64, i > 0 ? ", " : "",
                            tensor.dims.d[i]);
    length = std::min(length, kBytes - 2);
  }
  std::snprintf(words.text + length, kBytes - length, "]");
  return words;
}

}  // namespace cornernet
