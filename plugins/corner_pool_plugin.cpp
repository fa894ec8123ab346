#include "corner_pool_plugin.h"

#include <cinttypes>
#include <new>

#include "corner_pool_tensors.h"
#include "plugin_log.h"

#ifndef CORNERNET_VERSION
#error "define CORNERNET_VERSION, the version of the project as a string"
#endif

namespace cornernet {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int32_t kDone = 0;
constexpr int32_t kFailed = 1;
#define CORNERNET_TEXT_OF(value) #value
#define CORNERNET_TEXT(value) CORNERNET_TEXT_OF(value)
// Also found by reading the file, without loading it: up to a 0, behind it nothing. A library fits
// one major version of TensorRT, for loggers are another class in each.
constexpr char kLibraryVersion[] = "cornernet_plugins version " CORNERNET_VERSION
                                   " for TensorRT " CORNERNET_TEXT(NV_TENSORRT_MAJOR);

MapShape shapeOf(const nvinfer1::Dims& dims) {
  return {dims.d[0], dims.d[1], dims.d[2], dims.d[3]};
}

}  // namespace

CornerPoolPlugin::CornerPoolPlugin(Corner corner) noexcept
    : corner_(corner),
      serialisedCorner_(static_cast<int32_t>(corner)),
      field_(kCornerField, &serialisedCorner_, PluginFieldType::kINT32, 1),
      fields_{1, &field_} {}

nvinfer1::IPluginCapability* CornerPoolPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  reportError("%s: expected capability 0, 1 or 2, got %d", getPluginName(), static_cast<int>(type));
  return nullptr;
}

nvinfer1::IPluginV3* CornerPoolPlugin::clone() noexcept {
  auto* copy = new (std::nothrow) CornerPoolPlugin(corner_);
  if (!copy) reportError("%s: no memory for a copy", getPluginName());
  return copy;
}

const char* CornerPoolPlugin::getPluginName() const noexcept {
  return pluginNameOf(corner_);
}

const char* CornerPoolPlugin::getPluginVersion() const noexcept {
  return kPluginVersion;
}

const char* CornerPoolPlugin::getPluginNamespace() const noexcept {
  return kPluginNamespace;
}

int32_t CornerPoolPlugin::getNbOutputs() const noexcept {
  return kOutputs;
}

int32_t CornerPoolPlugin::getOutputDataTypes(DataType* outputTypes, int32_t outputCount,
                                             const DataType* inputTypes,
                                             int32_t inputCount) const noexcept {
  const char* name = getPluginName();
  if (!hasCounts(name, inputCount, outputCount)) return kFailed;
  if (!isGiven(name, inputTypes, outputTypes)) return kFailed;
  MapFormat format;
  if (inputTypes[0] != inputTypes[1] || !hasFormat(inputTypes[0], TensorFormat::kLINEAR, format)) {
    reportError("%s: expected two inputs of fp32 (type %d) or two of fp16 (type %d), got %d and %d",
                name, static_cast<int>(DataType::kFLOAT), static_cast<int>(DataType::kHALF),
                static_cast<int>(inputTypes[0]), static_cast<int>(inputTypes[1]));
    return kFailed;
  }
  outputTypes[0] = inputTypes[0];
  return kDone;
}

int32_t CornerPoolPlugin::getOutputShapes(const DimsExprs* inputs, int32_t inputCount,
                                          const DimsExprs*, int32_t shapeInputCount,
                                          DimsExprs* outputs, int32_t outputCount,
                                          nvinfer1::IExprBuilder&) noexcept {
  const char* name = getPluginName();
  if (!hasCounts(name, inputCount, outputCount)) return kFailed;
  if (!isGiven(name, inputs, outputs)) return kFailed;
  if (shapeInputCount != 0) {
    reportError("%s: expected no shape inputs, got %d", name, shapeInputCount);
    return kFailed;
  }
  if (inputs[0].nbDims != 4 || inputs[1].nbDims != 4) {
    reportError("%s: expected inputs of 4 dimensions, got %d and %d", name, inputs[0].nbDims,
                inputs[1].nbDims);
    return kFailed;
  }
  for (int i = 0; i < 4; ++i) {
    const nvinfer1::IDimensionExpr* sides[] = {inputs[0].d[i], inputs[1].d[i]};
    if (!isGiven(name, sides[0], sides[1])) return kFailed;
    if (sides[0]->isConstant() && sides[1]->isConstant() &&
        sides[0]->getConstantValue() != sides[1]->getConstantValue()) {
      reportError("%s: expected inputs of one shape, got %" PRId64 " and %" PRId64
                  " in dimension %d",
                  name, sides[0]->getConstantValue(), sides[1]->getConstantValue(), i);
      return kFailed;
    }
  }
  outputs[0] = inputs[0];
  return kDone;
}

bool CornerPoolPlugin::supportsFormatCombination(int32_t position,
                                                 const DynamicPluginTensorDesc* tensors,
                                                 int32_t inputCount, int32_t outputCount) noexcept {
  if (inputCount != kInputs || outputCount != kOutputs || !tensors) return false;
  if (position < 0 || position >= kInputs + kOutputs) return false;
  MapFormat format;
  const PluginTensorDesc& tensor = tensors[position].desc;
  return hasFormat(tensor.type, tensor.format, format) && tensor.type == tensors[0].desc.type &&
         tensor.format == tensors[0].desc.format;
}

int32_t CornerPoolPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t inputCount,
                                          const DynamicPluginTensorDesc* outputs,
                                          int32_t outputCount) noexcept {
  const char* name = getPluginName();
  if (!hasCounts(name, inputCount, outputCount)) return kFailed;
  if (!isGiven(name, inputs, outputs)) return kFailed;
  if (!fit(name, inputs[0].desc, inputs[1].desc, outputs[0].desc, true)) return kFailed;
  for (const DynamicPluginTensorDesc* tensor : {&inputs[0], &inputs[1], &outputs[0]}) {
    PluginTensorDesc largest = tensor->desc;
    largest.dims = tensor->max;
    if (!fit(name, largest, largest, largest, true)) return kFailed;
  }
  return kDone;
}

size_t CornerPoolPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t inputCount,
                                          const DynamicPluginTensorDesc* outputs,
                                          int32_t outputCount) const noexcept {
  const char* name = getPluginName();
  if (!hasCounts(name, inputCount, outputCount) || !isGiven(name, inputs, outputs)) return 0;
  PluginTensorDesc largest = inputs[0].desc;
  largest.dims = inputs[0].max;
  MapFormat format;
  if (!fit(name, largest, largest, largest, false) ||
      !hasFormat(largest.type, largest.format, format))
    return 0;
  return cornerPoolWorkspaceBytes(format, shapeOf(largest.dims));
}

const char* CornerPoolPlugin::getTimingCacheID() noexcept {
  return corner_ == Corner::kTopLeft ? "TopLeftPool " CORNERNET_VERSION
                                     : "BottomRightPool " CORNERNET_VERSION;
}

const char* CornerPoolPlugin::getMetadataString() noexcept {
  return kLibraryVersion;
}

int32_t CornerPoolPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t inputCount,
                                        const PluginTensorDesc* outputs,
                                        int32_t outputCount) noexcept {
  const char* name = getPluginName();
  if (!hasCounts(name, inputCount, outputCount)) return kFailed;
  if (!isGiven(name, inputs, outputs)) return kFailed;
  return fit(name, inputs[0], inputs[1], outputs[0], false) ? kDone : kFailed;
}

int32_t CornerPoolPlugin::enqueue(const PluginTensorDesc* inputDescs,
                                  const PluginTensorDesc* outputDescs, const void* const* inputs,
                                  void* const* outputs, void* workspace,
                                  cudaStream_t stream) noexcept {
  const char* name = getPluginName();
  if (!isGiven(name, inputDescs, outputDescs) || !isGiven(name, inputs, outputs)) return kFailed;
  const PluginTensorDesc& first = inputDescs[0];
  MapFormat format;
  if (!fit(name, first, inputDescs[1], outputDescs[0], false)) return kFailed;
  if (!hasFormat(first.type, first.format, format)) return kFailed;
  const MapShape shape = shapeOf(first.dims);
  // TensorRT does not say how large its workspace is: as large as getWorkspaceSize asked for.
  const size_t wanted = cornerPoolWorkspaceBytes(format, shape);
  if (wanted > 0 && !workspace) {
    reportError("%s: expected a workspace of %zu bytes for %s, got none", name, wanted,
                describe(first).text);
    return kFailed;
  }
  const cudaError_t error = launchCornerPool(corner_, format, inputs[0], inputs[1], outputs[0],
                                             shape, workspace, wanted, stream);
  if (error == cudaSuccess) return kDone;
  const char* said = cudaGetErrorString(error);
  if (error != cudaErrorInvalidValue) {
    reportError("%s: could not launch on %s: %s", name, describe(first).text, said);
    return kFailed;
  }
  reportError(
      "%s: could not launch on %s: %s. Inputs %p and %p, output %p, workspace %p: expected "
      "none null, and multiples of 16 in hwc8 and for the workspace",
      name, describe(first).text, said, inputs[0], inputs[1], outputs[0], workspace);
  return kFailed;
}

nvinfer1::IPluginV3* CornerPoolPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
  return clone();
}

const nvinfer1::PluginFieldCollection* CornerPoolPlugin::getFieldsToSerialize() noexcept {
  return &fields_;
}

}  // namespace cornernet
